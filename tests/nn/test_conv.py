"""Every way of computing a convolution against native flax and against PyTorch, to second derivatives."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from faceattr_jax.nn.conv import Conv, ConvTranspose, conv, conv_transpose, native_convolutions, undilated_convolutions
from faceattr_jax.nn.precision import computing
from faceattr_jax.training import traffic

SHAPE = (2, 9, 8, 3)  # odd and even; an 8x8 kernel still fits
FEATURES = 5  # more than FEW, of which images have fewer: both ways of an input gradient are met
PADDINGS = ("SAME", "VALID", 1, ((1, 2), (0, 3)))


def normal(seed: int, shape: tuple[int, ...]) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def derivatives(f: Callable, *operands: jax.Array) -> tuple:
    """f, its gradients, and the gradients of the norm of its input gradient (as in a gradient penalty)."""
    arguments = tuple(range(len(operands)))
    weights = normal(9, jax.eval_shape(f, *operands).shape)

    def loss(*operands: jax.Array) -> jax.Array:
        return jnp.sum(weights * jnp.tanh(f(*operands)))

    def penalty(*operands: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.sum(jax.grad(loss)(*operands) ** 2))

    return f(*operands), jax.grad(loss, arguments)(*operands), jax.grad(penalty, arguments)(*operands)


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Equal trees, up to `tolerance` of the largest element of each expected array."""

    def check(path: Any, a: jax.Array, b: jax.Array) -> None:
        scale = float(np.abs(b).max()) + 1e-30
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(check, actual, expected)


def compiled(f: Callable) -> Callable:
    """Hundreds of tiny convolutions: compiling them takes all of the time, so optimise nothing."""
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})


