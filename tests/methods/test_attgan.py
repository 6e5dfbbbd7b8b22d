"""AttGAN against the paper's tables and equations."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax import attributes as attribute_names
from faceattr_jax import config as configs
from faceattr_jax.methods import attgan
from faceattr_jax.methods.base import Ctx, EditRequest, build, edited_signs
from faceattr_jax.training.state import init_state
from tests import checks
from tests.checks import QUICK, quick

# Two of the paper's four levels, with its kernels.
SIZE = 16
TINY = {
    "model.width": "2", "batch_size": "4", "image_size": str(SIZE), "model.encoder": "((1, 5, 2), (2, 5, 2))",
    "model.decoder": "((2, 5, 2), (1, 5, 2))", "model.discriminator": "((1, 3, 1), (1, 5, 2), (2, 5, 2))",
}  # fmt: skip


@functools.cache
def tiny(spec: str = "attgan_64", **overrides: str):
    return build(configs.load(spec, {**TINY, **overrides}))


# Tables 1 and 2 of the paper: (height, channels) after each layer, and the kernels, those of the decoder with its last.
TABLES = {
    "attgan_128": {
        "size": 128,
        "encoder": [(64, 64), (32, 128), (16, 256), (8, 512), (4, 1024)],
        "decoder": [(8, 1024), (16, 512), (32, 256), (64, 128)],
        "discriminator": [(64, 64), (32, 128), (16, 256), (8, 512), (4, 1024)],
        "kernels": {"encoder": [4] * 5, "decoder": [4] * 5, "discriminator": [4] * 5},
    },
    "attgan_64": {
        "size": 64,
        "encoder": [(32, 64), (16, 128), (8, 256), (4, 512)],
        "decoder": [(8, 512), (16, 256), (32, 128), (64, 64)],
        "discriminator": [(64, 64), (32, 64), (16, 128), (8, 256), (4, 512), (4, 512)],
        "kernels": {"encoder": [5] * 4, "decoder": [5] * 5, "discriminator": [3, 5, 5, 5, 5, 3]},
    },
}


def test_under_layer_norm_no_face_knows_its_batch():
    method = tiny(**{"model.generator_norm": "layer"})
    variables = quick(method.init)(jax.random.key(0))
    assert variables["batch_stats"] == {"encoder": {}, "decoder": {}}
    images = jax.random.normal(jax.random.key(1), (3, SIZE, SIZE, 3))
    signs = jnp.ones((3, 13))

    @quick
    def reconstruct(images, signs):
        features, stats = method._train_encode(variables, images)
        return method._train_decode(variables, features, signs)[0], stats

    (together, stats), (alone, _) = reconstruct(images, signs), reconstruct(images[:1], signs[:1])
    assert stats == {}
    np.testing.assert_allclose(together[:1], alone, atol=1e-5)


@pytest.mark.parametrize("spec", TABLES)
@pytest.mark.parametrize("variant", ["", "released", "released_v2"])
def test_every_layer_has_the_shape_of_the_papers_table(spec, variant):
    table = TABLES[spec]
    method = build(configs.load(f"{spec}:{variant}"))
    size, n = table["size"], 13
    images = jnp.zeros((1, size, size, 3))
    assert method.attributes == attribute_names.ATTGAN
    assert len(method.attributes) == n

    def rows(found, prefix, pattern):
        return [found[pattern.format(prefix, i)] for i in range(len(table[prefix]))]

    encoder = checks.layer_outputs(method.networks["encoder"], images)
    for kind in ("conv", "norm"):
        assert rows(encoder, "encoder", kind + "{1}/__call__") == [(s, s, c) for s, c in table["encoder"]]
    features = [jnp.zeros((1, s, s, c)) for s, c in table["encoder"]]
    decoder = checks.layer_outputs(method.networks["decoder"], features, jnp.zeros((1, n)))
    for kind in ("deconv", "norm"):
        assert rows(decoder, "decoder", kind + "{1}/__call__") == [(s, s, c) for s, c in table["decoder"]]
    assert decoder["rgb/__call__"] == (size, size, 3)
    discriminator = checks.layer_outputs(method.networks["discriminator"], images)
    expected = [(s, s, c) for s, c in table["discriminator"]]
    assert rows(discriminator, "discriminator", "shared/conv{1}/__call__") == expected
    for head, outputs in (("critic", 1), ("classifier", n)):
        assert discriminator[f"{head}_hidden/__call__"] == (1024,)
        assert discriminator[f"{head}/__call__"] == (outputs,)
    params = jax.eval_shape(lambda: init_state(method, 0)).variables["params"]
    for network, kernels in table["kernels"].items():
        leaves = jax.tree.leaves(params[network])
        assert [leaf.shape[0] for leaf in leaves if leaf.ndim == 4] == kernels, network


def test_decoder_inputs_of_the_variants():
    """The code joins z; with the released code's skip and injection it joins the next layer, too."""

    def kernels(spec):
        method = build(configs.load(spec))
        shapes = jax.eval_shape(lambda: init_state(method, 0)).variables["params"]["decoder"]
        return [shapes[f"deconv{i}"]["kernel"].shape[2] for i in range(4)]

    assert kernels("attgan_128") == [1024 + 13, 1024, 512, 256]
    assert kernels("attgan_128:released") == [1024 + 13, 1024 + 512 + 13, 512, 256]
    assert kernels("attgan_64:released_v2") == [512 + 13, 512 + 256 + 13, 256, 128]


