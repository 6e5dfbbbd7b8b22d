"""SL-GAN against the paper's equations and stages, and the layers chosen for it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from PIL import Image

from faceattr_jax import cli, load
from faceattr_jax import config as configs
from faceattr_jax.data.images import to_uint8
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation.run import evaluate
from faceattr_jax.methods.base import Ctx, EditRequest, build
from faceattr_jax.training import distributed
from faceattr_jax.training.state import init_state
from tests import checks, runs
from tests.checks import QUICK, quick

SIZE = 16
TINY = {
    "image_size": str(SIZE), "batch_size": "4", "model.width": "4", "model.latents": "3", "model.fc": "2.0",
    "model.discriminator_fc": "2.0", "attributes": "Male,Smiling",
    "loss.recognition": "2.0", "loss.feature_reconstruction": "3.0", "loss.decoder_pixels": "0.5",
}  # fmt: skip
CTX = Ctx(jnp.int32(0), jnp.int32(0), jnp.int32(0), jax.random.key(5))
PHASES = ("reconstruction", "modification", "generation")


@functools.cache
def tiny(**overrides: str):
    return build(configs.load("slgan_64", {**TINY, **overrides}))


@functools.cache
def variables():
    return checks.fresh(tiny()).variables


def batch(count: int = 4):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return {"images": images, "labels": rng.integers(0, 2, (count, 2)).astype(np.float32)}


def float_batch():
    data = batch()
    return {"images": jnp.asarray(data["images"] / 127.5 - 1, jnp.float32), "labels": jnp.asarray(data["labels"])}


@functools.cache
def applied(network: str):
    """The bare network, normalising as in training."""

    def call(*inputs):
        own = {c: variables()[c][network] for c in ("params", "batch_stats")}
        return tiny().networks[network].apply(own, *inputs, train=True, mutable=["batch_stats"])[0]

    return quick(call)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def entropy(logits, labels):
    p, a = sigmoid(logits), np.asarray(labels)
    return -np.mean(a * np.log(p) + (1 - a) * np.log(1 - p))


# Networks.


def test_every_layer_at_64_px():
    """(height, channels) of every layer of VAE/GAN's networks, with the heads of 128 latents and 17 attributes."""
    method = build(configs.load("slgan_64"))
    images = jnp.zeros((1, 64, 64, 3))

    def rows(found, name, table, first=0):
        shapes = [found[f"{name.format(i)}/__call__"] for i in range(first, first + len(table))]
        assert shapes == [(s, s, c) for s, c in table]

    encoder = checks.layer_outputs(method.networks["encoder"], images)
    rows(encoder, "conv{}", [(32, 64), (16, 128), (8, 256)])
    rows(encoder, "norm{}", [(32, 64), (16, 128), (8, 256)])
    assert encoder["fc/__call__"] == encoder["fc_norm/__call__"] == (1024,)
    assert encoder["mean/__call__"] == encoder["log_variance/__call__"] == (128,)

    decoder = checks.layer_outputs(method.networks["decoder"], jnp.zeros((1, 128)), jnp.zeros((1, 17)))
    assert decoder["fc/__call__"] == (8 * 8 * 256,)
    assert decoder["fc_norm/__call__"] == (8, 8, 256)
    rows(decoder, "deconv{}", [(16, 256), (32, 128), (64, 32)])
    rows(decoder, "norm{}", [(16, 256), (32, 128), (64, 32)])
    assert decoder["rgb/__call__"] == decoder["__call__"] == (64, 64, 3)

    seen = checks.layer_outputs(method.networks["discriminator"], images)
    rows(seen, "conv{}", [(64, 32), (32, 128), (16, 256), (8, 256)])
    rows(seen, "norm{}", [(32, 128), (16, 256), (8, 256)], first=1)
    assert "norm0/__call__" not in seen
    assert seen["fc/__call__"] == (512,)
    assert [seen[f"{head}/__call__"] for head in ("real", "latents", "labels")] == [(1,), (128,), (17,)]
    params = jax.eval_shape(lambda: init_state(method, 0)).variables["params"]
    kernels = [
        tree["kernel"].shape[:2]
        for network in params.values()
        for tree in network.values()
        if "kernel" in tree and tree["kernel"].ndim == 4
    ]
    assert kernels == [(5, 5)] * 11


