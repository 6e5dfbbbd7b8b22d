"""A truncated entry is removed before JAX meets it; sound entries are kept and used."""

import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from faceattr_jax.errors import UserError
from faceattr_jax.training import compilation_cache


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    before = jax.config.jax_compilation_cache_dir
    compilation_cache.enable(tmp_path)
    yield tmp_path
    jax_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", before)


def program(scale: float) -> np.ndarray:
    """Looks into the persistent cache in each call, since `jax.jit` of a new function starts anew."""
    return np.asarray(jax.jit(lambda x: jnp.cumsum(jnp.sin(x)) * scale)(np.arange(17, dtype=np.float32)))


def entries(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*-cache")}


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999], ids=["emptied", "halved", "end-missing"])
def test_a_truncated_entry_is_removed_and_written_again(folder: Path, kept: float) -> None:
    expected = program(3.0)
    sound = entries(folder)
    assert sound
    for name, content in sound.items():
        (folder / name).write_bytes(content[: int(kept * len(content))])
    assert compilation_cache.enable(folder) == len(sound)
    assert not entries(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (program(3.0) == expected).all()
    assert entries(folder).keys() == sound.keys()


def test_jax_itself_would_warn(folder: Path) -> None:
    """If this fails, JAX has learned to deal with truncated entries and the module can go."""
    program(4.0)
    for name, content in entries(folder).items():
        (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match="Error reading persistent compilation cache"):
        program(4.0)


def test_sound_entries_are_kept_and_old_ones_not_read_again(folder: Path) -> None:
    program(5.0)
    sound = entries(folder)
    assert compilation_cache.enable(folder) == 0
    assert entries(folder) == sound
    victim = folder / next(iter(sound))
    victim.write_bytes(b"not a program")
    earlier = time.time() - 3600  # before the last look
    os.utime(victim, (earlier, earlier))
    assert compilation_cache.enable(folder) == 0
    os.utime(victim)
    assert compilation_cache.enable(folder) == 1


def test_entries_that_nobody_reads_go(folder: Path) -> None:
    program(6.0)
    program(7.0)
    read, unread = sorted(entries(folder))[:2]
    month = time.time() - 31 * 24 * 3600
    os.utime(folder / read, (time.time(), month))
    os.utime(folder / unread, (month, month))
    assert compilation_cache.enable(folder) == 0
    assert read in entries(folder)
    assert unread not in entries(folder)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"/file/compiled'.*JAX_COMPILATION_CACHE_DIR"):
        compilation_cache.enable(tmp_path / "file" / "compiled")


def test_the_folder_is_the_users_and_the_processors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    here = compilation_cache.folder()
    assert here.parent == tmp_path / "faceattr_jax"
    assert here == compilation_cache.folder()
    monkeypatch.setattr("platform.machine", lambda: "another")
    assert compilation_cache.folder() != here
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    assert compilation_cache.folder() == Path("elsewhere")
