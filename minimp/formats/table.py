"""What a number format is, as data: one row a format, everything else derived from the row.

A finite value of a binary floating-point format is

    (-1)^s · M · 2^(e - m),   0 <= M < 2^(m+1),   emin <= e <= emax

with m = ``mantissa_bits`` stored bits of the significand and emin = 1 - ``bias``. The value is normal when
M >= 2^m, subnormal when M < 2^m (then e = emin). What the formats do not share is what they do with their
last codes, and that is their ``Flavour``.

Sources: IEEE 754-2019 (float64, float32, float16); OCP OFP8 1.0 (float8_e4m3fn, float8_e5m2); OCP MX 1.0
(float6, float4, float8_e8m0fnu); Noune et al. 2022, arXiv:2206.02915 (the fnuz formats); the hardware
vendors' documents (bfloat16, tfloat32). Names are ml_dtypes' names. ``make`` adds formats of one's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np

from minimp.errors import FormatError, unknown_name
from minimp.formats.flavours import FLAVOURS

__all__ = ["FORMATS", "Format", "get", "is_name", "own_format"]


# float64's, in which everything here is computed: largest exponent, exponent of the last bit, mantissa bits.
_HIGHEST, _LOWEST, _LONGEST = 1023, -1074, 52


@dataclass(frozen=True, eq=False, repr=False)
class Format:
    """A number format: eight stored facts, and an anatomy derived from them.

    Formats are compared by identity: ``get``, unpickling and copying all give the one object.

    Attributes:
        name: ml_dtypes' or NumPy's name.
        exponent_bits: stored bits of the exponent (0 for an integer format).
        mantissa_bits: stored bits of the significand, the hidden bit not counted.
        bias: what is subtracted from the stored exponent.
        flavour: a key of ``FLAVOURS``: how the last codes are spent.
        dtype: the NumPy dtype that stores one value; unsigned integers, holding codes, where there is no
            other.
        has_subnormals: whether there are values below ``smallest_normal`` other than 0. Without them the
            codes of exponent 0 are all zero, as on hardware that reads subnormals as zero.
        signed: whether there is a sign bit.

    Raises:
        FormatError: the flavour is unknown, or float64 could not hold the values, or ``dtype`` the codes.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    bias: int
    flavour: str
    dtype: np.dtype[Any]
    has_subnormals: bool = True
    signed: bool = True

    def __post_init__(self) -> None:
        if self.flavour not in FLAVOURS:
            raise FormatError(
                unknown_name("flavour", self.flavour, FLAVOURS),
                op="Format",
                formats=(self.name,),
                help="a flavour says how a format spends its last codes; see minimp.formats.FLAVOURS",
            )
        fits = 0 <= self.mantissa_bits <= _LONGEST and self.emin - self.mantissa_bits >= _LOWEST
        highest = (self.max_code >> self.mantissa_bits) - self.bias if fits else _HIGHEST + 1
        if highest > _HIGHEST or self.bits > 8 * self.dtype.itemsize:
            raise FormatError(
                f"{self.signed:d} + {self.exponent_bits} + {self.mantissa_bits} bits with bias {self.bias} do"
                f" not fit float64, or {self.dtype}",
                op="Format",
                formats=(self.name,),
                help="every value must be a float64, and every code fit the dtype",
            )
        self._check_room()

    def _check_room(self) -> None:
        """Refuse special values for which there are no codes, or which leave none to numbers."""
        nan = FLAVOURS[self.flavour].nan
        homeless = (nan == "top" and not self.mantissa_bits) or (nan == "sign" and not self.signed)
        empty = self.max_code < (1 << self.mantissa_bits) and self.has_zero and not self.is_integer
        if homeless or empty:
            raise FormatError(
                f"{self.signed:d} + {self.exponent_bits} + {self.mantissa_bits} bits leave no room for normal"
                f" numbers and these special values: {FLAVOURS[self.flavour].note}",
                op="Format",
                formats=(self.name,),
                help="give it one more bit, or another flavour",
            )

    # --- the switches of the flavour, as attributes that the engine's hot path can read ---

    @cached_property
    def has_inf(self) -> bool:
        """Whether the format has infinities."""
        return FLAVOURS[self.flavour].has_inf

    @cached_property
    def has_nan(self) -> bool:
        """Whether the format has a NaN."""
        return FLAVOURS[self.flavour].nan is not None

    @cached_property
    def has_zero(self) -> bool:
        """Whether zero is a value."""
        return FLAVOURS[self.flavour].has_zero

    @cached_property
    def has_negative_zero(self) -> bool:
        """Whether -0 differs from +0."""
        return self.signed and FLAVOURS[self.flavour].has_negative_zero

    @cached_property
    def is_integer(self) -> bool:
        """Whether the values are evenly spaced integers."""
        return self.flavour == "integer"

    @cached_property
    def is_gradual(self) -> bool:
        """Whether the values go down to 0 in even steps, by subnormals or as integers do."""
        return self.has_subnormals or self.is_integer

    # --- the anatomy ---

    @cached_property
    def bits(self) -> int:
        """Bits of one code: sign, exponent, mantissa. (tfloat32 has 19 and is stored in 32.)"""
        return self.signed + self.magnitude_bits

    @cached_property
    def magnitude_bits(self) -> int:
        """Bits of one code without the sign."""
        return self.exponent_bits + self.mantissa_bits

    @cached_property
    def precision(self) -> int:
        """Significand bits of a normal number, the hidden one counted: p = m + 1."""
        return self.mantissa_bits + 1

    @cached_property
    def emin(self) -> int:
        """The exponent of the smallest normal number, 1 - bias; -bias where no code is spent on zero.

        An integer format is the format in which everything is subnormal: emin = m puts its ulp at 2^0.
        """
        return self.mantissa_bits if self.is_integer else self.has_zero - self.bias

    @cached_property
    def emax(self) -> int:
        """The exponent of ``max``: 2^emax <= max < 2^(emax+1)."""
        return math.frexp(self.max)[1] - 1

    @cached_property
    def padding(self) -> int:
        """Zero bits below a code: 13 in tfloat32, which is stored as a float32 pattern; 0 in all others."""
        if self.dtype.type not in (np.float16, np.float32, np.float64):
            return 0
        spare = int(np.finfo(self.dtype).nmant) - self.mantissa_bits
        return spare if self.bits + spare == 8 * self.dtype.itemsize else 0

    @cached_property
    def code_dtype(self) -> np.dtype[Any]:
        """The unsigned integer type of a code."""
        return np.dtype(f"u{self.dtype.itemsize}")

    @cached_property
    def max_code(self) -> int:
        """The code of ``max``, the highest one that is a finite positive number."""
        codes = 1 << self.magnitude_bits
        return codes - 1 - FLAVOURS[self.flavour].reserved_codes(self.mantissa_bits)

    @cached_property
    def nan_code(self) -> int | None:
        """The code of the (positive, quiet) NaN; None where the format has none."""
        sign, ones = 1 << self.magnitude_bits, (1 << self.magnitude_bits) - 1
        quiet = ones - (1 << self.mantissa_bits >> 1) + 1  # the top bit of the mantissa alone
        return {"top": quiet, "ones": ones, "sign": sign, None: None}[FLAVOURS[self.flavour].nan]

    @cached_property
    def inf_code(self) -> int | None:
        """The code of +inf, the one after ``max_code``; None where the format has none."""
        return self.max_code + 1 if self.has_inf else None

    @cached_property
    def max(self) -> float:
        """The largest finite value."""
        exponent, mantissa = divmod(self.max_code, 1 << self.mantissa_bits)
        if exponent == 0 and self.has_zero:  # an integer format, where all is subnormal
            return math.ldexp(mantissa, self.emin - self.mantissa_bits)
        return math.ldexp(mantissa + (1 << self.mantissa_bits), exponent - self.bias - self.mantissa_bits)

    @cached_property
    def lowest(self) -> float:
        """The least finite value: -max, and one further in two's complement; without sign the smallest."""
        if not self.signed:
            return 0.0 if self.has_zero else self.smallest_normal
        return -self.max - 1.0 if self.is_integer else -self.max

    @cached_property
    def smallest_normal(self) -> float:
        """The smallest positive value of full precision: 2^emin."""
        return 1.0 if self.is_integer else math.ldexp(1.0, self.emin)

    @cached_property
    def smallest_subnormal(self) -> float:
        """The smallest positive value: 2^(emin - m), or 2^emin where there are no subnormals."""
        return math.ldexp(1.0, self.emin - self.mantissa_bits * self.is_gradual)

    @cached_property
    def eps(self) -> float:
        """The distance from 1 to the next larger value: 2^-m (1 for an integer format)."""
        return 1.0 if self.is_integer else math.ldexp(1.0, -self.mantissa_bits)

    @cached_property
    def within_float32(self) -> bool:
        """Whether every value is a float32, so that float64 holds every product of two exactly."""
        ends = self.emin - self.mantissa_bits >= -149 and self.emax <= 127
        return ends and self.mantissa_bits <= 23

    # --- one object per format ---

    def __repr__(self) -> str:
        return self.name

    def _repr_html_(self) -> str:
        from minimp.displays import format_html  # only notebooks ask

        return format_html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and unpickle to the registered object; a format of the user's own is rebuilt from its row."""
        if FORMATS.get(self.name) is self:
            return get, (self.name,)
        return own_format, tuple(getattr(self, each.name) for each in fields(self))

    def describe(self) -> str:
        """Describe the format for people, over several lines."""
        parts = f"{self.signed:d} sign + {self.exponent_bits} exponent + {self.mantissa_bits} mantissa"
        sizes = (("normal", self.smallest_normal), ("smallest", self.smallest_subnormal), ("eps", self.eps))
        return "\n".join(
            (
                f"{self.name}: {self.bits} bits ({parts}), stored as {self.dtype.name}",
                f"  {self.flavour}: {FLAVOURS[self.flavour].note}",
                f"  range      {self.lowest:.9g} .. {self.max:.9g}",
                *(f"  {word:<10} {size:.9g} (2^{math.frexp(size)[1] - 1})" for word, size in sizes),
            )
        )


