"""ELEGANT against an independent PyTorch implementation: outputs, losses, gradients, whole iterations."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax import config as configs
from faceattr_jax.methods import base
from faceattr_jax.training.state import TrainState, init_state
from faceattr_jax.training.step import Executor

# Tiny networks whose compilation takes most of the time: optimise nothing.
COMPILER_OPTIONS = {"xla_backend_optimization_level": 0}
# Three attributes among 32 channels: an uneven split.
SMALL = {"model.width": "4", "batch_size": "2", "attributes": "Bangs,Eyeglasses,Male"}


def setting(spec: str, dtype: Any, count: int = 1, **overrides: str) -> tuple[Any, Executor, TrainState, list[Any]]:
    """A narrow ELEGANT with random scales and biases, too, and the batches of `count` iterations."""
    config = configs.load(spec, {**SMALL, **{key.replace("__", "."): value for key, value in overrides.items()}})
    method = base.build(config)
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    executor = Executor(method, method.stages[0], seed=config.seed, mesh=mesh)
    shapes = jax.eval_shape(lambda: init_state(method, 0))
    rng = np.random.default_rng(0)

    def value(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        center = 1.0 if path[-1].key == "scale" else 0.0
        spread = np.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else 0.1
        return jnp.asarray(rng.normal(center, spread, leaf.shape), dtype)

    state = shapes.replace(
        step=jnp.int32(0),
        variables=jax.tree_util.tree_map_with_path(value, shapes.variables),
        opt_states=jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype),
            shapes.opt_states,
        ),
    )
    size, n = config.image_size, len(config.attributes)

    def leaf(attribute: int, present: float) -> dict[str, np.ndarray]:
        labels = rng.integers(0, 2, (config.batch_size, n)).astype(np.float32)
        labels[:, attribute] = present
        # 0 and 255 alone: both sides convert them to -1 and 1 without rounding.
        return {
            "images": 255 * rng.integers(0, 2, (config.batch_size, size, size, 3), dtype=np.uint8),
            "labels": labels,
        }

    return config, executor, state, [{"positive": leaf(i % n, 1), "negative": leaf(i % n, 0)} for i in range(count)]


@pytest.mark.parametrize("spec", ["elegant_256:released", "elegant_256"])
def test_outputs(spec: str, torch: ModuleType) -> None:
    """Encoder, decoder and both discriminators at 256 px, with the same weights."""
    from tests.oracles import elegant_torch

    config, executor, state, (batch,) = setting(spec, jnp.float32)
    method: Any = executor.method
    oracle = elegant_torch.ELEGANT(config, state.variables)
    faces = oracle.faces(batch["positive"])
    images, labels = jnp.asarray(faces.images.permute(0, 2, 3, 1).numpy()), jnp.asarray(faces.labels.numpy())

    @jax.jit
    def ours(variables: Any) -> Any:
        features = method.encode(variables, images)
        new = features[-1][::-1]  # another face's code
        apply = {name: network.apply for name, network in method.networks.items()}
        own = {name: {"params": variables["params"][name]} for name in apply}
        residual = apply["decoder"](own["decoder"], new, features)
        logits = [apply[name](own[name], images, labels) for name in ("discriminator1", "discriminator2")]
        return features, residual, [jax.nn.sigmoid(x) for x in logits]

    features, residual, probabilities = ours(state.variables)
    with torch.no_grad():
        expected = oracle.encode(faces.images)
        theirs = oracle.residual(expected[-1].flip(0), expected[-1], expected[:-1]).permute(0, 2, 3, 1)
        for ours_, theirs_ in zip(features, expected, strict=True):
            np.testing.assert_allclose(ours_, theirs_.permute(0, 2, 3, 1).numpy(), atol=1e-4)
        np.testing.assert_allclose(residual, theirs.numpy(), atol=1e-4)
        for name, probability in zip(("discriminator1", "discriminator2"), probabilities, strict=True):
            np.testing.assert_allclose(probability, oracle.discriminate(name, *faces).numpy(), atol=1e-4)
    assert np.std(residual) > 0.1


@pytest.mark.parametrize(("spec", "index"), [("elegant_128:released", 1), ("elegant_128", 2)])
def test_losses_and_gradients(spec: str, index: int, torch: ModuleType) -> None:
    """In double precision: in single, a ReLU whose input rounds to the other side of 0 changes 1 %."""
    from tests.oracles import elegant_torch

    with jax.enable_x64(True):
        config, executor, state, batches = setting(spec, jnp.float64, index + 1, image_size="64")
        batch = batches[index]
        compute = jax.jit(executor.gradients, static_argnums=0, compiler_options=COMPILER_OPTIONS)
        oracle = elegant_torch.ELEGANT(config, state.variables)
        for phase in executor.stage.phases:
            gradients, out = compute(phase, state, batch, {}, jnp.array([index, 0, 0], jnp.int32), executor.frozen)
            loss, expected = oracle.gradients(phase.name, batch, index)
            np.testing.assert_allclose(out.losses[phase.name], loss, rtol=1e-6)
            assert gradients[phase.name].keys() == expected.keys()
            for network, tree in gradients[phase.name].items():
                ours = elegant_torch.to_torch(tree)
                assert ours.keys() == expected[network].keys()
                for path, gradient in ours.items():
                    theirs = expected[network][path].numpy()
                    np.testing.assert_allclose(
                        gradient, theirs, rtol=0, atol=1e-6 * np.abs(theirs).max() + 1e-12,
                        err_msg=f"{phase.name} {network}/{path}",
                    )  # fmt: skip


def test_iterations(torch: ModuleType) -> None:
    """Adam with its weight decay, the falling rate and the attributes in turn: the last losses depend on all of it."""
    from tests.oracles import elegant_torch

    changes = {
        "image_size": "32",
        "flip": "false",
        "ema": "0.0",
        "optimizer__learning_rate": "3e-3",
        "optimizer__weight_decay": "0.1",
        "optimizer__schedule": "('exponential', 2, 0.1)",
    }
    config, executor, state, batches = setting("elegant_128:mini", jnp.float32, 4, **changes)
    oracle = elegant_torch.ELEGANT(config, state.variables)
    for iteration, batch in enumerate(batches):
        losses = oracle.iterate(batch, iteration % len(config.attributes))
        state, metrics = executor.iterate(state, [batch], iteration)
        for phase, loss in losses.items():
            np.testing.assert_allclose(metrics[f"{phase}/{phase}"], loss, rtol=1e-3)
