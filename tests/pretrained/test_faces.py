"""The frozen face networks: parity with PyTorch at every block, their readers, and faces of the same person."""

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from faceattr_jax import config as configs
from faceattr_jax import files
from faceattr_jax.data import crops
from faceattr_jax.data.images import to_float
from faceattr_jax.data.source import open_source
from faceattr_jax.errors import UserError
from faceattr_jax.pretrained import FaceNetwork, dlib, face_network, faces, vgg_face, weights
from faceattr_jax.pretrained.faces import _kept, _within
from tests import checks
from tests.oracles import dlib_vectors
from tests.parity import compare, levels, outputs


def random_params(network, size: int):
    """Weights that keep the scale of what they are given, with scales and biases other than 1 and 0."""
    rng = np.random.default_rng(0)

    def value(path, leaf):
        if leaf.ndim > 1:
            return rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(np.float32)
        return rng.normal(0.7 if path[-1].key == "scale" else 0.0, 0.1, leaf.shape).astype(np.float32)

    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))["params"]
    return jax.tree_util.tree_map_with_path(value, shapes)


@pytest.fixture
def oracle(torch):
    torch.set_num_threads(1)
    from tests.oracles import faces_torch

    with torch.no_grad():
        yield faces_torch


@pytest.fixture(scope="module")
def dlib_network() -> FaceNetwork:
    try:
        return face_network(ConfigDict({"network": "dlib", "path": ""}))
    except UserError as error:
        pytest.skip(str(error))


# dlib.


def test_every_layer_of_dlibs_network():
    found = checks.layer_outputs(dlib.FaceResNet(), jnp.zeros((1, 150, 150, 3)))
    assert found["conv/__call__"] == (72, 72, 32)
    # The last block but one of each width keeps the side that the shortcut has, where the convolutions' is smaller.
    sides = [35] * 3 + [17] * 4 + [8] * 3 + [4] * 3 + [2]
    assert [found[f"block{i}/__call__"] for i in range(14)] == [
        (side, side, width) for side, width in zip(sides, dlib.LEVELS, strict=True)
    ]
    assert found["block10/conv0/__call__"] == (3, 3, 256)
    assert found["block13/conv0/__call__"] == (1, 1, 256)
    assert found["__call__"] == (128,)


def test_dlibs_network_is_the_oracles_at_random_weights(oracle):
    network = dlib.FaceResNet()
    params = random_params(network, dlib.SIZE)
    compare(outputs(network, {"params": params}, levels(150)), oracle.dlib(params, levels(150)), relu=False)


def test_dlibs_network_is_the_oracles_at_its_own_weights(oracle, dlib_network):
    params = dlib_network.variables["params"]
    compare(outputs(dlib.FaceResNet(), {"params": params}, levels(150)), oracle.dlib(params, levels(150)), relu=False)


def test_vectors_are_those_of_dlib_itself(dlib_network):
    recorded = np.load(dlib_vectors.FILE)
    lengths = np.linalg.norm(recorded[:, None] - recorded, axis=-1)
    assert lengths[~np.eye(4, dtype=bool)].min() > 0.1, "pictures that differ"
    found = dlib_network.features(dlib_network.variables, to_float(jnp.asarray(dlib_vectors.pictures())))
    np.testing.assert_allclose(found, recorded, atol=1e-4)


def write_dlib(path: Path, params) -> Path:
    """A file as dlib writes it: other settings between the tensors, some of which look like the start of one."""

    def number(value: int) -> bytes:
        count = (value.bit_length() + 7) // 8
        return bytes([count]) + value.to_bytes(count, "little")

    def tensor(array: np.ndarray, *sizes: int) -> bytes:
        return b"\x01\x02" + b"".join(map(number, sizes)) + array.astype("<f4").tobytes()

    parts = [b"\x01\x01\x0dloss_metric_2\x01\x02\x01\x02\x01\x02"]

    def layer(tree):
        if "kernel" in tree and "bias" in tree:
            flat = [tree["kernel"].transpose(3, 2, 0, 1).ravel(), tree["bias"]]
        else:
            flat = [tree["scale"], tree["bias"]]
        numbers = np.concatenate(flat)
        parts.append(tensor(numbers, numbers.size, 1, 1, 1) + b"\x06affine\x01\x01\x01\x02")

    layer(params["conv"])
    layer(params["affine"])
    for i in range(14):
        for name in ("conv0", "affine0", "conv1", "affine1"):
            layer(params[f"block{i}"][name])
    parts.append(tensor(params["fc"]["kernel"], 256, 128, 1, 1))
    path.write_bytes(b"".join(parts))
    return path


def test_dlibs_file_is_read(tmp_path):
    params = random_params(dlib.FaceResNet(), dlib.SIZE)
    path = write_dlib(tmp_path / "net.dat", params)
    jax.tree.map(np.testing.assert_array_equal, params, dlib.read(path))
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    with pytest.raises(UserError, match=r"net.dat' is no face network of dlib's: it has no 256 numbers for layer 'fc'"):
        dlib.read(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"for layer 'block1\d/conv\d'"):
        dlib.read(path)


