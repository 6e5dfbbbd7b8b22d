"""AttGAN against an independent PyTorch implementation: losses, gradients, moving averages, a whole iteration."""

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
SMALL = {"model.width": "4", "batch_size": "4", "critic_updates": "2"}


def setting(spec: str, dtype: Any) -> tuple[Any, Executor, TrainState, list[dict[str, np.ndarray]]]:
    """A narrow AttGAN with random scales and biases, too, and the batches of one iteration."""
    config = configs.load(spec, SMALL)
    method = base.build(config)
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    executor = Executor(method, method.stages[0], seed=config.seed, mesh=mesh)
    shapes = jax.eval_shape(lambda: init_state(method, 0))
    rng = np.random.default_rng(0)

    def value(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = path[-1].key
        center = 1.0 if name in ("scale", "var") else 0.0
        spread = 0.0 if name in ("mean", "var") else 0.1 if leaf.ndim == 1 else np.prod(leaf.shape[:-1]) ** -0.5
        return jnp.asarray(rng.normal(center, spread, leaf.shape), dtype)

    state = shapes.replace(
        step=jnp.int32(0),
        variables=jax.tree_util.tree_map_with_path(value, shapes.variables),
        opt_states=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes.opt_states),
    )
    size, n = config.image_size, len(config.attributes)
    batches = [
        {
            # 0 and 255 alone: both sides convert them to -1 and 1 without rounding.
            "images": 255 * rng.integers(0, 2, (config.batch_size, size, size, 3), dtype=np.uint8),
            "labels": rng.integers(0, 2, (config.batch_size, n)).astype(np.float32),
        }
        for _ in range(config.critic_updates + 1)
    ]
    return config, executor, state, batches


def unmirrored(maps: Any) -> np.ndarray:
    """The oracle's maps (B, C, H, W), which are mirrored in both directions as its pictures are, as ours."""
    return maps.permute(0, 2, 3, 1).flip(1, 2).numpy()


@pytest.mark.parametrize("spec", ["attgan_64:released", "attgan_128:released"])
def test_outputs(spec: str, torch: ModuleType) -> None:
    """Encoder, decoder and discriminator with the same weights; batch norm by the batch, and by its averages."""
    from tests.oracles import attgan_torch

    config, executor, state, batches = setting(spec, jnp.float32)
    method: Any = executor.method
    oracle = attgan_torch.AttGAN(config, state.variables)
    faces, labels = oracle.pictures(batches[0]["images"]), torch.from_numpy(batches[0]["labels"])
    images, codes = jnp.asarray(unmirrored(faces)), jnp.asarray(batches[0]["labels"])

    def ours(variables: Any) -> Any:
        features, _ = method._train_encode(variables, images)
        decoded, _ = method._train_decode(variables, features, 2 * codes - 1)
        by_averages = method.decode(variables, method.encode(variables, images), 2 * codes - 1)
        return features, decoded, by_averages, method._discriminate(variables, images)

    features, decoded, by_averages, seen = jax.jit(ours, compiler_options=COMPILER_OPTIONS)(state.variables)
    edited = oracle.edit(faces, labels)  # before the averages move
    with torch.no_grad():
        expected = oracle.encode(faces)
        for found, theirs in zip(features, expected, strict=True):
            np.testing.assert_allclose(found, unmirrored(theirs), atol=1e-4)
        np.testing.assert_allclose(decoded, unmirrored(oracle.decode(expected, labels)), atol=1e-4)
        np.testing.assert_allclose(by_averages, unmirrored(edited), atol=1e-4)
        for found, theirs in zip(seen, oracle.discriminate(faces), strict=True):
            np.testing.assert_allclose(found, theirs.numpy(), atol=1e-4)
    assert np.std(decoded) > 0.1
    assert all(np.std(value) > 0.01 for value in seen)


@pytest.mark.parametrize("spec", ["attgan_64", "attgan_128", "attgan_64:released"])
def test_losses_gradients_and_moving_averages(spec: str, torch: ModuleType) -> None:
    """In double precision: in single, a leaky ReLU whose input rounds to the other side of 0 changes 1 %."""
    from tests.oracles import attgan_torch

    with jax.enable_x64(True):
        config, executor, state, batches = setting(spec, jnp.float64)
        compute = jax.jit(executor.gradients, static_argnums=0, compiler_options=COMPILER_OPTIONS)
        for phase in executor.stage.phases:
            gradients, out = compute(phase, state, batches[0], {}, jnp.array([3, 1, 0], jnp.int32), executor.frozen)
            oracle = attgan_torch.AttGAN(config, state.variables)
            draw = attgan_torch.our_draw(config, phase.name, 3, 1, batches[0]["labels"])
            loss, expected = oracle.gradients(phase.name, batches[0], draw)

            np.testing.assert_allclose(out.losses[phase.name], loss, rtol=1e-6)
            assert gradients[phase.name].keys() == expected.keys()
            for network, tree in gradients[phase.name].items():
                ours = attgan_torch.to_torch(config, tree)
                assert ours.keys() == expected[network].keys()
                for path, gradient in ours.items():
                    assert_close(gradient, expected[network][path].numpy(), f"{phase.name} {network}/{path}")
            for path, tree in out.mutated.items():
                for name, value in attgan_torch.to_torch(config, tree).items():
                    if name.endswith("mean"):  # PyTorch's moving variance is the unbiased one
                        theirs = oracle.stats[path.removeprefix("batch_stats/")][name].numpy()
                        assert_close(value, theirs, f"{phase.name} {path}/{name}")


def assert_close(actual: np.ndarray, expected: np.ndarray, message: str) -> None:
    tolerance = 1e-6 * np.abs(expected).max() + 1e-12
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=message)


def test_an_iteration(torch: ModuleType) -> None:
    """Critic updates and a generator update with Adam between them: the last losses depend on all of it."""
    from tests.oracles import attgan_torch

    config, executor, state, batches = setting("attgan_64", jnp.float32)
    oracle = attgan_torch.AttGAN(config, state.variables)
    draws = [
        attgan_torch.our_draw(config, u.phase.name, 0, u.repeat, b["labels"])
        for u, b in zip(executor.schedule, batches, strict=True)
    ]
    losses = oracle.iterate(batches, draws)
    _, metrics = executor.iterate(state, batches, 0)
    for phase, loss in losses.items():
        np.testing.assert_allclose(metrics[f"{phase}/{phase}"], loss, rtol=1e-3)