def test_heads_and_norms_of_the_variants():
    def discriminator(spec):
        method = build(configs.load(spec, TINY))
        return jax.eval_shape(lambda: init_state(method, 0)).variables["params"]["discriminator"]

    assert "critic_norm" in discriminator("attgan_64")
    assert "critic_norm" not in discriminator("attgan_64:released")
    assert build(configs.load("attgan_64")).networks["discriminator"].norm == "layer"
    assert build(configs.load("attgan_64:released")).networks["discriminator"].norm == "instance"


def test_schedules_count_iterations():
    rate = build(configs.load("attgan_128:released")).optimizers["critic"].schedule
    np.testing.assert_allclose([rate(0), rate(94_699), rate(94_701)], [2e-4, 2e-4, 2e-5], rtol=1e-6)
    linear = build(configs.load("attgan_128:released_v2")).optimizers["critic"].schedule
    start, stop = 29 * 5687 // 6, 60 * 5687 // 6
    np.testing.assert_allclose([linear(start), linear((start + stop) / 2), linear(stop)], [2e-4, 1e-4, 0], rtol=1e-4)
    constant = build(configs.load("attgan_128")).optimizers["generator"].schedule
    assert float(constant(0)) == float(constant(1_000_000))


@pytest.mark.parametrize(
    ("scale", "expected"), [("zero_one", [0.0, 1.0, 1.5]), ("half", [-0.5, 0.5, 1.0]), ("one", [-1.0, 1.0, 2.0])]
)
def test_code_values(scale, expected):
    """Absent, present, and present at strength 2: the peers' test_int is twice the training value."""
    signs = edited_signs(jnp.array([0.0, 1.0, 0.0]), jnp.array([0.0, 1.0, 1.0]), 2.0)
    np.testing.assert_allclose(attgan.code_values(signs, scale), expected)


