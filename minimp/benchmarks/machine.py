"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from minimp.backend import default_backend

__all__ = ["THREAD_VARIABLES", "describe_machine", "one_thread"]

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def describe_machine() -> dict[str, str]:
    """Return name of the fact -> the fact: processor, cores, Python, array library, BLAS, casts."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **default_backend().describe(),
        "BLAS threads": "1" if one_thread() else "not pinned",
    }


def one_thread() -> bool:
    """Tell whether the environment pins BLAS to one thread (it is read when the library loads)."""
    return all(os.environ.get(name) == "1" for name in THREAD_VARIABLES)


def _processor() -> str:
    if sys.platform == "linux":
        try:
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        except OSError:
            pass
    return platform.processor() or platform.machine()
