"""What ELEGANT does with faces and references once it is trained."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.checks import quick
from tests.methods.tiny_elegant import N, pictures, tiny, variables_of


def test_a_swap_with_the_image_itself_or_of_nothing_is_the_reconstruction():
    method = tiny()
    variables, (images, references) = variables_of(method), pictures()
    swap = quick(method.swap)
    reconstruction = quick(method.reconstruct)(variables, images)
    np.testing.assert_allclose(swap(variables, images, images, jnp.ones(N)), reconstruction, atol=1e-6)
    np.testing.assert_allclose(swap(variables, images, references, jnp.zeros(N)), reconstruction, atol=1e-6)
    assert np.abs(swap(variables, images, references, jnp.ones(N)) - reconstruction).max() > 0.01


def test_swap_from_several_references_and_for_each_image():
    method = tiny()
    variables, (images, *references) = variables_of(method), pictures(2)
    encode, decode = quick(method.encode), quick(method.decode)
    features = encode(variables, images)
    codes = [encode(variables, r)[-1] for r in references]
    first, _, last = method.parts
    expected = np.where(first, codes[0], np.where(last, codes[1], features[-1]))
    expected = decode(variables, images, features, expected)
    swap = quick(method.swap)
    mask = jnp.array([[1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(swap(variables, images, jnp.stack(references), mask), expected, atol=1e-5)
    each = jnp.broadcast_to(mask[:, None], (2, 2, N))
    np.testing.assert_allclose(swap(variables, images, jnp.stack(references), each), expected, atol=1e-5)
    # The first image takes part 0, the second part 2.
    alone = swap(variables, images, references[0], mask)
    for row in range(2):
        every = swap(variables, images, references[0], mask[row])
        np.testing.assert_allclose(alone[row], every[row], atol=1e-5)


def test_linear_goes_from_the_reconstruction_to_the_swap():
    method = tiny()
    variables, (images, references) = variables_of(method), pictures()
    mask = jnp.array([0, 1, 0])
    frames = quick(method.linear)(variables, images, references, mask, jnp.array([0.0, 0.25, 1.0]))
    assert frames.shape == (3, *images.shape)
    np.testing.assert_allclose(frames[0], quick(method.reconstruct)(variables, images), atol=1e-5)
    np.testing.assert_allclose(frames[2], quick(method.swap)(variables, images, references, mask), atol=1e-5)
    features, others = (quick(method.encode)(variables, x) for x in (images, references))
    between = np.where(method.parts[1], 0.75 * features[-1] + 0.25 * others[-1], features[-1])
    expected = quick(method.decode)(variables, images, features, between)
    np.testing.assert_allclose(frames[1], expected, atol=1e-5)


def test_matrix_of_references_is_bilinear_between_four_codes():
    method = tiny()
    variables, (images, *references) = variables_of(method), pictures(3)
    mask = jnp.array([0, 1, 0])
    places = jnp.array([0.0, 0.5, 1.0])
    down = jnp.array([0.0, 1.0])
    grid = quick(method.matrix_of_references)(variables, images, jnp.stack(references), mask, down, places)
    assert grid.shape == (2, 3, *images.shape)
    swaps = [quick(method.swap)(variables, images, r, mask) for r in references]
    corners = [quick(method.reconstruct)(variables, images), *swaps]
    for (row, column), corner in zip([(0, 0), (0, 2), (1, 0), (1, 2)], corners, strict=True):
        np.testing.assert_allclose(grid[row, column], corner, atol=1e-5)
    features = quick(method.encode)(variables, images)
    lower = [quick(method.encode)(variables, r)[-1] for r in references[1:]]
    code = np.where(method.parts[1], (lower[0] + lower[1]) / 2, features[-1])
    np.testing.assert_allclose(grid[1, 1], quick(method.decode)(variables, images, features, code), atol=1e-5)


def test_matrix_of_attributes():
    method = tiny()
    variables, (images, *references) = variables_of(method), pictures(2)
    masks = jnp.array([[1, 0, 0], [0, 0, 1]])
    places = jnp.array([0.0, 1.0])
    stacked = jnp.stack(references)
    grid = quick(method.matrix_of_attributes)(variables, images, stacked, masks, places, places)
    assert grid.shape == (2, 2, *images.shape)
    swap = quick(method.swap)
    np.testing.assert_allclose(grid[0, 0], quick(method.reconstruct)(variables, images), atol=1e-5)
    np.testing.assert_allclose(grid[1, 0], swap(variables, images, references[0], masks[0]), atol=1e-5)
    np.testing.assert_allclose(grid[0, 1], swap(variables, images, references[1], masks[1]), atol=1e-5)
    np.testing.assert_allclose(grid[1, 1], swap(variables, images, stacked, masks), atol=1e-5)


def test_swap_is_pure_under_vmap_and_grad():
    method = tiny()
    variables, (images, references) = variables_of(method), pictures()
    mask = jnp.array([1, 0, 1])
    together = quick(method.swap)(variables, images, references, mask)

    def one(image, reference):
        return method.swap(variables, image[None], reference[None], mask)[0]

    np.testing.assert_allclose(quick(jax.vmap(one))(images, references), together, atol=1e-5)
    gradient = quick(jax.grad(lambda r: jnp.sum(method.swap(variables, images, r, mask) ** 2)))(references)
    assert np.isfinite(gradient).all()
    assert float(jnp.abs(gradient).max()) > 0
