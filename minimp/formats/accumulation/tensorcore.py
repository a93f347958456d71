"""How NVIDIA's matrix units add: a bit-accurate model of the published findings.

A unit takes L products and the accumulator at once. The products are exact; every term is aligned to the
largest exponent of them all, and cut off (toward zero) F bits below it; the cut terms are added exactly, and
the sum is normalised once and cut to the result. For finite terms t_i with exponents e_i, emax = max(e_i,
floor):

    acc <- cut( 2^(emax - F) · sum_i trunc(t_i 2^(F - emax)) )

with e of a product = e(a) + e(b), not normalised. Blocks of L follow one another in ascending k.

Sources: Fasi, Higham, Mikaitis and Pranesh 2021, "Numerical behavior of NVIDIA tensor cores" (PeerJ CS
7:e330); the MMA-Sim 2.1 and MATLAB-tensor-core models, which agree and were checked against recorded hardware
results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError, unknown_name
from minimp.formats.accumulation.operands import Factors
from minimp.formats.rounding import Float64s, quantum_exponent, round_to
from minimp.formats.table import FORMATS, Format

__all__ = ["UNITS", "Unit", "tensor_core", "unit_for"]


@dataclass(frozen=True)
class Unit:
    """One row: how one unit adds the products of some input formats.

    Attributes:
        formats: the input formats, by name.
        terms: L, the products of one step.
        fraction_bits: F, the bits kept below the largest exponent.
        floor: the smallest exponent that alignment uses; zeros have it.
        result: the format that the sum is cut to.
    """

    formats: tuple[str, ...]
    terms: int
    fraction_bits: int
    floor: int
    result: Format


_HALVES, _TF32, _FP8 = ("float16", "bfloat16"), ("tfloat32",), ("float8_e4m3fn", "float8_e5m2")
_FP6_FP4 = ("float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn")
_FP32 = FORMATS["float32"]
# float32's exponents with 13 fraction bits: what the sum keeps where FP8 is added in the short way.
_E8M13 = Format("e8m13", 8, 13, 127, "ieee", np.dtype(np.float32))

UNITS: Mapping[str, tuple[Unit, ...]] = MappingProxyType(
    {
        "volta": (Unit(("float16",), 4, 23, -131, _FP32),),
        "turing": (Unit(("float16",), 8, 24, -132, _FP32),),
        "ampere": (Unit(_HALVES, 8, 24, -132, _FP32), Unit(_TF32, 4, 24, -132, _FP32)),
        "ada": (
            Unit(_HALVES, 8, 24, -132, _FP32),
            Unit(_TF32, 4, 24, -132, _FP32),
            Unit(_FP8, 16, 13, -132, _E8M13),
        ),
        "hopper": (
            Unit(_HALVES, 16, 25, -133, _FP32),
            Unit(_TF32, 8, 25, -133, _FP32),
            Unit(_FP8, 32, 13, -133, _E8M13),  # wgmma
        ),
        "blackwell": (
            Unit(_HALVES, 16, 25, -133, _FP32),
            Unit(_TF32, 8, 25, -133, _FP32),
            Unit((*_FP8, *_FP6_FP4), 32, 25, -133, _FP32),  # tcgen05.mma
        ),
    }
)


def unit_for(name: str, fmt: Format) -> Unit:
    """Find the row of a unit for an input format.

    Raises:
        SettingError: unknown unit, or a unit that does not take this format.
    """
    if name not in UNITS:
        raise SettingError(unknown_name("tensor core", name, UNITS), op="matmul")
    for unit in UNITS[name]:
        if fmt.name in unit.formats:
            return unit
    taken = ", ".join(each for unit in UNITS[name] for each in unit.formats)
    raise SettingError(
        f"multiplies {taken}, got {fmt.name}",
        op=f"tensorcore:{name}",
        formats=(fmt.name,),
        help="round the inputs to one of these formats, or choose another unit",
    )


def tensor_core(factors: Factors, unit: Unit) -> Float64s:
    """A B + start as the unit adds it: float64 holding values of the unit's result format.

    ``start``, values of float32, is the accumulator before the first step. ``quickunits`` has a faster form.
    """
    acc, fmt = factors.start, factors.fmt
    for a, b in factors.blocks(unit.terms, np.float64):
        exponents_a, exponents_b = _exponents(a, fmt), _exponents(b, fmt)
        top = np.maximum(_exponents(acc, _FP32), unit.floor)
        for k in range(a.shape[-1]):
            top = np.maximum(top, exponents_a[..., k, None] + exponents_b[..., k, None, :])
        scale = np.ldexp(1.0, unit.fraction_bits - top)
        total = np.trunc(acc * scale)
        for k in range(a.shape[-1]):
            total += np.trunc(a[..., k, None] * b[..., k, None, :] * scale)
        cut = _cut(total / scale, unit.result)
        plain = acc + a @ b  # for infinities and NaN only
        acc = np.where(np.isfinite(plain), cut, plain)
    return acc


_NO_EXPONENT = -(1 << 20)


def _exponents(x: Float64s, fmt: Format) -> npt.NDArray[np.int32]:
    """The exponent of each number as the unit sees it: a subnormal's is emin, a zero's counts for nothing."""
    finite = np.where(np.isfinite(x), x, 0.0)
    exponents = quantum_exponent(finite, fmt) + np.int32(fmt.mantissa_bits)
    return np.where(finite == 0, np.int32(_NO_EXPONENT), exponents)


def _cut(total: Float64s, result: Format) -> Float64s:
    """Toward zero to the result's precision; what reaches 2^128 is infinite; zero is +0."""
    finite = np.where(np.isfinite(total), total, 0.0)
    cut = round_to(finite, result, "toward_zero").astype(np.float64)
    beyond = np.abs(finite) >= 2.0 ** (result.emax + 1)
    return np.where(beyond, np.copysign(np.inf, finite), cut) + 0.0
