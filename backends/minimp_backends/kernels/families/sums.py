"""Sums of rows."""

from __future__ import annotations

from minimp_backends.kernels.declaring import Kernel, Parameter
from minimp_backends.kernels.families.rows import KINDS_SERVED, by_rows
from minimp_backends.kernels.references import sums

__all__ = ["KERNELS", "KINDS_SERVED"]

KERNELS = tuple(
    Kernel(
        f"row_sum_{kind}", "sums.cu",
        (Parameter("x", kind, "in"), Parameter("y", "float", "out"),
         Parameter("rows", "int64", "value"), Parameter("length", "int64", "value")),
        by_rows, sums.row_sum,
    )
    for kind in KINDS_SERVED
)  # fmt: skip
