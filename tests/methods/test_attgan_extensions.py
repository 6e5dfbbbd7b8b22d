"""AttGAN's sliders (section 3.2) and its independence ablation (section 4.2) against the paper's equations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from faceattr_jax import cli, load
from faceattr_jax import config as configs
from faceattr_jax.data.images import to_float
from faceattr_jax.data.source import open_source
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import metrics
from faceattr_jax.evaluation.regions import spread
from faceattr_jax.evaluation.run import evaluate
from faceattr_jax.methods.base import Ctx, EditRequest, build
from faceattr_jax.training import distributed, loop
from tests import checks, runs
from tests.checks import QUICK, quick

INTENSITY, INDEPENDENT = "attgan_intensity_64", "attgan_independent_64"
SPECS = (INTENSITY, INDEPENDENT)
NAMES = ("Black_Hair", "Blond_Hair", "Eyeglasses")
TINY = {
    "attributes": ",".join(NAMES), "image_size": "8", "batch_size": "4", "critic_updates": "2",
    "loss.reconstruction": "50", "model.generator_norm": "batch",
    **{key: str(value) for key, value in runs.SHALLOW.items()},
}  # fmt: skip
OWN = {
    INTENSITY: {"model.prior_critic": "(5, 4)", "loss.prior": "3.0", "opponent_updates": "3"},
    INDEPENDENT: {
        "model.latent_discriminator": "(5,)",
        "loss.independence": "2.0",
        "loss.independence_ramp": "10",
        "opponent_updates": "3",
    },
}
KEY = jax.random.key(5)


def at(iteration: int) -> Ctx:
    return Ctx(jnp.int32(iteration), jnp.int32(0), jnp.int32(0), KEY)


@functools.cache
def tiny(spec: str, **overrides: str):
    return build(configs.load(f"{spec}:synthetic", {**TINY, **OWN.get(spec, {}), **overrides}))


@functools.cache
def variables(spec: str):
    return checks.fresh(tiny(spec)).variables


def batch(count: int = 4):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return {"images": images, "labels": rng.integers(0, 2, (count, 3)).astype(np.float32)}


def float_batch():
    data = batch()
    return {"images": jnp.asarray(data["images"] / 127.5 - 1, jnp.float32), "labels": jnp.asarray(data["labels"])}


def mlp(params, x):
    """An MLP by hand: leaky ReLU of slope .2 after all layers but the last."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    for i in range(len(params) - 1):
        x = x @ np.asarray(params[f"hidden{i}"]["kernel"]) + np.asarray(params[f"hidden{i}"]["bias"])
        x = np.where(x > 0, x, 0.2 * x)
    return x @ np.asarray(params["out"]["kernel"]) + np.asarray(params["out"]["bias"])


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def entropy(logits, labels):
    p, a = sigmoid(logits), np.asarray(labels)
    return -np.mean(a * np.log(p) + (1 - a) * np.log(1 - p))


@functools.cache
def applied(spec, network, train):
    """The bare network."""

    def call(*inputs):
        own = {c: variables(spec)[c][network] for c in ("params", "batch_stats")}
        return tiny(spec).networks[network].apply(own, *inputs, train=train, mutable=["batch_stats"])[0]

    return quick(call)


def encoded(spec, train):
    return applied(spec, "encoder", train)(float_batch()["images"])


def decoded(spec, features, code, train):
    return applied(spec, "decoder", train)(features, code)


def strong(z):
    """z_int by hand."""
    return sigmoid(mlp(variables(INTENSITY)["params"]["z_int"], z / z[0].size ** 0.5))


# Networks.


def test_networks_are_attgans_and_one_or_two_more():
    plain = build(configs.load("attgan_64")).networks
    for spec, own in ((INTENSITY, ("z_int", "prior_critic")), (INDEPENDENT, ("latent_discriminator",))):
        method = build(configs.load(spec))
        assert {name: method.networks[name] for name in plain} == plain
        assert set(method.networks) == {*plain, *own}
    images = jnp.zeros((1, 64, 64, 3))
    latents = jax.eval_shape(lambda: method.latents(method.init(jax.random.key(0)), images))
    assert latents.shape == (1, 4 * 4 * 512)
    z = jnp.zeros((1, 4, 4, 512))
    networks = build(configs.load(INTENSITY)).networks
    found = checks.layer_outputs(networks["z_int"], z)
    assert (found["out/__call__"], found["__call__"]) == ((13,), (13,))
    found = checks.layer_outputs(networks["prior_critic"], jnp.zeros((1, 13)))
    assert [found[f"{name}/__call__"] for name in ("hidden0", "hidden1", "out")] == [(256,), (256,), (1,)]
    found = checks.layer_outputs(build(configs.load(INDEPENDENT)).networks["latent_discriminator"], z)
    assert [found[f"{name}/__call__"] for name in ("hidden0", "out")] == [(512,), (13,)]


