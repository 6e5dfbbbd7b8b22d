"""The attribute-inverse GAN against the paper's equations and the layers chosen for it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax import config as configs
from faceattr_jax import load
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation.run import evaluate
from faceattr_jax.methods.attribute_inverse import skip_filters
from faceattr_jax.methods.base import Ctx, EditRequest, build
from faceattr_jax.training import distributed
from faceattr_jax.training.state import init_state
from tests import checks, runs
from tests.checks import QUICK, quick

SIZE = 16
TINY = {
    "image_size": str(SIZE),
    "batch_size": "4",
    "model.width": "4",
    "model.generator": "(1, 2, 4, 4)",
    "model.discriminator": "(1, 2, 4)",
}
CTX = Ctx(jnp.int32(0), jnp.int32(0), jnp.int32(0), jax.random.key(5))


@functools.cache
def tiny(**overrides: str):
    return build(configs.load("attribute_inverse_128", {**TINY, **overrides}))


@functools.cache
def variables():
    return checks.fresh(tiny()).variables


def batch(count: int = 4):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return {"images": images, "labels": (np.arange(count) % 2 == 0).astype(np.float32)[:, None]}


def float_batch():
    data = batch()
    return {"images": jnp.asarray(data["images"] / 127.5 - 1, jnp.float32), "labels": jnp.asarray(data["labels"])}


@functools.cache
def inverted():
    """G(x) and G(G(x)) of the batch, from the bare network."""

    def twice(params, x):
        once = tiny().networks["generator"].apply({"params": params}, x)
        return once, tiny().networks["generator"].apply({"params": params}, once)

    return quick(twice)(variables()["params"]["generator"], float_batch()["images"])


@functools.cache
def judged(which: str):
    """The bare discriminator's outputs on "x", "G(x)" or "G(G(x))", in float64."""
    images = {"x": float_batch()["images"], "G(x)": inverted()[0], "G(G(x))": inverted()[1]}[which]
    network = tiny().networks["discriminator"]
    found = quick(lambda p, x: network.apply({"params": p}, x))(variables()["params"]["discriminator"], images)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# Networks. (height, channels) after each layer at 128 px, and the filters of each skip: half of the maps at a high
# level, a quarter at 64, 32 and 16 px.
DOWN = [(64, 64), (32, 128), (16, 256), (8, 512), (4, 512), (2, 512), (1, 512)]
SKIPS = [(64, 16), (32, 32), (16, 64), (8, 256), (4, 256), (2, 256)]
DISCRIMINATOR = [(64, 64), (32, 128), (16, 256), (8, 512), (4, 1024), (2, 2048)]


def test_every_layer_at_128_px():
    method = build(configs.load("attribute_inverse_128"))
    images = jnp.zeros((1, 128, 128, 3))
    generator = checks.layer_outputs(method.networks["generator"], images)

    def rows(found, name, table):
        assert [found[f"{name.format(i)}/__call__"] for i in range(len(table))] == [(s, s, c) for s, c in table]

    rows(generator, "down{}", DOWN)
    rows(generator, "up{}", DOWN[:-1])
    rows(generator, "up{}_norm", DOWN[:-1])
    rows(generator, "skip{}", SKIPS)
    assert {name for name in generator if name.startswith("down") and "norm" in name} == {
        f"down{i}_norm/__call__" for i in range(1, 6)
    }
    assert generator["rgb/__call__"] == generator["__call__"] == (128, 128, 3)

    discriminator = checks.layer_outputs(method.networks["discriminator"], images)
    rows(discriminator, "conv{}", DISCRIMINATOR)
    assert discriminator["source/__call__"] == (2, 2, 1)
    assert discriminator["class/__call__"] == (1, 1, 1)
    assert not [name for name in discriminator if "norm" in name]
    # StarGAN's kernels: patches are told by three pixels, the attribute by all that is left.
    params = jax.eval_shape(lambda: init_state(method, 0)).variables["params"]["discriminator"]
    kernels = {name: layer["kernel"].shape[:2] for name, layer in params.items()}
    assert kernels == {**{f"conv{i}": (4, 4) for i in range(6)}, "source": (3, 3), "class": (2, 2)}


