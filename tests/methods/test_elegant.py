"""ELEGANT against the paper's equations and its code's layer table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from faceattr_jax import config as configs
from faceattr_jax.data import sampling
from faceattr_jax.methods import elegant
from faceattr_jax.methods.base import build
from faceattr_jax.training import distributed
from faceattr_jax.training.state import init_state
from tests import checks, runs
from tests.checks import QUICK, changed, killed_and_resumed, layer_outputs, quick, unmoved
from tests.methods.tiny_elegant import N, batch, ctx, float_batch, pictures, tiny, variables_of

# The released networks at 256 px: (height, channels) after each layer. The paper's discriminators have one more.
ENCODER = [(128, 64), (64, 128), (32, 256), (16, 512), (8, 512)]
DECODER = [(16, 512), (32, 256), (64, 128), (128, 64)]
DISCRIMINATOR = {"": [64, 128, 256, 512, 512], "released": [64, 128, 256, 512]}


@pytest.mark.parametrize("variant", ["", "released"])
def test_every_layer_has_the_shape_of_the_table(variant):
    method = build(configs.load(f"elegant_256:{variant}"))
    images, labels = jnp.zeros((1, 256, 256, 3)), jnp.zeros((1, 2))

    def rows(found, kind, count):
        return [found[f"{kind}{i}/__call__"] for i in range(count)]

    encoder = layer_outputs(method.networks["encoder"], images)
    features = [jnp.zeros((1, s, s, c)) for s, c in ENCODER]
    decoder = layer_outputs(method.networks["decoder"], features[-1], features)
    for kind in ("conv", "norm"):
        assert rows(encoder, kind, 5) == [(s, s, c) for s, c in ENCODER]
    for kind in ("deconv", "norm"):
        assert rows(decoder, kind, 4) == [(s, s, c) for s, c in DECODER]
    assert decoder["rgb/__call__"] == (256, 256, 3)
    assert "rgb_norm/__call__" not in decoder
    for name, size in (("discriminator1", 256), ("discriminator2", 128)):
        found = layer_outputs(method.networks[name], images, labels)
        widths = DISCRIMINATOR[variant]
        expected = [(size >> (i + 1), size >> (i + 1), c) for i, c in enumerate(widths)]
        for kind in ("conv", "norm"):
            assert rows(found, kind, len(widths)) == expected
        assert found["fc/__call__"] == (1,)

    params = jax.eval_shape(lambda: init_state(method, 0)).variables["params"]
    assert params["decoder"]["deconv0"]["kernel"].shape == (3, 3, 1024, 512)
    last = 256 >> len(widths)
    for name, side in (("discriminator1", last), ("discriminator2", last // 2)):
        assert params[name]["conv0"]["kernel"].shape == (3, 3, 3 + 2, 64)
        assert params[name]["fc"]["kernel"].shape == (512 * side**2, 1)
    assert {leaf.shape for n in params for k, v in params[n].items() if "norm" in k for leaf in v.values()} == {()}


def test_norm_of_the_last_layer_is_a_choice():
    method = build(configs.load("elegant_256", {"model.rgb_norm": "true"}))
    features = [jnp.zeros((1, s, s, c)) for s, c in ENCODER]
    assert layer_outputs(method.networks["decoder"], features[-1], features)["rgb_norm/__call__"] == (256, 256, 3)


def test_variants():
    paper, released = (configs.load(spec) for spec in ("elegant_256", "elegant_256:released"))
    assert set(configs.differences(paper, released)) == {
        "model.discriminator", "model.decoder_activation", "loss.reconstruction", "loss.distance", "loss.adversarial",
        "loss.discriminators", "optimizer.weight_decay", "optimizer.schedule",
    }  # fmt: skip
    assert set(configs.differences(released, configs.load("elegant_128:released"))) == {"image_size"}
    stage = build(paper).stages[0]
    assert (stage.iterations, stage.cycle, stage.sampler) == (400_000, 2, sampling.opposite_pairs)
    small = build(configs.load("elegant_128:synthetic"))
    features = jax.eval_shape(lambda: small.encode(init_state(small, 0).variables, jnp.zeros((1, 64, 64, 3))))
    assert features[-1].shape[1:3] == (4, 4)


def test_learning_rate_falls_every_3000_rounds_of_all_attributes():
    rate = build(configs.load("elegant_256:released")).optimizers["generator"].schedule
    found = [rate(i) for i in (0, 5_999, 6_000, 12_000)]
    np.testing.assert_allclose(found, [2e-4, 2e-4, 0.97 * 2e-4, 0.97**2 * 2e-4], rtol=1e-6)


def test_initial_values():
    """Kernels from N(0, .02^2), biases from U(-b, b) with PyTorch's b, the final bias 0, norms the identity."""
    method = build(configs.load("elegant_256", {"model.width": "16"}))
    params = quick(method.init)(jax.random.key(0))["params"]
    for network, layer, bound in (
        ("encoder", "conv2", (32 * 9) ** -0.5),
        ("decoder", "deconv1", (64 * 9) ** -0.5),
        ("discriminator1", "conv3", (64 * 9) ** -0.5),
    ):
        tree = params[network][layer]
        np.testing.assert_allclose(np.std(tree["kernel"]), 0.02, rtol=0.05)
        biases = np.abs(tree["bias"])
        assert 0.9 * bound < biases.max() <= bound
        np.testing.assert_allclose(biases.mean(), bound / 2, rtol=0.3)
    assert float(params["discriminator2"]["fc"]["bias"][0]) == 0.0
    np.testing.assert_allclose(np.std(params["discriminator2"]["fc"]["kernel"]), 0.02, rtol=0.1)
    assert (float(params["encoder"]["norm0"]["scale"]), float(params["encoder"]["norm0"]["shift"])) == (1.0, 0.0)


