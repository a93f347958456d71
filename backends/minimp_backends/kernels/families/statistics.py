"""Statistics of an array in one pass: a small table of counts, the ends, and the sum in parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minimp_backends.kernels.declaring import THREADS, Kernel, Launch, Parameter
from minimp_backends.kernels.references import statistics

__all__ = ["KERNELS", "SUMS", "parts"]

SUMS = "one sum of the numbers, as the host has it: an addition a number, beside its counting"
"""Why the kernels may compute in float64."""


def parts(count: int) -> int:
    """Return how many blocks a launch has, each of which writes its part of the sum down."""
    return min(max(-(-count // (THREADS * statistics.GROUP)), 1), statistics.MOST_PARTS)


def _launch(arguments: Mapping[str, Any]) -> Launch:
    return Launch(parts(arguments["count"]), THREADS)


def _kernel(kind: str) -> Kernel:
    return Kernel(
        name=f"tally_{kind}",
        source="statistics.cu",
        parameters=(
            Parameter("values", kind, "in"),
            Parameter("table", "uint32", "inout"),
            Parameter("sums", "double", "out"),
            Parameter("with_cuts", "int32", "value"),
            Parameter("count", "int64", "value"),
        ),
        launch=_launch,
        reference=statistics.tally,
        allowed={"double": SUMS},
    )


KERNELS = tuple(_kernel(kind) for kind in ("half", "bfloat16", "float"))