@pytest.mark.parametrize(
    ("skips", "inputs"),
    [
        ("filtered", [64 + 16, 128 + 32, 256 + 64, 512 + 256, 512 + 256, 512 + 256, 512]),
        ("full", [64 + 64, 128 + 128, 256 + 256, 512 + 512, 512 + 512, 512 + 512, 512]),
    ],
)
def test_the_decoder_sees_the_skips(skips, inputs):
    method = build(configs.load("attribute_inverse_128", {"model.skips": skips}))
    params = jax.eval_shape(lambda: init_state(method, 0)).variables["params"]["generator"]
    layers = ["rgb", *(f"up{i}" for i in range(6))]
    assert [params[layer]["kernel"].shape[2] for layer in layers] == inputs
    assert ("skip0" in params) == (skips == "filtered")
    if skips == "filtered":
        assert [params[f"skip{i}"]["kernel"].shape[:2] for i in range(6)] == [(1, 1)] * 6


def test_skip_filters():
    assert skip_filters((8, 16, 32, 32), "filtered", 1) == (2, 8, 16)
    assert skip_filters((8, 16, 32, 32), "filtered", 3) == (2, 4, 8)
    assert skip_filters((8, 16, 32, 32), "full", 3) == ()
    assert skip_filters((2, 4, 8), "filtered", 2) == (1, 1)


def test_the_synthetic_variant_reaches_one_and_two_pixels():
    method = build(configs.load("attribute_inverse_128:synthetic"))
    images = jnp.zeros((1, 64, 64, 3))
    assert checks.layer_outputs(method.networks["generator"], images)["down5/__call__"][:2] == (1, 1)
    found = checks.layer_outputs(method.networks["discriminator"], images)
    assert found["conv4/__call__"][:2] == found["source/__call__"][:2] == (2, 2)


def test_one_attribute_alone():
    with pytest.raises(UserError, match="inverts one attribute, not 2"):
        tiny(attributes="Male,Young")
    assert tiny(attributes="Male").attributes == ("Male",)


def test_schedule():
    rate = build(configs.load("attribute_inverse_128")).optimizers["generator"].schedule
    epoch = 162_770 // 16
    np.testing.assert_allclose([rate(0), rate(20 * epoch), rate(25 * epoch), rate(30 * epoch)], [2e-4, 2e-4, 1e-4, 0])


# Losses and phases.

WEIGHTS = {
    "loss.generator_classification": "2.0", "loss.reconstruction": "3.0", "loss.feature_matching": "5.0",
    "loss.discriminator_classification": "7.0", "loss.change": "11.0",
}  # fmt: skip


@pytest.mark.parametrize("adversarial", ["saturating", "nonsaturating"])
@pytest.mark.parametrize("per", ["element", "pixel"])
def test_the_generators_loss_is_eq_6_and_the_change(adversarial, per):
    method = tiny(**WEIGHTS, **{"loss.adversarial": adversarial, "loss.feature_matching_per": per})
    data = float_batch()
    out = quick(method.generator_objective)(variables(), data, {}, CTX)
    patches, logits, _ = judged("G(x)")
    real, other = sigmoid(patches), 1 - np.asarray(data["labels"])
    terms = {
        "adversarial": np.mean(np.log(1 - real)) if adversarial == "saturating" else -np.mean(np.log(real)),
        "classification": -np.mean(other * np.log(sigmoid(logits)) + (1 - other) * np.log(1 - sigmoid(logits))),
        "reconstruction": np.mean(np.abs(data["images"] - inverted()[1])),
        "change": np.mean(np.abs(data["images"] - inverted()[0])),
        "feature_matching": sum(
            np.abs(a - b).sum() / (len(a) * (a[0].size if per == "element" else a[0, ..., 0].size))
            for a, b in zip(judged("x")[2], judged("G(G(x))")[2], strict=True)
        ),
    }
    assert len(judged("x")[2]) == 3
    for name, expected in terms.items():
        np.testing.assert_allclose(out.metrics[name], expected, rtol=1e-4, err_msg=name)
    weights = {"adversarial": 1, "classification": 2, "reconstruction": 3, "feature_matching": 5, "change": 11}
    total = sum(weight * terms[name] for name, weight in weights.items())
    np.testing.assert_allclose(out.losses["generator"], total, rtol=1e-4)


def test_the_discriminators_loss_is_eq_7():
    data = float_batch()
    out = quick(tiny(**WEIGHTS).discriminator_objective)(variables(), data, {}, CTX)
    (real, logits, _), (fake, _, _) = judged("x"), judged("G(x)")
    adversarial = -np.mean(np.log(sigmoid(real))) - np.mean(np.log(1 - sigmoid(fake)))
    own, p = np.asarray(data["labels"]), sigmoid(logits)
    classification = -np.mean(own * np.log(p) + (1 - own) * np.log(1 - p))
    np.testing.assert_allclose(out.metrics["adversarial"], adversarial, rtol=1e-4)
    np.testing.assert_allclose(out.metrics["classification"], classification, rtol=1e-4)
    np.testing.assert_allclose(out.losses["discriminator"], adversarial + 7 * classification, rtol=1e-4)