def test_l2_norm():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    x[0, 1, 2] = 0.0
    params = {"scale": jnp.float32(1.7), "shift": jnp.float32(-0.3)}
    expected = np.empty_like(x)
    for b, h, w in np.ndindex(*x.shape[:3]):
        norm = max(sum(float(v) ** 2 for v in x[b, h, w]) ** 0.5, 1e-12)
        for c in range(5):
            expected[b, h, w, c] = 1.7 * x[b, h, w, c] / norm - 0.3
    np.testing.assert_allclose(elegant.L2Norm().apply({"params": params}, x), expected, rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(elegant.L2Norm().apply({"params": params}, x) ** 2))(jnp.asarray(x))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("channels", "n", "bounds"),
    [
        (512, 2, [0, 256, 512]),
        (512, 3, [0, 171, 341, 512]),  # 170.67, 341.33
        (512, 5, [0, 102, 205, 307, 410, 512]),
        (10, 4, [0, 2, 5, 8, 10]),  # 2.5 and 7.5 go to the even neighbour
        (6, 4, [0, 2, 3, 4, 6]),  # 1.5 and 4.5
        (7, 1, [0, 7]),
    ],
)
def test_parts_of_a_code(channels, n, bounds):
    parts = elegant.parts(channels, n)
    assert parts.shape == (n, channels)
    for i in range(n):
        np.testing.assert_array_equal(np.flatnonzero(parts[i]), np.arange(bounds[i], bounds[i + 1]))
    np.testing.assert_array_equal(parts.sum(0), 1)


def test_a_code_is_not_divided_among_more_attributes_than_channels():
    with pytest.raises(ValueError, match="4 channels cannot be divided among 5"):
        elegant.parts(4, 5)


def test_exchange():
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=(2, 4, 4, 6)), jnp.float32) for _ in range(2))
    mask = jnp.array([0, 0, 1, 1, 0, 0], bool)
    c, d = elegant.exchange(a, b, mask)
    np.testing.assert_array_equal(c, np.concatenate([a[..., :2], b[..., 2:4], a[..., 4:]], -1))
    np.testing.assert_array_equal(d, np.concatenate([b[..., :2], a[..., 2:4], b[..., 4:]], -1))
    for twice, once in zip(elegant.exchange(c, d, mask), (a, b), strict=True):
        np.testing.assert_array_equal(twice, once)
    own = jnp.stack([mask, ~mask])
    c, d = elegant.exchange(a, b, own)
    np.testing.assert_array_equal(c[1], elegant.exchange(b, a, mask)[0][1])
    np.testing.assert_array_equal(elegant.exchange(c, d, own)[0], a)
    labels = elegant.exchange(jnp.array([[1, 0, 1]]), jnp.array([[0, 1, 1]]), jnp.array([True, False, False]))
    np.testing.assert_array_equal(labels[0], [[0, 0, 1]])
    np.testing.assert_array_equal(labels[1], [[1, 1, 1]])


