"""Cross-entropy of rows of scores, and its gradient."""

from __future__ import annotations

from minimp_backends.kernels.declaring import Kernel, Parameter
from minimp_backends.kernels.families.rows import KINDS_SERVED, by_rows
from minimp_backends.kernels.references import losses

__all__ = ["KERNELS", "KINDS_SERVED"]

SHARES = (Parameter("peak", "float", "value"), Parameter("spread", "float", "value"))
SIZES = (Parameter("rows", "int64", "value"), Parameter("length", "int64", "value"))


def _kernels(kind: str) -> tuple[Kernel, ...]:
    given = (
        Parameter("x", kind, "in"),
        Parameter("labels", "int64", "in"),
        Parameter("weight", "float", "in", 1),
    )
    made = tuple(Parameter(name, "float", "out") for name in ("losses", "tops", "log_sums"))
    kept = tuple(Parameter(name, "float", "in") for name in ("tops", "log_sums", "grads"))
    return (
        Kernel(
            f"cross_entropy_{kind}", "losses.cu", (*given, *made, *SHARES, *SIZES), by_rows,
            losses.cross_entropy,
        ),
        Kernel(
            f"cross_entropy_gradient_{kind}", "losses.cu",
            (*given, *kept, Parameter("dx", kind, "out"), *SHARES, Parameter("each", "int64", "value"),
             *SIZES),
            by_rows, losses.cross_entropy_gradient,
        ),
    )  # fmt: skip


KERNELS = tuple(kernel for kind in KINDS_SERVED for kernel in _kernels(kind))