def assert_equals_flax(x: jax.Array, kernel: int, strides: int, paddings: Sequence[Any]) -> None:
    def layers(conv: Any, transpose: Any, size: Any, stride: Any) -> Iterator[tuple[str, nn.Module]]:
        for i, padding in enumerate(paddings):
            flip = (i + kernel) % 2 == 0  # both meet every padding
            yield f"conv {padding}", conv(FEATURES, size, stride, padding)
            yield f"transpose {padding}", transpose(FEATURES, size, stride, padding, transpose_kernel=flip)

    def results(layers: dict[str, nn.Module], x: jax.Array) -> dict[str, tuple]:
        return {
            name: derivatives(
                lambda x, kernel, bias, layer=layer: layer.apply({"params": {"kernel": kernel, "bias": bias}}, x),
                x,
                layer.init(jax.random.key(0), x)["params"]["kernel"],
                normal(5, (FEATURES,)),
            )
            for name, layer in layers.items()
        }

    ours = dict(layers(Conv, ConvTranspose, kernel, strides))
    flax = dict(layers(nn.Conv, nn.ConvTranspose, (kernel, kernel), (strides, strides)))
    assert_close(compiled(functools.partial(results, ours))(x), compiled(functools.partial(results, flax))(x))


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("kernel", range(1, 9))
def test_equals_flax_to_second_derivatives(kernel: int, strides: int) -> None:
    assert_equals_flax(normal(0, SHAPE), kernel, strides, PADDINGS)


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_of_less_than_the_kernel_too(kernel: int, strides: int) -> None:
    """Where some taps meet padding alone."""
    assert_equals_flax(normal(0, (2, 2, 1, 3)), kernel, strides, ("SAME", kernel // 2))


# name: our call on (x, kernel), PyTorch's call on the same in its own layout.
def conv2d(k: int, s: int, ours: Any, p: int) -> tuple:
    return (
        f"Conv2d k{k} s{s} p{p}",
        (k, k, 3, FEATURES),
        functools.partial(conv, strides=s, padding=ours),
        lambda torch, x, w: torch.nn.functional.conv2d(x, w.permute(3, 2, 0, 1), stride=s, padding=p),
    )


def conv_transpose2d(k: int, s: int, ours: Any, p: int, op: int, transpose_kernel: bool = True) -> tuple:
    def call(torch: Any, x: Any, w: Any) -> Any:
        w = w.permute(3, 2, 0, 1) if transpose_kernel else w.flip(0, 1).permute(2, 3, 0, 1)
        return torch.nn.functional.conv_transpose2d(x, w, stride=s, padding=p, output_padding=op)

    return (
        f"ConvTranspose2d k{k} s{s} p{p} op{op} {transpose_kernel}",
        (k, k, FEATURES, 3) if transpose_kernel else (k, k, 3, FEATURES),
        functools.partial(conv_transpose, strides=s, padding=ours, transpose_kernel=transpose_kernel),
        call,
    )


def torch_cases() -> Iterator[tuple]:
    for k in range(1, 9):
        for s in (1, 2):
            p = k // 2
            yield conv2d(k, s, p, p)
            yield conv_transpose2d(k, s, ((k - 1 - p, k - 1 - p + s - 1),) * 2, p, s - 1, k % 2 == 0)
    # What the papers' PyTorch implementations need.
    yield conv2d(4, 2, "SAME", 1)
    yield conv2d(5, 2, 2, 2)
    for transpose_kernel in (False, True):
        yield conv_transpose2d(4, 2, "SAME", 1, 0, transpose_kernel)
        yield conv_transpose2d(5, 2, ((2, 3), (2, 3)), 2, 1, transpose_kernel)
        yield conv_transpose2d(3, 2, ((1, 2), (1, 2)), 1, 1, transpose_kernel)


def test_equals_pytorch_to_second_derivatives(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)  # idle threads of PyTorch spin: beside other processes several are slower than one
    x = normal(0, (2, 8, 10, 3))
    cases = list(torch_cases())
    kernels = [normal(1, shape) / shape[0] for _, shape, _, _ in cases]
    actual = compiled(
        lambda x, kernels: {name: derivatives(ours, x, k) for (name, _, ours, _), k in zip(cases, kernels, strict=True)}
    )(x, kernels)
    # PyTorch 2.13's oneDNN crashes on an AMD EPYC in second derivatives of a kernel of 1 at stride 2.
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    for (name, _, _, theirs), kernel in zip(cases, kernels, strict=True):
        tx, tk = (torch.tensor(np.asarray(a), requires_grad=True) for a in (x, kernel))
        y = theirs(torch, tx.permute(0, 3, 1, 2), tk).permute(0, 2, 3, 1)
        weights = torch.tensor(np.asarray(normal(9, tuple(y.shape))))
        gradients = torch.autograd.grad((weights * y.tanh()).sum(), (tx, tk), create_graph=True)
        second = torch.autograd.grad(gradients[0].square().sum().sqrt(), (tx, tk))
        expected = jax.tree.map(lambda t: t.detach().numpy(), (y, gradients, second))
        assert_close({name: actual[name]}, {name: expected})


@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_same_with_transposed_kernel_is_the_adjoint_as_in_tensorflow(kernel: int) -> None:
    x, y, k = normal(0, (2, 8, 10, 3)), normal(1, (2, 4, 5, FEATURES)), normal(2, (kernel, kernel, 3, FEATURES))
    adjoint = conv_transpose(y, k, padding="SAME", transpose_kernel=True)
    np.testing.assert_allclose(jnp.vdot(adjoint, x), jnp.vdot(conv(x, k, strides=2), y), rtol=1e-4)


@pytest.mark.parametrize("padding", [((-1, 1), (1, -1)), ((-2, 3), (0, -3)), ((-1, -1), (4, 5))])
@pytest.mark.parametrize("strides", [1, 2])
def test_negative_padding_crops(padding: Any, strides: int) -> None:
    """XLA on the CPU reads out of bounds in such a convolution, so the oracle pads beforehand."""
    x, k = normal(0, (2, 12, 12, 3)), normal(1, (3, 3, 3, FEATURES))
    dims = ("NHWC", "HWIO", "NHWC")

    def expected(x: jax.Array, k: jax.Array) -> jax.Array:
        x = jax.lax.pad(x, 0.0, [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])
        return jax.lax.conv_general_dilated(x, k, (strides, strides), "VALID", dimension_numbers=dims)

    ours = functools.partial(conv, strides=strides, padding=padding)
    assert_close(jax.jit(derivatives, static_argnums=0)(ours, x, k), derivatives(expected, x, k))


def equations(jaxpr: jax.extend.core.Jaxpr, primitive: str) -> Iterator[jax.extend.core.JaxprEqn]:
    for equation in jaxpr.eqns:
        if equation.primitive.name == primitive:
            yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations(inner, primitive)


convolutions = functools.partial(equations, primitive="conv_general_dilated")


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 8])
def test_no_dilated_input_and_no_more_taps_than_the_kernel_has(kernel: int) -> None:
    """What makes XLA slow on the CPU never appears, in derivatives of any order, and nothing is computed twice."""
    x, k = normal(0, (2, 4, 4, 3)), normal(1, (kernel, kernel, 3, FEATURES))
    taps = [e.invars[1].aval.shape[:2] for e in convolutions(jax.make_jaxpr(conv_transpose)(x, k).jaxpr)]
    assert sum(rows * columns for rows, columns in taps) == kernel**2
    for f in (conv_transpose, functools.partial(conv, strides=2)):
        found = list(convolutions(jax.make_jaxpr(functools.partial(derivatives, f))(x, k).jaxpr))
        assert found
        assert {e.params["lhs_dilation"] for e in found} == {(1, 1)}


