"""The frozen networks for whole images: parity with PyTorch at every block, their files, and resizing."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.errors import UserError
from faceattr_jax.pretrained import ImageNetwork, efficientnet, image_network, inception, vgg16, weights
from tests import checks
from tests.parity import compare, levels, outputs


@pytest.fixture
def oracle(torch):
    from tests.oracles import images_torch

    with torch.no_grad():
        yield images_torch


def named(found):
    """`outputs` with the network's own under "features" and "logits"."""
    features, logits = found["__call__"]
    return {**found, "features": features, "logits": logits}


# EfficientNet-lite0.


@pytest.fixture(scope="module")
def lite0_file() -> Path:
    try:
        return weights.find(weights.EFFICIENTNET_LITE0)[0]
    except UserError as error:
        pytest.skip(str(error))


def test_every_layer_of_efficientnet():
    found = checks.layer_outputs(efficientnet.EfficientNetLite0(), jnp.zeros((1, 224, 224, 3)))
    assert found["conv_stem/__call__"] == (112, 112, 32)
    # (side, channels, blocks) of the table of stages.
    table = [(112, 16, 1), (56, 24, 2), (28, 40, 2), (14, 80, 3), (14, 112, 3), (7, 192, 4), (7, 320, 1)]
    shapes = [(side, side, channels) for side, channels, count in table for _ in range(count)]
    assert [found[f"block{i}/__call__"] for i in range(16)] == shapes
    assert found["conv_head/__call__"] == (7, 7, 1280)
    assert found["fc/__call__"] == (1000,)
    shapes = jax.eval_shape(efficientnet.EfficientNetLite0().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 4_652_008


def test_efficientnet_is_the_oracles_at_random_weights(oracle, torch, tmp_path):
    theirs = oracle.randomise(oracle.EfficientNetLite0())
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    # An odd side: the zeros that pad it lie on both sides, of an even one at the end alone.
    images = levels(75)
    found = outputs(efficientnet.EfficientNetLite0(), efficientnet.read(tmp_path / "net.pth"), images)
    compare(named(found), theirs(torch.from_numpy(images)), relu=False)


def test_efficientnet_knows_a_cat(lite0_file):
    chelsea = pytest.importorskip("skimage.data").chelsea()[:, 75:375]
    images = jax.image.resize(chelsea[None].astype(np.float32), (1, 224, 224, 3), "linear")
    _, logits = jax.jit(efficientnet.EfficientNetLite0().apply)(efficientnet.read(lite0_file), images)
    best = np.argsort(logits[0])[::-1][:3]
    assert set(best) <= set(range(281, 288))  # ImageNet's cats, from the tabby to the lynx


# Inception-v3.


def test_every_layer_of_inception():
    found = checks.layer_outputs(inception.InceptionV3(), jnp.zeros((1, 299, 299, 3)))
    table = {
        "Conv2d_1a_3x3": (149, 32), "Conv2d_2a_3x3": (147, 32), "Conv2d_2b_3x3": (147, 64), "Conv2d_3b_1x1": (73, 80),
        "Conv2d_4a_3x3": (71, 192), "Mixed_5b": (35, 256), "Mixed_5c": (35, 288), "Mixed_5d": (35, 288),
        "Mixed_6a": (17, 768), "Mixed_6b": (17, 768), "Mixed_6c": (17, 768), "Mixed_6d": (17, 768),
        "Mixed_6e": (17, 768), "Mixed_7a": (8, 1280), "Mixed_7b": (8, 2048), "Mixed_7c": (8, 2048),
    }  # fmt: skip
    assert {name: found[f"{name}/__call__"] for name in table} == {
        name: (side, side, channels) for name, (side, channels) in table.items()
    }
    assert found["fc/__call__"] == (1008,)


def test_inception_is_the_oracles_at_random_weights(oracle, torch, tmp_path):
    theirs = oracle.randomise(oracle.InceptionV3())
    torch.save(theirs.state_dict(), tmp_path / "net.pth", _use_new_zipfile_serialization=False)
    images = levels(107) / 127.5 - 1  # the last map is 2x2: pooling there is more than a copy
    found = outputs(inception.InceptionV3(), inception.read(tmp_path / "net.pth"), images)
    compare(named(found), theirs(torch.from_numpy(images)), relu=False)


# VGG-16.


def test_every_layer_of_vgg16():
    found = checks.layer_outputs(vgg16.VGG16(), jnp.zeros((1, 224, 224, 3)))
    assert found["conv5_3/__call__"] == (14, 14, 512)
    assert found["fc7/__call__"] == (4096,)
    assert found["__call__"] == (40,)
    shapes = jax.eval_shape(vgg16.VGG16(1000).init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 138_357_544
    assert set(shapes["params"]) == set(vgg16.NAMES)


def test_vgg16_is_the_oracles_at_random_weights(oracle, torch, tmp_path):
    theirs = oracle.randomise(oracle.VGG16(outputs=5, width=4, fc=24))
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    network = vgg16.VGG16(outputs=5, width=4, fc=24)
    variables, images = vgg16.read(tmp_path / "net.pth", network), levels(224, 1) / 127.5 - 1
    found, expected = outputs(network, variables, images), theirs(torch.from_numpy(images))
    compare({"outputs": found["__call__"]}, {"outputs": expected.pop("outputs")}, relu=False)
    compare(found, expected, relu=True)


def test_vgg16_drops_in_training_alone():
    network = vgg16.VGG16(outputs=3, width=2, fc=16)
    images = jnp.asarray(levels(32) / 127.5 - 1)
    variables = network.init(jax.random.key(0), images)
    drawn = [network.apply(variables, images, train=True, rngs={"dropout": jax.random.key(i)}) for i in range(2)]
    assert not np.allclose(*drawn)
    np.testing.assert_array_equal(*(network.apply(variables, images) for _ in range(2)))


# One interface.


@pytest.mark.parametrize(("name", "network", "file", "images"), [
    ("EfficientNetLite0", efficientnet, weights.EFFICIENTNET_LITE0, levels(64)),
    ("InceptionV3", inception, weights.INCEPTION, levels(107) / 127.5 - 1),
])  # fmt: skip
def test_networks_are_the_oracles_at_their_own_weights(name, network, file, images, oracle, torch):
    try:
        path = weights.find(file)[0]
    except UserError as error:
        pytest.skip(str(error))
    theirs = getattr(oracle, name)().eval()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    found = outputs(getattr(network, name)(), network.read(path), images)
    compare(named(found), theirs(torch.from_numpy(images)), relu=False)


def test_an_image_network_is_chosen_by_name(tmp_path):
    with pytest.raises(UserError) as caught:
        image_network("inceptoin")
    assert str(caught.value) == (
        "there is no image network 'inceptoin' (did you mean 'inception'?); there are inception, efficientnet_lite0"
    )
    (tmp_path / weights.INCEPTION.file).write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"is not the pt_inception-2015-12-05-6726825d.pth that 'inception' needs: it"):
        image_network("inception", str(tmp_path))


@pytest.mark.parametrize("antialias", [True, False])
def test_images_of_any_shape_are_resized_as_by_pytorch(antialias, torch):
    images = jnp.asarray(levels(12)[:, :7] / 127.5 - 1)
    for size in (5, 16):
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(np.array(images)).permute(0, 3, 1, 2), (size, size), mode="bilinear", antialias=antialias
        )
        network = ImageNetwork("", "", {}, size, antialias, lambda held, x: (x, x))
        np.testing.assert_allclose(network.outputs({}, images)[0], theirs.permute(0, 2, 3, 1).numpy(), atol=1e-5)
    with pytest.raises(ValueError, match=r"takes images \(B, H, W, 3\), not \(2, 7, 12, 1\)"):
        network.outputs({}, images[..., :1])


