"""The frozen networks for whole images: parity with PyTorch at every block, their files, and resizing."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.errors import UserError
from faceattr_jax.pretrained import efficientnet, inception, weights
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


def test_efficientnet_is_the_oracles_at_its_own_weights(oracle, torch, lite0_file):
    theirs = oracle.EfficientNetLite0().eval()
    theirs.load_state_dict(torch.load(lite0_file, weights_only=True))
    images = levels(64)
    found = outputs(efficientnet.EfficientNetLite0(), efficientnet.read(lite0_file), images)
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
    """Of neither pytorch-fid nor torchvision: the one takes its layers from the other, which is not installed here."""
    theirs = oracle.randomise(oracle.InceptionV3())
    torch.save(theirs.state_dict(), tmp_path / "net.pth", _use_new_zipfile_serialization=False)
    images = levels(107) / 127.5 - 1  # the last map is 2x2: pooling there is more than a copy
    found = outputs(inception.InceptionV3(), inception.read(tmp_path / "net.pth"), images)
    compare(named(found), theirs(torch.from_numpy(images)), relu=False)
