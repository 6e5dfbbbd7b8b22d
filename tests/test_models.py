"""The model that comes with the package."""

import numpy as np
import pytest

import faceattr_jax as fj
from faceattr_jax import cli
from faceattr_jax.attributes import ATTGAN
from faceattr_jax.editor import MODELS
from faceattr_jax.errors import UserError


def test_it_is_small_and_has_a_card():
    file = MODELS / f"{fj.DEFAULT_MODEL}.safetensors"
    assert file.stat().st_size <= 10_000_000
    assert "non-commercial research" in file.with_suffix(".md").read_text()


def test_it_edits_without_a_checkpoint(tmp_path, monkeypatch):
    """The command puts glasses before the astronaut's eyes, and changes nothing beyond her head."""
    data = pytest.importorskip("skimage.data")
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.fromarray(data.astronaut()).save("me.png")
    editor = fj.load()
    assert editor.attributes == ATTGAN
    assert editor.config.data.path == "CELEBA_MINI_64"  # no path of the machine that trained it
    landmarks = "195,102,243,104,220,132,197,150,240,152"  # found by eye
    arguments = ["me.png", "--set=Eyeglasses=1", "--strength=2", f"--landmarks={landmarks}"]
    assert cli.main(["edit", *arguments]) == 0
    before, after = (np.asarray(Image.open(name).convert("RGB")) for name in ("me.png", "me.edited.png"))
    changed = np.abs(before.astype(int) - after).max(axis=-1) > 8
    assert changed[85:125, 175:265].mean() > 0.2  # around the eyes
    assert not changed[:, 350:].any()  # beyond the head


def test_other_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="attgan_celeba_63"):
        fj.load("attgan_celeba_63")
