"""A tiny CelebA: the real layout and file formats, with pictures of noise."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceattr_jax.attributes import CELEBA
from faceattr_jax.data.folder import LANDMARKS

SPLITS = [0] * 8 + [1] * 2 + [2] * 2
PEOPLE = [100] * 4 + [101] * 4 + [102] * 2 + [103] * 2


def noise(seed: int, width: int = 178, height: int = 218) -> Image.Image:
    """A smooth random picture, which JPEG hardly changes."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write_celeba(folder: Path) -> Path:
    """Twelve pictures of four people in CelebA's layout, half of each split Male."""
    rng = np.random.default_rng(0)
    names = [f"{3 * i + 1:06d}.jpg" for i in range(len(SPLITS))]
    (folder / "img_align_celeba").mkdir(parents=True)
    for i, name in enumerate(names):
        noise(i).save(folder / "img_align_celeba" / name, quality=95)
    labels = rng.integers(0, 2, (len(names), 40)) * 2 - 1
    labels[::2, CELEBA.index("Male")], labels[1::2, CELEBA.index("Male")] = 1, -1
    points = rng.integers(40, 140, (len(names), 10))
    lists = {
        "list_attr_celeba": [str(len(names)), " ".join(CELEBA)],
        "list_landmarks_align_celeba": [str(len(names)), " ".join(LANDMARKS)],
        "list_eval_partition": [],
        "identity_CelebA": [],
    }
    for i, name in enumerate(names):
        lists["list_attr_celeba"].append(name + "".join(f" {value:2d}" for value in labels[i]))
        lists["list_landmarks_align_celeba"].append(name + "".join(f" {value:3d}" for value in points[i]))
        lists["list_eval_partition"].append(f"{name} {SPLITS[i]}")
        lists["identity_CelebA"].append(f"{name} {PEOPLE[i]}")
    for stem, lines in lists.items():
        (folder / f"{stem}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    """A fresh tiny CelebA, to be damaged."""
    return write_celeba(tmp_path / "celeba")


@pytest.fixture(scope="session")
def intact_celeba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CelebA that tests only read."""
    return write_celeba(tmp_path_factory.mktemp("data") / "celeba")


@pytest.fixture(scope="session")
def picture() -> Callable[..., Image.Image]:
    """picture(seed, width, height): a smooth random picture."""
    return noise
