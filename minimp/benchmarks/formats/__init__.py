"""The kernels of `minimp.formats` beside NumPy's, ml_dtypes' and PyTorch's: speed, memory, threads."""

from minimp.benchmarks.formats.aims import figures
from minimp.benchmarks.formats.rows import FormatTimes
from minimp.benchmarks.formats.running import measure

__all__ = ["FormatTimes", "figures", "measure"]