def test_exchange_of_codes_twice_gives_the_first_codes_back():
    method = tiny()
    variables, (images, references) = variables_of(method), pictures()
    own, other = (quick(method.encode)(variables, x)[-1] for x in (images, references))
    mask = method.channels(jnp.array([1, 0, 1]))
    np.testing.assert_array_equal(mask, method.parts[0] | method.parts[2])
    once = elegant.exchange(own, other, mask)
    assert not np.array_equal(once[0], own)
    np.testing.assert_array_equal(elegant.exchange(*once, mask)[0], own)


def test_skips_are_those_of_the_edited_image_and_sums_are_clipped():
    method = tiny()
    variables, (images, references) = variables_of(method), pictures()
    features, others = (quick(method.encode)(variables, x) for x in (images, references))
    mask = jnp.array([0, 1, 0])
    swapped = quick(method.swap)(variables, images, references, mask)
    code, _ = elegant.exchange(features[-1], others[-1], jnp.asarray(method.parts[1]))
    own = {"params": variables["params"]["decoder"]}
    residual = quick(method.networks["decoder"].apply)(own, code, features)
    assert np.abs(residual).max() <= 2.0
    assert np.abs(images + residual).max() > 1.0
    np.testing.assert_allclose(swapped, np.clip(images + residual, -1, 1), atol=1e-6)
    foreign = quick(method.networks["decoder"].apply)(own, code, [*others[:-1], features[-1]])
    assert np.abs(foreign - residual).max() > 0.01


def test_losses_are_the_papers_sums():
    """Eqs. 7-12 with the released weights, by hand from the networks of A, B, C and D one by one."""
    method = tiny()
    variables, data = variables_of(method), float_batch()
    a, b = data["positive"], data["negative"]
    encode, decode = quick(method.encode), quick(method.decode)
    f_a, f_b = encode(variables, a["images"]), encode(variables, b["images"])
    part = method.parts[1]
    z_c, z_d = np.where(part, f_b[-1], f_a[-1]), np.where(part, f_a[-1], f_b[-1])
    y_c, y_d = np.array(a["labels"]), np.array(b["labels"])
    y_c[:, 1], y_d[:, 1] = 0.0, 1.0
    c, d = decode(variables, a["images"], f_a, z_c), decode(variables, b["images"], f_b, z_d)
    mse = sum(
        np.mean((np.asarray(decode(variables, x["images"], f, f[-1])) - x["images"]) ** 2)
        for x, f in ((a, f_a), (b, f_b))
    )

    def score(network, images, labels):
        own = {"params": variables["params"][network]}
        logits = quick(method.networks[network].apply)(own, images, labels)
        return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))

    d_losses, g_losses = [], []
    for network in ("discriminator1", "discriminator2"):
        real_a, real_b = score(network, a["images"], a["labels"]), score(network, b["images"], b["labels"])
        fake_c, fake_d = score(network, c, y_c), score(network, d, y_d)
        terms = (real_a, real_b, 1 - fake_c, 1 - fake_d)
        d_losses.append(-sum(np.mean(np.log(p)) for p in terms))
        g_losses.append(-np.mean(np.log(fake_c)) - np.mean(np.log(fake_d)))

    out = quick(method.discriminators_objective)(variables, data, {}, ctx())
    expected = (d_losses[0] + 0.5 * d_losses[1]) / 4
    np.testing.assert_allclose(out.losses["discriminators"], expected, rtol=1e-4)
    out = quick(method.generator_objective)(variables, data, {}, ctx())
    np.testing.assert_allclose(out.metrics["reconstruction"], mse, rtol=1e-4)
    np.testing.assert_allclose([out.metrics[n] for n in elegant.SCALES], g_losses, rtol=1e-4)
    np.testing.assert_allclose(out.losses["generator"], 5 * mse + g_losses[0] + 0.5 * g_losses[1], rtol=1e-4)

    # The paper's weights, over the networks above.
    paper = tiny("elegant_256", **{"model.discriminator": "(1, 2, 4, 8)", "model.decoder_activation": "relu"})
    out = quick(paper.discriminators_objective)(variables, data, {}, ctx())
    np.testing.assert_allclose(out.losses["discriminators"], sum(d_losses), rtol=1e-4)
    out = quick(paper.generator_objective)(variables, data, {}, ctx())
    l1 = sum(
        np.mean(np.abs(np.asarray(decode(variables, x["images"], f, f[-1])) - x["images"]))
        for x, f in ((a, f_a), (b, f_b))
    )
    np.testing.assert_allclose(out.losses["generator"], l1 + sum(g_losses), rtol=1e-4)


