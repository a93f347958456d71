"""Launch every kernel on its samples and compare: `python -m tests.gpu.launch_all`, for NVIDIA's sanitizer.

    compute-sanitizer --tool memcheck --error-exitcode 1 python -m tests.gpu.launch_all --samples 4

memcheck finds accesses outside of arrays, racecheck races in shared memory, initcheck reads of memory that
nobody wrote (Compute Sanitizer, NVIDIA's documentation). CuPy's pool hides the ends of arrays from it, so
the script turns it off.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from minimp.backend import get_backend
from minimp_backends.kernels.registry import KERNELS
from tests.gpu.recording import launch_on
from tests.kernels.agreement import expected, mismatches
from tests.kernels.rungs import some
from tests.kernels.samples import SAMPLES

__all__ = ["run"]


def run(backend: Any, say: Callable[[str], object], most: int | None = None) -> int:
    """Launch every kernel; say of each what came out; return 1 if one was wrong, else 0."""
    failed = 0
    for name in sorted(KERNELS):
        kernel, wrong = KERNELS[name], []
        samples = some(SAMPLES[name](), most)
        try:
            for place, arguments in samples:
                made = launch_on(backend, kernel, arguments)
                found = mismatches(kernel, arguments, made, expected(kernel, arguments))
                wrong += [f"sample {place}: {each}" for each in found]
        except RuntimeError as fault:
            wrong.append(str(fault))
        failed |= bool(wrong)
        say(f"{name}: {'FAILED: ' + wrong[0] if wrong else f'{len(samples)} samples as the reference'}")
    return failed


def main() -> int:
    """Run on this machine's GPU, without a memory pool."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, help="of each kernel at most (default: all)")
    args = parser.parse_args()
    backend: Any = get_backend("cupy")
    backend.xp.cuda.set_allocator(None)
    return run(backend, print, args.samples)


if __name__ == "__main__":
    sys.exit(main())