def test_strength_zero_is_the_own_code_and_one_the_target():
    source, target = jnp.array([0.0, 1.0, 1.0, 0.0]), jnp.array([1.0, 0.0, 1.0, 0.0])
    np.testing.assert_allclose(edited_signs(source, target, 0.0), 2 * source - 1)
    np.testing.assert_allclose(edited_signs(source, target, 1.0), 2 * target - 1)
    np.testing.assert_allclose(edited_signs(source, target, 0.5), [0.0, 0.0, 1.0, -1.0])
    np.testing.assert_allclose(edited_signs(source, target, 1.5), [1.5, -1.5, 1.0, -1.0])
    # Where it is named, a value that the face is read as having goes on all the same; not up to strength 1.
    named = jnp.array([True, False, True, False])
    np.testing.assert_allclose(edited_signs(source, target, 1.5, named), [1.5, -1.5, 1.5, -1.0])
    for strength in (0.0, 0.5, 1.0):
        plain = edited_signs(source, target, strength)
        np.testing.assert_array_equal(edited_signs(source, target, strength, named), plain)


def test_targets():
    names = attribute_names.ATTGAN
    labels = jax.random.bernoulli(jax.random.key(1), 0.3, (400, 13)).astype(jnp.float32)
    shuffled = attgan.shuffled_targets(jax.random.key(0), labels, names)
    np.testing.assert_array_equal(np.sort(shuffled, 0), np.sort(labels, 0))
    rows = {tuple(row) for row in np.asarray(labels).tolist()}
    assert all(tuple(row) in rows for row in np.asarray(shuffled).tolist())

    inverted = np.asarray(attgan.inverted_targets(jax.random.key(0), labels, names))[1::2]
    own = np.asarray(labels)[1::2]
    chosen = set()
    for before, after in zip(own, inverted, strict=True):
        options = [
            i
            for i, name in enumerate(names)
            if np.array_equal(attribute_names.edited(before, {name: 1 - int(before[i])}, names), after)
        ]
        assert options, "every other row is the image's own labels with one attribute inverted, conflicts resolved"
        chosen |= set(options)
    assert chosen == set(range(13))


@pytest.mark.parametrize(("name", "deviation"), [("uniform", 2 / 12**0.5), ("truncated_normal", 0.4398)])
def test_strengths_of_targets(name, deviation):
    """The released code's, over [0, 2] about 1: a normal cut off at two deviations keeps .8796 of its own."""
    strengths = np.asarray(attgan.STRENGTHS[name](jax.random.key(0), (4000, 13)), np.float64)
    assert 0 <= strengths.min() < 0.01 < 1.99 < strengths.max() <= 2
    np.testing.assert_allclose([strengths.mean(), strengths.std()], [1, deviation], atol=0.01)

    method, ctx = tiny(b_distribution=name), Ctx(jnp.int32(0), jnp.int32(0), jnp.int32(0), jax.random.key(5))
    target = jax.random.bernoulli(jax.random.key(1), 0.3, (40, 13)).astype(jnp.float32)
    signs = method._signs(ctx, target)
    np.testing.assert_array_equal(signs >= 0, target == 1)
    assert len(np.unique(jnp.abs(signs))) > 500, "each attribute of each face has its own"
    np.testing.assert_array_equal(jnp.abs(tiny()._signs(ctx, target)), 1)


def test_targets_are_as_strong_as_asked_in_both_objectives():
    """C reads b itself off what was made with a stronger b, and a face's own a is asked for at 1."""
    method, ctx, data = (
        tiny(b_distribution="uniform"),
        Ctx(*map(jnp.int32, (0, 0, 0)), jax.random.key(5)),
        float_batch(),
    )
    z = applied("encoder")(data["images"])

    def fake(key):
        target = attgan.shuffled_targets(key, data["labels"], method.attributes)
        return applied("decoder")(z, (method._signs(ctx, target) + 1) / 2), target

    made, target = fake(jax.random.split(ctx.key)[0])
    found = quick(method.generator_objective)(variables(), data, {}, ctx).metrics
    b, p = np.asarray(target), np.asarray(nn.sigmoid(applied("discriminator")(made)[1]), np.float64)
    np.testing.assert_allclose(found["classification"], -np.mean(b * np.log(p) + (1 - b) * np.log(1 - p)), rtol=1e-4)
    back = applied("decoder")(z, data["labels"])
    np.testing.assert_allclose(found["reconstruction"], np.mean(np.abs(back - data["images"])), rtol=1e-4)

    made, _ = fake(jax.random.split(ctx.key, 3)[0])
    distance = quick(method.critic_objective)(variables(), data, {}, ctx).metrics["distance"]
    real, other = (np.mean(applied("discriminator")(x)[0]) for x in (data["images"], made))
    np.testing.assert_allclose(distance, real - other, rtol=1e-3, atol=1e-5)


