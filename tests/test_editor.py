"""The library's front door."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import faceattr_jax as fj
from faceattr_jax.errors import UserError
from faceattr_jax.methods.base import EditRequest
from tests import runs
from tests.checks import quick


@pytest.fixture(scope="module")
def editor(trained):
    return fj.load(trained / "attgan")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def test_edit(editor, images):
    edited = editor.edit(images, {"Eyeglasses": 1})
    assert edited.shape == images.shape
    assert edited.dtype == jnp.float32
    assert float(jnp.abs(edited).max()) <= 1
    single = editor.edit(images[0], {"Eyeglasses": 1})
    assert single.shape == images.shape[1:]
    np.testing.assert_allclose(single, edited[0], atol=1e-5)
    floats = editor.edit(images / np.float32(127.5) - 1, {"Eyeglasses": 1})
    np.testing.assert_allclose(floats, edited, atol=1e-5)


def test_edit_follows_source_and_strength(editor, images):
    own = np.zeros((5, 3))
    by_hand = quick(editor.method.edit)(
        editor.variables,
        jnp.asarray(images / 127.5 - 1, jnp.float32),
        EditRequest(target=jnp.asarray([[0.0, 1.0, 0.0]] * 5), source=jnp.zeros((5, 3)), strength=1.5),
    )
    np.testing.assert_allclose(editor.edit(images, {"Eyeglasses": 1}, strength=1.5, source=own), by_hand, atol=1e-5)
    np.testing.assert_allclose(
        editor.edit(images, {"Eyeglasses": 1}, strength=0, source=own), editor.reconstruct(images, own), atol=1e-5
    )
    read = np.asarray(editor.classify(images)) > 0.5
    np.testing.assert_allclose(editor.reconstruct(images), editor.reconstruct(images, read), atol=1e-6)
    # Read or not, what is asked for goes on beyond strength 1; what is said of the faces is believed.
    value = int(read[0, 1])
    opposite = read.copy()
    opposite[:, 1] = 1 - value
    asked = editor.edit(images[:1], {"Eyeglasses": value}, strength=2)
    np.testing.assert_allclose(
        asked, editor.edit(images[:1], {"Eyeglasses": value}, strength=2, source=opposite[:1]), atol=1e-5
    )
    told = editor.edit(images[:1], {"Eyeglasses": value}, strength=2, source=read[:1])
    np.testing.assert_allclose(told, editor.reconstruct(images[:1]), atol=1e-5)


def test_slide(editor, images):
    own = np.array([[0, 1, 0]] * 5)
    slid = editor.slide(images, "Eyeglasses", (0.0, 1.0), source=own)
    assert slid.shape == (2, *images.shape)
    np.testing.assert_allclose(slid[0], editor.reconstruct(images, own), atol=1e-5)
    np.testing.assert_allclose(slid[1], editor.edit(images, {"Eyeglasses": 0}, source=own), atol=1e-5)


def test_mistakes(editor, images, trained):
    with pytest.raises(UserError, match=r"did you mean 'Eyeglasses'\?"):
        editor.edit(images, {"Eyeglases": 1})
    with pytest.raises(UserError, match=r"takes \(B, 32, 32, 3\), cut with the crop preset 'none'"):
        editor.edit(images[:, :16], {"Eyeglasses": 1})
    judge = fj.load(trained / "judge")
    assert judge.classify(images).shape == (5, 3)
    with pytest.raises(UserError, match="a classifier model cannot edit; it can classify"):
        judge.edit(images, {"Eyeglasses": 1})


def test_functions_go_into_other_code(editor, images):
    """The attribute direction by somebody else's gradient, through the pure method and the bare networks."""
    x = jnp.asarray(images / 127.5 - 1, jnp.float32)

    @quick
    @jax.grad
    def direction(strength):
        request = EditRequest(target=jnp.ones((5, 3)), source=jnp.zeros((5, 3)), strength=strength)
        return jnp.mean(editor.method.edit(editor.variables, x, request))

    assert np.isfinite(direction(0.5))
    network = editor.method.networks["discriminator"]
    (values, logits), _ = quick(network.init_with_output)(jax.random.key(0), x)
    assert values.shape == (5,)
    assert logits.shape == (5, len(runs.ATTRIBUTES))


def test_import_is_light():
    """The package and its networks need jax, flax and numpy; ml_collections and Orbax come with what needs them."""
    code = (
        "import sys; import faceattr_jax, faceattr_jax.nn.conv, faceattr_jax.nn.blocks, faceattr_jax.data.synthetic; "
        "heavy = {'tensorflow', 'torch', 'orbax', 'tensorflow_datasets', 'ml_collections', 'clu', 'tqdm'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
