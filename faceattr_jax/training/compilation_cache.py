"""JAX's persistent compilation cache, without the entries that a killed process left half written.

JAX writes an entry in place and never replaces one, so a truncated entry would warn in every later run and
its program would be compiled anew each time. An entry is one compressed stream with its own checksum (zlib)
or length (zstandard): reading it to its end is the test. A stamp file dates the last look, so that a large
cache costs one `stat` an entry and only newer entries are read. Entries that nobody has read for a month go, too.
"""

import contextlib
import importlib
import os
import platform
import re
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jax
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from faceattr_jax.errors import UserError
from faceattr_jax.files import cache

_STAMP = ".faceattr-checked"
_SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_KEPT = 30 * 24 * 3600  # seconds


def folder() -> Path:
    """$JAX_COMPILATION_CACHE_DIR, else one in the user's cache for processors like this one.

    XLA compiles for the very features of a host's processor, JAX's keys do not tell these, and hosts share homes.
    """
    if chosen := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(chosen)
    described = Path("/proc/cpuinfo")  # on Linux: "flags" of x86, "Features" of ARM
    found = re.search(r"^(flags|Features)\s*:.*$", described.read_text() if described.exists() else "", re.M)
    features = zlib.crc32(f"{platform.machine()} {found and found[0]}".encode())
    return cache() / f"compiled-{features:08x}"


def enable(folder: str | Path) -> int:
    """Keeps every compiled program in `folder`, small ones too; returns how many bad entries were removed.

    Raises UserError where it cannot be written.
    """
    folder = Path(folder).expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        removed = remove_unreadable(folder)
    except OSError as error:
        raise UserError(
            f"compiled programs cannot be kept in '{folder}' ({error.strerror}); let JAX_COMPILATION_CACHE_DIR name a "
            "folder that can be written"
        ) from None
    jax_cache.reset_cache()  # forgets the folder that an earlier compilation in this process has used
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return removed


@contextlib.contextmanager
def fresh() -> Iterator[None]:
    """An empty cache for a while: what is compiled in it first is cold, and warm when it is compiled once more."""
    before = {name: getattr(jax.config, name) for name in _SETTINGS}
    with tempfile.TemporaryDirectory(prefix="faceattr-compiled-") as folder:
        enable(folder)
        try:
            yield
        finally:
            jax_cache.reset_cache()
            for name, value in before.items():
                jax.config.update(name, value)


def remove_unreadable(folder: Path) -> int:
    """Deletes the entries written since the last look that do not decompress; returns their number.

    An entry that another process is writing at this moment goes too: it is compiled once more, no worse. So do those
    that nobody has read for a month, uncounted.
    """
    stamp = folder / _STAMP
    checked_until = stamp.stat().st_mtime_ns if stamp.exists() else 0
    stamp_next = folder / f"{_STAMP}.{os.getpid()}"
    stamp_next.touch()  # dated before the look: what is written during it is looked at again
    removed = 0
    for entry in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process removed it first
            status = entry.stat()
            if status.st_mtime_ns >= checked_until and not _readable(entry.read_bytes()):
                entry.unlink()
                removed += 1
            elif max(status.st_atime, status.st_mtime) < time.time() - _KEPT:
                entry.unlink()
    stamp_next.replace(stamp)
    return removed


def _readable(entry: bytes) -> bool:
    if entry.startswith(_ZSTD_MAGIC):
        zstandard = _zstandard()
        if zstandard is None:  # nor will JAX read it: the compressor's name is part of its key
            return True
        decompress, error = zstandard.ZstdDecompressor().decompress, zstandard.ZstdError
    else:
        decompress, error = zlib.decompress, zlib.error
    try:
        return len(decompress(entry)) > 0
    except error:
        return False


def _zstandard() -> ModuleType | None:
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        return None