def test_the_ablation_has_no_skips_past_the_latent():
    for variant in ("", ":synthetic"):
        assert configs.load(INDEPENDENT + variant).model.skips == 0


# Sliders.


def test_intensity_losses_by_hand():
    method, held, data = tiny(INTENSITY), variables(INTENSITY), float_batch()
    features = encoded(INTENSITY, train=True)
    intensity, critic = strong(features[-1]), held["params"]["prior_critic"]
    out = quick(method.generator_objective)(held, data, {}, at(0))
    m = out.metrics
    np.testing.assert_allclose(m["prior"], -mlp(critic, intensity).mean(), rtol=1e-4)
    expected = 50 * m["reconstruction"] + 10 * m["classification"] + m["adversarial"] + 3 * m["prior"]
    np.testing.assert_allclose(out.losses["generator"], expected, rtol=1e-5)
    # Eq. 15 for a, and with it the reconstruction.
    code = jnp.asarray(intensity * (2 * np.asarray(data["labels"]) - 1), jnp.float32)
    reconstruction = decoded(INTENSITY, features, code, train=True)
    np.testing.assert_allclose(m["reconstruction"], np.mean(np.abs(reconstruction - data["images"])), rtol=1e-4)
    # And for b: D and C see what is as strong as a.
    target_key, noise_key = jax.random.split(KEY)
    target = np.asarray(method._targets(target_key, data["labels"]))
    fake = decoded(INTENSITY, features, jnp.asarray(intensity * (2 * target - 1), jnp.float32), train=True)
    values, logits = quick(method._discriminate)(held, method._noisy(noise_key, fake))
    np.testing.assert_allclose(m["adversarial"], -np.mean(values), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(m["classification"], entropy(logits, target), rtol=1e-4)

    out = quick(method.prior_objective)(held, data, {}, at(0))
    m = out.metrics
    np.testing.assert_allclose(out.losses["prior"], -m["distance"] + 10 * m["penalty"], rtol=1e-5)
    draw_key, penalty_key = jax.random.split(KEY)
    drawn = np.asarray(jax.random.uniform(draw_key, (4, 3)), np.float64)
    distance = mlp(critic, drawn).mean() - mlp(critic, intensity).mean()
    np.testing.assert_allclose(m["distance"], distance, rtol=1e-3, atol=1e-5)
    mixed = drawn + np.asarray(jax.random.uniform(penalty_key, (4, 1))) * (intensity - drawn)
    steps = 1e-5 * np.eye(3)
    gradient = np.concatenate([(mlp(critic, mixed + s) - mlp(critic, mixed - s)) / 2e-5 for s in steps], axis=1)
    np.testing.assert_allclose(m["penalty"], np.mean((np.linalg.norm(gradient, axis=1) - 1) ** 2), rtol=1e-3, atol=1e-6)


def test_a_slider_sets_its_own_element_and_rules_out_what_conflicts():
    method, held, data = tiny(INTENSITY), variables(INTENSITY), float_batch()
    images, own = data["images"], jnp.array([[1.0, 0, 1], [0, 1, 0], [0, 1, 1], [0, 0, 0]])
    features = encoded(INTENSITY, train=False)
    intensity = strong(features[-1])
    np.testing.assert_allclose(quick(method.intensities)(held, images), intensity, rtol=1e-5)
    slide = quick(lambda column, value, source: method.slide(held, images, column, value, source))

    def expect(column, value, labels):
        code = intensity * (2 * np.asarray(labels) - 1)
        code[:, column] = value
        expected = decoded(INTENSITY, features, jnp.asarray(code, jnp.float32), train=False)
        np.testing.assert_allclose(slide(column, value, own), expected, atol=1e-5)

    expect(2, -0.3, own)
    expect(2, 1.0, own)
    expect(0, -1.0, own)
    expect(0, 0.4, own.at[:, 1].set(0))  # black hair is not blond
    read = (quick(method.classify)(held, images) > 0.5).astype(jnp.float32)
    np.testing.assert_allclose(slide(2, 0.5, None), slide(2, 0.5, read), atol=1e-6)


def test_edits_keep_the_intensity_and_stay_within_the_sliders():
    method, held, data = tiny(INTENSITY), variables(INTENSITY), float_batch()
    images, own = data["images"], data["labels"]
    features = encoded(INTENSITY, train=False)
    intensity = strong(features[-1])
    edit = quick(lambda s, t, k: method.edit(held, images, EditRequest(target=t, source=s, strength=k)))
    for strength in (1.0, 2.5):
        code = np.clip(strength * intensity * (1 - 2 * np.asarray(own)), -1, 1)
        expected = decoded(INTENSITY, features, jnp.asarray(code, jnp.float32), train=False)
        np.testing.assert_allclose(edit(own, 1 - own, strength), expected, atol=1e-5)
    assert (2.5 * intensity).max() > 1
    np.testing.assert_allclose(edit(own, own, 1.0), quick(method.reconstruct)(held, images, own), atol=1e-6)


# Independence.


def test_independence_losses_by_hand():
    method, held, data = tiny(INDEPENDENT), variables(INDEPENDENT), float_batch()
    z = encoded(INDEPENDENT, train=True)[-1]
    logits = mlp(held["params"]["latent_discriminator"], z)
    objective = quick(method.generator_objective)
    for iteration, ramp in ((0, 0.0), (4, 0.4), (10, 1.0), (25, 1.0)):
        out = objective(held, data, {}, at(iteration))
        m = out.metrics
        np.testing.assert_allclose(m["independence"], entropy(logits, 1 - data["labels"]), rtol=1e-4)
        expected = 50 * m["reconstruction"] + 10 * m["classification"] + m["adversarial"]
        np.testing.assert_allclose(out.losses["generator"], expected + 2 * ramp * m["independence"], rtol=1e-5)
    out = quick(method.latent_objective)(held, data, {}, at(0))
    np.testing.assert_allclose(out.losses["latent"], entropy(logits, data["labels"]), rtol=1e-4)
    right = np.mean((logits > 0) == (np.asarray(data["labels"]) > 0.5))
    np.testing.assert_allclose(out.metrics["accuracy"], right)


def test_with_weight_0_the_generator_learns_as_attgans_does():
    watched = tiny(INDEPENDENT, **{"loss.independence": "0.0"})
    plain = tiny("attgan_64", **{"model.skips": "0"})
    held, data = variables(INDEPENDENT), float_batch()

    def gradient(method):
        def loss(part):
            params = {**held["params"], **part}
            return method.generator_objective({**held, "params": params}, data, {}, at(3)).losses["generator"]

        return quick(jax.grad(loss))({name: held["params"][name] for name in ("encoder", "decoder")})

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient(watched), gradient(plain))


