"""The crop by five landmarks, of CelebA's aligned and unaligned pictures, prepared or not."""

import numpy as np
import pytest
from PIL import Image

from faceattr_jax.data import align, crops
from faceattr_jax.data.images import read_image
from faceattr_jax.data.prepare import prepare
from faceattr_jax.data.source import open_source
from faceattr_jax.errors import UserError

POINTS = align.SHAPE * 1.7 + 40


def test_unaligned_pictures_are_taken_where_they_are_there(celeba, picture, tmp_path):
    aligned = open_source(str(celeba), size=64, crop="landmarks5")
    name = aligned.table.names[2]
    expected = align.align(read_image(celeba / "img_align_celeba" / name), aligned.table.landmarks[2], 64)
    np.testing.assert_array_equal(aligned.images(np.array([2]))[0], expected)

    (celeba / "img_celeba").mkdir()
    lines = (celeba / "list_landmarks_align_celeba.txt").read_text().splitlines()[:2]
    for i, name in enumerate(aligned.table.names):
        picture(i, 300 + i, 320).save(celeba / "img_celeba" / name, quality=95)
        lines.append(" ".join([name, *(str(round(v)) for v in POINTS.ravel())]))
    (celeba / "list_landmarks_celeba.txt").write_text("\n".join(lines) + "\n")
    source = open_source(str(celeba), size=64, crop="landmarks5")
    expected = align.align(read_image(celeba / "img_celeba" / source.table.names[2]), np.round(POINTS), 64)
    np.testing.assert_array_equal(source.images(np.array([2]))[0], expected)
    # Other crops still are of the aligned pictures.
    other = open_source(str(celeba), size=178)
    whole = np.asarray(read_image(celeba / "img_align_celeba" / other.table.names[2]))
    np.testing.assert_array_equal(other.images(np.array([2]))[0], whole[20:198])

    prepare(str(celeba), tmp_path / "out", size=64, crop="landmarks5")
    again = open_source(str(tmp_path / "out"), size=64, crop="landmarks5")
    np.testing.assert_array_equal(again.images(np.arange(3)), source.images(np.arange(3)))


def test_without_landmarks(celeba):
    (celeba / "list_landmarks_align_celeba.txt").unlink()
    with pytest.raises(UserError, match=r"goes by landmarks, and the lists beside .* have none"):
        open_source(str(celeba), size=64, crop="landmarks5")
    with pytest.raises(UserError, match="not known of this picture"):
        crops.crop(Image.new("RGB", (300, 200)), "landmarks5", 64)
    with pytest.raises(UserError, match="coincide"):
        crops.crop(Image.new("RGB", (300, 200)), "landmarks5", 64, np.ones((5, 2)))
    assert crops.crop(Image.new("RGB", (178, 218)), "landmarks5", 64).shape == (64, 64, 3)
