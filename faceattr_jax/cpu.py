"""What makes XLA fast on a CPU: both are to be called before JAX starts its backend."""

import ctypes
import os
import sys

# Of glibc's malloc.h: one arena for all threads, no buffer outside it, and nothing given back at its top.
_OPTIONS = {"M_ARENA_MAX": (-8, 1), "M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1)}
_FUSIONS = "--xla_cpu_experimental_ynn_fusion_type"


def keep_freed() -> bool:
    """Have glibc keep what is freed; whether it could.

    XLA's large temporary buffers are not fetched anew from the system at every step then: a fifth of a training
    iteration were page faults without it. Resident memory stays at its high-water mark.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and all(mallopt(option, value) for option, value in _OPTIONS.values())


def convolve_by_eigen() -> None:
    """Have XLA compute convolutions by Eigen and not by YNNPACK, its default.

    YNNPACK takes 1.3 to 3 times as long, and 9 to 17 times for a kernel's gradient over many positions. So it is with
    AVX2; not measured with AVX-512. A choice of fusions that XLA_FLAGS has already stays as it is.
    """
    # XLA ends the process at a flag that it does not know; this one is in jaxlib 0.10 to 0.12, on all systems.
    flags = os.environ.get("XLA_FLAGS", "")
    if _FUSIONS not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_FUSIONS}=-individual_convolution".strip()
