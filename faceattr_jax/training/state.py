"""The one immutable pytree that training changes and a checkpoint holds."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax.methods.base import Given, Method


class TrainState(flax.struct.PyTreeNode):
    """step: iterations done, int32. variables: collection -> network -> tree. opt_states: optimizer -> its state.

    ema: network -> averaged params, empty when the method keeps none.
    """

    step: jax.Array
    variables: dict[str, dict[str, Any]]
    opt_states: dict[str, Any]
    ema: dict[str, Any]

    @property
    def inference_variables(self) -> dict[str, dict[str, Any]]:
        """The variables to evaluate and publish: averaged parameters where there are some."""
        return {**self.variables, "params": {**self.variables["params"], **self.ema}}


def trained_params(method: Method, name: str, variables: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The params (network -> tree) that optimizer `name` owns."""
    return {network: variables["params"][network] for network in method.optimizers[name].networks}


def init_state(method: Method, seed: int) -> TrainState:
    """A fresh state, a pure function of the seed; call it under `jit` with the wanted shardings."""
    return start(method, method.init(jax.random.key(seed)))


def start(method: Method, variables: dict[str, dict[str, Any]]) -> TrainState:
    """The state at step 0 with these variables, from wherever they are."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        opt_states={
            name: optimizer.transform.init(trained_params(method, name, variables))
            for name, optimizer in method.optimizers.items()
        },
        ema=jax.tree.map(jnp.copy, dict(variables["params"])) if method.ema else {},  # buffers of its own, to donate
    )


def with_given(state: TrainState, given: Mapping[str, Given]) -> TrainState:
    """A fresh state with given variables in place of its own, and averages that start from them; shardings stay."""

    def put(own: Any, new: Any) -> Any:
        if isinstance(own, Mapping):
            return {key: put(value, new[key]) if key in new else value for key, value in own.items()}
        # A copy: the state is donated, NumPy's memory is not ours to give.
        return jnp.copy(jax.device_put(np.asarray(new, own.dtype), own.sharding))

    for network, start in given.items():
        variables = put(state.variables, {c: {network: tree} for c, tree in start.variables.items()})
        ema = put(state.ema, {network: start.variables.get("params", {})})
        state = state.replace(variables=variables, ema=ema)
    return state