def test_the_features_are_the_last_convolution_before_its_norm():
    network = tiny().networks["discriminator"]
    own = {c: variables()[c]["discriminator"] for c in ("params", "batch_stats")}
    run = functools.partial(network.apply, capture_intermediates=True, mutable=["intermediates"])
    seen, state = quick(run)(own, float_batch()["images"])
    np.testing.assert_array_equal(seen.features, state["intermediates"]["conv3"]["__call__"][0])
    assert seen.features.shape == (4, 2, 2, 16)


# Losses, each from the bare networks by hand.


def drawn(phase):
    """(z, y, mean, log variance) that the phase draws from CTX's key."""
    data = float_batch()
    mean, log_variance = applied("encoder")(data["images"])
    if phase == "reconstruction":
        noise = jax.random.normal(CTX.key, mean.shape)
        return mean + np.exp(log_variance / 2) * noise, data["labels"], mean, log_variance
    latent_key, label_key = jax.random.split(CTX.key)
    noise = jax.random.normal(latent_key, mean.shape)
    latents = noise if phase == "generation" else mean + np.exp(log_variance / 2) * noise
    return latents, jax.random.permutation(label_key, data["labels"]), mean, log_variance


@pytest.mark.parametrize("phase", PHASES)
def test_losses_of_each_stage(phase):
    data, method = float_batch(), tiny()
    out = quick(getattr(method, f"{phase}_objective"))(variables(), data, {}, CTX)
    latents, labels, mean, log_variance = drawn(phase)
    face = applied("decoder")(latents, labels)
    real, fake = applied("discriminator")(data["images"]), applied("discriminator")(face)
    recognised = np.mean((np.asarray(latents) - np.asarray(fake.latents)) ** 2) / 2
    features = np.mean((np.asarray(fake.features) - np.asarray(real.features)) ** 2) / 2
    pixels = np.sum((np.asarray(face) - np.asarray(data["images"])) ** 2) / 4 / 2
    # Eq. 3, with lambda 1 of 2 and lambda 2 of 3, and eq. 4.
    decoder = -np.mean(np.log(sigmoid(fake.real))) + 2 * (recognised + entropy(fake.labels, labels))
    decoder += 0 if phase == "generation" else 3 * features
    discriminator = -np.mean(np.log(sigmoid(real.real))) - np.mean(np.log(1 - sigmoid(fake.real))) + recognised
    expected = {"decoder": decoder, "discriminator": discriminator}
    if phase == "reconstruction":
        variance = np.exp(log_variance)
        prior = np.mean(np.sum(mean**2 + variance - 1 - log_variance, axis=1)) / 2
        expected["encoder"] = prior + pixels
        expected["decoder"] += 0.5 * pixels
        expected["discriminator"] += entropy(real.labels, data["labels"])
        expected["discriminator"] += np.mean((np.asarray(latents) - np.asarray(real.latents)) ** 2) / 2
    assert set(out.losses) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(out.losses[name], value, rtol=2e-4, err_msg=name)


def test_the_decoder_may_minimise_eq_1_as_it_stands():
    found = quick(tiny(**{"loss.adversarial": "saturating"}).generation_objective)(variables(), float_batch(), {}, CTX)
    fake = applied("discriminator")(applied("decoder")(*drawn("generation")[:2]))
    np.testing.assert_allclose(found.metrics["adversarial"], np.mean(np.log(1 - sigmoid(fake.real))), rtol=1e-4)
    with pytest.raises(UserError, match=r"loss\.adversarial is 'saturated'"):
        tiny(**{"loss.adversarial": "saturated"})


def test_by_default_the_decoder_is_not_shown_pixels():
    assert configs.load("slgan_64").loss.decoder_pixels == 0


@pytest.fixture(scope="module")
def by_devices():
    """Gradients of every phase on one device and on eight."""
    return [checks.gradients(tiny(), batch(8), devices, compiler_options=QUICK) for devices in (1, 8)]


def test_gradients_agree_between_one_device_and_eight(by_devices):
    one, eight = by_devices
    for phase, tree in one.items():
        for network in tree:
            a, b = (ravel_pytree(found[phase][network])[0] for found in (one, eight))
            assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(a), (phase, network)


def test_who_learns_from_what(by_devices):
    found = by_devices[0]
    assert {phase: set(tree) for phase, tree in found.items()} == {
        "reconstruction": {"encoder", "decoder", "discriminator"},
        "modification": {"decoder", "discriminator"},
        "generation": {"decoder", "discriminator"},
    }
    for phase, tree in found.items():
        for name, gradient in tree.items():
            assert set(gradient) == {name}
        # "Semantic drift": Q learns labels from labelled faces alone (eq. 6), but latents from drawn ones, too (eq. 5).
        heads = tree["discriminator"]["discriminator"]
        assert np.any(heads["labels"]["kernel"] != 0) == (phase == "reconstruction")
        assert np.all(heads["latents"]["kernel"] != 0)
        assert np.all(heads["real"]["kernel"] != 0)


