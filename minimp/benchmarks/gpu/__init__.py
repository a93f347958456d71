"""What a GPU makes of the engine: times beside the GPU's own roof and beside PyTorch on the same GPU.

Everything here runs on any backend of device arrays: on "cupy", timed by events of the GPU, and on "strict",
timed by the host's clock, where figures only show that each part runs.
"""

from minimp.benchmarks.gpu.clock import DeviceClock, EventClock, HostClock, clock_of
from minimp.benchmarks.gpu.jobs import Aim, Bench, Job, Timed, run_job
from minimp.benchmarks.gpu.parts import PARTS, Part, Roof, Run, run_parts
from minimp.benchmarks.gpu.sizes import FULL, TINY, Sizes
from minimp.benchmarks.gpu.torch_side import TorchSide

__all__ = [
    "FULL", "PARTS", "TINY", "Aim", "Bench", "DeviceClock", "EventClock", "HostClock", "Job", "Part", "Roof",
    "Run", "Sizes", "Timed", "TorchSide", "clock_of", "run_job", "run_parts",
]  # fmt: skip
