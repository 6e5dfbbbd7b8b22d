"""Keeping freed memory."""

import subprocess
import sys

import pytest

from faceattr_jax import memory

CODE = """
import ctypes, resource, sys
from faceattr_jax import memory
if sys.argv[1] == "keep": assert memory.keep_freed()
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
    assert not memory.keep_freed()