# VGG-Face.


def test_every_layer_of_vgg_face():
    found = checks.layer_outputs(vgg_face.VGGFace(), jnp.zeros((1, 224, 224, 3)))
    table = {
        "1": (224, 64, 2), "2": (112, 128, 2), "3": (56, 256, 3), "4": (28, 512, 3), "5": (14, 512, 3),
    }  # fmt: skip
    for block, (side, channels, count) in table.items():
        for j in range(1, count + 1):
            assert found.pop(f"conv{block}_{j}/__call__") == (side, side, channels)
    assert found == {"fc6/__call__": (4096,), "fc7/__call__": (4096,), "__call__": (4096,)}
    shapes = jax.eval_shape(vgg_face.VGGFace().init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    assert shapes["params"]["fc6"]["kernel"].shape == (7 * 7 * 512, 4096)


NARROW = vgg_face.VGGFace(width=4, fc=24)


@functools.cache
def narrow_params():
    return random_params(NARROW, vgg_face.SIZE)


def test_vgg_face_is_the_oracles(oracle):
    faces = levels(224, 1)
    compare(outputs(NARROW, {"params": narrow_params()}, faces), oracle.vgg_face(narrow_params(), faces), relu=True)


@pytest.mark.parametrize(("name", "network", "size"), [("dlib", dlib.FaceResNet(), 150), ("vgg_face", NARROW, 224)])
def test_gradients_of_pixels_are_the_oracles(oracle, torch, name, network, size):
    """Which is what an identity loss hands to an editor."""
    params, faces = random_params(network, size), levels(size, 1)
    found = jax.jit(jax.grad(lambda x: jnp.sum(network.apply({"params": params}, x) ** 2)))(faces)
    with torch.enable_grad():
        pixels = torch.tensor(faces, requires_grad=True)
        *_, last = getattr(oracle, name)(params, pixels).values()
        (last**2).sum().backward()
    assert np.linalg.norm(found - pixels.grad.numpy()) <= 1e-4 * np.linalg.norm(pixels.grad.numpy())


def write_keras(path: Path, *, convolutional: bool, drop: int = 0) -> Path:
    """A file of weights as Keras writes it, with an fc8, and layers without weights among the others."""
    h5py = pytest.importorskip("h5py")
    layers = [[tree["kernel"], tree["bias"]] for tree in narrow_params().values()]
    if convolutional:
        for i, side in ((-2, 7), (-1, 1)):
            kernel = layers[i][0]
            layers[i][0] = kernel.reshape(side, side, -1, kernel.shape[-1])
    layers.append([np.zeros((1, 1, 24, 5), np.float32), np.zeros(5, np.float32)])
    layers = layers[drop:]
    with h5py.File(path, "w") as file:
        names = []
        for i, arrays in enumerate(layers):
            for name, held in ((f"zero_padding2d_{i}", []), (f"conv2d_{i}", arrays)):
                names.append(name.encode())
                group = file.create_group(name)
                own = [f"{name}/{part}:0" for part, _ in zip(("kernel", "bias"), held, strict=False)]
                group.attrs["weight_names"] = [part.encode() for part in own]
                for part, array in zip(own, held, strict=True):
                    group[part] = array
        file.attrs["layer_names"] = names
    return path


@pytest.mark.parametrize("convolutional", [True, False])
def test_kerass_file_is_read(convolutional, tmp_path):
    path = write_keras(tmp_path / "vgg.h5", convolutional=convolutional)
    found = vgg_face.read(path, NARROW)
    assert list(found) == list(narrow_params())
    jax.tree.map(np.testing.assert_array_equal, narrow_params(), found)


def test_other_files_are_refused(tmp_path):
    pytest.importorskip("h5py")
    path = write_keras(tmp_path / "vgg.h5", convolutional=True, drop=1)
    with pytest.raises(UserError, match=r"no VGG-Face: 'conv1_1' should have the shapes \(3, 3, 3, 4\) and \(4,\)"):
        vgg_face.read(path, NARROW)
    path = write_keras(tmp_path / "short.h5", convolutional=True, drop=3)
    with pytest.raises(UserError, match="it has 13 layers with weights, not 15"):
        vgg_face.read(path, NARROW)
    (tmp_path / "text.h5").write_text("<html>")
    with pytest.raises(UserError, match=r"text.h5' is no Keras file of weights \("):
        vgg_face.read(tmp_path / "text.h5", NARROW)


def test_h5py_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"needs h5py; install faceattr_jax\[faces\]"):
        vgg_face.read(tmp_path / "vgg.h5")


# One interface.


def test_a_network_is_chosen_by_name():
    with pytest.raises(
        UserError, match=r"face.network is 'dlip' \(did you mean 'dlib'\?\); it can be auto, vgg_face, dlib or rec"
    ):
        face_network(ConfigDict({"network": "dlip", "path": ""}))