# Phases.

TRAINED = {
    INTENSITY: [{"discriminator"}, {"prior_critic"}, {"encoder", "decoder", "z_int"}],
    INDEPENDENT: [{"discriminator"}, {"latent_discriminator"}, {"encoder", "decoder"}],
}


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_each_phase_trains_its_networks_and_leaves_the_others_bit_identical(spec, number):
    runner = checks.executor(tiny(spec))
    state = checks.fresh(tiny(spec))
    before = jax.device_get(state)
    phase = runner.stage.phases[number]
    assert (number == 1) == (phase.repeats == 3), "the opponent's updates are its own"
    after, _, _ = runner.run_phase(phase, state, [batch()] * runner.draws_per_iteration, {}, 5)
    after = jax.device_get(after)
    assert checks.changed(before, after) == {
        *(f"params/{network}" for network in TRAINED[spec][number]), *(f"optimizer/{name}" for name in phase.trains),
        "batch_stats/encoder", *(["batch_stats/decoder"] if number != 1 else []),
    }  # fmt: skip
    # No Wasserstein loss depends on a critic's own bias.
    assert checks.unmoved(before, after) <= {"discriminator/critic/bias", "prior_critic/out/bias"}
    # The first leaf of an optimizer's state is its count of updates.
    assert {jax.tree.leaves(after.opt_states[name])[0].item() for name in phase.trains} == {phase.repeats}


@pytest.mark.parametrize("spec", SPECS)
def test_runs_from_before_opponents_had_updates_of_their_own_update_them_as_often_as_d(spec):
    config = tiny(spec).config.copy_and_resolve_references()
    with config.unlocked():
        del config.opponent_updates
    critic, opponent, _ = build(config).stages[0].phases
    assert opponent.repeats == critic.repeats == 2


@pytest.mark.parametrize("spec", ["attgan_64", INTENSITY, pytest.param(INDEPENDENT, marks=pytest.mark.slow)])
def test_host_dispatch_and_scan_give_the_same_numbers(spec):
    host, scanned = checks.executor(tiny(spec)), checks.executor(tiny(spec), scan=True)
    checks.executors_agree(host, scanned, [batch()] * host.draws_per_iteration, rtol=1e-3, atol=1e-5, share=2e-2)