def test_terms_that_the_paper_does_not_have():
    """By hand, a face at a time, with their gradients; what is decoded with its own part again is a constant."""
    weights = {"own_part": 0.7, "change": 0.3, "neutral": 0.2}
    method = tiny(**{f"loss.{name}": str(weight) for name, weight in weights.items()})
    variables, data, part = variables_of(method), float_batch(), method.parts[1]
    faces = [data[side]["images"] for side in ("positive", "negative")]

    def given(variables, x, code):
        """x decoded with the part of another code."""
        features = method.encode(variables, x)
        return method.decode(variables, x, features, jnp.where(part, code, features[-1]))

    def codes(variables):
        return [method.encode(variables, x)[-1] for x in faces]

    def swapped(variables):
        return [given(variables, x, other) for x, other in zip(faces, codes(variables)[::-1], strict=True)]

    constants = swapped(variables)

    def expected(variables):
        own_part = moved = jnp.float32(0)
        for x, code, fake, constant in zip(faces, codes(variables), swapped(variables), constants, strict=True):
            own_part += jnp.mean((given(variables, constant, code) - x) ** 2)
            moved += jnp.mean(jnp.abs(fake - x))
        lacking, neighbours = faces[1], codes(variables)[1]
        neighbours = jnp.stack([neighbours[i - 1] for i in range(len(neighbours))])
        neutral = jnp.mean((given(variables, lacking, neighbours) - lacking) ** 2)
        found = {"own_part": own_part, "change": moved, "neutral": neutral}
        return sum(weights[name] * value for name, value in found.items()), found

    def terms(variables):
        metrics = method.generator_objective(variables, data, {}, ctx()).metrics
        return sum(weight * metrics[name] for name, weight in weights.items()), metrics

    (_, metrics), gradients = quick(jax.value_and_grad(terms, has_aux=True))(variables)
    (by_hand, parts_by_hand), gradients_by_hand = quick(jax.value_and_grad(expected, has_aux=True))(variables)
    for name, value in parts_by_hand.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
    for network in ("encoder", "decoder"):
        flat, by_hand_flat = (ravel_pytree(tree["params"][network])[0] for tree in (gradients, gradients_by_hand))
        assert np.linalg.norm(flat - by_hand_flat) < 1e-4 * np.linalg.norm(by_hand_flat)
    with_terms, without = (
        quick(m.generator_objective)(variables, data, {}, ctx()).losses["generator"] for m in (method, tiny())
    )
    np.testing.assert_allclose(with_terms, without + by_hand, rtol=1e-5)


def test_other_attributes_are_exchanged_at_their_rate():
    """At 1 all of them, whichever the iteration's is."""
    method, data = tiny(exchange_others="1.0"), float_batch()
    variables, (a, b) = variables_of(method), (data["positive"], data["negative"])
    expected = 0.0
    for x, y in ((a, b), (b, a)):
        fakes = quick(method.swap)(variables, x["images"], y["images"], jnp.ones(N))
        logits = quick(method.networks["discriminator1"].apply)(
            {"params": variables["params"]["discriminator1"]}, fakes, y["labels"]
        )
        expected += np.mean(np.log1p(np.exp(-np.asarray(logits))))
    objective = quick(method.generator_objective)
    for index in range(N):
        found = objective(variables, data, {}, ctx(index)).metrics["discriminator1"]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("number", "trained"), [(0, {"discriminator1", "discriminator2"}), (1, {"encoder", "decoder"})]
)
def test_each_phase_trains_its_networks_and_leaves_the_others_bit_identical(number, trained):
    method, executor = tiny(), checks.executor(tiny())
    state = checks.fresh(method)
    before = jax.device_get(state)
    phase = executor.stage.phases[number]
    after = jax.device_get(executor.run_phase(phase, state, [batch()], {}, 1)[0])
    (mine,) = phase.trains
    assert changed(before, after) == {*(f"params/{network}" for network in trained), f"optimizer/{mine}"}
    assert not unmoved(before, after)
    counts = [leaf for leaf in jax.tree.leaves(after.opt_states[mine]) if leaf.dtype == np.int32]
    assert counts == [1]


