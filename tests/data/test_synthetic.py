"""The synthetic faces against what they promise: labels one can see, the same face with other labels, exact regions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.attributes import CELEBA, edited
from faceattr_jax.data.faces import FREE_STYLES, to_face, to_picture
from faceattr_jax.data.synthetic import (
    ATTRIBUTES,
    PER_PERSON,
    SHIFT,
    STYLES,
    SyntheticSource,
    landmarks,
    render,
    sample_face,
)
from faceattr_jax.errors import UserError
from tests.checks import quick

HAIR = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")
SIZE = 32

sampled = quick(jax.vmap(sample_face, (None, 0, None)))


@pytest.fixture(scope="module")
def source():
    return SyntheticSource(12000, size=SIZE)


@pytest.fixture(scope="module")
def column(source):
    return lambda name: source.table.labels[:, ATTRIBUTES.index(name)]


def flipped(source, indices, attribute):
    """Counterfactuals with the attribute 0 and 1, the other labels as an edit leaves them."""
    own = source.table.labels[indices].astype(np.float32)
    return [source.counterfactual(indices, edited(own, {attribute: value}, ATTRIBUTES)) for value in (0, 1)]


# --- the table ------------------------------------------------------------------------------------------------


def test_attributes_are_celebas_in_celebas_order():
    assert len(ATTRIBUTES) >= 15
    assert tuple(name for name in CELEBA if name in ATTRIBUTES) == ATTRIBUTES


def test_splits_by_identity(source):
    table = source.table
    assert len(table) == 12000
    assert [len(table.indices(split)) for split in ("train", "valid", "test")] == [10000, 1000, 1000]
    assert (np.bincount(table.identity) == PER_PERSON).all()
    assert all(len(set(splits)) == 1 for splits in table.split.reshape(-1, PER_PERSON))
    assert table.labels.dtype == bool
    assert table.identity.dtype == np.int64
    assert table.split.dtype == np.int8


def test_a_person_keeps_sex_and_age(column):
    for name in ("Male", "Young"):
        assert (np.ptp(column(name).reshape(-1, PER_PERSON).astype(int), 1) == 0).all()
    assert np.ptp(column("Smiling").reshape(-1, PER_PERSON).astype(int), 1).any()


RATES = {  # per cent of all, documented at the head of the module
    "Bald": 6, "Bangs": 19, "Black_Hair": 29, "Blond_Hair": 21, "Brown_Hair": 25, "Bushy_Eyebrows": 17,
    "Eyeglasses": 19, "Goatee": 9.5, "Gray_Hair": 9, "Male": 41, "Mouth_Slightly_Open": 49, "Mustache": 9.5,
    "Narrow_Eyes": 12, "No_Beard": 83, "Pale_Skin": 11, "Rosy_Cheeks": 12, "Smiling": 49, "Wearing_Hat": 9,
    "Wearing_Lipstick": 48, "Young": 78,
}  # fmt: skip


def test_rates(source):
    assert set(RATES) == set(ATTRIBUTES)
    rates = 100 * source.table.labels.mean(0)
    # Male and Young are drawn once for each of 2,400 people: a standard error of one per cent.
    np.testing.assert_allclose(rates, [RATES[name] for name in ATTRIBUTES], atol=3)


def test_exclusions(column):
    assert sum(column(name).astype(int) for name in HAIR).max() == 1
    assert not (column("Bald") & (column("Bangs") | column("Wearing_Hat") | sum(map(column, HAIR)).astype(bool))).any()
    assert not (column("No_Beard") & (column("Mustache") | column("Goatee"))).any()


def test_correlations_have_celebas_signs(column):
    male, young = column("Male"), column("Young")
    for name in ("Goatee", "Mustache", "Bald", "Bushy_Eyebrows", "Eyeglasses"):
        assert column(name)[male].mean() > 1.5 * column(name)[~male].mean()
    for name in ("Wearing_Lipstick", "Blond_Hair", "Bangs", "Rosy_Cheeks", "No_Beard", "Young"):
        assert column(name)[~male].mean() > 1.2 * column(name)[male].mean()
    for name in ("Gray_Hair", "Bald"):
        assert column(name)[~young].mean() > 2 * column(name)[young].mean()
    smiling = column("Smiling")
    assert column("Mouth_Slightly_Open")[smiling].mean() > 2 * column("Mouth_Slightly_Open")[~smiling].mean()


def test_landmarks_lie_at_celebas_template(source):
    mean = source.table.landmarks.mean(0)
    np.testing.assert_allclose(mean, [[69.5, 111], [107.5, 111], [88, 135], [71, 152], [105, 152]], atol=2)
    assert source.table.landmarks.std(0).max() < 6


# --- pictures -------------------------------------------------------------------------------------------------


def test_pictures_do_not_depend_on_their_batch(source):
    indices = np.arange(0, 900, 9)
    together = source.images(indices)
    assert together.shape == (100, SIZE, SIZE, 3)
    assert together.dtype == np.uint8
    np.testing.assert_array_equal(source.images(indices[::-1])[::-1], together)
    np.testing.assert_array_equal(source.images(indices[[7]]), together[[7]])
    np.testing.assert_array_equal(SyntheticSource(1000, size=SIZE).images(indices), together)
    assert source.images(np.array([], np.int64)).shape == (0, SIZE, SIZE, 3)


def test_another_seed_is_another_world(source):
    other = SyntheticSource(60, size=SIZE, seed=1)
    assert (other.table.labels != source.table.labels[:60]).any()
    assert np.abs(other.images(np.arange(8)).astype(int) - source.images(np.arange(8))).mean() > 10


def test_a_picture_is_the_same_at_every_size(source):
    indices = np.arange(0, 160, 5)
    large = SyntheticSource(200, size=4 * SIZE).images(indices).astype(np.float32)
    averaged = large.reshape(-1, SIZE, 4, SIZE, 4, 3).mean((2, 4))
    difference = np.abs(averaged - source.images(indices))
    assert difference.mean() < 3
    assert np.abs(averaged - np.roll(averaged, 1, 0)).mean() > 10 * difference.mean()


@pytest.mark.parametrize("shift", [SHIFT, 30.0])
def test_pupils_are_dark_and_lie_on_the_landmarks(shift):
    size = 128
    source = SyntheticSource(400, size=size, shift=shift)
    take = np.flatnonzero(source.table.select(["Eyeglasses", "Narrow_Eyes"]).sum(1) == 0)[:24]
    images = source.images(take).astype(np.float32).mean(-1)
    # From pixels of the 178 x 218 picture to pixels of the crop of rows 20 to 198, drawn at `size`.
    points = (source.table.landmarks[take] - [0, 20] + 0.5) * (size / 178) - 0.5
    for image, (*eyes, nose, _, _) in zip(images, points, strict=True):
        for x, y in eyes:
            column, row = round(float(x)), round(float(y))
            window = image[row - 3 : row + 4, column - 4 : column + 5]
            assert window.min() < 45
            assert image[row + 9 : row + 12, column - 1 : column + 2].mean() > window.min() + 20  # the cheek below
        assert abs(nose[0] - size / 2) < 12 + (shift - SHIFT) * size / 178


def test_a_shift_moves_faces_and_their_regions_and_nothing_else():
    near, far = (SyntheticSource(600, size=SIZE, shift=shift) for shift in (0.0, 20.0))
    np.testing.assert_array_equal(far.table.labels, near.table.labels)
    moved = far.table.landmarks - near.table.landmarks
    np.testing.assert_allclose(moved, np.broadcast_to(moved[:, :1], moved.shape), atol=1e-3)
    moved = moved[:, 0]
    assert np.abs(moved).max() <= 20
    np.testing.assert_allclose(moved.std(0), 20 / 3**0.5, rtol=0.1)  # uniform
    # By whole pixels, so that a region is its unmoved self elsewhere.
    pixels = moved * SIZE / 178
    indices = np.flatnonzero((np.abs(pixels - np.round(pixels)) < 0.1).all(1))[:8]
    columns, rows = np.round(pixels[indices]).astype(int).T
    still, gone = (source.region(indices, "Eyeglasses") > 0.5 for source in (near, far))
    for before, after, down, right in zip(still, gone, rows, columns, strict=True):
        expected = np.roll(before, (down, right), (0, 1))
        assert (after & expected).sum() > 0.9 * (after | expected).sum()
    worn = {"Eyeglasses": indices[::-1]}
    labels = edited(far.table.labels[indices].astype(np.float32), {"Eyeglasses": 1}, ATTRIBUTES)
    glasses = far.counterfactual(indices, labels, wearing=worn).astype(int)
    outside = far.region(indices, "Eyeglasses") == 0
    others = far.counterfactual(indices, labels)
    assert np.abs(glasses - others)[outside].max() <= 1
    assert (glasses != others).any()


def test_mouth_corners_enclose_an_opened_mouth():
    size = 128
    source = SyntheticSource(400, size=size)
    take = np.flatnonzero(source.table.select(["Mouth_Slightly_Open"])[:, 0])[:24]
    closed, opened = (picture.astype(np.float32) for picture in flipped(source, take, "Mouth_Slightly_Open"))
    points = (source.table.landmarks[take] - [0, 20] + 0.5) * (size / 178) - 0.5
    for change, corners in zip(np.abs(opened - closed).max(-1) > 40, points[:, 3:], strict=True):
        rows, columns = np.nonzero(change)
        assert columns.min() > corners[0, 0] - 4
        assert columns.max() < corners[1, 0] + 4
        assert 0 < rows.mean() - corners[:, 1].mean() < 13


# --- counterfactuals ------------------------------------------------------------------------------------------


def test_own_labels_and_own_style_give_the_own_picture(source):
    indices = np.arange(70)
    np.testing.assert_array_equal(source.counterfactual(indices, source.table.labels[indices]), source.images(indices))


# What an edit brings into view. Giving Bushy_Eyebrows shows no style that was not there.
FREED = [*((name, 1) for name in FREE_STYLES if name not in ("Bald", "Young", "No_Beard")), ("Bald", 0), ("Young", 0)]


@pytest.mark.parametrize(("attribute", "value"), [*FREED, ("No_Beard", 0), ("Pale_Skin", 0)])
def test_a_style_stream_redraws_what_an_edit_leaves_free_alike_every_time(source, attribute, value):
    bald, has = (source.table.select([name])[:, 0] > 0 for name in ("Bald", attribute))
    others = np.flatnonzero((has != value) & (~bald | (attribute == "Bald")))[:12]
    alike = np.flatnonzero(has == value)[:12]
    indices = np.concatenate([others, alike])
    labels = source.table.labels[indices].astype(np.float32)
    labels[: len(others)] = edited(labels[: len(others)], {attribute: value}, ATTRIBUTES)
    own, first, again, last = (source.counterfactual(indices, labels, style) for style in (None, 0, 0, STYLES - 1))
    np.testing.assert_array_equal(first, again)
    for a, b in ((own, first), (first, last), (own, last)):
        change = np.abs(a.astype(int) - b).max((1, 2, 3))
        assert np.median(change[: len(others)]) >= 2
        assert (change[len(others) :] == 0).all()


@pytest.mark.parametrize("attribute", ["Bushy_Eyebrows", "Narrow_Eyes"])
def test_what_leaves_nothing_free_has_one_truth(source, attribute):
    indices = np.arange(0, 200, 10)
    labels = edited(source.table.labels[indices].astype(np.float32), {attribute: 1}, ATTRIBUTES)
    own, other = (source.counterfactual(indices, labels, style) for style in (None, 0))
    np.testing.assert_array_equal(own, other)


def test_a_style_stream_redraws_the_tone_of_pale_faces_alone(source):
    """Other faces show theirs."""
    indices = np.arange(400)
    own, redrawn = (sampled(0, indices, style).tone for style in (-1, 3))
    pale = source.table.select(["Pale_Skin"])[indices, 0] > 0
    np.testing.assert_array_equal(own == redrawn, ~pale)
    assert abs(np.corrcoef(own[pale], redrawn[pale])[0, 1]) < 0.5


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_every_attribute_is_visible_inside_its_region_and_only_there(source, attribute):
    indices = np.arange(3, 500, 31)
    without, with_ = flipped(source, indices, attribute)
    masks = source.region(indices, attribute)
    assert masks.shape == (len(indices), SIZE, SIZE)
    assert masks.dtype == np.float32
    assert masks.min() >= 0
    assert masks.max() <= 1
    change = np.abs(with_.astype(np.float32) - without).max(-1)
    assert (change[masks < 1 / 6] <= 2).all()  # rounding, of both pictures
    assert (change[masks < 1] <= 7).all()
    # Readable at 32 pixels, unless another label hides it all.
    hidden = (source.table.select(["Bald"])[indices, 0] > 0) & (attribute in HAIR)
    assert not change[hidden].any()
    pixels = (change > 20).sum((1, 2))[~hidden]
    assert np.median(pixels) >= 6
    assert np.sqrt((change**2).sum((1, 2)))[~hidden].min() > 40
    inside = masks > 0.5
    assert (change * inside).sum() / inside.sum() > 5


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_in_every_style_a_truth_is_the_face_itself_outside_the_region(source, attribute):
    """An edit of glasses leaves the length of the hair alone, whatever glasses they are."""
    indices = np.arange(3, 500, 31)
    own = source.table.labels[indices].astype(np.float32)
    value = 1 - own[:, ATTRIBUTES.index(attribute)]
    after = np.concatenate(
        [edited(row[None], {attribute: int(v)}, ATTRIBUTES) for row, v in zip(own, value, strict=True)]
    )
    mask = np.zeros((len(indices), SIZE, SIZE))
    for column in np.flatnonzero((after != own).any(axis=0)):
        rows = after[:, column] != own[:, column]
        mask[rows] = np.maximum(mask[rows], source.region(indices[rows], ATTRIBUTES[column]))
    for style in (None, 0, STYLES - 1):
        truth = source.counterfactual(indices, after, style).astype(np.float32)
        change = np.abs(truth - source.images(indices)).max(-1)
        assert (change[mask < 1 / 6] <= 2).all()


def test_regions_are_local(source):
    indices = np.arange(0, 60, 5)
    share = {
        name: (source.region(indices, name) > 0.5).mean() for name in ("Eyeglasses", "Mouth_Slightly_Open", "Goatee")
    }
    assert max(share.values()) < 0.3
    rows = np.arange(SIZE)[:, None]
    for name, low, high in (("Eyeglasses", 10, 22), ("Mouth_Slightly_Open", 18, 31)):
        mask = source.region(indices, name) > 0.5
        centre = (mask * rows).sum((1, 2)) / mask.sum((1, 2))
        assert ((low < centre) & (centre < high)).all()


# --- the pure functions ---------------------------------------------------------------------------------------


def brightness(face, labels):
    image = render(face, labels, SIZE)
    return image.mean(), image


@pytest.fixture(scope="module")
def graded():
    """Four faces, their pictures and the gradients of their means. Op by op: compiling those takes a minute."""
    faces = sampled(0, jnp.arange(4), -1)
    (_, images), gradients = jax.vmap(jax.value_and_grad(brightness, (0, 1), has_aux=True))(faces, faces.labels)
    return faces, images, gradients


def test_render_agrees_with_the_source(source, graded):
    faces, images, _ = graded
    assert images.shape == (4, SIZE, SIZE, 3)
    assert images.dtype == jnp.float32
    np.testing.assert_array_equal(faces.labels, source.table.labels[:4])
    assert np.abs((np.asarray(images) + 1) * 127.5 - source.images(np.arange(4))).max() <= 0.51
    points = jax.vmap(lambda face: landmarks(face, 178))(faces) + jnp.array([0.0, 20.0])
    np.testing.assert_allclose(points, source.table.landmarks[:4], atol=1e-3)


def test_pose_is_undone():
    shot = jax.tree.map(lambda leaf: leaf[0], sampled(0, jnp.array([5]), -1).shot)
    u, v = jnp.meshgrid(jnp.linspace(-60.0, 60.0, 7), jnp.linspace(-60.0, 60.0, 7))
    for got, want in zip(to_face(shot, *to_picture(shot, u, v)), (u, v), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-3)


def test_gradients_are_finite(graded):
    _, _, (of_face, of_labels) = graded
    for gradient in jax.tree.leaves((of_face, of_labels)):
        assert np.isfinite(gradient).all()
    assert (of_face.person.skin > 1e-3).all()
    assert (of_labels[:, ATTRIBUTES.index("Pale_Skin")] > 1e-3).all()


def test_gradients_agree_with_differences(graded):
    faces, _, (gradient, _) = graded
    step = 0.02

    def shifted(name, by):
        shot = faces.shot._replace(**{name: getattr(faces.shot, name) + by})
        return jax.vmap(brightness)(faces._replace(shot=shot), faces.labels)[0]

    for name in ("light", "contrast"):
        difference = (shifted(name, step) - shifted(name, -step)) / (2 * step)
        np.testing.assert_allclose(getattr(gradient.shot, name), difference, rtol=0.03)


def test_strict_promotion(strict_promotion):
    face = jax.eval_shape(sample_face, jnp.uint32(0), jnp.int32(1), jnp.int32(-1))
    assert jax.eval_shape(lambda face: render(face, face.labels, SIZE), face).dtype == jnp.float32


# --- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 31}, "31 pixels.*32 to 256"),
        ({"size": 257}, "257 pixels.*32 to 256"),
        ({"size": 32, "count": 0}, "0 synthetic faces"),
        ({"size": 32, "seed": -1}, "seed -1"),
        ({"size": 32, "shift": 41}, "41 pixels off the centre; choose 0 to 40"),
    ],
)
def test_impossible_sets_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        SyntheticSource(**arguments)


def test_impossible_requests_are_refused(source):
    one, labels = np.array([0]), np.zeros((1, len(ATTRIBUTES)))
    for indices in ([12000], [-1]):
        with pytest.raises(UserError, match="faces 0 to 11999"):
            source.images(np.array(indices))
    with pytest.raises(UserError, match="whole numbers"):
        source.images(np.array([0.5]))
    with pytest.raises(UserError, match=r"shape \(1, 3\).*1 faces need labels \(1, 20\)"):
        source.counterfactual(one, np.zeros((1, 3)))
    with pytest.raises(UserError, match="0 or 1"):
        source.counterfactual(one, labels + 0.5)
    with pytest.raises(UserError, match=r"style 8.*0 to 7"):
        source.counterfactual(one, labels, style=STYLES)
    with pytest.raises(UserError, match="did you mean 'Eyeglasses'"):
        source.region(one, "Eyeglases")