def test_where_a_network_is_narrowest_there_are_matrix_products() -> None:
    kernel = normal(1, (4, 4, 3, FEATURES))
    down, up = functools.partial(conv, strides=2, padding=1), conv_transpose
    for f, side in ((down, 2), (up, 1)):
        jaxpr = jax.make_jaxpr(f)(normal(0, (2, side, side, 3)), kernel).jaxpr
        assert not list(convolutions(jaxpr))
        products = equations(jaxpr, "dot_general")
        assert sum(math.prod(e.invars[1].aval.shape) for e in products) == 4 * 3 * FEATURES  # of the 16 taps


def penalty_gradients(x: jax.Array, kernels: tuple[jax.Array, jax.Array]) -> tuple:
    def network(x: jax.Array, k1: jax.Array, k2: jax.Array) -> jax.Array:
        return conv_transpose(jnp.tanh(conv(x, k1, strides=2)), k2, transpose_kernel=True)

    return derivatives(network, x, *kernels)


KERNELS = ((5, 5, 3, FEATURES), (4, 4, 2, FEATURES))


def test_vmap_over_images_and_over_kernels() -> None:
    xs = normal(0, (3, 2, 6, 8, 3))
    kernels = tuple(normal(i, (3, *shape)) / 5 for i, shape in enumerate(KERNELS))
    for in_axes in ((0, 0), (None, 0), (0, None)):
        mapped = jax.jit(jax.vmap(penalty_gradients, in_axes))(
            xs if in_axes[0] == 0 else xs[0],
            kernels if in_axes[1] == 0 else tuple(k[0] for k in kernels),
        )
        one = jax.jit(penalty_gradients)
        for i in range(3):
            pick = tuple(k[0 if in_axes[1] is None else i] for k in kernels)
            expected = one(xs[0 if in_axes[0] is None else i], pick)
            assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], mapped), expected)


def test_sharded_batch_equals_one_device() -> None:
    mesh = Mesh(np.array(jax.devices()), ("data",))
    x = normal(0, (16, 6, 8, 3))
    kernels = tuple(normal(i, shape) / 5 for i, shape in enumerate(KERNELS))
    expected = jax.jit(penalty_gradients)(x, kernels)
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    replicated = jax.device_put(kernels, NamedSharding(mesh, PartitionSpec()))
    actual = jax.jit(penalty_gradients)(sharded, replicated)
    assert actual[0].sharding.spec == PartitionSpec("data")
    assert_close(actual, expected)


