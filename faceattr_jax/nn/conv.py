"""Convolutions and transposed convolutions that are fast on every backend, to any order of reverse mode.

A convolution, its input gradient and its kernel gradient are the three partial derivatives of one trilinear
form (written for one axis),

    T(x, k, y) = sum_{o,t} x[stride * o + t - low] k[t] y[o],

so a derivative of any of the three is again one of the three: gradient penalties never leave the set. XLA on the
CPU takes many times as long for some of what automatic differentiation makes of them (convolutions of dilated inputs,
and their kernel gradients). There, each of the three is computed by a formulation that is fast, the kernel gradient by
`lax`'s own, and declares the other two as its derivatives; forward mode is lost. On other backends they are `lax`
convolutions without the taps that meet zeros alone. Parameters and results are the same.

The backend is `jax.default_backend()` when a function is traced; `native_convolutions` and `undilated_convolutions`
override it.
"""

import contextlib
import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import lax

from faceattr_jax.nn.precision import compute_dtype

Pair = tuple[int, int]
Padding = Literal["SAME", "VALID"] | int | Sequence[Pair]

_native = jax.make_user_context(default_value=None)


def native_convolutions() -> contextlib.AbstractContextManager:
    """A context in which `lax` convolutions are traced on every backend.

    To export from a CPU to other platforms, or for forward mode. `jax.jit` traces anew inside it.
    """
    return _native(True)


def undilated_convolutions() -> contextlib.AbstractContextManager:
    """A context in which the CPU's formulations are traced on every backend: to export what is fast everywhere."""
    return _native(False)


def _is_native() -> bool:
    return jax.default_backend() != "cpu" if _native.value is None else _native.value


class Axis(NamedTuple):
    """One spatial axis of the trilinear form: lengths of x, k and y, the stride, and the zeros before x."""

    input: int
    kernel: int
    output: int
    stride: int
    low: int

    @property
    def padding(self) -> Pair:
        """(low, high) for which a strided convolution of x has exactly `output` positions."""
        high = self.stride * (self.output - 1) + self.kernel - self.low - self.input
        # Up to stride - 1 elements at the end of x may meet no tap: nothing need be cropped for that.
        return self.low, 0 if -self.stride < high < 0 else high


Axes = tuple[Axis, Axis]

FEW = 4
"""Channels of an image: of so few, what each tap adds is summed faster than the phases are convolved."""


def _lax_conv(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[Pair], layout: str = "HWIO"
) -> jax.Array:
    """The native convolution, but negative padding is done as a crop: XLA on the CPU reads out of bounds there.

    https://github.com/openxla/xla/issues/48713

    It leaves out taps that meet zeros alone; where as many pixels are left as taps, as where a U-Net is narrowest, it
    is a matrix product, which is many times faster there.
    """
    sizes, taps = x.shape[1:3], kernel.shape[:2]
    x = x[:, *(slice(max(-low, 0), size + min(high, 0)) for size, (low, high) in zip(sizes, padding, strict=True))]
    axes = [_met(*axis) for axis in zip(x.shape[1:3], taps, strides, padding, strict=True)]
    kernel, padding = kernel[*(kept for kept, _ in axes)], [pads for _, pads in axes]
    if x.shape[1:3] == kernel.shape[:2] and padding == [(0, 0), (0, 0)]:
        equation = "bhwi,hwio->bo" if layout == "HWIO" else "bhwi,hwoi->bo"
        return jnp.einsum(equation, x, kernel)[:, None, None]
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", layout, "NHWC"))


def _met(size: int, taps: int, stride: int, padding: Pair) -> tuple[slice, Pair]:
    """The taps that meet one of `size` elements at some position, and the padding that these need."""
    low, high = (max(side, 0) for side in padding)
    positions = (size + low + high - taps) // stride + 1
    first, last = max(0, low - stride * (positions - 1)), min(taps, size + low)
    if first >= last:  # of an empty picture
        return slice(0, taps), (low, high)
    return slice(first, last), (low - first, high - (taps - last))


