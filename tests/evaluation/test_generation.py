"""New faces on pictures whose every pixel is known; R2 against another way to compute it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.data.images import to_float
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import generation, metrics, report

N = 24


@pytest.mark.parametrize("columns", [4, 60])
def test_held_out_r2_is_the_normal_equations(columns):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, columns)) + 3
    y = x[:, :2] @ rng.normal(size=(2, 3)) + rng.normal(size=(80, 3)) - 5
    first, held_out = (x[:40], y[:40]), (x[40:], y[40:])
    unit = np.mean(np.linalg.svd(first[0] - first[0].mean(0), compute_uv=False) ** 2)

    def fitted(inputs, targets, penalty, at):
        """Ridge regression with a free, unpunished intercept."""
        centred = inputs - inputs.mean(0)
        gram = centred.T @ centred + penalty * np.eye(columns)
        return targets.mean(0) + (at - inputs.mean(0)) @ np.linalg.solve(gram, centred.T @ (targets - targets.mean(0)))

    def left_out(penalty):
        """Leave-one-out with the centre of all: what the leverages' formula stands for, refitted one by one."""
        inputs, targets = (part - part.mean(0) for part in first)
        errors = []
        for i in range(40):
            rows = np.arange(40) != i
            ones = np.column_stack([inputs, np.ones(40)])
            gram = ones[rows].T @ ones[rows] + penalty * np.diag([1.0] * columns + [0.0])
            weights = np.linalg.solve(gram, ones[rows].T @ targets[rows])
            errors.append(targets[i] - ones[i] @ weights)
        return np.sum(np.square(errors))

    penalty = min((unit * p for p in metrics.PENALTIES), key=left_out)
    residual = held_out[1] - fitted(*first, penalty, held_out[0])
    expected = np.mean(1 - np.sum(residual**2, 0) / np.sum((held_out[1] - held_out[1].mean(0)) ** 2, 0))
    np.testing.assert_allclose(metrics.held_out_r2(x, y), expected, rtol=1e-6)


def test_held_out_r2_of_inputs_that_say_nothing():
    y = np.random.default_rng(0).normal(size=(200, 2))
    assert -0.05 < metrics.held_out_r2(np.ones((200, 3)), y) <= 0
    assert metrics.held_out_r2(y, y) == pytest.approx(1, abs=1e-5)


def test_deviations_are_those_from_the_mean_of_a_kind():
    pictures = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    kind, counts = np.array([0, 1, 0, 2, 1, 0, 3]), np.array([3, 2, 1, 1])
    found = generation.Deviations(kind, counts)
    found.add(pictures[:4], np.arange(4))
    found.add(pictures[4:], np.arange(4, 7))
    expected = sum(np.sum((pictures[kind == k] - pictures[kind == k].mean(0)) ** 2) for k in range(4))
    np.testing.assert_allclose(found.total, expected, rtol=1e-12)


class Painter:
    """Paints the attributes asked for; two z move the level of rows 10 to 15, as far as `depth` lets them."""

    def __init__(self, fake, depth=20.0, wrong=""):
        self.attributes, self.fake, self.depth, self.wrong = fake.NAMES, fake, depth, wrong

    def draw_latents(self, keys):
        return jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)

    def generate(self, keys, labels):
        faces = np.full((len(labels), 16, 16, 3), 100.0)
        for j, name in enumerate(self.attributes):
            level = np.where(np.asarray(labels)[:, j] != (name == self.wrong), 200, self.fake.OFF)
            faces[:, *self.fake.square(j)] = level[:, None, None, None]
        z = np.clip(self.depth * np.asarray(self.draw_latents(keys)), -80, 80)
        faces[:, 10:13] += z[:, :1, None, None]
        faces[:, 13:16] += z[:, 1:, None, None]
        return jnp.asarray(faces / 127.5 - 1, jnp.float32)


class Replay(Painter):
    """The faces of the source again, in their order."""

    def generate(self, keys, labels):
        start = getattr(self, "next", 0)
        self.next = start + len(labels)
        return to_float(jnp.asarray(self.fake.Source().images(np.arange(start, self.next) % N)))


def squares(images):
    """An embedder: the mean of each row of pixels."""
    return jnp.mean(images, axis=(2, 3))


def evaluated(fake, generators, **options):
    judge, source = fake.Judge(errs=[0, 1]), fake.Source(count=2 * N)
    options = {"batch_size": 8, "probes": 200} | options
    return generation.evaluate_generators(generators, judge, {"rows": squares}, source, np.arange(N), **options)


