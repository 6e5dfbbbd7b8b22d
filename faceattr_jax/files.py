"""Files that are written whole or not at all, and the folder of those that can be had again."""

import os
from collections.abc import Collection
from pathlib import Path

from faceattr_jax.errors import UserError


def cache() -> Path:
    """The user's folder of downloaded weights and compiled programs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "faceattr_jax"


def check_new(*paths: Path, besides: Collection[Path] = ()) -> None:
    """Raises UserError where a file to write is there already, or is one of the others or of those `besides` them."""
    seen = set(besides)
    for path in paths:
        if path in seen or path.exists():
            raise UserError(f"{path}: this file would be overwritten; move it, or give another name.")
        seen.add(path)


def write(path: str | Path, content: bytes | str) -> None:
    """Write a file, and its folder if missing; a reader finds the old file or the new one, never half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