def test_one_compiled_function_for_all_attributes():
    """The index is traced: its cost is one compilation, and it chooses the part that is exchanged."""
    executor = checks.executor(tiny())
    state = checks.fresh(tiny())
    for iteration in range(2 * N):
        state, _ = executor.iterate(state, [batch()], iteration)
    assert [update._cache_size() for update in executor.updates.values()] == [1, 1]

    method = tiny()
    variables, data = variables_of(method), float_batch()
    objective = quick(method.generator_objective)
    found = {float(objective(variables, data, {}, ctx(i)).losses["generator"]) for i in range(N)}
    assert len(found) == N
    assert objective._cache_size() == 1
    swap = quick(method.swap)
    images, references = pictures()
    results = [np.asarray(swap(variables, images, references, jnp.arange(N) == i)) for i in range(N)]
    assert swap._cache_size() == 1
    assert not np.array_equal(results[0], results[1])


def test_the_generators_fakes_are_those_that_the_discriminators_saw():
    """The adversarial terms of an iteration's second phase are the new discriminators' on the first phase's fakes."""
    method, executor = tiny(), checks.executor(tiny())
    state = checks.fresh(method)
    old = jax.device_get(state.variables)
    state, metrics = executor.iterate(state, [batch()], 1)
    data = float_batch()
    a, b = data["positive"], data["negative"]
    mask = jnp.array([0, 1, 0])
    logits = []
    for x, y in ((a, b), (b, a)):
        fake = quick(method.swap)(old, x["images"], y["images"], mask)
        labels = x["labels"].at[:, 1].set(y["labels"][:, 1])
        new = {"params": state.variables["params"]["discriminator1"]}
        logits.append(np.asarray(quick(method.networks["discriminator1"].apply)(new, fake, labels)))
    expected = sum(np.mean(np.log1p(np.exp(-x))) for x in logits)
    np.testing.assert_allclose(metrics["generator/discriminator1"], expected, rtol=1e-5)


def test_host_dispatch_and_scan_give_the_same_numbers():
    found = []
    for executor in (checks.executor(tiny()), checks.executor(tiny(), scan=True)):
        state = checks.fresh(tiny())
        history = []
        for iteration in range(2):
            state, metrics = executor.iterate(state, [batch()], iteration)
            history.append({name: float(value) for name, value in metrics.items()})
        found.append((jax.device_get(state.variables), history))
    (one, first), (other, second) = found
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_allclose([a[name] for name in b], [*b.values()], rtol=1e-4)


@pytest.mark.parametrize("own", [{}, {"exchange_others": "0.5", "loss.own_part": "5.0", "loss.neutral": "5.0"}])
def test_gradients_agree_between_one_device_and_eight(own):
    checks.devices_agree(tiny(**own), batch(count=8), share=1e-5, least=1e-2, compiler_options=QUICK)


def test_a_run_killed_and_resumed_ends_with_the_bits_of_an_unbroken_one(faces, tmp_path, monkeypatch):
    """And the loop draws opposite pairs, and shows swaps on a grid."""
    one = checks.one_device()
    monkeypatch.setattr(distributed, "mesh", lambda: one)
    settings = {"model.width": 2, "image_size": 32, "batch_size": 2, "evaluation.images": 8, "train.evaluate_every": 0}
    config = runs.changed("elegant_128:synthetic", {**settings, "train.iterations": 4}, faces, {})
    killed_and_resumed(monkeypatch, config, tmp_path)
    for workdir in ("whole", "parts"):
        assert list((tmp_path / workdir).glob("**/*swaps*.png"))