@pytest.fixture(scope="module")
def by_devices():
    """Gradients of every phase on one device and on eight; in single, a bias of four channels cancels to 1.3e-5."""
    with jax.enable_x64(True):
        return [checks.gradients(tiny(), batch(8), devices, compiler_options=QUICK) for devices in (1, 8)]


def test_gradients_agree_between_one_device_and_eight(by_devices):
    def close(a, b):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(a) + 1e-12

    jax.tree.map(close, *by_devices)


def test_who_learns_from_what(by_devices):
    """Feature matching teaches G alone; the class head learns from real images alone."""
    found = by_devices[0]
    assert {phase: set(tree) for phase, tree in found.items()} == {
        "discriminator": {"discriminator"},
        "generator": {"generator"},
    }
    assert set(found["generator"]["generator"]) == {"generator"}
    # The head is linear: its gradient is the mean of (probability - label) times the last features.
    data = batch(8)
    images = jnp.asarray(data["images"] / 127.5 - 1, jnp.float32)
    network = tiny().networks["discriminator"]
    own = {"params": variables()["params"]["discriminator"]}
    _, logits, features = quick(lambda x: network.apply(own, x))(images)
    expected = np.mean((sigmoid(logits) - data["labels"])[:, None, None] * features[-1], axis=0)[..., None]
    np.testing.assert_allclose(
        found["discriminator"]["discriminator"]["discriminator"]["class"]["kernel"], expected, rtol=1e-3, atol=1e-6
    )


@pytest.fixture(scope="module")
def executor():
    return checks.executor(tiny())


@pytest.mark.parametrize("number", [0, 1])
def test_each_phase_trains_its_network_and_leaves_the_other_bit_identical(executor, number):
    state = checks.fresh(tiny())
    before = jax.device_get(state)
    trained = ("discriminator", "generator")[number]
    phase = executor.stage.phases[number]
    assert (phase.name, phase.trains, phase.repeats, phase.mutates) == (trained, (trained,), 1, ())
    after, carry, _ = executor.run_phase(phase, state, [batch()], {}, 0)
    after = jax.device_get(after)
    assert carry == after.ema == {}
    assert checks.changed(before, after) == {f"params/{trained}", f"optimizer/{trained}"}
    assert not checks.unmoved(before, after)
    assert jax.tree.leaves(after.opt_states[trained])[0] == 1


def test_host_dispatch_and_scan_give_the_same_numbers(executor):
    assert executor.draws_per_iteration == 1
    checks.executors_agree(executor, checks.executor(tiny(), scan=True), [batch()], iterations=2)


def test_every_batch_is_half_and_half():
    labels = (np.arange(40) % 10 == 0).astype(np.float32)[:, None]
    indices = np.arange(100, 140)

    def draws(method):
        sampler = jax.jit(method.stages[0].sampler(jax.random.key(0), indices, labels, 8))
        return [np.asarray(sampler(draw, 0)) for draw in range(20)]

    rows = draws(tiny())
    assert [labels[row - 100].sum() for row in rows] == [4] * 20
    seen, counts = np.unique(np.concatenate(rows), return_counts=True)
    assert np.array_equal(seen, indices)
    assert set(counts[labels[:, 0] == 1]) == {20}  # 80 draws of 4 pictures, against 80 of 36
    assert {labels[row - 100].sum() for row in draws(tiny(sampler="uniform"))} != {4}


def test_instance_noise_is_seen_in_training_alone():
    data, noisy = float_batch(), tiny(**{"model.instance_noise": "0.5"})
    plain, other = (quick(m.discriminator_objective)(variables(), data, {}, CTX).metrics for m in (tiny(), noisy))
    assert abs(float(plain["classification"] - other["classification"])) > 1e-4
    np.testing.assert_array_equal(
        quick(noisy.classify)(variables(), data["images"]), quick(tiny().classify)(variables(), data["images"])
    )
    # G's second pass sees it, too; what G(x) changes of x is measured without.
    found = quick(noisy.generator_objective)(variables(), data, {}, CTX).metrics
    invert, images = quick(noisy.invert), data["images"]
    fake = invert(variables(), images)
    back = invert(variables(), noisy._noisy(CTX, fake))
    np.testing.assert_allclose(found["reconstruction"], np.abs(back - images).mean(), rtol=1e-4)
    np.testing.assert_allclose(found["change"], np.abs(fake - images).mean(), rtol=1e-4)


# Inference.


@quick
def _edit(held, images, source, target, strength):
    return tiny().edit(held, images, EditRequest(target=target, source=source, strength=strength))