@functools.cache
def variables():
    return checks.fresh(tiny()).variables


@functools.cache
def applied(network):
    """The bare network, normalising as in training."""

    own = {c: variables()[c][network] for c in ("params", "batch_stats") if network in variables()[c]}
    training = {} if network == "discriminator" else {"train": True, "mutable": ["batch_stats"]}
    call = quick(functools.partial(tiny().networks[network].apply, **training))
    return lambda *args: call(own, *args)[0] if training else call(own, *args)


@functools.cache
def inference(name):
    """The method's function of that name, for the same variables."""
    return functools.partial(quick(getattr(tiny(), name)), variables())


@functools.cache
def batch(size: int = SIZE, n: int = 13, count: int = 4):
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        "labels": rng.integers(0, 2, (count, n)).astype(np.float32),
    }


def float_batch(**kwargs):
    b = batch(**kwargs)
    return {"images": jnp.asarray(b["images"] / 127.5 - 1, jnp.float32), "labels": jnp.asarray(b["labels"])}


def test_instance_noise_is_seen_in_training_alone():
    images = jnp.zeros((8, 64, 64, 3))
    noisy = tiny(**{"model.instance_noise": "0.2"})
    np.testing.assert_allclose(float(jnp.std(noisy._noisy(jax.random.key(1), images))), 0.2, rtol=0.02)
    assert tiny()._noisy(jax.random.key(1), images) is images
    faces = float_batch()["images"]
    np.testing.assert_array_equal(quick(noisy.classify)(variables(), faces), inference("classify")(faces))


