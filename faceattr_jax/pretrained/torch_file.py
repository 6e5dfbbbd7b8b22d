"""PyTorch's files of tensors (`torch.save` of a state dict), read without PyTorch and without running what they say.

Such a file is a pickle, a program that may call anything. Here it may ask for ordered dicts, tensors and parameters
only; these become plain records while the pickle runs and arrays after that. Both formats: the zip of PyTorch >= 1.6
and the older stream.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from faceattr_jax.errors import UserError

DTYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
STREAM = 0x1950A86A20F9469CFC6C
"""The number that the older format begins with."""


class _Storage(NamedTuple):
    dtype: str
    key: str


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Refused(Exception):
    """A global that a pickle asks for and does not get."""


def read(path: Path) -> dict[Any, Any]:
    """What the file holds, a dict or dicts within dicts, with its tensors as read-only arrays.

    Tensors keep their strides and may share memory, as they did when they were saved. Raises UserError for a file that
    asks for anything but tensors and plain values, that is damaged, or that holds no dict.
    """
    try:
        with path.open("rb") as file:
            held = _zip(file) if file.peek(4)[:4] == b"PK\x03\x04" else _stream(file)
    except _Refused as refused:
        raise UserError(
            f"'{path}' asks for {refused}, which no file of weights needs; save the tensors alone, as "
            "torch.save(model.state_dict(), ...) does"
        ) from None
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror})") from None
    except Exception as error:  # a damaged pickle fails in any way
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"'{path}' is damaged, or no file of PyTorch's ({reason})") from None
    if not isinstance(held, dict):
        raise UserError(f"'{path}' holds a {type(held).__name__}, where a dict of tensors should be")
    return held


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        # Made anew for each file: what a pickle does to them is lost with it.
        self.globals: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor"): _Tensor,  # PyTorch < 0.4
            ("torch._utils", "_rebuild_tensor_v2"): lambda *values: _Tensor(*values[:4]),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            **{("torch", name): dtype for name, dtype in DTYPES.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.globals[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, _, *view = pid
        if kind != "storage" or any(view):
            raise ValueError(f"a reference to a {kind}, or a storage within another")
        return _Storage(dtype, key)


def _arrays(value: Any, load: Callable[[_Storage], bytes]) -> Any:
    if isinstance(value, _Tensor):
        dtype = _dtype(value.storage)
        # NumPy checks that no element lies outside.
        return np.ndarray(
            value.shape,
            dtype,
            load(value.storage),
            value.offset * dtype.itemsize,
            [step * dtype.itemsize for step in value.strides],
        )
    if isinstance(value, dict):
        return {key: _arrays(held, load) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_arrays(held, load) for held in value])
    return value


def _dtype(storage: _Storage) -> np.dtype:
    return jnp.dtype(storage.dtype).newbyteorder("<")


def _zip(file: IO[bytes]) -> Any:
    """ANY/data.pkl, and a file ANY/data/KEY for each storage."""
    with zipfile.ZipFile(file) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        if folder + "byteorder" in archive.namelist() and archive.read(folder + "byteorder") != b"little":
            raise ValueError("written by a big-endian machine")
        storages: dict[str, bytes] = {}

        def load(storage: _Storage) -> bytes:
            if storage.key not in storages:
                info = archive.getinfo(f"{folder}data/{storage.key}")
                if info.compress_type != zipfile.ZIP_STORED:  # nor does PyTorch: it cannot grow while it is read
                    raise ValueError("a packed storage")
                storages[storage.key] = archive.read(info)
            return storages[storage.key]

        return _arrays(_Unpickler(io.BytesIO(archive.read(pickled))).load(), load)


def _stream(file: IO[bytes]) -> Any:
    """Pickles of the format's number and version, the machine, the dict and the storages' keys; then the storages."""
    if _Unpickler(file).load() != STREAM:
        raise ValueError("another beginning")
    for _ in range(2):
        _Unpickler(file).load()
    storages: dict[str, bytes] = {}
    used: dict[str, _Storage] = {}

    class Noting(_Unpickler):
        def persistent_load(self, pid: Any) -> _Storage:
            storage = super().persistent_load(pid)
            return used.setdefault(storage.key, storage)

    held = Noting(file).load()
    for key in _Unpickler(file).load():
        size = _dtype(used[key]).itemsize * int.from_bytes(file.read(8), "little")
        storages[key] = file.read(size)
        if len(storages[key]) != size:
            raise EOFError(f"it ends within storage {key}")
    return _arrays(held, lambda storage: storages[storage.key])
