import shutil
import zlib

import numpy as np
import pytest
from PIL import Image

from faceattr_jax.attributes import CELEBA
from faceattr_jax.data.folder import LANDMARKS
from faceattr_jax.data.images import read_image
from faceattr_jax.data.source import open_source
from faceattr_jax.errors import UserError


def rows(path, skip=0):
    return {line.split()[0]: line.split()[1:] for line in path.read_text().splitlines()[skip:]}


def test_the_table_is_the_lists(intact_celeba):
    table = open_source(str(intact_celeba), size=32).table
    labels = rows(intact_celeba / "list_attr_celeba.txt", 2)
    assert list(table.names) == list(labels)
    assert table.attributes == CELEBA
    np.testing.assert_array_equal(np.where(table.labels, 1, -1), np.array(list(labels.values()), int))
    assert table.split.tolist() == [int(v) for [v] in rows(intact_celeba / "list_eval_partition.txt").values()]
    assert table.identity.tolist() == [int(v) for [v] in rows(intact_celeba / "identity_CelebA.txt").values()]
    points = rows(intact_celeba / "list_landmarks_align_celeba.txt", 2)
    np.testing.assert_array_equal(table.landmarks.reshape(-1, 10), np.array(list(points.values()), int))


def test_images_are_the_files_cropped(intact_celeba):
    source = open_source(str(intact_celeba), size=178)
    images = source.images(np.array([7, 2, 7]))
    assert images.dtype == np.uint8
    assert images.shape == (3, 178, 178, 3)
    for image, i in zip(images, (7, 2, 7), strict=True):
        path = intact_celeba / "img_align_celeba" / source.table.names[i]
        np.testing.assert_array_equal(image, np.asarray(read_image(path))[20:198])


def test_identities_and_landmarks_may_be_absent(celeba):
    (celeba / "identity_CelebA.txt").unlink()
    (celeba / "list_landmarks_align_celeba.txt").unlink()
    table = open_source(str(celeba), size=32).table
    assert table.identity is None
    assert table.landmarks is None


def same(first, second):
    for name in ("labels", "split", "identity", "landmarks", "names"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_crlf_byte_order_mark_and_no_final_newline_are_read(celeba):
    expected = open_source(str(celeba), size=32).table
    for path in celeba.glob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().rstrip().replace(b"\n", b"\r\n"))
    same(open_source(str(celeba), size=32).table, expected)


def test_the_official_archive_and_kaggles_copy_are_read(celeba):
    expected = open_source(str(celeba), size=32).table
    for part in ("Anno", "Eval", "Img"):
        (celeba / part).mkdir()
    (celeba / "list_eval_partition.txt").rename(celeba / "Eval" / "list_eval_partition.txt")
    for path in celeba.glob("*.txt"):
        path.rename(celeba / "Anno" / path.name)
    (celeba / "img_align_celeba").rename(celeba / "Img" / "img_align_celeba")
    same(open_source(str(celeba), size=32).table, expected)

    kaggle = celeba.parent / "kaggle"
    kaggle.mkdir()
    for path, header in (
        (celeba / "Anno" / "list_attr_celeba.txt", None),
        (celeba / "Anno" / "list_landmarks_align_celeba.txt", None),
        (celeba / "Eval" / "list_eval_partition.txt", "partition"),
    ):
        lines = path.read_text().splitlines()
        lines = [header, *lines] if header else lines[1:]
        text = "\n".join(["image_id," + lines[0].replace(" ", ","), *(",".join(line.split()) for line in lines[1:])])
        (kaggle / f"{path.stem}.csv").write_text(text)
    shutil.copytree(celeba / "Img", kaggle / "img_align_celeba")
    table = open_source(str(kaggle), size=32).table
    assert table.identity is None
    for name in ("labels", "split", "landmarks", "names"):
        np.testing.assert_array_equal(getattr(table, name), getattr(expected, name))


def edit(path, line, text):
    """Replace the numbered line (from 1) of a text file by what `text` makes of it."""
    lines = path.read_text().splitlines()
    lines[line - 1] = text(lines[line - 1])
    path.write_text("\n".join(line for line in lines if line is not None) + "\n")


LABELS, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
IDENTITY, POINTS = "identity_CelebA.txt", "list_landmarks_align_celeba.txt"

