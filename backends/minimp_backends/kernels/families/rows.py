"""Rows: softmax and log_softmax, layer_norm and rms_norm, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from minimp_backends.kernels.declaring import THREADS, Kernel, Launch, Parameter, per_element
from minimp_backends.kernels.references import rows

__all__ = ["KERNELS", "KINDS_SERVED", "by_rows", "part_rows"]

KINDS_SERVED = ("float", "half", "bfloat16")
LEAST, MOST_PARTS = 64, 128
"""Rows that a part of a sum over rows has at least, and parts at most: enough blocks, few sums to add."""
SIZES = (Parameter("rows", "int64", "value"), Parameter("length", "int64", "value"))
LOGS = Parameter("logs", "int32", "value")


def part_rows(count: int) -> int:
    """Return how many rows a part of a sum over `count` rows has."""
    return max(LEAST, -(-count // MOST_PARTS))


def by_rows(arguments: Mapping[str, Any]) -> Launch:
    """A block for each row, or a warp."""
    team = rows.threads_of(arguments["length"])
    if team > rows.WARP:
        return Launch(max(arguments["rows"], 1), team)
    return Launch(max(-(-arguments["rows"] * team // THREADS), 1), THREADS)


def _by_columns(arguments: Mapping[str, Any]) -> Launch:
    """A block for 32 columns of each part."""
    tiles, parts = -(-arguments["length"] // rows.WARP), -(-arguments["rows"] // arguments["rows_each"])
    return Launch(max(tiles * parts, 1), rows.WARPS * rows.WARP)


def _kernel(
    name: str, source: str, *parameters: Parameter, launch: Callable[..., Launch] = by_rows
) -> Kernel:
    return Kernel(f"{name}_{parameters[0].kind}", source, parameters, launch, getattr(rows, name))


def _softmax(kind: str) -> tuple[Kernel, ...]:
    x, y = Parameter("x", kind, "in"), Parameter("y", kind, "out")
    gradient = (Parameter("grad", kind, "in"), Parameter("y", kind, "in"), Parameter("dx", kind, "out"))
    return (
        _kernel("softmax", "softmax.cu", x, y, LOGS, *SIZES),
        _kernel("softmax_gradient", "softmax.cu", *gradient, LOGS, *SIZES),
    )


def _norm(kind: str) -> tuple[Kernel, ...]:
    x, grad = Parameter("x", kind, "in"), Parameter("grad", kind, "in")
    weight, bias, means = (Parameter(name, "float", "in", 1) for name in ("weight", "bias", "means"))
    scales = Parameter("scales", "float", "in")
    return (
        _kernel(
            "norm", "norms.cu", x, weight, bias, Parameter("y", kind, "out"),
            Parameter("means", "float", "out", 1), Parameter("scales", "float", "out"),
            Parameter("eps", "float", "value"), *SIZES,
        ),
        _kernel(
            "norm_gradient", "norm_gradients.cu", grad, x, weight, means, scales,
            Parameter("dx", kind, "out"), *SIZES,
        ),
        _kernel(
            "norm_columns", "norm_gradients.cu", grad, x, means, scales, Parameter("parts", "float", "out"),
            Parameter("with_bias", "int32", "value"), *SIZES, Parameter("rows_each", "int64", "value"),
            launch=_by_columns,
        ),
    )  # fmt: skip


KERNELS = (
    *(kernel for kind in KINDS_SERVED for kernel in _softmax(kind)),
    *(kernel for kind in KINDS_SERVED for kernel in _norm(kind)),
    Kernel(
        "sum_parts", "norm_gradients.cu",
        (Parameter("parts", "float", "in"), Parameter("totals", "float", "out"),
         Parameter("count", "int64", "value"), Parameter("width", "int64", "value")),
        lambda arguments: per_element(arguments["width"]), rows.sum_parts,
    ),
)  # fmt: skip
