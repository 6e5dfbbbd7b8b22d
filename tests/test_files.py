"""A file is the old one or the new one, whatever happens while it is written."""

from pathlib import Path

import pytest

from faceattr_jax import files
from faceattr_jax.errors import UserError


def test_a_file_is_written_and_replaced_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    files.write(path, "é")
    assert path.read_bytes() == "é".encode()
    files.write(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert list(path.parent.iterdir()) == [path]


def test_an_old_file_survives_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.write(path, "old")

    def full(self: Path, content: bytes) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        files.write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_would_be_overwritten_is_named(tmp_path: Path) -> None:
    old, new, other = (tmp_path / name for name in ("old", "new", "other"))
    old.touch()
    files.check_new(new, other)
    for paths, besides, named in (([new, old], [], old), ([new, new], [], new), ([other, new], [new], new)):
        with pytest.raises(UserError, match=f"^{named}: this file would be overwritten; move it"):
            files.check_new(*paths, besides=besides)