# file, line, its new text (None: the line is taken out), what the message says
DAMAGE = [
    (LABELS, 1, lambda line: "11", "line 1 says 11 rows, but 12 follow"),
    (LABELS, 1, lambda line: "12 rows", "line 1 starts with '12'; it should be the number of rows alone"),
    (LABELS, 1, lambda line: None, "line 1 starts with '5_o_Clock_Shadow'"),
    (LABELS, 2, lambda line: line.rpartition(" ")[0], "line 3: '000001.jpg' has 40 values where the list has 39"),
    (LABELS, 2, lambda line: line.replace("Bald", "Male"), "two columns 'Male'"),
    (LABELS, 5, lambda line: line.rpartition(" ")[0], "line 5: '000007.jpg' has 39 values where the list has 40"),
    (LABELS, 5, lambda line: line + " 1", "line 5: '000007.jpg' has 41 values"),
    (LABELS, 5, lambda line: line.rpartition(" ")[0] + " 2", "line 5: '000007.jpg' has the value '2'; a label is 1 or"),
    (LABELS, 5, lambda line: line.replace("07", "04", 1), "line 5: '000004.jpg' is listed before, in line 4"),
    (LABELS, 5, lambda line: line.replace("07", "08", 1), "line 5: there is no picture '.*000008.jpg'"),
    (PARTITION, 2, lambda line: None, "list_eval_partition.txt' has no row for '000004.jpg'"),
    (PARTITION, 2, lambda line: "000004.jpg 3", "line 2: '000004.jpg' has the value '3'; a partition is 0"),
    (PARTITION, 2, lambda line: "000004.jpg", "line 2: '000004.jpg' has 0 values"),
    (IDENTITY, 3, lambda line: "000007.jpg anna", "the value 'anna'; an identity is a whole number"),
    (IDENTITY, 3, lambda line: "000007.jpg 99999999999999999999", "an identity is a whole number"),
    (POINTS, 2, lambda line: line.replace("nose_x", "nose"), "should have the columns lefteye_x"),
    (POINTS, 4, lambda line: line.rpartition(" ")[0] + " x", "line 4: '000004.jpg' has the value 'x'"),
]


@pytest.mark.parametrize(("file", "line", "text", "says"), DAMAGE)
def test_damaged_lists_are_refused_by_file_and_row(celeba, file, line, text, says):
    edit(celeba / file, line, text)
    with pytest.raises(UserError, match=says) as error:
        open_source(str(celeba), size=32)
    assert file in str(error.value)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / PARTITION).unlink(), "has no list 'list_eval_partition.txt'"),
        (lambda folder: (folder / LABELS).write_text(""), "lists no pictures"),
        (lambda folder: (folder / LABELS).write_text("0\nMale\n"), "lists no pictures"),
        (lambda folder: (folder / LABELS).write_bytes(bytes(range(128, 256))), "is not a text file"),
        (lambda folder: shutil.rmtree(folder / "img_align_celeba"), "no pictures; there should be a folder"),
    ],
)
def test_damaged_folders_are_refused(celeba, damage, says):
    damage(celeba)
    with pytest.raises(UserError, match=says):
        open_source(str(celeba), size=32)


def test_a_bad_picture_is_named_when_it_is_asked_for(celeba, picture):
    pictures = celeba / "img_align_celeba"
    picture(0, 100, 100).save(pictures / "000004.jpg")
    (pictures / "000007.jpg").write_bytes(b"no picture")
    source = open_source(str(celeba), size=32)
    assert source.images(np.array([0])).shape == (1, 32, 32, 3)
    with pytest.raises(UserError, match=r"000004.jpg': crop 'center178' is for .* not 100x100"):
        source.images(np.arange(3))
    with pytest.raises(UserError, match=r"000007.jpg' is not a picture"):
        source.images(np.array([2]))
    (pictures / "000001.jpg").unlink()
    with pytest.raises(UserError, match=r"there is no picture"):
        source.images(np.array([0]))


# --- labels.csv ---


