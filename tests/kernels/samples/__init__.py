"""Arguments for every kernel, and faults to plant: one file a family, each with SAMPLES and BUGS."""

from tests.kernels.samples import checking
from tests.kernels.samples.base import Arguments, Bug, arrays, is_small

FILES = (checking,)
SAMPLES = {name: make for file in FILES for name, make in file.SAMPLES.items()}
BUGS = tuple(bug for file in FILES for bug in file.BUGS)

__all__ = ["BUGS", "SAMPLES", "Arguments", "Bug", "arrays", "is_small"]