def test_recognised_latents_are_a_target_and_teach_the_encoder_nothing():
    other = tiny(**{"loss.recognition": "0.0"})
    own, found = [checks.gradients(m, batch(8), 1, compiler_options=QUICK)["reconstruction"] for m in (tiny(), other)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), own["encoder"], found["encoder"])
    assert not np.allclose(own["decoder"]["decoder"]["rgb"]["kernel"], found["decoder"]["decoder"]["rgb"]["kernel"])


# Phases.


@pytest.fixture(scope="module")
def executor():
    return checks.executor(tiny())


@pytest.mark.parametrize("number", range(3))
def test_stages_two_and_three_leave_the_encoder_bit_identical(executor, number):
    state = checks.fresh(tiny())
    before = jax.device_get(state)
    phase = executor.stage.phases[number]
    assert (phase.name, phase.repeats, phase.draw) == (PHASES[number], 1, "update")
    after = jax.device_get(executor.run_phase(phase, state, [batch()] * 3, {}, 0)[0])
    trained = ("decoder", "discriminator") if number else ("encoder", "decoder", "discriminator")
    assert phase.trains == trained
    parts = ("params", "batch_stats", "optimizer")
    assert checks.changed(before, after) == {f"{part}/{network}" for part in parts for network in trained}
    # Q reads labels off real faces alone, which the first stage has.
    assert checks.unmoved(before, after) == (
        {f"discriminator/labels/{p}" for p in ("kernel", "bias")} if number else set()
    )
    for network in ("encoder", "decoder", "discriminator"):
        # The first leaf of an optimizer's state is its count of updates.
        assert jax.tree.leaves(after.opt_states[network])[0] == (network in trained)


def test_host_dispatch_and_scan_give_the_same_numbers(executor):
    assert executor.draws_per_iteration == 3
    checks.executors_agree(executor, checks.executor(tiny(), scan=True), [batch()] * 3, rtol=1e-3, share=2e-2)


# Inference.


def test_edit_of_unchanged_attributes_is_the_reconstruction():
    data, method, held = float_batch(), tiny(), variables()
    images, own = data["images"], data["labels"]
    edit = quick(lambda s, t, k: method.edit(held, images, EditRequest(target=t, source=s, strength=k)))
    same = edit(own, own, 2.0)
    np.testing.assert_allclose(same, quick(method.reconstruct)(held, images, own), atol=1e-6)
    np.testing.assert_allclose(edit(own, 1 - own, 0.0), same, atol=1e-6)
    mean, _ = quick(method.encode)(held, images)
    np.testing.assert_allclose(edit(own, 1 - own, 1.0), quick(method.decode)(held, mean, 1 - own), atol=1e-6)
    read = (quick(method.classify)(held, images) > 0.5).astype(jnp.float32)
    unread = quick(lambda: method.edit(held, images, EditRequest(target=read)))()
    np.testing.assert_allclose(unread, edit(read, read, 1.0), atol=1e-6)
    # Beyond 1, what somebody names is drawn even where it is there already.
    named = jnp.arange(own.shape[1]) == 0
    kept = quick(lambda: method.edit(held, images, EditRequest(own, own, 2.0, named)))()
    stronger = own.at[:, 0].set(2 * own[:, 0] - 0.5)
    np.testing.assert_allclose(kept, quick(method.decode)(held, mean, stronger), atol=1e-6)


def test_generate_draws_latents_from_the_prior():
    data, method, held = float_batch(), tiny(), variables()
    faces = quick(method.generate)(held, jax.random.key(3), data["labels"])
    latents = method.draw_latents(jax.random.key(3), 4)
    assert latents.shape == (4, 3)
    many = np.asarray(method.draw_latents(jax.random.key(0), 20_000))
    np.testing.assert_allclose([many.mean(), many.std()], [0, 1], atol=0.02)
    np.testing.assert_allclose(faces, quick(method.decode)(held, latents, data["labels"]), atol=1e-6)
    assert faces.shape == data["images"].shape
    assert float(jnp.abs(faces).max()) <= 1
    assert not np.allclose(faces, quick(method.generate)(held, jax.random.key(4), data["labels"]))


