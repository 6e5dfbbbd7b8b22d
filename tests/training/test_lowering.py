"""Every phase of the five papers lowers for TPU and CUDA, from a machine that has neither."""

import jax
import jax.numpy as jnp
import pytest
from jax import export

from faceattr_jax.nn.conv import native_convolutions
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


@pytest.mark.parametrize("paper", programs.PAPERS)
def test_every_phase_lowers(paper):
    method = programs.method(paper)
    for stage in method.stages:
        with native_convolutions():
            for _, update, arguments in programs.updates(method, stage, one_device()):
                check(export.export(update, platforms=PLATFORMS)(*arguments))


@pytest.mark.parametrize("paper", ["attgan", "diat"])
def test_a_whole_iteration_lowers(paper):
    """What runs on GPU and TPU: the repeats of a phase as a loop inside one program."""
    method = programs.method(paper)
    stage = method.stages[-1]
    with native_convolutions():
        executor = Executor(method, stage, seed=0, mesh=one_device(), flip=True, scan=True)
        batches = [programs.batch(method, stage)] * executor.draws_per_iteration
        arguments = (programs.state(method), batches, jax.ShapeDtypeStruct((), jnp.int32), executor.frozen)
        exported = export.export(executor.iteration, platforms=PLATFORMS)(*arguments)
    check(exported)
    assert "stablehlo.while" in exported.mlir_module()