@pytest.mark.parametrize("spec", SPECS)
def test_gradients_agree_between_one_device_and_eight(spec):
    checks.devices_agree(tiny(spec), batch(8), share=1e-5, least=1e-3, compiler_options=QUICK)


# Runs.


@pytest.fixture
def whole(faces, trained, tmp_path, monkeypatch):
    """Trains to the end, and killed and resumed: the folder of the first run, after the two were compared."""
    one = checks.one_device()
    monkeypatch.setattr(distributed, "mesh", lambda: one)

    return lambda config: checks.killed_and_resumed(monkeypatch, config, tmp_path)


def test_sliders_of_a_run(whole, faces, trained, tmp_path, monkeypatch, capsys):
    run = whole(runs.extension(faces, INTENSITY, evaluation__judge=str(trained / "judge")))
    summary = evaluate(run, tmp_path / "report", images=6)
    for prefix in ("", "untrained_"):
        assert 0 < summary[f"{prefix}slider_ks"] <= summary[f"{prefix}slider_ks_worst"] <= 1
        assert -1 <= summary[f"{prefix}slider_correlation_worst"] <= summary[f"{prefix}slider_correlation"] <= 1
    editor = load(run)
    source = open_source(str(faces), size=editor.size, crop=editor.crop)
    shown = spread(source.table.indices("test"), 6)
    found = editor.method.intensities(editor.variables, to_float(jnp.asarray(source.images(shown))))
    distances = [metrics.kolmogorov_smirnov(np.asarray(column)) for column in found.T]
    assert summary["slider_ks"] == pytest.approx(np.mean(distances), abs=1e-5)
    report = (tmp_path / "report" / "evaluation.md").read_text()
    assert "## Sliders (6 faces)" in report
    assert "| attribute | model: ks | untrained: ks |" in report
    assert (tmp_path / "report" / "slides.png").exists()

    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    own = np.array([[1, 0, 0], [0, 1, 1]])
    slid = editor.slide(pixels, "Male", (-1, 0.5), source=own)
    x = jnp.asarray(pixels / 127.5 - 1, jnp.float32)
    by_hand = editor.method.slide(editor.variables, x, 2, 0.5, jnp.asarray(own, jnp.float32))
    np.testing.assert_allclose(slid[1], by_hand, atol=1e-5)
    assert editor.slide(pixels[0], "Male", editor.slider).shape == (5, 32, 32, 3)
    with pytest.raises(UserError, match=r"1\.5 is not on this model's slider; give values from -1 to 1"):
        editor.slide(pixels, "Male", (0, 1.5))

    monkeypatch.setattr("faceattr_jax.training.compilation_cache.enable", lambda folder: 0)
    command = ["slide", str(faces / "000.png"), f"--checkpoint={run}", "--attribute=Male", f"--out={tmp_path}"]
    assert cli.main([*command, "--strengths=0,2"]) == 2
    assert "2 is not on this model's slider" in capsys.readouterr().err
    assert cli.main(command) == 0
    with Image.open(tmp_path / "000.slide.png") as image:
        assert image.size[0] > 6 * 32
    assert cli.main([*command, "--strengths=-1,0.5"]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert cli.main([*command, "--strengths=-1,0.5", f"--out={tmp_path / 'two'}"]) == 0
    with Image.open(tmp_path / "two" / "000.slide.png") as fewer:
        assert 3 * 32 < fewer.size[0] < image.size[0]


def test_the_probe_of_a_run(faces, trained, tmp_path, monkeypatch):
    one = checks.one_device()
    monkeypatch.setattr(distributed, "mesh", lambda: one)
    short = {"train__iterations": 1, "train__evaluate_every": 0, "evaluation__judge": str(trained / "judge")}
    loop.train(runs.extension(faces, INDEPENDENT, **short), tmp_path / "run")
    summary = evaluate(tmp_path / "run", tmp_path / "report", images=6)
    for prefix in ("", "untrained_"):
        assert 0 <= summary[f"{prefix}probe_balanced_accuracy"] <= 1
    assert "## Attributes in the latent (learned from 24 faces)" in (tmp_path / "report" / "evaluation.md").read_text()


@pytest.mark.slow
def test_the_ablation_goes_on_where_it_was(whole, faces, trained):
    whole(runs.extension(faces, INDEPENDENT, evaluation__judge=str(trained / "judge")))
