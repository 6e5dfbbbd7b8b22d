"""How good sets of pictures are by what a network reads in them: Frechet distances, KID, Inception Score, DFN.

Features and probabilities are (N, D) arrays of any float, one row a picture, on the host or over the devices of this
process; sums are in float64 on the host. Which network they come from decides what a number may be called: "FID" is
the Frechet distance of the canonical Inception-v3's pool3 features, and of no others.

`Moments` and `InceptionScore` hold sums alone, whatever the number of pictures. KID draws subsets of rows and has to
be given them all; DFN keeps its ratio of every picture, 8 bytes each.
"""

from typing import Any, Self

import jax
import numpy as np

from faceattr_jax.errors import UserError

Rows = np.ndarray | jax.Array


class Moments:
    """Count, mean (D,) and covariance (D, D) of rows that come in batches; those of parts add up.

    scatter: sum of outer products of the deviations from the mean. Deviations from a batch's own mean are added and
    means reconciled (Chan, Golub and LeVeque 1983), so that a mean far from 0 costs no digits.
    """

    def __init__(self, count: int = 0, mean: Any = 0.0, scatter: Any = 0.0) -> None:
        self.count, self.mean, self.scatter = count, mean, scatter

    def add(self, rows: Rows) -> Self:
        """rows: (B, D), B at least 1. Raises UserError where they are not finite."""
        x = np.asarray(rows, np.float64)
        mean = x.mean(axis=0)
        if not np.isfinite(mean).all():
            raise UserError("features are not finite; look for broken pictures or weights")
        x = x - mean
        total = self + Moments(len(x), mean, x.T @ x)
        self.count, self.mean, self.scatter = total.count, total.mean, total.scatter
        return self

    def __add__(self, other: "Moments") -> "Moments":
        """Of both sets together."""
        count, step = self.count + other.count, other.mean - self.mean
        if not count:
            return Moments()
        scatter = self.scatter + other.scatter + np.multiply.outer(step, step) * (self.count * other.count / count)
        return Moments(count, self.mean + step * (other.count / count), scatter)

    @property
    def covariance(self) -> np.ndarray:
        """Over count - 1."""
        return self.scatter / (self.count - 1)

    def project(self, axes: np.ndarray) -> "Moments":
        """Of rows @ axes, axes (D, k)."""
        return Moments(self.count, self.mean @ axes, axes.T @ self.scatter @ axes)


def require(metric: str, dimensions: int, *sets: Moments) -> None:
    """Raise UserError unless every set has rows for a covariance of full rank: one more than it has dimensions."""
    fewest = min(moments.count for moments in sets)
    if fewest <= dimensions:
        raise UserError(f"{metric} needs {dimensions + 1} pictures of each kind or more, of one there are {fewest}")


def frechet(a: Moments, b: Moments) -> float:
    """Frechet distance of Gaussians, of two rows at least.

    |difference of means|^2 + tr(A + B - 2 (A B)^(1/2)). With A = R^T R and B = S^T S, the trace of the root is the
    sum of the singular values of R S^T: no root of a product that may be singular, so that sets with fewer rows than
    dimensions have a distance, too. It grows as rows get fewer: `require` a full rank, or compare equal counts.
    """
    require("a Frechet distance", 1, a, b)
    root = np.linalg.svd(_root(a) @ _root(b).T, compute_uv=False).sum()
    distance = np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance) + np.trace(b.covariance) - 2 * root
    return float(max(distance, 0))  # of equal sets rounding may leave less


def frechet_pca(real: Moments, other: Moments, components: int = 1024, fitted: Moments | None = None) -> float:
    """Frechet distance in the first principal components, which need no rows: a basis of the covariance will do.

    fitted: what the components are those of, the real pictures by default; the attribute-inverse paper, whose FID
    this is of 2048 features, does not say. Of all pictures it is `real + other`. Raises UserError for too few.
    """
    require(f"a Frechet distance in {components} principal components", components, real, other)
    if components > len(real.mean):
        raise UserError(f"{components} principal components need as many features, there are {len(real.mean)}")
    fitted = real if fitted is None else fitted
    axes = np.linalg.eigh(fitted.covariance)[1][:, ::-1][:, :components]
    return frechet(real.project(axes), other.project(axes))


