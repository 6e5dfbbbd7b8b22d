"""Every picture is in its cell, pixel by pixel; names neither cover pictures nor run into each other."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceattr_jax import grids

NAMES = ("Bushy_Eyebrows", "Mouth_Slightly_Open", "No_Beard")


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (2, 3, 16, 32, 3), np.uint8)


def cell(sheet: np.ndarray, row: int, column: int, top: int, left: int) -> np.ndarray:
    y, x = top + row * (48 + grids.GAP), left + column * (96 + grids.GAP)
    return sheet[y : y + 48, x : x + 96]


@pytest.mark.parametrize("column_names", [(), NAMES])
@pytest.mark.parametrize("row_names", [(), ("one", "two")])
def test_pictures_are_magnified_into_their_cells(
    images: np.ndarray, column_names: tuple[str, ...], row_names: tuple[str, ...]
) -> None:
    sheet = grids.compose(images, column_names, row_names)
    top = sheet.shape[0] - 2 * 48 - grids.GAP
    left = sheet.shape[1] - 3 * 96 - 2 * grids.GAP
    assert (top > 0, left > 0) == (bool(column_names), bool(row_names))
    for row in range(2):
        for column in range(3):
            assert (cell(sheet, row, column, top, left)[::3, ::3] == images[row, column]).all()
            assert (cell(sheet, row, column, top, left)[2::3, 2::3] == images[row, column]).all()


def test_names_stay_over_their_own_columns(images: np.ndarray) -> None:
    sheet = grids.compose(images, NAMES)
    strip = sheet[: sheet.shape[0] - 2 * 48 - grids.GAP]
    alone = [grids.compose(images[:, :1], (name,)) for name in NAMES]
    assert (strip[:, 96 : 96 + grids.GAP] == 255).all()
    for column, sheet_of_one in enumerate(alone):
        inked = (strip[:, column * 98 : column * 98 + 96] < 128).sum()
        assert inked == (sheet_of_one[: sheet_of_one.shape[0] - 98] < 128).sum() > 0


def test_a_long_word_shrinks_to_fit() -> None:
    caption = grids._caption("Pneumonoultramicroscopicsilicovolcanoconiosis", 96)
    assert 60 < caption.width <= 96


@pytest.mark.parametrize(
    ("shape", "names", "message"),
    [
        ((2, 3, 16, 16, 1), (), "must be uint8"),
        ((3, 16, 16, 3), (), "must be uint8"),
        ((1, 2, 16, 16, 3), NAMES, "3 names for 2 columns"),
    ],
)
def test_what_is_no_grid_is_refused(shape: tuple[int, ...], names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grids.compose(np.zeros(shape, np.uint8), names)


def test_the_file_is_the_sheet_and_leaves_nothing_beside_it(images: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "made" / "grid.png"
    grids.save_grid(path, images, NAMES)
    with Image.open(path) as written:
        assert (np.asarray(written) == grids.compose(images, NAMES)).all()
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "grid.png"
    grids.save_grid(path, images)
    before = path.read_bytes()

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        grids.save_grid(path, images[::-1])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