def _strided_conv(x: jax.Array, kernel: jax.Array, axes: Axes) -> jax.Array:
    return _lax_conv(x, kernel, [axis.stride for axis in axes], [axis.padding for axis in axes])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: jax.Array, kernel: jax.Array, axes: Axes) -> jax.Array:
    """dT/dy, the convolution: x (B,*input,C), kernel (*kernel,C,D) -> (B,*output,D)."""
    return _strided_conv(x, kernel, axes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _input_grad(y: jax.Array, kernel: jax.Array, axes: Axes) -> jax.Array:
    """dT/dx, the convolution's adjoint in x: y (B,*output,D), kernel (*kernel,C,D) -> (B,*input,C).

    By phases: the elements of x that are congruent modulo the stride meet the same taps, every stride-th one, so
    each phase is a stride-1 convolution with its own sub-kernel. Together these have the kernel's taps, no more.
    Of FEW channels by taps.
    """
    if kernel.shape[2] <= FEW:
        return _input_grad_by_taps(y, kernel, axes)
    flipped = kernel[::-1, ::-1]
    rows, columns = ([_phase(axis, phase) for phase in range(axis.stride)] for axis in axes)
    x = jnp.stack([jnp.stack([_phase_conv(y, flipped, r, c) for c in columns], axis=3) for r in rows], axis=2)
    x = x.reshape(x.shape[0], x.shape[1] * x.shape[2], x.shape[3] * x.shape[4], x.shape[5])
    return x[:, : axes[0].input, : axes[1].input]


def _input_grad_by_taps(y: jax.Array, kernel: jax.Array, axes: Axes) -> jax.Array:
    """`_input_grad` as one product of every pixel with all taps, added up where they belong.

    Taps are taken by blocks as long as the stride: what a block makes of neighbours does not overlap.
    """
    batch, *_, channels = y.shape
    sides = [axis.stride * math.ceil(axis.kernel / axis.stride) for axis in axes]
    fill = [(0, side - axis.kernel) for side, axis in zip(sides, axes, strict=True)]
    kernel = jnp.pad(kernel, (*fill, (0, 0), (0, 0)))
    products = (y.reshape(-1, channels) @ kernel.transpose(3, 0, 1, 2).reshape(channels, -1)).reshape(
        *y.shape[:3], *sides, kernel.shape[2]
    )
    starts = (range(0, side, axis.stride) for side, axis in zip(sides, axes, strict=True))
    parts = []
    for start in itertools.product(*starts):
        rows, columns = (slice(at, at + axis.stride) for at, axis in zip(start, axes, strict=True))
        block = products[:, :, :, rows, columns].swapaxes(2, 3)
        block = block.reshape(batch, *(axis.stride * axis.output for axis in axes), kernel.shape[2])
        edges = [
            (at - axis.low, axis.input - (at - axis.low) - axis.stride * axis.output, 0)
            for at, axis in zip(start, axes, strict=True)
        ]
        parts.append(lax.pad(block, jnp.zeros((), block.dtype), ((0, 0, 0), *edges, (0, 0, 0))))
    return functools.reduce(operator.add, parts)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _kernel_grad(x: jax.Array, y: jax.Array, axes: Axes) -> jax.Array:
    """dT/dk, the convolution's adjoint in the kernel: x (B,*input,C), y (B,*output,D) -> (*kernel,C,D).

    `lax`'s own, which Eigen is fast at and YNNPACK is not (`cpu.convolve_by_eigen`).
    """
    kernel = jax.ShapeDtypeStruct((axes[0].kernel, axes[1].kernel, x.shape[3], y.shape[3]), x.dtype)
    return jax.linear_transpose(lambda k: _strided_conv(x, k, axes), kernel)(y)[0]


def _keep_both(f: Callable) -> Callable:
    return lambda a, b, axes: (f(a, b, axes), (a, b))


_conv.defvjp(
    _keep_both(_conv),
    lambda axes, xk, y: (_input_grad(y, xk[1], axes), _kernel_grad(xk[0], y, axes)),
)
_input_grad.defvjp(
    _keep_both(_input_grad),
    lambda axes, yk, x: (_conv(x, yk[1], axes), _kernel_grad(x, yk[0], axes)),
)
_kernel_grad.defvjp(
    _keep_both(_kernel_grad),
    lambda axes, xy, k: (_input_grad(xy[1], k, axes), _conv(xy[0], k, axes)),
)


class _Phase(NamedTuple):
    """x[phase], x[phase + stride], ... of one axis: how many, their taps of the flipped kernel, padding of y."""

    size: int
    taps: slice
    padding: Pair


def _phase(axis: Axis, phase: int) -> _Phase:
    # x[phase + stride * q] = sum_m k[first + stride * m] y[q + offset - m]
    offset, first = divmod(phase + axis.low, axis.stride)
    count = len(range(first, axis.kernel, axis.stride))
    last = first + axis.stride * (count - 1)
    size = math.ceil(axis.input / axis.stride)
    low = count - 1 - offset
    taps = slice(axis.kernel - 1 - last, axis.kernel - first, axis.stride)
    return _Phase(size, taps, (low, size - 1 + offset - (axis.output - 1)))


def _phase_conv(y: jax.Array, flipped: jax.Array, row: _Phase, column: _Phase) -> jax.Array:
    """y (B,*output,D), flipped kernel (*kernel,C,D) -> (B,row.size,column.size,C)."""
    kernel = flipped[row.taps, column.taps]
    if kernel.size == 0:  # a kernel shorter than the stride has no tap for some phases
        return jnp.zeros((y.shape[0], row.size, column.size, kernel.shape[2]), y.dtype)
    return _lax_conv(y, kernel, (1, 1), (row.padding, column.padding), "HWOI")


def conv(x: jax.Array, kernel: jax.Array, *, strides: int = 1, padding: Padding = "SAME") -> jax.Array:
    """Convolution of x (B,H,W,C) with kernel (kh,kw,C,D) as `flax.linen.Conv` does it: (B,H',W',D).

    `padding` is "SAME", "VALID", an int for all sides, or ((top, bottom), (left, right)).
    Raises ValueError where the kernel does not fit the padded images.
    """
    _check_rank(x, kernel)
    sizes, taps = x.shape[1:3], kernel.shape[:2]
    if isinstance(padding, str):
        pads = lax.padtype_to_pads(sizes, taps, (strides, strides), padding)
    else:
        pads = _explicit(padding)
    row, column = (
        Axis(size, k, (size + low + high - k) // strides + 1, strides, low)
        for size, k, (low, high) in zip(sizes, taps, pads, strict=True)
    )
    if min(row.output, column.output) < 1:
        raise ValueError(f"a kernel of {taps} does not fit images of {sizes} padded by {list(pads)}")
    return (_strided_conv if _is_native() else _conv)(x, kernel, (row, column))


def conv_transpose(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int = 2,
    padding: Padding = "SAME",
    transpose_kernel: bool = False,
) -> jax.Array:
    """Transposed convolution of x (B,H,W,C) as `flax.linen.ConvTranspose` does it: (B,H',W',D).

    The kernel is (kh,kw,C,D). With `transpose_kernel` it is (kh,kw,D,C), spatially flipped, and the result is the
    adjoint of the convolution with that kernel, as in PyTorch and TensorFlow. An explicit `padding` is that of the
    dilated input: PyTorch's p is ((k-1-p, k-1-p+output_padding), ...) here.
    Raises ValueError where nothing is left after a negative padding.
    """
    _check_rank(x, kernel)
    sizes, taps = x.shape[1:3], kernel.shape[:2]
    pads = [_transposed(k, strides, padding) for k in taps] if isinstance(padding, str) else _explicit(padding)
    row, column = (
        Axis(strides * (size - 1) + 1 + low + high - (k - 1), k, size, strides, k - 1 - low)
        for size, k, (low, high) in zip(sizes, taps, pads, strict=True)
    )
    if min(row.input, column.input) < 1:
        raise ValueError(f"nothing is left of images of {sizes} padded by {list(pads)} under a kernel of {taps}")
    if _is_native():
        dims = ("NHWC", "HWIO", "NHWC")
        return lax.conv_transpose(
            x, kernel, (strides, strides), pads, dimension_numbers=dims, transpose_kernel=transpose_kernel
        )
    return _input_grad(x, kernel if transpose_kernel else kernel[::-1, ::-1].swapaxes(2, 3), (row, column))


def _check_rank(x: jax.Array, kernel: jax.Array) -> None:
    if x.ndim != 4 or kernel.ndim != 4:
        raise ValueError(f"a convolution takes 4 axes and a kernel of 4 axes, not {x.shape} and {kernel.shape}")


def _explicit(padding: int | Sequence[Pair]) -> list[Pair]:
    if isinstance(padding, int):
        return [(padding, padding)] * 2
    return [(low, high) for low, high in padding]


def _transposed(kernel: int, stride: int, padding: str) -> Pair:
    """What `lax.conv_transpose` pads the dilated input with."""
    if padding == "SAME":
        total = kernel + stride - 2
        low = kernel - 1 if stride > kernel - 1 else math.ceil(total / 2)
    elif padding == "VALID":
        total = kernel + stride - 2 + max(kernel - stride, 0)
        low = kernel - 1
    else:
        raise ValueError(f"padding is 'SAME', 'VALID', an int or a pair of pairs, not {padding!r}")
    return low, total - low


class Conv(nn.Module):
    """Convolution of (B,H,W,C) to `features` channels; parameters and results as `flax.linen.Conv`.

    kernel_size: of both sides, or height and width.
    """

    features: int
    kernel_size: int | Pair
    strides: int = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.linear.default_kernel_init
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        taps = self.kernel_size if isinstance(self.kernel_size, Sequence) else (self.kernel_size,) * 2
        shape = (*taps, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, (self.features,)) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=compute_dtype())
        y = conv(x, kernel, strides=self.strides, padding=self.padding)
        return y if bias is None else y + bias


class ConvTranspose(nn.Module):
    """Transposed convolution to `features` channels; parameters and results as `flax.linen.ConvTranspose`.

    With the default stride 2 and padding "SAME", (B,H,W,C) -> (B,2H,2W,features).
    """

    features: int
    kernel_size: int
    strides: int = 2
    padding: Padding = "SAME"
    use_bias: bool = True
    transpose_kernel: bool = False
    kernel_init: nn.initializers.Initializer = nn.linear.default_kernel_init
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = (self.features, x.shape[-1]) if self.transpose_kernel else (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, (self.kernel_size, self.kernel_size, *channels))
        bias = self.param("bias", self.bias_init, (self.features,)) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=compute_dtype())
        y = conv_transpose(
            x, kernel, strides=self.strides, padding=self.padding, transpose_kernel=self.transpose_kernel
        )
        return y if bias is None else y + bias