def kid(
    real: np.ndarray, other: np.ndarray, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Kernel Inception Distance (Binkowski et al. 2018) of features (N, D) and (M, D).

    Unbiased squared MMD with the kernel (x y / D + 1)^3, of `size` rows of each drawn without replacement; its mean
    and its standard deviation over `subsets`. Near 0, to either side, where both sets are of one distribution.
    """
    if min(len(real), len(other)) < size:
        raise UserError(f"KID needs {size} pictures of each kind or more, there are {len(real)} and {len(other)}")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        x, y = (np.asarray(rows[rng.permutation(len(rows))[:size]], np.float64) for rows in (real, other))
        within = sum((k.sum() - k.trace()) / (size * (size - 1)) for k in (_kernel(x, x), _kernel(y, y)))
        values.append(within - 2 * _kernel(x, y).mean())
    return float(np.mean(values)), float(np.std(values))


class InceptionScore:
    """exp of the mean KL divergence of p(class | picture) from p(class) (Salimans et al. 2016), over equal parts.

    images: how many there are going to be; they are cut into `splits` parts in their order. Raises UserError where a
    part gets fewer than two, which score 1 whatever they show.
    """

    def __init__(self, images: int, splits: int = 10) -> None:
        if images < 2 * splits:
            raise UserError(f"an Inception Score over {splits} parts needs {2 * splits} pictures, there are {images}")
        self.images, self.splits = images, splits
        self.counts, self.totals, self.information = np.zeros(splits), np.zeros(()), np.zeros(splits)

    def add(self, probabilities: Rows, places: np.ndarray) -> None:
        """Class probabilities (B, K) of the pictures at `places` (B,), 0 to images - 1, each once."""
        p = np.asarray(probabilities, np.float64)
        if not np.allclose(p.sum(axis=1), 1, atol=1e-3):
            raise ValueError("an Inception Score takes probabilities, whose rows sum to 1")
        part = (np.arange(self.splits)[:, None] == places * self.splits // self.images).astype(np.float64)
        self.counts += part.sum(axis=1)
        self.totals = self.totals + part @ p
        self.information += part @ _plogp(p)

    def score(self) -> tuple[float, float]:
        """Mean and standard deviation (over the number of parts) of the parts' scores, once all were added."""
        if self.counts.sum() != self.images:
            raise ValueError(f"of {self.images} pictures {int(self.counts.sum())} were added")
        marginal = self.totals / self.counts[:, None]
        scores = np.exp(self.information / self.counts - _plogp(marginal))
        return float(scores.mean()), float(scores.std())


def norm_ratios(edited: Rows, originals: Rows) -> np.ndarray:
    """|phi(G(x))| / |phi(x)| (N,), the attribute-inverse paper's equation 8, of features (N, D) each.

    phi: what a recogniser trained with softmax reads, not scaled to unit length. Raises UserError where it is.
    """
    above, below = (np.linalg.norm(np.asarray(x, np.float64), axis=1) for x in (edited, originals))
    if np.allclose(below, 1, rtol=0, atol=1e-4):
        raise UserError("DFN needs an embedder whose vectors have lengths of their own, this one's are all 1 long")
    if not below.all():
        raise UserError("DFN is not defined for a picture whose features are all 0; take another embedder")
    return above / below


def dfn(ratios: np.ndarray) -> dict[str, float]:
    """Discrepancy of feature norm: mean and interquartile range of `norm_ratios`, and the box of the paper's figure 3.

    Percentiles are interpolated linearly. All 1, range 0, for pictures that were not edited.
    """
    low, median, high = np.percentile(ratios, [25, 50, 75])
    box = {"quartile1": low, "median": median, "quartile3": high}
    return {name: float(value) for name, value in {"mean": ratios.mean(), "iqr": high - low, **box}.items()}


def _root(moments: Moments) -> np.ndarray:
    """R (rank, D) such that R^T R is the covariance."""
    values, vectors = np.linalg.eigh(moments.covariance)
    # What rounding makes of eigenvalues that are 0 would grow to half the digits under the root.
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return (vectors[:, kept] * np.sqrt(values[kept])).T


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _plogp(p: np.ndarray) -> np.ndarray:
    """sum p log p over the last axis, 0 where p is."""
    return np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1)