def test_devices_meet_once_for_a_kernel_gradient() -> None:
    mesh = Mesh(np.array(jax.devices()), ("data",))
    x, y = normal(0, (16, 6, 8, 3)), normal(1, (16, 3, 4, FEATURES))
    kernel = normal(2, (4, 4, 3, FEATURES))

    def gradient(x: jax.Array, y: jax.Array) -> jax.Array:
        return jax.vjp(lambda kernel: conv(x, kernel, strides=2), kernel)[1](y)[0]

    shared = [jax.device_put(a, NamedSharding(mesh, PartitionSpec("data"))) for a in (x, y)]
    with native_convolutions():
        expected = jax.jit(gradient)(x, y)
    program = jax.jit(gradient, out_shardings=NamedSharding(mesh, PartitionSpec())).lower(*shared).compile()
    assert_close(program(*shared), expected)
    moved = traffic.collectives(program.as_text())
    assert [(c.kind, c.bytes) for c in moved] == [("all-reduce", 4 * kernel.size)]


def test_a_layer_of_rows() -> None:
    x = normal(0, (2, 7, 6, 3))
    for taps in ((1, 5), (5, 1)):
        layer = Conv(FEATURES, taps)
        variables = layer.init(jax.random.key(0), x)
        assert_close(layer.apply(variables, x), nn.Conv(FEATURES, taps).apply(variables, x))


def test_bfloat16() -> None:
    x = normal(0, (2, 8, 8, 3))
    for layer in (Conv(FEATURES, 5, 2), ConvTranspose(FEATURES, 5)):
        with computing("bfloat16"):
            variables = layer.init(jax.random.key(0), x)
            assert layer.apply(variables, x).dtype == jnp.bfloat16
        assert variables["params"]["kernel"].dtype == jnp.float32
        assert layer.apply(variables, x).dtype == jnp.float32
    low = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (x, tuple(normal(i, s) / 5 for i, s in enumerate(KERNELS))))
    high = jax.tree.map(lambda a: a.astype(jnp.float32), low)
    actual = jax.jit(penalty_gradients)(*low)
    assert {leaf.dtype for leaf in jax.tree.leaves(actual[0])} == {jnp.bfloat16.dtype}
    assert_close(jax.tree.map(lambda a: a.astype(jnp.float32), actual), jax.jit(penalty_gradients)(*high), 0.05)


def test_native_convolutions_can_be_asked_for() -> None:
    """One dilated convolution a platform to export, as an accelerator runs best, and forward mode."""
    x, k = normal(0, (2, 4, 4, 3)), normal(1, (5, 5, 3, FEATURES))
    assert len(list(convolutions(jax.make_jaxpr(conv_transpose)(x, k).jaxpr))) == 4
    platforms = ("cpu", "cuda", "tpu")
    with native_convolutions(), undilated_convolutions():
        assert len(list(convolutions(jax.make_jaxpr(conv_transpose)(x, k).jaxpr))) == 4
    with native_convolutions():
        exported = jax.export.export(jax.jit(conv_transpose), platforms=platforms)(x, k)
        _, tangent = jax.jvp(lambda x: conv_transpose(x, k), (x,), (x,))
    assert exported.mlir_module().count("= stablehlo.convolution(") == len(platforms)
    assert_close(exported.call(x, k), conv_transpose(x, k))
    assert_close(tangent, conv_transpose(x, k))  # it is linear in x


def test_calls_that_make_no_sense_are_refused() -> None:
    x, k = normal(0, SHAPE), normal(1, (3, 3, 3, FEATURES))
    with pytest.raises(ValueError, match="4 axes"):
        conv(x[0], k)
    with pytest.raises(ValueError, match="does not fit"):
        conv(x[:, :2], k, padding="VALID")
    with pytest.raises(ValueError, match="nothing is left"):
        conv_transpose(x, k, padding=-9)
    with pytest.raises(ValueError, match="'SAME', 'VALID'"):
        conv_transpose(x, k, padding="CIRCULAR")  # type: ignore[arg-type]