def edit(*request):
    return _edit(variables(), *request)


def test_faces_that_have_the_wanted_value_come_back_bit_for_bit():
    data = float_batch()
    images, own = data["images"], data["labels"]
    target = jnp.ones((4, 1))
    for strength in (0.5, 1.0, 2.0):
        edited = edit(images, own, target, strength)
        np.testing.assert_array_equal(edited[::2], images[::2])
        assert not np.any(edited[1::2] == images[1::2])
    np.testing.assert_array_equal(edit(images, own, own, 1.0), images)


def test_strength_blends_image_and_inverse():
    data = float_batch()
    images, own = data["images"], data["labels"]
    inverse = inverted()[0]
    np.testing.assert_array_equal(edit(images, own, 1 - own, 0.0), images)
    np.testing.assert_allclose(edit(images, own, 1 - own, 1.0), inverse, atol=1e-6)
    np.testing.assert_allclose(edit(images, own, 1 - own, 0.25), 0.75 * images + 0.25 * inverse, atol=1e-6)
    beyond = edit(images, own, 1 - own, 2.0)
    np.testing.assert_allclose(beyond, np.clip(2 * inverse - images, -1, 1), atol=1e-6)
    assert float(jnp.abs(beyond).max()) == 1


def test_classify_reads_the_source_and_reconstruct_inverts_twice():
    data, method, held = float_batch(), tiny(), variables()
    probability = quick(method.classify)(variables(), data["images"])
    np.testing.assert_allclose(probability, sigmoid(judged("x")[1]), rtol=1e-4)
    read = (probability > 0.5).astype(jnp.float32)
    target = jnp.ones((4, 1))
    unread = quick(lambda x: method.edit(held, x, EditRequest(target=target)))(data["images"])
    np.testing.assert_allclose(unread, edit(data["images"], read, target, 1.0), atol=1e-6)
    back = quick(method.reconstruct)(variables(), data["images"], data["labels"])
    np.testing.assert_allclose(back, inverted()[1], atol=1e-5)


def test_edit_is_pure_under_vmap_and_grad():
    data = float_batch()
    target = 1 - data["labels"]
    together = edit(data["images"], data["labels"], target, 1.0)
    one = jax.vmap(lambda x, a, b: edit(x[None], a[None], b[None], 1.0)[0])(data["images"], data["labels"], target)
    np.testing.assert_allclose(one, together, atol=1e-5)
    request, held = EditRequest(target=target, source=data["labels"]), variables()
    gradient = quick(jax.grad(lambda x: jnp.sum(tiny().edit(held, x, request) ** 2)))(data["images"])
    assert np.isfinite(gradient).all()
    assert float(jnp.abs(gradient).max()) > 0


# A run.


def test_a_run_killed_and_resumed_is_evaluated_as_any_other(faces, trained, tmp_path, monkeypatch):
    """Four iterations with a judge beside them, once in one piece and once in two; then every command's code path."""
    one = checks.one_device()
    monkeypatch.setattr(distributed, "mesh", lambda: one)
    config = runs.attribute_inverse(faces, evaluation__judge=str(trained / "judge"))
    metrics = (checks.killed_and_resumed(monkeypatch, config, tmp_path) / "metrics.csv").read_text()
    assert "valid/attribute_accuracy" in metrics
    # Nothing is untouched by an edit of the only attribute, so no checkpoint is called the best.
    assert "valid/score" not in metrics
    assert "valid/untouched_change" not in metrics
    assert (tmp_path / "whole" / "grids" / "edits-0000004.png").is_file()

    summary = evaluate(tmp_path / "whole", tmp_path / "report", images=6, curve=True)
    assert 0 <= summary["attribute_accuracy"] <= 1
    assert summary["copy_untouched_change"] == 0 <= summary["untouched_change"] <= 1, "of what else the judge reads"
    assert summary["reconstruction_psnr"] > 0
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "evaluation.json", "evaluation.md", "evaluation.png", "grid.png",
    }  # fmt: skip

    editor = load(tmp_path / "whole")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    images = jnp.asarray(pixels, jnp.float32) / 127.5 - 1
    edited = editor.edit(pixels, {"Eyeglasses": 1}, source=[[1], [0]])
    np.testing.assert_allclose(edited[0], images[0], atol=1e-6)
    slid = editor.slide(pixels, "Eyeglasses", (0.0, 1.0), source=[[1], [0]])
    np.testing.assert_allclose(slid[0], images, atol=1e-6)
    np.testing.assert_allclose(slid[1, 1], edited[1], atol=1e-6)