def _row(
    name: str, e: int, m: int, bias: int, flavour: str, store: Any, *aliases: str
) -> tuple[Format, tuple[str, ...]]:
    gradual, signed = flavour not in ("integer", "scale"), not name.endswith("u") and name != "uint8"
    return Format(name, e, m, bias, flavour, np.dtype(store), gradual, signed), aliases


_TABLE = (
    #    name               e   m   bias  flavour    stored as                  also called
    _row("float64",         11, 52, 1023, "ieee",    np.float64,                "fp64", "f64", "double"),
    _row("float32",         8,  23, 127,  "ieee",    np.float32,                "fp32", "f32", "single"),
    _row("tfloat32",        8,  10, 127,  "ieee",    np.float32,                "tf32"),
    _row("float16",         5,  10, 15,   "ieee",    np.float16,                "fp16", "f16", "half"),
    _row("bfloat16",        8,  7,  127,  "ieee",    ml_dtypes.bfloat16,        "bf16"),
    _row("float8_e3m4",     3,  4,  3,    "ieee",    ml_dtypes.float8_e3m4,     "e3m4"),
    _row("float8_e4m3",     4,  3,  7,    "ieee",    ml_dtypes.float8_e4m3),
    _row("float8_e4m3fn",   4,  3,  7,    "fn",      ml_dtypes.float8_e4m3fn,   "e4m3fn"),
    _row("float8_e4m3fnuz", 4,  3,  8,    "fnuz",    ml_dtypes.float8_e4m3fnuz, "e4m3fnuz"),
    _row("float8_e5m2",     5,  2,  15,   "ieee",    ml_dtypes.float8_e5m2,     "e5m2"),
    _row("float8_e5m2fnuz", 5,  2,  16,   "fnuz",    ml_dtypes.float8_e5m2fnuz, "e5m2fnuz"),
    _row("float6_e2m3fn",   2,  3,  1,    "finite",  ml_dtypes.float6_e2m3fn,   "e2m3fn", "e2m3"),
    _row("float6_e3m2fn",   3,  2,  3,    "finite",  ml_dtypes.float6_e3m2fn,   "e3m2fn", "e3m2"),
    _row("float4_e2m1fn",   2,  1,  1,    "finite",  ml_dtypes.float4_e2m1fn,   "e2m1fn", "e2m1", "fp4"),
    _row("float8_e8m0fnu",  8,  0,  127,  "scale",   ml_dtypes.float8_e8m0fnu,  "e8m0fnu", "e8m0", "ue8m0"),
    _row("int8",            0,  7,  0,    "integer", np.int8,                   "i8"),
    _row("uint8",           0,  8,  0,    "integer", np.uint8,                  "u8"),
)  # fmt: skip

