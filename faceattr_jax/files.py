"""Files that are written whole or not at all."""

import os
from pathlib import Path


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
