"""scikit-image is the oracle of PSNR and SSIM; the counts are small enough to do by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.data.images import to_float
from faceattr_jax.evaluation import metrics
from faceattr_jax.evaluation.features import Moments

pytestmark = pytest.mark.usefixtures("strict_promotion")


def pictures(kind: str, size: tuple[int, int] = (40, 33)) -> tuple[np.ndarray, np.ndarray]:
    """Two (3, H, W, 3) uint8 batches that differ in the way `kind` says."""
    rng = np.random.default_rng(0)
    if kind == "noise":
        return tuple(rng.integers(0, 256, (2, 3, *size, 3), dtype=np.uint8))  # type: ignore[return-value]
    if kind == "smooth":
        y, x = np.mgrid[: size[0], : size[1]] / max(size)
        waves = [[np.sin(6 * x + p + c) * np.cos(5 * y * (c + 1)) for c in range(3)] for p in range(3)]
        a = np.moveaxis(np.array(waves), 1, -1) * 100 + 128
        return a.astype(np.uint8), np.clip(a + rng.normal(0, 4, a.shape), 0, 255).astype(np.uint8)
    assert kind == "flat"
    a = np.full((3, *size, 3), 255, np.uint8)
    b = a.copy()
    b[:, 12, 17] = 251
    return a, b


@pytest.mark.parametrize("kind", ["noise", "smooth", "flat"])
@pytest.mark.parametrize("as_float", [False, True])
def test_psnr_and_ssim_equal_scikit_image(kind: str, as_float: bool) -> None:
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is the oracle of PSNR and SSIM")
    a, b = pictures(kind)
    inputs = [to_float(jnp.asarray(x)) if as_float else jnp.asarray(x) for x in (a, b)]
    ssim = [
        skimage.structural_similarity(
            p,
            q,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=-1,
        )
        for p, q in zip(a, b, strict=True)
    ]
    psnr = [skimage.peak_signal_noise_ratio(p, q, data_range=255) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(jax.jit(metrics.ssim)(*inputs), ssim, atol=1e-5)
    np.testing.assert_allclose(jax.jit(metrics.psnr)(*inputs), psnr, rtol=1e-5)


def test_psnr_of_one_level_everywhere_and_of_equal_images() -> None:
    a = jnp.full((1, 12, 12, 3), 100, jnp.uint8)
    np.testing.assert_allclose(metrics.psnr(a, a + jnp.uint8(1)), 20 * np.log10(255), rtol=1e-6)
    assert np.isposinf(metrics.psnr(a, a)).all()
    np.testing.assert_allclose(metrics.ssim(a, a), 1, atol=1e-6)
    np.testing.assert_allclose(metrics.l1(a, a + jnp.uint8(3)), 3)


def test_floats_are_rounded_to_8_bits_and_clipped() -> None:
    # A fifth of a level is not a difference, two levels are.
    x = to_float(jnp.full((1, 11, 11, 3), 7, jnp.uint8))
    assert float(metrics.l1(x, x + 0.2 / 127.5)[0]) == 0
    assert float(metrics.l1(x, x + 2 / 127.5)[0]) == 2
    assert metrics.levels(jnp.array([-3.0, 3.0])).tolist() == [0, 255]


def test_shapes_are_checked() -> None:
    small = jnp.zeros((1, 10, 20, 3), jnp.uint8)
    with pytest.raises(ValueError, match="11x11"):
        metrics.ssim(small, small)
    with pytest.raises(ValueError, match="equal"):
        metrics.psnr(small, small[:, :5])
    with pytest.raises(ValueError, match="equal"):
        metrics.confusion(jnp.zeros((2, 3)), jnp.zeros((2, 4)))
    with pytest.raises(ValueError, match="equal"):
        metrics.attribute_error(jnp.zeros((2, 3)), jnp.zeros((2, 4)))


def test_counts_by_hand() -> None:
    # Attribute 0: TP FP TN FN = 2 1 1 1; attribute 1: no positive label.
    predictions = jnp.array([[1, 0], [1, 0], [1, 1], [0, 0], [0, 1]])
    labels = jnp.array([[1, 0], [1, 0], [0, 0], [0, 0], [1, 0]])
    counts = metrics.confusion(predictions, labels)
    assert [c.tolist() for c in counts] == [[2, 0], [1, 2], [1, 3], [1, 0]]
    np.testing.assert_allclose(metrics.accuracy(counts), [3 / 5, 3 / 5], rtol=1e-6)
    np.testing.assert_allclose(metrics.balanced_accuracy(counts), [(2 / 3 + 1 / 2) / 2, np.nan], rtol=1e-6)
    np.testing.assert_allclose(metrics.majority(counts), [3 / 5, 1], rtol=1e-6)


def test_attribute_error_by_hand_and_in_batches() -> None:
    # Right, undecided, opposite, beyond the target; of labels in any of the types that sources hand out.
    predictions, wanted = jnp.array([[1.0, 0.0, 1.0, -3.0]]), np.array([[1, 1, 0, 0]])
    for kind in (bool, np.uint8, np.float32):
        np.testing.assert_array_equal(
            metrics.attribute_error(predictions, jnp.asarray(wanted.astype(kind))), [[0, 1, 4, 4]]
        )
    rng = np.random.default_rng(0)
    answers, wanted = rng.normal(size=(50, 3)).astype(np.float32), rng.integers(0, 2, (50, 3))
    total = Moments()
    for start in range(0, 50, 16):
        batch = slice(start, start + 16)
        total.add(metrics.attribute_error(jnp.asarray(answers[batch]), jnp.asarray(wanted[batch])))
    # The squares are float32, 1e-7 each; their mean is taken in float64.
    expected = [np.mean([(answers[i, k] - (1 if wanted[i, k] else -1)) ** 2 for i in range(50)]) for k in range(3)]
    np.testing.assert_allclose(total.mean, expected, rtol=1e-6)


def test_counts_add_up_over_padded_batches() -> None:
    rng = np.random.default_rng(1)
    predictions, labels = rng.integers(0, 2, (2, 10, 4))
    whole = metrics.confusion(jnp.asarray(predictions), jnp.asarray(labels))
    first = metrics.confusion(jnp.asarray(predictions[:6]), jnp.asarray(labels[:6]))
    padded = metrics.confusion(
        jnp.asarray(predictions[[6, 7, 8, 9, 9, 9]]),
        jnp.asarray(labels[[6, 7, 8, 9, 9, 9]]),
        valid=jnp.arange(6) < 4,
    )
    total = jax.tree.map(jnp.add, first, padded)
    jax.tree.map(np.testing.assert_array_equal, total, whole)


def test_luma_and_gradient_energy_by_hand() -> None:
    a, b = pictures("smooth")
    y = a.astype(np.float64) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(metrics.luma(jnp.asarray(a))[..., 0], y / 127.5 - 1, atol=1e-5)
    x = a.astype(np.float64)
    down = [np.mean([(p[i + 1] - p[i]) ** 2 for i in range(len(p) - 1)]) for p in x]
    right = [np.mean([(p[:, i + 1] - p[:, i]) ** 2 for i in range(p.shape[1] - 1)]) for p in x]
    np.testing.assert_allclose(metrics.gradient_energy(jnp.asarray(a)), np.add(down, right), rtol=1e-5)
    assert np.all(metrics.gradient_energy(jnp.asarray(b)) > metrics.gradient_energy(jnp.asarray(a)))  # noise
    np.testing.assert_array_equal(metrics.gradient_energy(jnp.full((1, 5, 5, 3), 0.3)), 0)
