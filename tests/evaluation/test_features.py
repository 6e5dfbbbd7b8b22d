"""SciPy, pytorch-fid, scikit-learn and torchmetrics are the oracles, where they are installed; the rest is by hand."""

import functools
import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import features
from faceattr_jax.evaluation.features import Moments


def correlated(seed, count, dimensions=6, mean=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, dimensions)) @ rng.normal(size=(dimensions, dimensions)) + mean


def on_devices(rows):
    """Rows of a multiple of eight, over as many devices."""
    return jax.device_put(rows, NamedSharding(jax.make_mesh((8,), ("devices",)), PartitionSpec("devices")))


def moments(rows, size=10**6):
    found = Moments()
    for start in range(0, len(rows), size):
        found.add(rows[start : start + size])
    return found


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("mean", [0.0, 1e6])
def test_moments_do_not_feel_batches_nor_a_far_mean(size, mean):
    x = correlated(0, 100, mean=mean)
    found = moments(x, size)
    # Around a mean of 1e6 the numbers themselves have ten digits after the point: np.cov is as far off.
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), rtol=1e-12 if mean == 0 else 1e-8, atol=1e-8)
    assert found.count == 100


def test_moments_do_not_feel_devices():
    x = correlated(0, 96).astype(np.float32)
    whole = moments(x)
    sharded = on_devices(x)
    np.testing.assert_array_equal(moments(sharded).scatter, whole.scatter)
    parts = [moments(shard.data) for shard in sharded.addressable_shards]
    assert [part.count for part in parts] == [12] * 8
    merged = functools.reduce(Moments.__add__, parts, Moments())
    np.testing.assert_allclose(merged.mean, whole.mean, atol=1e-14)
    np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=1e-12, atol=1e-12)
    assert Moments() + Moments() + merged is not merged
    assert (Moments() + Moments()).count == 0


def test_features_have_to_be_finite():
    with pytest.raises(UserError, match="features are not finite"):
        Moments().add(np.array([[1.0, np.inf]]))


@pytest.mark.parametrize(("count", "other"), [(40, 60), (5, 60), (5, 4)])
def test_frechet_is_scipys(count, other):
    linalg = pytest.importorskip("scipy.linalg")
    a, b = correlated(0, count, mean=1), correlated(1, other)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # The root of a singular product is known to half the digits only: SciPy's own of the symmetric form is better.
    half = linalg.sqrtm(first + 1e-14 * np.eye(6)).real
    root = linalg.sqrtm(half @ second @ half + 1e-14 * np.eye(6)).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(first + second - 2 * root)
    found = features.frechet(moments(a), moments(b))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    if count == 40:
        product = np.trace(first + second - 2 * linalg.sqrtm(first @ second).real)
        np.testing.assert_allclose(found - np.sum((a.mean(0) - b.mean(0)) ** 2), product, rtol=1e-9)


@pytest.mark.parametrize("count", [40, 7, 4, 2])
def test_frechet_is_nothing_of_equals_and_symmetric(count):
    a, b = moments(correlated(0, count)), moments(correlated(1, 30, mean=1))
    trace = np.trace(a.covariance)
    assert 0 <= features.frechet(a, a) < 1e-12 * trace
    assert features.frechet(a, b) == pytest.approx(features.frechet(b, a), rel=1e-12)
    assert features.frechet(a, b) > 0.1
    assert features.frechet(a, moments(correlated(0, count), size=3)) < 1e-12 * trace  # whatever the batches


def test_frechet_by_hand():
    """One dimension: (difference of means)^2 + (difference of deviations)^2; without any deviation, the former."""
    a, b = moments(np.array([[0.0], [2.0]])), moments(np.array([[10.0], [10.0], [16.0]]))
    deviations = np.sqrt(2), np.sqrt(12)
    np.testing.assert_allclose(features.frechet(a, b), 11**2 + (deviations[1] - deviations[0]) ** 2)
    assert features.frechet(moments(np.zeros((3, 2))), moments(np.full((4, 2), 3.0))) == 18