FORMATS: Mapping[str, Format] = MappingProxyType({each.name: each for each, _ in _TABLE})

# "fp8_e4m3" is no alias: it means the OCP format in papers, the IEEE one in ml_dtypes' spelling.
_NAMES = {name: each for each, aliases in _TABLE for name in (each.name, *aliases)}
_NAMES |= {name.replace("float", "fp"): each for name, each in FORMATS.items() if "_" in name}
del _NAMES["fp8_e4m3"]
# tfloat32 has no dtype of its own: np.float32 means float32.
_STORED = [each for each in FORMATS.values() if each.name != "tfloat32"]
_DTYPES: dict[Any, Format] = {key: each for each in _STORED for key in (each.dtype, each.dtype.type)}


def get(x: Any) -> Format:
    """Find a format by whatever names it: ``get("fp16") is get(np.float16) is get(torch.float16)``.

    Args:
        x: a ``Format``; a name or alias in any case (``"float16"``, ``"fp16"``, ``"half"``); a NumPy dtype or
            scalar type, ml_dtypes' included; a torch dtype (read by its name: torch is not imported).

    Raises:
        FormatError: nothing is known under that name; the message offers the nearest one.
    """
    if x.__class__ is Format:
        return x
    found = _lookup(x)
    if found is None:
        raise FormatError(
            unknown_name("number format", x, FORMATS, also=_NAMES),
            help="a name such as 'float16', a NumPy or torch dtype, or a Format will do",
        )
    return found


def is_name(text: str) -> bool:
    """Whether ``get`` knows a format by this text."""
    return text.strip().lower() in _NAMES


@cache
def own_format(*row: Any) -> Format:
    """The one format of a row, so that formats of one's own can be compared by identity as well."""
    return Format(*row)


def _lookup(x: Any) -> Format | None:
    if isinstance(x, str):
        return _NAMES.get(x.strip().lower())
    if type(x).__module__ == "torch":
        return FORMATS.get(str(x).removeprefix("torch."))
    if isinstance(x, np.dtype):
        return _DTYPES.get(x.newbyteorder("="))
    if isinstance(x, type):
        return _DTYPES.get(np.float64 if x is float else x)
    return None
