"""Arguments for every kernel, and faults to plant: one file a family, each with SAMPLES and BUGS.

A family whose kernels are not all bit exact has JUDGES too: kernel name -> what compares its results with the
reference's, by a row of `tests/tolerances.py`. One whose small samples are larger than others' has SMALL:
kernel name -> elements at most.
"""

from tests.kernels.samples import (
    activations,
    attention,
    casts,
    checking,
    embedding,
    losses,
    rows,
    statistics,
    sums,
    unscaling,
    updates,
)
from tests.kernels.samples.base import SMALL, Arguments, Bug, Judge, arrays, is_small

FILES = (
    activations, attention, checking, casts, embedding, losses, rows, statistics, sums, unscaling, updates
)  # fmt: skip
SAMPLES = {name: make for file in FILES for name, make in file.SAMPLES.items()}
BUGS = tuple(bug for file in FILES for bug in file.BUGS)
JUDGES: dict[str, Judge] = {
    name: judge for file in FILES for name, judge in getattr(file, "JUDGES", {}).items()
}
LIMITS: dict[str, int] = {name: most for file in FILES for name, most in getattr(file, "SMALL", {}).items()}


def small_samples(kernel: str) -> list[Arguments]:
    """Return the samples that the PTX interpreter takes."""
    most = LIMITS.get(kernel, SMALL)
    return [arguments for arguments in SAMPLES[kernel]() if is_small(arguments, most)]


def differences(kernel: str) -> Judge | None:
    """Return what compares a kernel's results with the reference's; None where the bits must be equal."""
    return JUDGES.get(kernel)


__all__ = [
    "BUGS", "JUDGES", "SAMPLES", "Arguments", "Bug", "Judge", "arrays", "differences", "is_small",
    "small_samples",
]  # fmt: skip