@pytest.fixture
def pytorch_fid(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Its module of the distance alone: the networks beside it want torchvision."""
    pytest.importorskip("pytorch_fid", reason="pytorch-fid is an oracle of the Frechet distance")
    pytest.importorskip("torch")
    parts = {name: ModuleType(name) for name in ("torchvision", "torchvision.transforms", "pytorch_fid.inception")}
    parts["torchvision"].transforms = parts["torchvision.transforms"]
    parts["pytorch_fid.inception"].InceptionV3 = type("InceptionV3", (), {"BLOCK_INDEX_BY_DIM": {2048: 3}})
    for name, part in parts.items():
        monkeypatch.setitem(sys.modules, name, part)
    spec = importlib.util.find_spec("pytorch_fid.fid_score")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # It asks SciPy's root for an estimate of the error, too, which it does not read and newer ones do not give.
    sqrtm = module.linalg.sqrtm
    module.linalg = SimpleNamespace(sqrtm=lambda product, disp=True: sqrtm(product) if disp else (sqrtm(product), None))
    return module


def test_frechet_is_pytorch_fids(pytorch_fid):
    a, b = np.maximum(correlated(0, 200, 48), 0), np.maximum(correlated(1, 150, 48, mean=0.3), 0)
    statistics = [value for x in (a, b) for value in (x.mean(0), np.cov(x, rowvar=False))]
    found = features.frechet(moments(a), moments(b))
    # Of full rank both are in float64; its root of a product that is not symmetric loses some digits.
    assert found == pytest.approx(pytorch_fid.calculate_frechet_distance(*statistics), rel=1e-8)


def test_too_few_pictures_are_told_with_the_number_needed():
    few, many = moments(correlated(0, 6)), moments(correlated(1, 7))
    features.require("FID", 6, many)
    with pytest.raises(UserError, match="FID needs 7 pictures of each kind or more, of one there are 6"):
        features.require("FID", 6, many, few)
    with pytest.raises(UserError, match="in 6 principal components needs 7 pictures"):
        features.frechet_pca(few, many, 6)
    with pytest.raises(UserError, match="7 principal components need as many features, there are 6"):
        features.frechet_pca(moments(correlated(0, 9)), moments(correlated(0, 9)), 7)
    with pytest.raises(UserError, match="Frechet distance needs 2 pictures"):
        features.frechet(many, moments(correlated(0, 1)))
    with pytest.raises(UserError, match="KID needs 7 pictures of each kind or more, there are 6 and 7"):
        features.kid(correlated(0, 6), correlated(1, 7), size=7)
    with pytest.raises(UserError, match="over 10 parts needs 20 pictures, there are 19"):
        features.InceptionScore(19)


@pytest.mark.parametrize("union", [False, True])
def test_pca_is_scikit_learns(union):
    decomposition = pytest.importorskip("sklearn.decomposition", reason="scikit-learn is the oracle of PCA")
    a, b = correlated(0, 80, 12), correlated(1, 60, 12, mean=2)
    real, other = moments(a, 16), moments(b, 16)
    pca = decomposition.PCA(5).fit(np.concatenate([a, b]) if union else a)
    expected = features.frechet(moments(pca.transform(a)), moments(pca.transform(b)))
    found = features.frechet_pca(real, other, 5, real + other if union else None)
    # The components' signs differ and do not matter; both are in float64.
    assert found == pytest.approx(expected, rel=1e-9)
    assert found < features.frechet(real, other)
    assert features.frechet_pca(real, other, 12) == pytest.approx(features.frechet(real, other), rel=1e-9)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`:UserWarning")
def test_kid_is_torchmetrics(torch, monkeypatch):
    module = pytest.importorskip("torchmetrics.image.kid", reason="torchmetrics is an oracle of KID")
    a, b = correlated(0, 50, 16), correlated(1, 40, 16, mean=0.3)
    oracle = module.KernelInceptionDistance(torch.nn.Identity(), subsets=6, subset_size=20).set_dtype(torch.float64)
    oracle.update(torch.from_numpy(a), real=True)
    oracle.update(torch.from_numpy(b), real=False)
    rng = np.random.default_rng(3)
    monkeypatch.setattr(torch, "randperm", lambda count: torch.from_numpy(rng.permutation(count)))
    expected = [float(value) for value in oracle.compute()]
    # Both in float64: what is left is the order of sums, against kernels of up to 1e3.
    np.testing.assert_allclose(features.kid(a, b, subsets=6, size=20, seed=3), expected, rtol=1e-10)


def test_kid_by_a_loop():
    a, b = correlated(0, 9, 4), correlated(1, 9, 4, mean=1)

    def kernel(x, y):
        return (sum(x * y) / 4 + 1) ** 3

    def within(rows):
        return np.mean([kernel(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j])

    expected = within(a) + within(b) - 2 * np.mean([kernel(x, y) for x in a for y in b])
    mean, deviation = features.kid(a, b, subsets=3, size=9)
    assert mean == pytest.approx(expected, rel=1e-12)
    assert deviation == pytest.approx(0, abs=1e-12 * expected)  # every subset is the whole
    assert features.kid(a, b, subsets=3, size=5, seed=1) == features.kid(a, b, subsets=3, size=5, seed=1)
    assert features.kid(a, b, subsets=3, size=5, seed=1) != features.kid(a, b, subsets=3, size=5, seed=2)


def test_kid_of_one_distribution_is_around_nothing():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 400, 8))
    mean, deviation = features.kid(a, b, subsets=40, size=100)
    assert abs(mean) < 2 * deviation
    assert features.kid(a, b + 0.5, subsets=40, size=100)[0] > 5 * deviation


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def inception_score(probabilities, size=10**6, splits=4):
    found = features.InceptionScore(len(probabilities), splits)
    for start in range(0, len(probabilities), size):
        batch = probabilities[start : start + size]
        found.add(batch, start + np.arange(len(batch)))
    return found.score()


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore`:UserWarning")
def test_inception_score_is_torchmetrics(torch, monkeypatch):
    module = pytest.importorskip("torchmetrics.image.inception", reason="torchmetrics is an oracle of the score")
    logits = 2 * correlated(0, 40, 10)
    oracle = module.InceptionScore(torch.nn.Identity(), splits=4)
    oracle.update(torch.from_numpy(logits))
    monkeypatch.setattr(torch, "randperm", lambda count: torch.arange(count))
    mean, deviation = (float(value) for value in oracle.compute())
    # Both in float64. Its deviation is over one part fewer than there are.
    found = inception_score(softmax(logits))
    np.testing.assert_allclose(found, [mean, deviation * np.sqrt(3 / 4)], rtol=1e-12)


@pytest.mark.parametrize("size", [1, 7, 16])
def test_inception_score_does_not_feel_batches(size):
    p = softmax(correlated(0, 43, 5)).astype(np.float32)
    np.testing.assert_allclose(inception_score(p, size), inception_score(p), rtol=1e-13)
    assert inception_score(on_devices(p[:40])) == inception_score(p[:40])
    parts = np.split(p, [11, 22, 33])  # 43 pictures in 4 parts: 11, 11, 11 and 10
    expected = [
        np.exp(np.mean([sum(row * np.log(row / part.mean(0))) for row in part])) for part in map(np.float64, parts)
    ]
    np.testing.assert_allclose(inception_score(p), [np.mean(expected), np.std(expected)], rtol=1e-10)


def test_inception_score_at_its_ends():
    # Sure of one class each, all alike often: as many as there are classes. Unsure, or always the same class: 1.
    np.testing.assert_allclose(inception_score(np.tile(np.eye(5), (8, 1))), [5, 0], atol=1e-12)
    np.testing.assert_allclose(inception_score(np.full((8, 5), 0.2)), [1, 0], atol=1e-12)
    np.testing.assert_allclose(inception_score(np.eye(5)[np.ones(8, int)]), [1, 0], atol=1e-12)
    with pytest.raises(ValueError, match="rows sum to 1"):
        inception_score(np.ones((8, 5)))
    with pytest.raises(ValueError, match="of 8 pictures 0 were added"):
        features.InceptionScore(8, 2).score()


def test_dfn_by_hand():
    originals = np.array([[3.0, 4.0], [0.0, 2.0], [6.0, 8.0]])
    ratios = features.norm_ratios(originals * [[0.5], [1.0], [-2.0]], originals)
    np.testing.assert_array_equal(ratios, [0.5, 1, 2])
    assert features.dfn(ratios) == {
        "mean": pytest.approx(7 / 6),
        "iqr": 0.75,
        "quartile1": 0.75,
        "median": 1.0,
        "quartile3": 1.5,
    }


def test_dfn_is_scipys_and_one_for_unedited_pictures():
    stats = pytest.importorskip("scipy.stats")
    a, b = correlated(0, 40, 8).astype(np.float32), correlated(1, 40, 8).astype(np.float32)
    found = features.dfn(features.norm_ratios(b, a))
    each = [np.sqrt(np.sum(np.float64(y) ** 2) / np.sum(np.float64(x) ** 2)) for x, y in zip(a, b, strict=True)]
    assert found["iqr"] == pytest.approx(stats.iqr(each), rel=1e-12)
    assert found["mean"] == pytest.approx(np.mean(each), rel=1e-12)
    unedited = features.dfn(features.norm_ratios(on_devices(a), a))
    assert unedited == {"mean": 1, "iqr": 0, "quartile1": 1, "median": 1, "quartile3": 1}


def test_dfn_wants_lengths():
    x = correlated(0, 5)
    with pytest.raises(UserError, match="lengths of their own"):
        features.norm_ratios(x, x / np.linalg.norm(x, axis=1, keepdims=True))
    with pytest.raises(UserError, match="not defined for a picture whose features are all 0"):
        features.norm_ratios(x, np.concatenate([x[:4], np.zeros((1, 6))]))
