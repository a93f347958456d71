"""Casts: any format to any other in any rounding mode, and the four of every step as kernels of their own."""

from __future__ import annotations

from functools import partial

from minimp.formats import Format
from minimp_backends.kernels.declaring import Kernel, Parameter, Role, per_element
from minimp_backends.kernels.references import casts

__all__ = ["KERNELS", "fixed"]

EIGHT = 8  # neighbours that a thread takes where the formats are fixed
FLOAT8 = ("float8_e4m3fn", "float8_e5m2")
SPELLINGS = {"float32": "float", "float16": "half"}
"""Formats whose name in a kernel's is another."""
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


def _array(name: str, kind: str, role: Role) -> Parameter:
    return Parameter(name, "uint8" if kind in FLOAT8 else kind, role)


def _eight_bits(source: str, target: str) -> Kernel:
    narrow = target in FLOAT8
    return Kernel(
        name=f"cast_{source}_{target}",
        source="casts_fixed.cu",
        parameters=(
            _array("source", source, "in"),
            _array("target", target, "out"),
            *((Parameter("saturates", "int32", "value"),) if narrow else ()),
            Parameter("count", "int64", "value"),
        ),
        launch=lambda arguments: per_element(arguments["count"], EIGHT),
        reference=partial(casts.encode, format=target) if narrow else partial(casts.decode, format=source),
    )


def _at_random(target: str) -> Kernel:
    return Kernel(
        name=f"cast_float_{target}_stochastic",
        source="casts_fixed.cu",
        parameters=(
            Parameter("source", "float", "in"),
            Parameter("target", target, "out"),
            Parameter("saturates", "int32", "value"),
            Parameter("seed", "uint64", "value"),
            Parameter("start", "uint64", "value"),
            Parameter("count", "int64", "value"),
        ),
        launch=lambda arguments: per_element(arguments["count"], EIGHT),
        reference=casts.cast_at_random,
    )


def fixed(source: Format, target: Format, rounding: str) -> str | None:
    """Return the kernel for a cast whose formats are fixed, None where `cast_codes` has to do it.

    What is too large becomes infinite, or NaN; with `saturates`, which those to 8 bits and at random take,
    the largest value.
    """
    spelt = [SPELLINGS.get(each.name, each.name) for each in (source, target)]
    name = "_".join(("cast", *spelt, *(("stochastic",) if rounding == "stochastic" else ())))
    return name if rounding in ("nearest_even", "stochastic") and name in _FIXED else None


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

KERNELS = (
    *(_pair(*pair) for pair in PAIRS),
    *(_eight_bits(*pair) for each in FLOAT8 for pair in (("float", each), (each, "float"))),
    *(_at_random(target) for target in ("half", "bfloat16")),
    _codes(32),
    _codes(64),
    _STOCHASTIC,
)
_FIXED = {kernel.name for kernel in KERNELS if kernel.source in ("casts16.cu", "casts_fixed.cu")}
