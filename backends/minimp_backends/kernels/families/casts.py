"""Casts: any format to any other in any rounding mode, and the four of every step as kernels of their own."""

from __future__ import annotations

from minimp_backends.kernels.declaring import Kernel, Parameter, per_element
from minimp_backends.kernels.references import casts

__all__ = ["KERNELS"]

EIGHT = 8  # neighbours that a thread of casts16.cu takes
PAIRS = (("float", "half"), ("float", "bfloat16"), ("half", "float"), ("bfloat16", "float"))


def _pair(source: str, target: str) -> Kernel:
    return Kernel(
        name=f"cast_{source}_{target}",
        source="casts16.cu",
        parameters=(
            Parameter("source", source, "in"),
            Parameter("target", target, "out"),
            Parameter("count", "int64", "value"),
        ),
        launch=lambda arguments: per_element(arguments["count"], EIGHT),
        reference=casts.cast,
    )


def _codes(width: int) -> Kernel:
    return Kernel(
        name=f"cast_codes_{width}",
        source="casts.cu",
        parameters=(
            Parameter("source", "uint8", "in"),
            Parameter("target", "uint8", "out"),
            Parameter("source_format", "uint64", "value"),
            Parameter("target_format", "uint64", "value"),
            Parameter("rounding", "int32", "value"),
            Parameter("rule", "int32", "value"),
            Parameter("seed", "uint64", "value"),
            Parameter("start", "uint64", "value"),
            Parameter("met_nan", "int32", "inout"),
            Parameter("count", "int64", "value"),
        ),
        launch=lambda arguments: per_element(arguments["count"]),
        reference=casts.cast_codes,
    )


_STOCHASTIC = Kernel(
    name="round_stochastic_bfloat16",
    source="casts16.cu",
    parameters=(
        Parameter("wide", "float", "in"),
        Parameter("dice", "uint16", "in"),
        Parameter("low", "bfloat16", "out"),
        Parameter("count", "int64", "value"),
    ),
    launch=lambda arguments: per_element(arguments["count"], EIGHT),
    reference=casts.round_stochastic_bfloat16,
)

KERNELS = (*(_pair(*pair) for pair in PAIRS), _codes(32), _codes(64), _STOCHASTIC)