def test_losses_are_the_papers_sums():
    """Eqs. 13 and 14 from the metrics that the objectives report, and each term from the networks by hand."""
    method = tiny()
    data = float_batch()
    ctx = Ctx(jnp.int32(0), jnp.int32(0), jnp.int32(0), jax.random.key(5))
    out = quick(method.generator_objective)(variables(), data, {}, ctx)
    m = out.metrics
    np.testing.assert_allclose(
        out.losses["generator"], 100 * m["reconstruction"] + 10 * m["classification"] + m["adversarial"], rtol=1e-5
    )

    target_key, _ = jax.random.split(ctx.key)
    target = attgan.shuffled_targets(target_key, data["labels"], method.attributes)
    z = applied("encoder")(data["images"])
    fake, reconstruction = applied("decoder")(z, target), applied("decoder")(z, data["labels"])
    values, logits = applied("discriminator")(fake)
    p, b = np.asarray(nn.sigmoid(logits), np.float64), np.asarray(target)
    np.testing.assert_allclose(m["classification"], -np.mean(b * np.log(p) + (1 - b) * np.log(1 - p)), rtol=1e-4)
    np.testing.assert_allclose(m["adversarial"], -np.mean(values), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(m["reconstruction"], np.mean(np.abs(reconstruction - data["images"])), rtol=1e-4)

    out = quick(method.critic_objective)(variables(), data, {}, ctx)
    m = out.metrics
    np.testing.assert_allclose(
        out.losses["critic"], -m["distance"] + 10 * m["penalty"] + m["classification"], rtol=1e-5
    )
    shuffle_key, penalty_key, _ = jax.random.split(ctx.key, 3)
    fake = applied("decoder")(z, attgan.shuffled_targets(shuffle_key, data["labels"], method.attributes))
    fake_values, fake_logits = applied("discriminator")(fake)
    real_values, real_logits = applied("discriminator")(data["images"])
    np.testing.assert_allclose(m["distance"], np.mean(real_values) - np.mean(fake_values), rtol=1e-3, atol=1e-5)
    # The critic normalises each sample by itself, so that its values' sum has every sample's own gradient.
    alpha = jax.random.uniform(penalty_key, (4, 1, 1, 1))
    mixed = alpha * fake + (1 - alpha) * data["images"]
    gradient = quick(jax.grad(lambda x: jnp.sum(method._discriminate(variables(), x)[0])))(mixed)
    norms = np.linalg.norm(np.reshape(gradient, (4, -1)), axis=1)
    np.testing.assert_allclose(m["penalty"], np.mean((norms - 1) ** 2), rtol=1e-3)
    a = np.asarray(data["labels"])
    for name, logits in (("classification", real_logits), ("traces", fake_logits)):
        p = np.asarray(nn.sigmoid(logits), np.float64)
        np.testing.assert_allclose(m[name], -np.mean(a * np.log(p) + (1 - a) * np.log(1 - p)), rtol=1e-4)
    tracing = quick(tiny(**{"loss.trace_classification": "0.3"}).critic_objective)(variables(), data, {}, ctx)
    np.testing.assert_allclose(tracing.losses["critic"], out.losses["critic"] + 0.3 * m["traces"], rtol=1e-5)


@pytest.mark.parametrize(("number", "trained"), [(0, {"discriminator"}), (1, {"encoder", "decoder"})])
def test_each_phase_trains_its_networks_and_leaves_the_others_bit_identical(number, trained):
    method = tiny()
    executor = checks.executor(method)
    state = checks.fresh(method)
    before = jax.device_get(state)
    phase = executor.stage.phases[number]
    after = jax.device_get(executor.run_phase(phase, state, [batch()] * executor.draws_per_iteration, {}, 0)[0])
    # The released code moves the averages in the critic's updates, too.
    assert checks.changed(before, after) == {
        *(f"params/{network}" for network in trained), f"optimizer/{phase.name}",
        "batch_stats/encoder", "batch_stats/decoder",
    }  # fmt: skip
    # No Wasserstein loss depends on the critic's own bias.
    assert checks.unmoved(before, after) <= {"discriminator/critic/bias"}
    assert jax.tree.leaves(after.opt_states[phase.trains[0]])[0] == phase.repeats


def test_edit_of_unchanged_attributes_is_the_reconstruction():
    data = float_batch()
    images, labels = data["images"], data["labels"]
    edit, reconstruct = inference("edit"), inference("reconstruct")
    edited = edit(images, EditRequest(target=labels, source=labels, strength=2.0))
    np.testing.assert_array_equal(edited, reconstruct(images, labels))
    np.testing.assert_allclose(
        edit(images, EditRequest(target=1 - labels, source=labels, strength=0.0)), edited, atol=1e-6
    )
    read = (inference("classify")(images) > 0.5).astype(jnp.float32)
    np.testing.assert_allclose(edit(images, EditRequest(target=read)), reconstruct(images, read), atol=1e-6)


def test_edit_is_pure_under_vmap_and_grad():
    data = float_batch()
    images, labels = data["images"], data["labels"]
    request = EditRequest(target=1 - labels, source=labels)
    together = inference("edit")(images, request)

    @quick
    @jax.vmap
    def one(image, source, target):
        return tiny().edit(variables(), image[None], EditRequest(target=target[None], source=source[None]))[0]

    np.testing.assert_allclose(one(images, labels, 1 - labels), together, atol=1e-5)
    gradient = quick(jax.grad(lambda x: jnp.sum(tiny().edit(variables(), x, request) ** 2)))(images)
    assert np.isfinite(gradient).all()
    assert float(jnp.abs(gradient).max()) > 0


def test_gradients_agree_between_one_device_and_eight():
    checks.devices_agree(tiny(), batch(count=8), share=1e-5, least=1e-3, compiler_options=QUICK)
