"""Every phase of the five papers lowers for TPU and CUDA and compiles for TPUs, on a machine that has neither."""

import jax
import jax.numpy as jnp
import pytest
from jax import export

from faceattr_jax.nn.conv import native_convolutions
from faceattr_jax.training import distributed, traffic
from faceattr_jax.training.step import Executor
from tests.checks import one_device
from tests.training import programs

PLATFORMS = ("tpu", "cuda")


def check(exported: export.Exported) -> None:
    assert exported.platforms == PLATFORMS
    module = exported.mlir_module()
    assert "stablehlo.convolution" in module
    assert "callback" not in module  # nothing comes back to the host
    assert "f64" not in module


QUICK = ("attgan", "attribute_inverse")  # tracing the others' phases takes most of a minute


@pytest.mark.parametrize(
    "paper", [pytest.param(paper, marks=() if paper in QUICK else pytest.mark.slow) for paper in programs.PAPERS]
)
def test_every_phase_lowers(paper):
    method = programs.method(paper)
    for stage in method.stages:
        with native_convolutions():
            for _, update, arguments in programs.updates(method, stage, one_device()):
                check(export.export(update, platforms=PLATFORMS)(*arguments))


@pytest.mark.parametrize("paper", ["attgan", pytest.param("diat", marks=pytest.mark.slow)])
def test_several_iterations_lower(paper):
    """What runs on GPU and TPU: iterations, and the repeats of a phase, as loops of one program that draws batches."""
    method = programs.method(paper)
    stage, size = method.stages[-1], method.config.image_size
    sampler = programs.sampler(method, stage)
    known = {
        "images": jax.ShapeDtypeStruct((64, size, size, 3), jnp.uint8),
        "labels": jax.ShapeDtypeStruct((64, len(method.attributes)), jnp.float32),
    }

    def draw(known, request):
        rows = [sampler(request[0] + slot, request[1]) for slot in range(executor.draws_per_iteration)]
        return jax.tree.map(lambda leaf: {name: array[leaf] for name, array in known.items()}, rows)

    with native_convolutions():
        executor = Executor(method, stage, seed=0, mesh=one_device(), flip=True, scan=True)
        number = jax.ShapeDtypeStruct((), jnp.int32)
        arguments = (draw, 2, programs.state(method), (known,), number, executor.frozen)
        exported = export.export(executor.several, platforms=PLATFORMS)(*arguments)
    check(exported)
    assert exported.mlir_module().count("stablehlo.while") > 1


@pytest.fixture
def four_chips(monkeypatch):
    """The mesh of a TPU slice that is not there; libtpu (137 MB from the package registry) compiles for it."""
    pytest.importorskip("libtpu", reason="libtpu is not installed: pip install libtpu")
    from jax.experimental import topologies

    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")  # there is no metadata server to ask which machine this is
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    return distributed.mesh(topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices)


def sides(shape):
    """A shape without sides of 1, which a TPU's program may leave out."""
    return tuple(side for side in shape if side > 1)


def sums_of_kernels(found, parameters):
    """The all-reduces among the collectives that hold a kernel's gradient, known by its shape."""
    kernels = {shape for leaf in parameters if len(shape := sides(leaf.shape)) > 1}
    return [c for c in found if c.kind == "all-reduce" and any(sides(a.shape) in kernels for a in c.arrays)]


@pytest.mark.slow
@pytest.mark.parametrize("paper", programs.PAPERS)
def test_an_iteration_compiles_for_four_chips(paper, four_chips, capsys):
    method = programs.method(paper, dtype="bfloat16")
    stage = method.stages[-1]
    everywhere, split = distributed.replicated(four_chips), distributed.batch_sharding(four_chips)

    def shapes(tree, sharding):
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)

    with native_convolutions():
        executor = Executor(method, stage, seed=0, mesh=four_chips, flip=True, scan=True)
        batches = [shapes(programs.batch(method, stage), split)] * executor.draws_per_iteration
        number = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
        state = shapes(programs.state(method), everywhere)
        program = executor.iteration.lower(state, batches, number, executor.frozen).compile()
    found = traffic.collectives(program.as_text())
    trained = [leaf for phase in stage.phases for leaf in programs.trained(method, phase, state)]
    with capsys.disabled():
        memory = program.memory_analysis()
        print(f"\n{paper}: {memory.temp_size_in_bytes / 2**20:.2f} MiB temporary, {traffic.summary(found)}", end="")
        print(f", {len(sums_of_kernels(found, trained))} sums hold kernels' gradients", end="")
    assert any(collective.kind == "all-reduce" for collective in found)


@pytest.mark.slow
@pytest.mark.parametrize("paper", programs.PAPERS)
def test_four_chips_sum_the_gradients_of_an_update_at_once(paper, four_chips, capsys):
    method = programs.method(paper, dtype="bfloat16")
    with native_convolutions():
        for stage in method.stages:
            for phase, update, (state, *_) in programs.updates(method, stage, four_chips, compiled=True):
                trained = programs.trained(method, phase, state)
                parameters = 4 * sum(leaf.size for leaf in trained)
                found = traffic.collectives(update.as_text())
                gradients = sums_of_kernels(found, trained)
                sizes = [collective.bytes for collective in gradients]
                with capsys.disabled():
                    print(f"\n{paper} {phase.name}: {sizes} bytes of gradients, {parameters} of parameters", end="")
                assert len(gradients) == (1 if phase.trains else 0)
                assert sum(sizes) <= parameters
                # Others hold a batch norm's sums: vectors, or maps of what a dense layer makes.
                others = [a.shape for c in found if c not in gradients and c.kind == "all-reduce" for a in c.arrays]
                assert not [shape for shape in others if len(sides(shape)) in (2, 4)]
                if stage is method.stages[-1]:  # in DIAT's first stage M gets no gradient yet
                    summed = {sides(array.shape) for c in gradients for array in c.arrays}
                    assert {sides(leaf.shape) for leaf in trained if leaf.ndim > 1} <= summed