@pytest.fixture
def csv_folder(tmp_path, picture):
    folder = tmp_path / "csv"
    (folder / "faces").mkdir(parents=True)
    for i in range(3):
        picture(i, 60, 50).save(folder / "faces" / f"{i}.png")
    (folder / "labels.csv").write_text(
        "file,Smiling,Winking,split,identity\nfaces/2.png,1,0,test,7\nfaces/0.png,0,1,train,8\nfaces/1.png,-1,1,1,7\n"
    )
    return folder


def test_csv_is_read(csv_folder, picture):
    source = open_source(str(csv_folder), size=50, crop="center")
    table = source.table
    assert table.attributes == ("Smiling", "Winking")
    assert table.labels.tolist() == [[True, False], [False, True], [False, True]]
    assert table.split.tolist() == [2, 0, 1]
    assert table.identity.tolist() == [7, 8, 7]
    assert table.landmarks is None
    np.testing.assert_array_equal(source.images(np.array([1]))[0], np.asarray(picture(0, 60, 50))[:, 5:55])


def test_csv_without_splits_deals_them_by_person(csv_folder):
    path = csv_folder / "labels.csv"
    path.write_text(
        "\r\n".join(
            line.replace(",split", "").replace(",test", "").replace(",train", "")
            for line in path.read_text().splitlines()
        ).replace(",1,7", ",7")
    )
    table = open_source(str(csv_folder), size=32, crop="center").table
    dealt = {0: 1, 1: 2}
    assert table.split.tolist() == [dealt.get(zlib.crc32(str(person).encode()) % 10, 0) for person in (7, 8, 7)]


def test_csv_landmarks(csv_folder):
    path = csv_folder / "labels.csv"
    path.write_text(",".join(["image_id", "Smiling", *LANDMARKS]) + "\nfaces/0.png,1," + ",".join("0123456789"))
    table = open_source(str(csv_folder), size=32, crop="center").table
    assert table.attributes == ("Smiling",)
    assert table.landmarks.tolist() == [[[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "starts with the column ''"),
        ("name,Smiling\nfaces/0.png,1", "starts with the column 'name'; the first column is 'file' or 'image_id'"),
        ("file\nfaces/0.png", "no column of values"),
        ("file,split\nfaces/0.png,train", "no column for an attribute"),
        ("file,Smiling,Smiling\nfaces/0.png,1,1", "two columns 'Smiling'"),
        ("file,Smiling", "lists no pictures"),
        ("file,Smiling\nfaces/0.png,1\nfaces/1.png,", "line 3: 'faces/1.png' has the value ''; a label is 1 or 0"),
        ("file,Smiling\nfaces/0.png,yes", "line 2: 'faces/0.png' has the value 'yes'"),
        ("file,Smiling\nfaces/0.png,1,0", "line 2: 'faces/0.png' has 2 values where the list has 1"),
        ("file,Smiling,split\nfaces/0.png,1,dev", "the value 'dev'; a split is train, valid, test"),
        ("file,Smiling\n../0.png,1", "there is no picture"),
    ],
)
def test_csv_damage_is_refused(csv_folder, text, says):
    (csv_folder / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=says):
        open_source(str(csv_folder), size=32, crop="center")


# --- the real set ---


def test_celeba_mini(celeba_mini):
    source = open_source(str(celeba_mini), size=64)
    table = source.table
    assert {split: len(table.indices(split)) for split in ("train", "valid", "test")} == {
        "train": 10_000,
        "valid": 1_500,
        "test": 1_500,
    }
    counts = dict(zip(table.attributes, table.labels.sum(0).tolist(), strict=True))
    assert (counts["5_o_Clock_Shadow"], counts["Eyeglasses"], counts["Young"]) == (1307, 985, 9773)  # its README's
    people = [set(table.identity[table.indices(split)].tolist()) for split in ("train", "valid", "test")]
    assert [len(some) for some in people] == [1943, 300, 300]
    assert len(set.union(*people)) == 2543
    # Landmarks are in the picture's own pixels: the eyes are where CelebA aligns them.
    np.testing.assert_allclose(table.landmarks[:, :2].mean(0), [[69, 111], [108, 111]], atol=2)
    images = source.images(np.arange(16))
    with Image.open(celeba_mini / "img_align_celeba" / table.names[3]) as image:
        expected = image.crop((0, 20, 178, 198)).resize((64, 64), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(images[3], np.asarray(expected))
