"""The face recogniser: its shapes, its loss by hand, what it changes, and that it learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from faceattr_jax import config as configs
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation.run import evaluate
from faceattr_jax.methods.base import Ctx, build
from faceattr_jax.pretrained import face_network
from faceattr_jax.training import distributed, loop
from faceattr_jax.training.state import init_state
from tests import checks, runs
from tests.checks import QUICK, quick

SIZE = 8
TINY = {
    "image_size": str(SIZE), "batch_size": "8", "shift": "0", "model.widths": "(2, 4)", "model.embedding": "6",
    "model.people": "5", "model.dropout": "0.0",
}  # fmt: skip
CTX = Ctx(jnp.int32(0), jnp.int32(0), jnp.int32(0), jax.random.key(5))
DATA = "synthetic:60"  # 10 people to train on, one to validate with: 12 in all, 5 pictures each


@functools.cache
def tiny(**overrides: str):
    return build(configs.load("recognizer_64", {**TINY, **overrides}))


def batch(count: int = 8):
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8),
        "labels": np.zeros((count, 0), np.float32),
        "identity": np.arange(count, dtype=np.int32) // 2 % 5,
    }


@pytest.fixture(scope="module")
def executor():
    return checks.executor(tiny())


@pytest.mark.parametrize(("spec", "widths", "people"), [
    ("recognizer_64", (32, 64, 128, 256), 8192), ("recognizer_64:mini", (16, 32, 64, 128), 1943),
])  # fmt: skip
def test_every_layer(spec, widths, people):
    method = build(configs.load(spec))
    found = checks.layer_outputs(method.networks["embedder"], jnp.zeros((1, 64, 64, 3)))
    for i, width in enumerate(widths):
        for layer in ("conv", "norm"):
            for j in range(2):
                assert found[f"{layer}{i}_{j}/__call__"] == (64 >> i, 64 >> i, width)
    assert found["embedding/__call__"] == found["embedding_norm/__call__"] == found["__call__"] == (128,)
    params = jax.eval_shape(lambda: init_state(method, 0)).variables["params"]
    assert params["embedder"]["embedding"]["kernel"].shape == (4 * 4 * widths[-1], 128)
    assert params["people"]["directions"].shape == (people, 128)


def test_objective_by_hand():
    method = tiny(**{"loss.scale": "7.0", "loss.margin": "0.25"})
    variables = jax.device_get(checks.fresh(tiny()).variables)
    data = batch()
    images = jnp.asarray(data["images"] / 127.5 - 1, jnp.float32)
    out = quick(method.objective)(variables, {**data, "images": images}, {}, CTX)
    train = functools.partial(method.networks["embedder"].apply, train=True, mutable=["batch_stats"])
    own = {name: variables[name]["embedder"] for name in ("params", "batch_stats")}
    vectors, new = quick(train)(own, images)
    vectors = np.asarray(vectors, np.float64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    directions = np.asarray(variables["params"]["people"]["directions"], np.float64)
    cosines = vectors @ (directions / np.linalg.norm(directions, axis=1, keepdims=True)).T
    who = data["identity"]
    exponents = np.exp(7 * cosines)
    exponents[np.arange(8), who] = np.exp(7 * (cosines[np.arange(8), who] - 0.25))
    entropy = -np.log(exponents[np.arange(8), who] / exponents.sum(1)).mean()
    np.testing.assert_allclose(out.losses["recognizer"], entropy, rtol=1e-4)
    assert float(out.metrics["accuracy"]) == np.mean(cosines.argmax(1) == who)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), out.mutated, {
        "batch_stats/embedder": new["batch_stats"]
    })  # fmt: skip


def test_the_phase_trains_both_networks_and_moves_the_statistics(executor):
    before = jax.device_get(checks.fresh(tiny()))
    (phase,) = executor.stage.phases
    after, carry, _ = executor.run_phase(phase, checks.fresh(tiny()), [batch()], {}, 0)
    after = jax.device_get(after)
    assert carry == {}
    assert after.variables.keys() == before.variables.keys() == {"params", "batch_stats"}
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, before.variables, after.variables)))
    assert checks.changed(before, after) == {
        "params/embedder", "params/people", "batch_stats/embedder", "optimizer/recognizer",
    }  # fmt: skip


def test_host_dispatch_and_scan_give_the_same_numbers(executor):
    checks.executors_agree(executor, checks.executor(tiny(), scan=True), [batch()], iterations=2)


def test_gradients_agree_between_one_device_and_eight():
    found = checks.devices_agree(tiny(), batch(16), share=1e-4, least=1e-3, compiler_options=QUICK)
    assert found["recognize"]["recognizer"].keys() == {"embedder", "people"}


def test_batches_show_everybody_equally_often():
    identity = np.array([0] * 30 + [1] * 2 + [2] * 5)
    sampler = jax.jit(tiny().stages[0].sampler(jax.random.key(0), np.arange(100, 137), None, 4, identity=identity))
    rows = np.concatenate([np.asarray(sampler(draw, 0)) for draw in range(30)]) - 100
    people = identity[rows].reshape(-1, 2)
    assert np.array_equal(people[:, 0], people[:, 1])
    assert np.bincount(people[:, 0]).tolist() == [20, 20, 20]


def test_what_does_not_fit_is_said_before_anything_is_written(tmp_path, faces):
    def refused(says, data=DATA, **changes):
        with pytest.raises(UserError, match=says):
            loop.train(runs.recognizer(data, **changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    refused("model.people is 3, but the training split has 50; set model.people=50", "synthetic:300", model__people=3)
    refused("batch_size is 8; it should be a multiple of per_person, which is 3", "synthetic:300", per_person=3)
    refused("the split has 1 of them")  # to validate with
    refused("do not say who is on a picture", str(faces), crop="none")


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    """Four iterations on 50 people, in one piece and killed after three and resumed: two workdirs, two states."""
    config, folder, one = (
        runs.recognizer("synthetic:300", model__people=50),
        tmp_path_factory.mktemp("runs"),
        checks.one_device(),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "mesh", lambda: one)
        whole = loop.train(config, folder / "whole")
        with pytest.MonkeyPatch.context() as death:
            checks.kill_at(death, 3)
            with pytest.raises(checks.Killed):
                loop.train(config, folder / "parts")
        resumed = loop.train(config, folder / "parts")
    return folder, whole, resumed


def test_a_run_killed_and_resumed_ends_as_any_other(trained_run):
    folder, whole, resumed = trained_run
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(resumed))
    metrics = (folder / "whole" / "metrics.csv").read_text()
    assert metrics == (folder / "parts" / "metrics.csv").read_text()
    assert all(f"valid/{name}" in metrics for name in ("rank1", "verification", "auc"))


def test_evaluation_of_a_run(trained_run, tmp_path):
    found = evaluate(trained_run[0] / "whole", tmp_path, images=20)
    names = ("rank1", "verification", "auc")
    assert found.keys() == {*names, *(f"untrained_{name}" for name in names)}
    assert "| untrained |" in (tmp_path / "evaluation.md").read_text()
    assert '"people": "4, each with 2 pictures or more"' in (tmp_path / "evaluation.json").read_text()


def test_a_run_is_a_face_network(trained_run, tmp_path):
    folder = trained_run[0]
    network = face_network(ConfigDict({"network": "recognizer", "path": str(folder / "whole")}))
    other = face_network(ConfigDict({"network": "recognizer", "path": str(folder / "parts")}), "center178")
    assert (network.name, network.size, network.square) == ("recognizer", 32, (0, 0, 1))
    assert other.square == (0, 0, 1)
    assert network.sha256 == other.sha256
    assert len(network.sha256) == 64
    images = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3), minval=-1, maxval=1)
    method = build(runs.recognizer("synthetic:300", model__people=50))
    expected = quick(method.embed)(load_best(folder / "whole"), images)
    np.testing.assert_allclose(jax.jit(network.features)(network.variables, images), expected, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda x: network.features(network.variables, x)[:, 0].sum()))(images)
    assert float(jnp.abs(gradient).max()) > 0
    # In a wider crop it looks at its own square, of a closer one it would see a part.
    with pytest.raises(UserError, match="looks at center178 crops, of which vaegan148 shows a part"):
        face_network(ConfigDict({"network": "recognizer", "path": str(folder / "whole")}), "vaegan148")
    with pytest.raises(UserError, match=r"face.path is empty; for a recognizer it is the workdir"):
        face_network(ConfigDict({"network": "recognizer", "path": ""}))


def load_best(workdir):
    from faceattr_jax.editor import load

    return load(workdir).variables


def test_only_a_recogniser_is_one(trained, tmp_path):
    with pytest.raises(UserError, match=r"judge' is a run of classifier; face.path should be one of recognizer"):
        face_network(ConfigDict({"network": "recognizer", "path": str(trained / "judge")}))