def test_scores_of_generators_that_are_known(fake):
    generators = {
        "model": Painter(fake),
        "deaf": Painter(fake, depth=0.0, wrong="Eyeglasses"),
        "replay": Replay(fake),
    }
    found = evaluated(fake, generators, others=np.arange(N, 2 * N))
    rows = found["generators"]
    assert list(rows) == ["data", *generators]
    # The judge errs on Male of the faces whose index, in the first row, is 0 or 1: no painted one's is.
    assert rows["data"]["attributes"]["Male"]["accuracy"] == pytest.approx(22 / 24)
    assert rows["replay"]["accuracy"] == rows["data"]["accuracy"] == pytest.approx((3 + 22 / 24) / 4)
    assert rows["model"]["accuracy"] == rows["model"]["balanced_accuracy"] == 1
    assert rows["deaf"]["attributes"]["Eyeglasses"]["accuracy"] == 0
    assert rows["deaf"]["accuracy"] == pytest.approx(3 / 4)
    assert rows["replay"]["frechet"]["rows"] == pytest.approx(0, abs=1e-9)
    # As many faces with the same squares, and other indices.
    assert 0 < rows["data"]["frechet"]["rows"] < rows["model"]["frechet"]["rows"]
    assert rows["data"]["variance_ratio"] == rows["replay"]["variance_ratio"] == 1
    assert rows["deaf"]["variance_ratio"] == 0
    assert rows["data"]["latent_r2"] is None
    assert rows["model"]["latent_r2"] > 0.99
    assert rows["deaf"]["latent_r2"] < 0.01

    summary = generation.summarize(found)
    assert summary["generated_accuracy"] == 1
    assert summary["frechet_rows"] == rows["model"]["frechet"]["rows"]
    assert summary["deaf_generated_variance_ratio"] == 0
    assert summary["data_frechet_rows"] == rows["data"]["frechet"]["rows"]
    json.dumps(found, allow_nan=False)


def test_variance_at_fixed_labels_by_hand(fake):
    """What moves in the source's faces of equal labels is the index in their first row; in the painted ones, z."""
    model = Painter(fake)
    found = evaluated(fake, {"model": model})
    labels = fake.Source().table.labels[:N]
    assert found["same_labels"] == N
    assert found["region_share"] == 1
    key = jax.random.fold_in(jax.random.key(0), 0)
    painted = np.asarray(model.generate(jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(N)), labels))
    pictures = {"data": fake.Source().images(np.arange(N)), "model": np.round((painted + 1) * 127.5)}

    def within(faces):
        groups = [faces[(labels == row).all(axis=1)].astype(float) for row in np.unique(labels, axis=0)]
        return sum(np.sum((group - group.mean(axis=0)) ** 2) for group in groups)

    expected = within(pictures["model"]) / within(pictures["data"])
    assert found["generators"]["model"]["variance_ratio"] == pytest.approx(expected)


def test_the_batch_size_does_not_matter(fake):
    whole, parts = (
        evaluated(fake, {"model": Painter(fake)}, batch_size=size, others=np.arange(N, 2 * N))["generators"]
        for size in (24, 5)
    )
    for name in ("data", "model"):
        assert whole[name]["attributes"] == parts[name]["attributes"]
        assert whole[name]["variance_ratio"] == parts[name]["variance_ratio"]
        np.testing.assert_allclose(whole[name]["frechet"]["rows"], parts[name]["frechet"]["rows"], rtol=1e-6)
    np.testing.assert_allclose(whole["model"]["latent_r2"], parts["model"]["latent_r2"], rtol=1e-6)


def test_what_cannot_be_measured_is_none(fake):
    found = evaluated(fake, {"model": Painter(fake)})
    assert found["generators"]["data"]["frechet"] == {"rows": None}
    judge, source = fake.Judge(), fake.Source()
    alone = generation.evaluate_generators(
        {"model": Painter(fake)}, judge, {"rows": squares}, source, np.arange(1), probes=64
    )
    assert alone["generators"]["model"]["frechet"] == {"rows": None}
    assert alone["generators"]["model"]["variance_ratio"] is None
    assert alone["same_labels"] == 0
    json.dumps(alone, allow_nan=False)
    assert any("| - |" in table for table in report._generation_tables(alone))


def test_bad_generators_are_refused(fake):
    class Broken(Painter):
        def generate(self, keys, labels):
            return super().generate(keys, labels) * jnp.nan

    with pytest.raises(UserError, match="'model' draws pixels that are not finite"):
        evaluated(fake, {"model": Broken(fake)})
    other = Painter(fake)
    other.attributes = ("Male", "Goatee")
    with pytest.raises(UserError, match="Goatee"):
        evaluated(fake, {"model": other})


def test_tables_and_grid(fake):
    found = evaluated(fake, {"model": Painter(fake), "untrained": Painter(fake, depth=0.0)})
    numbers, each, counted = report._generation_tables(found)
    assert "| model | 1.000 | 1.000 |" in numbers
    assert "frechet_rows" in numbers
    assert len({line.count("|") for line in each.splitlines()}) == 1
    assert each.count("\n") == 1 + len(fake.NAMES)
    assert "24 faces, 24 of which share their labels" in counted

    labels = np.array([[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1], [1, 0, 1, 0]], np.float32)
    pictures, names = generation.faces_grid(Painter(fake), labels, rows=2, columns=3)
    assert pictures.shape == (2, 3, 16, 16, 3)
    assert names == ["Male", "none"]
    # One z down a column: rows differ in Male's square alone.
    assert set(np.nonzero((pictures[0] != pictures[1]).any(axis=(0, 3)))[1]) == {12, 13, 14, 15}
    assert (pictures[:, 0] != pictures[:, 1]).any()
