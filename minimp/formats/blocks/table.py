"""Block formats as data: small elements that share a scale, block by block.

A block of numbers x is held as one scale s and an element code a number; what is read back is

    x ~ t · s · e,        e a value of the element format, t = 1 or one float32 for the whole tensor

Sources: OCP Microscaling Formats (MX) 1.0, 2023, 5 and 6.3 (mx*); NVIDIA et al. 2025, "Pretraining Large
Language Models with NVFP4", arXiv:2509.25149, appendix on quantization, and Transformer Engine's reference
quantizer (nvfp4); DeepSeek-AI 2024, "DeepSeek-V3 Technical Report", arXiv:2412.19437, 3.3.2, and DeepGEMM's
``utils/math.py`` (deepseek_*). The rules floor, ceil, even and rceil are torchao's (``ScaleCalculationMode``
of ``prototype/mx_formats``, 2026).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import FormatError, SettingError, unknown_name
from minimp.formats.table import Format, get

__all__ = ["BLOCK_FORMATS", "SCALE_RULES", "BlockFormat", "Peak", "ScaleRule", "block_format", "rule_for"]


@dataclass(frozen=True)
class Peak:
    """What a rule for powers of two looks at: amax = significand · 2^e, of one block or of many.

    Attributes:
        significand: of amax, 1 <= significand < 2.
        largest: the significand of the element format's largest value, 448 = 1.75 · 2^8.
        fraction_bits: bits after the point of an element in the highest binade: 3 of e4m3, 6 of int8.
    """

    significand: npt.NDArray[np.float64]
    largest: float
    fraction_bits: int


@dataclass(frozen=True)
class ScaleRule:
    """How a block's largest magnitude, amax, gives its scale.

    Rules for powers of two have ``lifts``: s = 2^(e - emax + lifts), e = floor(log2 amax), emax the exponent
    of the element format's largest value, max. The others have ``rounding``: s = amax / max, rounded once to
    the scale's format.

    Attributes:
        name: the rule's name.
        note: one line for people.
        lifts: whether the exponent is one more; None where the scale is not a power of two.
        rounding: a key of ``ROUNDINGS``; None where the scale is a power of two.
        normal_only: whether the scale stays at or above the smallest normal value of its format.
    """

    name: str
    note: str
    lifts: Callable[[Peak], Any] | None = None
    rounding: str | None = None
    normal_only: bool = False


_RULES = (
    ScaleRule(
        "floor",
        "2^(floor(log2 amax) - emax): OCP MX 1.0, 6.3; may clamp what lies beyond max",
        lifts=lambda at: np.zeros(at.significand.shape, bool),
    ),
    ScaleRule(
        "ceil",
        "2^(ceil(log2 amax) - emax): nothing is clamped",
        lifts=lambda at: at.significand > 1,
    ),
    ScaleRule(
        "even",
        "floor, after amax was rounded to the element's precision, a tie up: torchao's EVEN",
        lifts=lambda at: at.significand >= 2 - 2.0 ** -(at.fraction_bits + 1),
    ),
    ScaleRule(
        "rceil",
        "2^ceil(log2(amax / max)), the least that clamps nothing: cuBLAS, DeepGEMM",
        lifts=lambda at: at.significand > at.largest,
    ),
    ScaleRule("amax", "amax / max, to nearest even", rounding="nearest_even"),
    ScaleRule("amax_up", "amax / max, upward, so that nothing is clamped: cuDNN", rounding="up"),
    ScaleRule(
        "amax_normal",
        "amax / max, to nearest even, at least the scale's smallest normal: torchao's NVFP4",
        rounding="nearest_even",
        normal_only=True,
    ),
)
SCALE_RULES: Mapping[str, ScaleRule] = MappingProxyType({each.name: each for each in _RULES})


@dataclass(frozen=True)
class BlockFormat:
    """A block format: what an element is, what a scale is, and how many elements share one.

    Attributes:
        name: the format's name.
        element: the elements' format; anything that ``get`` knows.
        scale: the scales' format; anything that ``get`` knows.
        block: the extent of a block: ``(32,)`` along one axis, or ``(128, 128)`` over two neighbouring axes.
        scale_rule: a key of ``SCALE_RULES``, taken where the call names none.
        tensor_scale: whether there is one more scale t, a float32 for the whole tensor, chosen so that the
            largest block scale is the largest value of ``scale``: t = amax / (max of element · max of scale).
        element_exponent: an element is its code's value times 2^element_exponent: -6 in mxint8, whose int8
            counts 64ths.
        smallest_amax: a block's amax counts as no less than this (DeepGEMM's 1e-4).
        note: one line for people.

    Raises:
        FormatError: unknown formats; elements without zero, or a scale in evenly spaced integers.
        SettingError: an unknown scale rule, or one whose scales ``scale`` cannot hold; a block that is none.
    """

    name: str
    element: Format
    scale: Format
    block: tuple[int, ...]
    scale_rule: str
    tensor_scale: bool = False
    element_exponent: int = 0
    smallest_amax: float = 0.0
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "element", get(self.element))
        object.__setattr__(self, "scale", get(self.scale))
        rule_for(self.scale_rule, self)
        if not self.element.has_zero or self.scale.is_integer or self.scale.precision > _MOST_SCALE_BITS:
            raise FormatError(
                f"expected elements that have a zero and a floating-point scale of at most {_MOST_SCALE_BITS}"
                f" significand bits, got {self.element.name} and {self.scale.name}",
                op="BlockFormat",
                formats=(self.element.name, self.scale.name),
                help="for example float8_e4m3fn elements under a float8_e8m0fnu or float32 scale",
            )
        block: Any = self.block
        whole = isinstance(block, tuple) and all(isinstance(n, int) and n > 0 for n in block)
        if not whole or len(block) not in (1, 2):
            raise SettingError(
                f"expected one or two extents of at least 1, got {self.block!r}",
                op="BlockFormat",
                help="(32,) is 32 numbers along an axis, (128, 128) a square over two axes",
            )
        if not 0 <= self.smallest_amax < math.inf:
            raise SettingError(
                f"expected a finite smallest_amax of at least 0, got {self.smallest_amax!r}",
                op="BlockFormat",
            )

    @property
    def element_max(self) -> float:
        """The largest element, 448 of e4m3, 127/64 of mxint8."""
        return math.ldexp(self.element.max, self.element_exponent)

    @property
    def element_emax(self) -> int:
        """The exponent of the largest element (OCP MX 1.0, table 2: emax)."""
        return self.element.emax + self.element_exponent

    @property
    def element_top_ulp(self) -> float:
        """The distance between the largest elements: 32 of e4m3."""
        fraction_bits = self.element.mantissa_bits - self.element.is_integer
        return math.ldexp(1.0, self.element_emax - fraction_bits)

    @property
    def values_per_block(self) -> int:
        """Numbers that share a scale."""
        return math.prod(self.block)

    @property
    def bits_per_value(self) -> float:
        """Bits a number of full blocks takes, the tensor scale not counted: 8.25 of mxfp8."""
        return self.element.bits + self.scale.bits / self.values_per_block

    def describe(self) -> str:
        """Describe the format for people, over several lines."""
        extent = " x ".join(str(n) for n in self.block)
        times = f" · 2^{self.element_exponent}" if self.element_exponent else ""
        tensor = " and a float32 scale for the whole tensor" if self.tensor_scale else ""
        return "\n".join(
            (
                f"{self.name}: {self.bits_per_value:g} bits a number",
                f"  elements   {self.element.name}{times}, up to {self.element_max:g}",
                f"  scale      {self.scale.name} for {extent} numbers{tensor}",
                f"  rule       {self.scale_rule}: {SCALE_RULES[self.scale_rule].note}",
                *((f"  {self.note}",) if self.note else ()),
            )
        )


_MOST_SCALE_BITS = 24  # so that the scale, the tensor scale and the element multiply exactly in float64


def rule_for(name: str | None, fmt: BlockFormat) -> ScaleRule:
    """Find a rule by name, the format's own for None.

    Raises:
        SettingError: the rule is unknown, or the format's scales are powers of two and the rule's are not.
    """
    name = fmt.scale_rule if name is None else name
    if name not in SCALE_RULES:
        raise SettingError(unknown_name("scale rule", name, SCALE_RULES), op="quantize")
    rule = SCALE_RULES[name]
    if rule.rounding is not None and fmt.scale.mantissa_bits == 0:
        powers = ", ".join(each.name for each in _RULES if each.lifts is not None)
        raise SettingError(
            f"expected a rule for powers of two, as {fmt.name}'s {fmt.scale.name} scales are, got {name!r}",
            op="quantize",
            formats=(fmt.scale.name,),
            help=f"take one of {powers}",
        )
    return rule


def _mx(name: str, element: str, note: str, exponent: int = 0) -> BlockFormat:
    return BlockFormat(
        name, get(element), get("e8m0"), (32,), "floor", element_exponent=exponent, note=f"OCP MX 1.0: {note}"
    )


def _deepseek(name: str, block: tuple[int, ...], scale: str, rule: str, note: str) -> BlockFormat:
    return BlockFormat(
        name, get("float8_e4m3fn"), get(scale), block, rule, smallest_amax=_SMALLEST_AMAX, note=note
    )


_SMALLEST_AMAX = float(np.float32(1e-4))

_TABLE = (
    (_mx("mxfp8_e4m3", "float8_e4m3fn", "MXFP8 for weights, activations and gradients"), ("mxfp8",)),
    (_mx("mxfp8_e5m2", "float8_e5m2", "MXFP8 with more range"), ()),
    (_mx("mxfp6_e2m3", "float6_e2m3fn", "MXFP6 with more precision"), ()),
    (_mx("mxfp6_e3m2", "float6_e3m2fn", "MXFP6 with more range"), ()),
    (_mx("mxfp4", "float4_e2m1fn", "MXFP4"), ("mxfp4_e2m1",)),
    (_mx("mxint8", "int8", "MXINT8, elements in 64ths from -127/64 to 127/64", -6), ()),
    (
        BlockFormat(
            "nvfp4",
            get("float4_e2m1fn"),
            get("float8_e4m3fn"),
            (16,),
            "amax",
            tensor_scale=True,
            note="NVIDIA Blackwell: two levels of scales",
        ),
        (),
    ),
    (_deepseek("deepseek_1x128", (128,), "float32", "amax", "DeepSeek-V3 activations"), ("fp8_1x128",)),
    (_deepseek("deepseek_128x128", (128, 128), "float32", "amax", "DeepSeek-V3 weights"), ("fp8_128x128",)),
    (_deepseek("deepseek_1x128_ue8m0", (128,), "e8m0", "rceil", "the same, powers of two"), ()),
    (_deepseek("deepseek_128x128_ue8m0", (128, 128), "e8m0", "rceil", "the same, powers of two"), ()),
)
BLOCK_FORMATS: Mapping[str, BlockFormat] = MappingProxyType({each.name: each for each, _ in _TABLE})
_NAMES = {name: each for each, aliases in _TABLE for name in (each.name, *aliases)}


def block_format(x: Any) -> BlockFormat:
    """Find a block format: a ``BlockFormat`` itself, or a name or alias in any case.

    Raises:
        FormatError: nothing is known under that name; the message offers the nearest one.
    """
    if isinstance(x, BlockFormat):
        return x
    found = _NAMES.get(x.strip().lower()) if isinstance(x, str) else None
    if found is None:
        raise FormatError(
            unknown_name("block format", x, BLOCK_FORMATS, also=_NAMES),
            help="a name such as 'mxfp8_e4m3', or a BlockFormat of your own",
        )
    return found
