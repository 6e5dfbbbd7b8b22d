"""DIAT and its hallucination, so small that they are soon compiled, and what their tests have in common."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax import config as configs
from faceattr_jax.methods import diat
from faceattr_jax.methods.base import Ctx, build
from faceattr_jax.nn.conv import Conv
from tests import checks
from tests.checks import quick

SIZE = 16
TINY = {
    "image_size": str(SIZE), "batch_size": "4", "model.width": "4", "model.transform": "(1, 2, 4)",
    "model.discriminator_width": "2", "model.fc": "8", "model.denoiser": "(4,)",
    "model.discriminator": "((1, 8, 2), (1, 3, 1), (2, 4, 2), (2, 3, 1))",
    "loss.identity": "2.0", "loss.perceptual": "3.0", "loss.threshold": "0.25",
    "steps.discriminator": "3", "steps.transfer": "2",
}  # fmt: skip
CTX = Ctx(jnp.int32(0), jnp.int32(0), jnp.int32(0), jax.random.key(5))
TRANSFER, HALLUCINATION, UNET = "diat_128", "diat_hallucination", "diat_hallucination:unet"


class Lens(nn.Module):
    """A face network of two layers."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.relu(Conv(4, 3, 2, name="conv")(images))
        return nn.Dense(5, name="fc")(x.mean((1, 2)))


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """Stands for `pretrained.FaceNetwork`."""

    seed: int = 0
    name: str = "lens"

    @property
    def sha256(self) -> str:
        return f"{self.seed:064}"

    @functools.cached_property
    def variables(self) -> Mapping[str, Any]:
        return jax.device_get(Lens().init(jax.random.key(self.seed), jnp.zeros((1, 8, 8, 3))))

    def features(self, variables: Mapping[str, Any], images: jax.Array) -> jax.Array:
        return Lens().apply(variables, jax.image.resize(images, (images.shape[0], 8, 8, 3), "linear"))


FACE = Face()


@pytest.fixture(autouse=True)
def face_network(monkeypatch):
    """For a module's tests, where it has this by a name of its own."""
    monkeypatch.setattr(diat, "open_face", lambda config: FACE)


@functools.cache
def tiny(name: str = TRANSFER, **overrides: str):
    settings = {**TINY, "model.mask": "(4, 4, 4, 4)"} if name.startswith(TRANSFER) else TINY
    if name == UNET:
        settings = {key: TINY[key] for key in ("image_size", "batch_size", "model.width", "model.transform")}
    overrides = {key.replace("__", "."): value for key, value in overrides.items()}
    return build(configs.load(name, {**settings, **overrides}))


@functools.cache
def state(name: str = TRANSFER):
    """A fresh state whose batch norms have averages, scales and shifts other than 0 and 1, and a mask half open."""
    fresh = checks.fresh(tiny(name))
    leaves, tree = jax.tree.flatten(fresh.variables)
    rng = np.random.default_rng(0)
    leaves = [x + jnp.asarray(rng.uniform(-0.3, 0.3, x.shape), x.dtype) if x.ndim == 1 else x for x in leaves]
    held = jax.tree.unflatten(tree, leaves)
    if "mask" in held["params"]:  # about half of it open
        own = {collection: held[collection]["mask"] for collection in held}
        look = functools.partial(
            tiny(name).networks["mask"].apply, capture_intermediates=True, mutable=["intermediates"]
        )
        seen = quick(look)(own, X)[1]
        held["batch_stats"]["mask"]["norm5"]["mean"] = jnp.median(seen["intermediates"]["conv5"]["__call__"][0])[None]
        held["params"]["mask"]["norm5"]["bias"] = jnp.zeros(1)
    return fresh.replace(variables=held)


def variables(name: str = TRANSFER):
    """As an objective gets them."""
    return {**state(name).variables, "frozen": {"face": FACE.variables}}


def batch(count: int = 4):
    rng = np.random.default_rng(0)

    def leaf(value: float):
        images = rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
        return {"images": images, "labels": np.full((count, 1), value, np.float32)}

    return {"source": leaf(1), "guided": leaf(0)}