def test_edit_is_pure_under_vmap_and_grad():
    data, method, held = float_batch(), tiny(), variables()
    request = EditRequest(target=1 - data["labels"], source=data["labels"])
    together = quick(lambda x: method.edit(held, x, request))(data["images"])

    @quick
    @jax.vmap
    def one(image, source, target):
        return method.edit(held, image[None], EditRequest(target=target[None], source=source[None]))[0]

    np.testing.assert_allclose(one(data["images"], data["labels"], 1 - data["labels"]), together, atol=1e-5)
    gradient = quick(jax.grad(lambda x: jnp.sum(method.edit(held, x, request) ** 2)))(data["images"])
    assert np.isfinite(gradient).all()
    assert float(jnp.abs(gradient).max()) > 0


def test_classify_reads_the_labels_head():
    data, held = float_batch(), variables()
    own = {c: held[c]["discriminator"] for c in ("params", "batch_stats")}
    seen = quick(tiny().networks["discriminator"].apply)(own, data["images"])
    np.testing.assert_allclose(
        quick(tiny().classify)(held, data["images"]), nn.sigmoid(seen.labels), rtol=1e-4, atol=1e-6
    )


# A run.


def test_a_run_killed_and_resumed_is_evaluated_as_any_other(faces, trained, tmp_path, monkeypatch, capsys):
    one = checks.one_device()
    monkeypatch.setattr(distributed, "mesh", lambda: one)
    config = runs.slgan(faces, evaluation__judge=str(trained / "judge"))
    metrics = (checks.killed_and_resumed(monkeypatch, config, tmp_path) / "metrics.csv").read_text()
    assert "valid/score" in metrics

    summary = evaluate(tmp_path / "whole", tmp_path / "report", images=6)
    assert 0 <= summary["attribute_accuracy"] <= 1
    for prefix in ("", "untrained_"):
        assert 0 <= summary[f"{prefix}generated_accuracy"] <= 1
        for number in ("frechet_judge", "generated_variance_ratio", "latent_r2"):
            assert np.isfinite(summary[prefix + number]), number
    assert "## New faces" in (tmp_path / "report" / "evaluation.md").read_text()
    assert (tmp_path / "report" / "generated.png").exists()
    editor = load(tmp_path / "whole")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    edited = editor.edit(pixels, {"Male": 1}, source=[[1, 0, 0], [0, 1, 1]])
    assert edited.shape == (2, 32, 32, 3)
    check_generate_command(tmp_path, editor, capsys)


def check_generate_command(tmp_path, editor, capsys):
    run = f"--checkpoint={tmp_path / 'whole'}"
    every = "Bangs=0,Eyeglasses=1,Male=1"

    def sheet(name, *arguments):
        assert cli.main(["generate", run, f"--out={tmp_path / name}", *arguments]) == 0
        return np.asarray(Image.open(tmp_path / name))

    def refused(*arguments):
        assert cli.main(["generate", run, *arguments]) == 2
        return capsys.readouterr().err

    # Five faces: three columns and two rows of 96 px, the last place empty. With every attribute set no data is read.
    found = sheet("faces.png", f"--set={every}", "--n=5", "--seed=3", "--data=nowhere")
    assert found.shape == (2 * 98 - 2, 3 * 98 - 2, 3)
    assert np.all(found[98:, 196:] == 255)
    faces = editor.generate(np.tile([0, 1, 1], (5, 1)), seed=3)
    np.testing.assert_array_equal(found[:96:3, :96:3], np.asarray(to_uint8(faces[0])))
    again = sheet("again.png", f"--set={every}", "--n=5", "--seed=3")
    np.testing.assert_array_equal(found, again)
    assert not np.array_equal(found, sheet("other.png", f"--set={every}", "--n=5", "--seed=4"))
    assert sheet("people.png", "--set=Male=1", "--n=4").shape == (194, 194, 3)

    out = f"--out={tmp_path / 'new.png'}"
    assert "would be overwritten" in refused(f"--out={tmp_path / 'faces.png'}")
    assert "unknown attribute 'Mal' (did you mean 'Male'?)" in refused("--set=Mal=1", out)
    assert "--n=0: ask for 1 face or more" in refused("--n=0", out)
    assert "nowhere" in refused("--data=nowhere", out)
    assert not (tmp_path / "new.png").exists()
    with pytest.raises(UserError, match=r"labels of shape \(2, 2\) do not fit; faces need \(B, 3\)"):
        editor.generate(np.zeros((2, 2)))