def pixels(size: int, count: int = 2) -> jax.Array:
    return jnp.asarray(levels(size, count) / 127.5 - 1)


def held_network(size: int) -> FaceNetwork:
    return FaceNetwork("linear", "", {"w": jnp.eye(3)}, size, lambda held, x: x.mean((1, 2)) @ held["w"])


def test_auto_is_vgg_face_where_it_is_there_and_else_dlibs(monkeypatch, tmp_path):
    asked = []
    for name in ("vgg_face", "dlib"):
        monkeypatch.setitem(faces.NETWORKS, name, lambda path, crop, name=name: asked.append((name, path)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    auto = ConfigDict({"network": "auto", "path": ""})
    face_network(auto)
    face_network(ConfigDict({"network": "auto", "path": "vgg_face.h5"}))
    files.cache().mkdir()
    (files.cache() / weights.VGG_FACE.file).touch()
    face_network(auto)
    assert asked == [("dlib", ""), ("vgg_face", "vgg_face.h5"), ("vgg_face", "")]
    assert configs.load("diat_128").face.network == configs.load("diat_hallucination").face.network == "auto"


def test_features_resize_and_differentiate():
    network, images = held_network(6), pixels(4)
    np.testing.assert_allclose(network.features(network.variables, pixels(6)), pixels(6).mean((1, 2)), rtol=1e-5)
    gradient = jax.grad(lambda x: network.features(network.variables, x).sum())(images)
    np.testing.assert_allclose(gradient.sum((1, 2)), 1, rtol=1e-5)  # a mean of a resized image has all of its weight
    with pytest.raises(ValueError, match=r"square images \(B, S, S, 3\), not \(2, 4, 5, 3\)"):
        network.features(network.variables, jnp.zeros((2, 4, 5, 3)))


def test_resizing_is_pytorchs(torch):
    """Up as interpolate without, down with antialiasing."""
    images = pixels(9)
    for size, antialias in ((14, False), (5, True)):
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(np.array(images)).permute(0, 3, 1, 2), (size, size), mode="bilinear", antialias=antialias
        )
        seen = FaceNetwork("", "", {}, size, lambda held, x: x).features({}, images)
        np.testing.assert_allclose(seen, theirs.permute(0, 2, 3, 1).numpy(), atol=1e-5)


def test_dlibs_features_are_those_of_its_levels(dlib_network):
    assert dlib_network.name == "dlib"
    assert dlib_network.sha256.startswith("55533b28")
    images = pixels(150, 1)
    found = jax.jit(dlib_network.features)(dlib_network.variables, images)
    expected = dlib.FaceResNet().apply(dlib_network.variables, (images + 1) * 127.5)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(dlib_network.features(dlib_network.variables, x) ** 2)))(
        pixels(64, 1)
    )
    assert np.isfinite(gradient).all()
    assert float(jnp.abs(gradient).max()) > 0


def test_a_square_is_cut_before_resizing():
    images = pixels(10)
    network = FaceNetwork("", "", {}, 4, lambda held, x: x, square=(0.3, 0.1, 0.4))
    np.testing.assert_allclose(network.features({}, images), images[:, 3:7, 1:5], atol=1e-5)


@pytest.mark.parametrize("name", crops.PRESETS)
def test_dlibs_square_lies_in_every_crop(name):
    top, left, side = _within(dlib.SQUARE, _kept(name))
    assert min(top, left) >= 0
    assert max(top, left) + side <= 1
    if crops.preset(name).square in ("centre", "whole"):
        assert (top, left, side) == (0, 0, 1)
    else:  # the eyes of CelebA's mean face come where dlib's chips have them
        start_y, start_x, kept = _kept(name)
        eyes = (np.array([(69.1, 111.3), (107.9, 111.3)]) - (start_x, start_y)) / kept
        # dlib's mean face: corners of the eyes, within a border of a quarter.
        corners = np.array([(0.1206, 0.2137), (0.3341, 0.2291), (0.6461, 0.2290), (0.8596, 0.2135)])
        expected = (corners.reshape(2, 2, 2).mean(1) + 0.25) / 1.5
        np.testing.assert_allclose((eyes - (left, top)) / side, expected, atol=2e-3)


@pytest.mark.parametrize("crop", ["center178", "vaegan148"])
def test_dlib_tells_real_people_apart(crop, celeba_mini, dlib_network):
    source = open_source(str(celeba_mini), size=64, crop=crop)
    table = source.table
    indices = table.indices("test")
    indices = indices[np.argsort(table.identity[indices], kind="stable")][:40]
    network = face_network(ConfigDict({"network": "dlib", "path": ""}), crop)
    vectors = jax.jit(network.features)(network.variables, to_float(jnp.asarray(source.images(indices))))
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    people = table.identity[indices]
    same, pair = people[:, None] == people[None], ~np.eye(len(people), dtype=bool)
    assert (same & pair).sum() > 100
    assert distances[same & pair].mean() < 0.6 < 0.7 < distances[~same].mean()