@pytest.fixture
def inception_network(oracle, torch, tmp_path, monkeypatch):
    """An oracle with random weights, and what the interface makes of them in a file with the canonical name."""
    theirs = oracle.randomise(oracle.InceptionV3())
    torch.save(theirs.state_dict(), tmp_path / weights.INCEPTION.file)
    monkeypatch.setattr(weights, "INCEPTION", dataclasses.replace(weights.INCEPTION, sha256=""))
    network = image_network("inception", str(tmp_path))
    assert len(network.sha256) == 64
    return theirs, network


def test_inception_by_the_interface(inception_network, torch):
    theirs, network = inception_network
    network = dataclasses.replace(network, size=107)
    images = levels(150) / 127.5 - 1
    smaller = torch.nn.functional.interpolate(torch.from_numpy(images).permute(0, 3, 1, 2), (107, 107), mode="bilinear")
    expected = theirs(smaller.permute(0, 2, 3, 1))
    features, logits = jax.jit(network.outputs)(network.variables, images)
    # The Inception Score's own code leaves out the bias (torchmetrics: "logits_unbiased").
    expected = {"features": expected["features"], "logits": expected["features"] @ theirs.fc.weight.detach().T}
    compare({"features": features, "logits": logits}, expected, relu=False)


def test_inceptions_features_are_pytorch_fids(inception_network, oracle, torch, monkeypatch):
    """Its own resize, range, blocks and pooling, around torchvision's layers or, without it, the oracle's."""
    if importlib.util.find_spec("torchvision") is None:
        monkeypatch.setitem(sys.modules, "torchvision", oracle.torchvision())
    fid = pytest.importorskip("pytorch_fid.inception")
    theirs, network = inception_network
    monkeypatch.setattr(fid, "load_state_dict_from_url", lambda *_, **__: theirs.state_dict())
    small = levels(64, 1)
    (expected,) = fid.InceptionV3().eval()(torch.from_numpy(small / 255).permute(0, 3, 1, 2))
    features, _ = jax.jit(network.outputs)(network.variables, small / 127.5 - 1)
    compare({"features": features}, {"features": expected.flatten(1)}, relu=False)


def test_efficientnet_by_the_interface(lite0_file):
    network = image_network("efficientnet_lite0")
    assert network.sha256.startswith("57934424")
    network = dataclasses.replace(network, size=64)
    images = jnp.asarray(levels(96, 1) / 127.5 - 1)

    def total(x):
        features, logits = network.outputs(network.variables, x)
        return jnp.sum(features**2), (features, logits)

    gradient, (features, logits) = jax.jit(jax.grad(total, has_aux=True))(images)
    assert (features.shape, logits.shape) == ((1, 1280), (1, 1000))
    assert np.isfinite(gradient).all()
    assert float(jnp.abs(gradient).max()) > 0
    small = jax.image.resize(levels(96, 1), (1, 64, 64, 3), "linear")
    direct, _ = jax.jit(efficientnet.EfficientNetLite0().apply)(network.variables, small)
    np.testing.assert_allclose(features, direct, atol=1e-4)
