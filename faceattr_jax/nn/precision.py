"""Mixed precision: what convolutions and matrix products compute in, while everything that is kept is float32.

Inside `computing(dtype)` the layers of this package cast their inputs and their float32 parameters to it, and their
outputs stay so up to the next norm or head: norms compute in float32 and give back what they were given, `Dense` and
`full` return float32. Gradients reach the parameters in float32 through the casts. It holds where a function is traced.
"""

import contextlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from faceattr_jax.errors import check_choice

DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}

_compute = jax.make_user_context(default_value=None)


def computing(dtype: str) -> contextlib.AbstractContextManager:
    """A context in which layers compute in `dtype`, a name of DTYPES; "float32" is as without it."""
    check_choice("dtype", dtype, DTYPES)
    return _compute(None if dtype == "float32" else dtype)


def compute_dtype() -> Any:
    """The dtype to cast inputs and parameters to, None to leave them as they are."""
    return DTYPES[_compute.value or "float32"]


def full(x: jax.Array) -> jax.Array:
    """x in float32, or as it is where it has more: what images, masks and losses are."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Dense(nn.Module):
    """A fully connected layer, (..., C) -> (..., features); parameters as `flax.linen.Dense`.

    What it returns is `full`: losses read it, or a norm.
    """

    features: int
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.linear.default_kernel_init
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,)) if self.use_bias else None
        x, kernel = promote_dtype(x, kernel, dtype=compute_dtype())
        y = full(x @ kernel)
        return y if bias is None else y + bias