def float_batch():
    return {
        name: {"images": jnp.asarray(leaf["images"] / 127.5 - 1, jnp.float32), "labels": jnp.asarray(leaf["labels"])}
        for name, leaf in batch().items()
    }


X, A = (float_batch()[name]["images"] for name in ("source", "guided"))


@functools.cache
def _compiled(name: str, network: str, train: bool) -> Callable[..., Any]:
    options = {"train": train, "mutable": ["batch_stats"]} if network in ("transform", "mask") else {}
    return quick(functools.partial(tiny(name).networks[network].apply, **options))


def applied(network: str, images: jax.Array, *, train: bool = True, name: str = TRANSFER) -> Any:
    """The bare network's output, normalising as in training or not."""
    held = state(name).variables
    own = {c: held[c][network] for c in ("params", "batch_stats") if network in held[c]}
    output = _compiled(name, network, train)(own, images)
    return output[0] if "batch_stats" in own else output


def flat(x):
    return np.asarray(x, np.float64).reshape(len(x), -1)


def squared(a, b):
    return np.mean(np.sum((flat(a) - flat(b)) ** 2, axis=1))


@functools.cache
def carried(name: str = TRANSFER, **overrides: str):
    method = tiny(name, **overrides)
    return quick(method.forward_objective)(variables(name), float_batch(), {}, CTX).carry


# Of each stage's phases what they change, besides what belongs to a mask.
STEPS = {
    (0, "reconstruction"): {"params/transform", "batch_stats/transform", "optimizer/transfer"},
    (0, "regression"): {"params/discriminator", "optimizer/discriminator"},
    (0, "denoising"): {"params/denoiser", "optimizer/denoiser"},
    (1, "forward"): {"batch_stats/transform"},
    (1, "discriminator"): {"params/discriminator", "optimizer/discriminator"},
    (1, "transfer"): {"params/transform", "optimizer/transfer"},
    (1, "smoothing"): {"params/transform", "optimizer/transfer"},
}
MASKS = {"forward": {"batch_stats/mask"}, "transfer": {"params/mask"}, "smoothing": {"params/mask"}}


def check_phases(name: str) -> None:
    """Every phase changes what is its own and leaves all else, and the frozen networks, bit-identical."""
    method, data = tiny(name), batch()["source"] if name == UNET else batch()
    carry, done = {}, []
    for number in range(len(method.stages)):
        runner = checks.executor(method, number)
        assert runner.draws_per_iteration == 1
        held, frozen = checks.fresh(method), jax.device_get(runner.frozen)
        for phase in runner.stage.phases:
            before = jax.device_get(held)
            held, carry, _ = runner.run_phase(phase, held, [data], carry, 0)
            expected = STEPS[number, phase.name] | (MASKS.get(phase.name, set()) if name == TRANSFER else set())
            after = jax.device_get(held)
            assert checks.changed(before, after) == expected, phase.name
            # No Wasserstein loss depends on the critic's own bias.
            still = {"discriminator/score/bias"} if phase.name == "discriminator" else set()
            assert checks.unmoved(before, after) <= still, phase.name
            done.append((number, phase.name))
        jax.tree.map(np.testing.assert_array_equal, frozen, jax.device_get(runner.frozen))
    assert done == list(STEPS)[: 1 if name == UNET else None]


def check_executors(name: str, stage: int) -> None:
    """Host dispatch and scan give the same numbers."""
    data = batch()["source"] if name == UNET else batch()
    host, scanned = checks.executor(tiny(name), stage), checks.executor(tiny(name), stage, scan=True)
    checks.executors_agree(host, scanned, [data], iterations=2, rtol=5e-3, atol=1e-5, share=2e-2, least=1e-4)


def check_devices(name: str, stage: int) -> dict[str, Any]:
    """One device and eight give the same gradients, which are returned."""
    data = batch(8)["source"] if name == UNET else batch(8)
    return checks.devices_agree(tiny(name), data, share=1e-4, least=1e-2, stage=stage, compiler_options=checks.QUICK)
