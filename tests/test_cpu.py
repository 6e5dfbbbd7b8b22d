"""What makes XLA fast on a CPU."""

import os
import subprocess
import sys

import pytest

from faceattr_jax import cpu

CODE = """
import ctypes, resource, sys
from faceattr_jax import cpu
if sys.argv[1] == "keep": assert cpu.keep_freed()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def touch():
    block = libc.malloc(64 << 20)
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc is Linux's")
def test_a_buffer_that_is_freed_and_taken_again_costs_no_page_faults():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", CODE, how], check=True, capture_output=True).stdout)
        for how in ("keep", "default")
    }
    assert faults["keep"] < 100 < faults["default"]


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not cpu.keep_freed()


PROGRAM = """
import os
from faceattr_jax import cpu
cpu.convolve_by_eigen()
import jax, jax.numpy as jnp
images, kernel = jnp.zeros((2, 32, 32, 32)), jnp.zeros((3, 3, 32, 32))
layout = ("NHWC", "HWIO", "NHWC")
convolve = jax.jit(lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=layout))
print("ynn_fusion" in convolve.lower(images, kernel).compile().as_text(), os.environ["XLA_FLAGS"])
"""


@pytest.mark.parametrize(("flags", "ynnpack"), [("", False), ("--xla_cpu_experimental_ynn_fusion_type=+dot", True)])
def test_convolutions_are_eigens_unless_a_flag_says_otherwise(flags, ynnpack):
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PROGRAM]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    assert printed.split() == [str(ynnpack), flags or "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"]
