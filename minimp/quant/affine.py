"""Affine numbers: x ~ s (q - z), codes q of 2 to 8 bits, scale s and zero point z of a tensor or a channel.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference" (arXiv 1712.05877), equation 1. The functions take and return plain arrays.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import FormatError, SettingError, ShapeError
from minimp.quant.kernels import Layout, Scratch, settle
from minimp.quant.rules import RULES, CodeRange
from minimp.tensors import Tensor

__all__ = ["Affine", "choose", "dequantize", "fake_quantize", "floats_of", "quantize"]

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8 | np.uint8]
LEAST_SCALE = 2.0**-126


@dataclass(frozen=True, eq=False)
class Affine:
    """How codes stand for numbers: x ~ scale (code - zero_point).

    Attributes:
        scale: the distance between neighbours: float32, () for a tensor or (C,) for channels;
            at least 2^-126.
        zero_point: the code of 0: int32, shaped as `scale`.
        quant_min, quant_max: the first and the last code; they contain 0, and lie within -128..127 or 0..255.
            Fewer than 256 codes make narrower numbers: -8..7 is int4, 0..3 uint2, -1..1 ternary.
        axis: of the channels; None for a whole tensor. A negative one counts from the end.
        rule: the name in `RULES` by which values become codes.

    Raises:
        SettingError: a scale that is not positive and finite; a zero point beyond the codes; codes that do
            not fit in eight bits; an axis without channels, or channels without an axis; an unknown rule.
    """

    scale: Floats
    zero_point: npt.NDArray[np.int32]
    quant_min: int = -128
    quant_max: int = 127
    axis: int | None = None
    rule: str = "torch"

    def __post_init__(self) -> None:
        RULES[self.rule]
        _check_codes(self.quant_min, self.quant_max)
        scale, zero = _scales(self.scale), _zero_points(self.zero_point)
        if self.axis is not None:
            object.__setattr__(self, "axis", _whole("axis", self.axis))
        if scale.shape != zero.shape or scale.ndim != (self.axis is not None):
            raise SettingError(
                f"expected a scale and a zero point of shape () without an axis, or (C,) with one, got "
                f"shapes {scale.shape} and {zero.shape} with axis={self.axis}",
                op="Affine", shapes=[scale.shape, zero.shape],
            )  # fmt: skip
        beyond = (zero < self.quant_min) | (zero > self.quant_max)
        if beyond.any():
            raise SettingError(
                f"the zero point {int(zero[beyond][0])}{_channel(beyond)} is not among the codes "
                f"{self.quant_min}..{self.quant_max}",
                op="Affine", help="0 must be representable: give a code as the zero point",
            )  # fmt: skip
        for name, array in (("scale", scale), ("zero_point", zero)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def storage(self) -> type[np.int8 | np.uint8]:
        """The dtype of the codes: int8 where they begin below 0, else uint8."""
        return np.int8 if self.quant_min < 0 else np.uint8

    @property
    def bits(self) -> int:
        """The bits that a code needs."""
        return (self.quant_max - self.quant_min).bit_length()

    @property
    def symmetric(self) -> bool:
        """Whether all zero points are the middle code: 0 of int8, 127 or 128 of uint8."""
        if self.quant_min < 0:
            return not self.zero_point.any()
        both = self.quant_min + self.quant_max
        return bool(np.isin(self.zero_point, (both // 2, -(-both // 2))).all())

    @property
    def per_channel(self) -> bool:
        """Whether each channel has its own scale and zero point."""
        return self.axis is not None

    @property
    def low(self) -> Floats:
        """The least number there is, scale (quant_min - zero_point)."""
        return self.scale * (self.quant_min - self.zero_point).astype(np.float32)

    @property
    def high(self) -> Floats:
        """The largest number there is."""
        return self.scale * (self.quant_max - self.zero_point).astype(np.float32)

    def layout(self, shape: tuple[int, ...], op: str) -> Layout:
        """Lay scales and zero points beside an array of a shape.

        Raises:
            ShapeError: it does not have these channels.
        """
        if self.axis is None:
            return Layout.of(shape, self.scale, self.zero_point, None)
        if not -len(shape) <= self.axis < len(shape) or shape[self.axis] != self.scale.size:
            raise ShapeError(
                f"expected {self.scale.size} channels on axis {self.axis}, got an array of shape {shape}",
                op=op, shapes=[shape],
            )  # fmt: skip
        return Layout.of(shape, self.scale, self.zero_point, self.axis % len(shape))

    def __eq__(self, other: object) -> bool:
        """Equal scales, zero points, codes, axis and rule."""
        if not isinstance(other, Affine):
            return NotImplemented
        mine, its = ((x.quant_min, x.quant_max, x.axis, x.rule) for x in (self, other))
        arrays = ((self.scale, other.scale), (self.zero_point, other.zero_point))
        return mine == its and all(np.array_equal(a, b) for a, b in arrays)

    __hash__ = None  # type: ignore[assignment] # arrays have none

    def __str__(self) -> str:
        """Say all of it in a line: ``int8, scale 0.02, zero point 3, codes -128..127, rule torch``."""
        kind = f"{'int' if self.quant_min < 0 else 'uint'}{self.bits}"
        if self.per_channel:
            scales = f"{self.scale.size} scales {_span(self.scale)} along axis {self.axis}"
            zeros = f"zero points {_span(self.zero_point)}"
        else:
            scales, zeros = f"scale {self.scale.item():.6g}", f"zero point {self.zero_point.item()}"
        return f"{kind}, {scales}, {zeros}, codes {self.quant_min}..{self.quant_max}, rule {self.rule}"


def choose(
    low: Any, high: Any, *, rule: str = "torch", quant_min: int, quant_max: int, symmetric: bool = False,
    axis: int | None = None, reduce_range: bool = False,
) -> Affine:  # fmt: skip
    """Return scale and zero point for values from `low` to `high`, widened to contain 0.

    Args:
        low, high: numbers, or (C,) arrays with an `axis`; taken as float32.
        rule: a name in `RULES`.
        quant_min, quant_max: the first and the last code.
        symmetric: put the zero point in the middle, and the range to either side of 0.
        axis: of the channels.
        reduce_range: halve the codes, as torch does for CPUs whose 8-bit products saturate: 0..127 or
            -64..63.

    Raises:
        SettingError: an unknown rule; low > high, or one of them infinite or NaN; what :class:`Affine`
            refuses; `symmetric` where the rule has no such form, or with `reduce_range` on codes from 0.
    """
    chosen = RULES[rule]
    _check_codes(quant_min, quant_max)
    if reduce_range:
        if symmetric and quant_min == 0:
            raise SettingError(
                "reduce_range and symmetric do not go together on codes from 0", op="choose",
                help="take codes from -128 to 127 (torch refuses it for quint8, too)",
            )  # fmt: skip
        quant_min, quant_max = quant_min // 2, quant_max // 2
    with np.errstate(all="ignore"):
        lows, highs = _ends(low, high)
        zero_in = np.minimum(lows, np.float32(0)), np.maximum(highs, np.float32(0))
        scale, zero = chosen.choose(*zero_in, CodeRange(quant_min, quant_max, symmetric))
        scale = np.asarray(scale).astype(np.float32)
    return Affine(scale, np.asarray(zero).astype(np.int32), quant_min, quant_max, axis, rule)


def quantize(x: Any, affine: Affine) -> Codes:
    """Return the codes of numbers, as the rule of `affine` has them; (...) -> (...), a byte each.

    What lies beyond the first or the last code becomes it, infinities too; NaN becomes the largest code under
    torch's rules, the smallest under the others. Channels are quantised as whole tensors are; torch's
    quantize_per_channel rounds x (1/s) before it adds z, which differs at some ties where z is not 0.

    Args:
        x: float32, or 16-bit floats; float64 is rounded to float32 first.

    Raises:
        FormatError: `x` is not made of floating-point numbers.
        ShapeError: `x` does not have the channels of `affine`.
    """
    wide, rule = floats_of(x, "quantize"), RULES[affine.rule]
    nan = affine.quant_max if rule.nan_is_largest else affine.quant_min
    layout, scratch = affine.layout(wide.shape, "quantize"), Scratch(wide.size)
    out: Codes = np.empty(wide.shape, affine.storage)
    source, target = wide.reshape(layout.shape), out.reshape(layout.shape)
    with np.errstate(all="ignore"):
        for place, scale, zero in layout.blocks():
            codes = rule.encode(source[place], scale, zero, scratch)
            settle(codes, affine.quant_min, affine.quant_max, nan)
            np.copyto(target[place], codes, casting="unsafe")
    return out


def dequantize(codes: Any, affine: Affine) -> Floats:
    """Return s (q - z), rounded once to float32; (...) -> (...).

    Args:
        codes: integers.

    Raises:
        FormatError: `codes` are no integers.
        ShapeError: they do not have the channels of `affine`.
    """
    array = np.asarray(codes, order="C")
    if array.dtype.kind not in "iu":
        raise FormatError(f"expected integer codes, got {array.dtype}", op="dequantize")
    layout = affine.layout(array.shape, "dequantize")
    out = np.empty(array.shape, np.float32)
    source, target = array.reshape(layout.shape), out.reshape(layout.shape)
    with np.errstate(all="ignore"):
        for place, scale, zero in layout.blocks():
            values = np.subtract(source[place], zero, out=target[place], dtype=np.float32, casting="unsafe")
            np.multiply(values, scale, out=values)
    return out


def fake_quantize(x: Any, affine: Affine) -> Floats:
    """Return what is read back of numbers that were quantised, in float32; (...) -> (...).

    Under torch's rules codes are clamp(rint(x (1/s)) + z), which at ties is not :func:`quantize`, and NaN
    becomes the smallest code; infinities are clamped (fake_quantize_per_tensor_affine; the per-channel
    kernel gives the smallest code where x (1/s) does not fit in 64 bits). Under the other rules it is
    dequantize(quantize(x)).

    Args:
        x, affine: as for :func:`quantize`.

    Raises:
        FormatError, ShapeError: as :func:`quantize`.
    """
    wide, rule = floats_of(x, "fake_quantize"), RULES[affine.rule]
    layout, scratch = affine.layout(wide.shape, "fake_quantize"), Scratch(wide.size)
    out = np.empty(wide.shape, np.float32)
    source, target = wide.reshape(layout.shape), out.reshape(layout.shape)
    with np.errstate(all="ignore"):
        for place, scale, zero in layout.blocks():
            codes = rule.encode_fake(source[place], scale, zero, scratch)
            settle(codes, affine.quant_min, affine.quant_max, affine.quant_min)
            np.subtract(codes, zero, out=codes)
            np.multiply(codes, scale, out=target[place])
    return out


def floats_of(x: Any, op: str) -> Floats:
    """Return the numbers of a tensor or an array in float32, contiguous.

    Raises:
        FormatError: they are not floating-point numbers.
    """
    array = np.asarray(x.detach() if isinstance(x, Tensor) else x)
    if array.dtype.kind in "biuc" or array.dtype.hasobject:
        raise FormatError(
            f"expected floating-point numbers, got {array.dtype}", op=op, formats=[str(array.dtype)],
            help="codes are read back by mp.quant.dequantize",
        )  # fmt: skip
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float32, order="C")


def _ends(low: Any, high: Any) -> tuple[Floats, Floats]:
    """Return both ends of a range in float32, checked."""
    lows, highs = np.asarray(low, np.float32), np.asarray(high, np.float32)
    if lows.shape != highs.shape:
        raise SettingError(
            f"low and high differ in shape: {lows.shape} and {highs.shape}", op="choose",
            shapes=[lows.shape, highs.shape],
        )  # fmt: skip
    wrong = ~(np.isfinite(lows) & np.isfinite(highs) & (lows <= highs))
    if wrong.any():
        raise SettingError(
            f"expected finite low <= high, got {lows[wrong][0]:g} and {highs[wrong][0]:g}{_channel(wrong)}",
            op="choose", help="look for infinities, NaN or a range never observed",
        )  # fmt: skip
    return lows, highs


def _check_codes(quant_min: Any, quant_max: Any) -> None:
    """Refuse codes without 0, a single one, and those that do not fit in a byte."""
    least, most = _whole("quant_min", quant_min), _whole("quant_max", quant_max)
    fits = (least >= -128 and most <= 127) or (least >= 0 and most <= 255)
    if not (least <= 0 <= most and least < most and fits):
        raise SettingError(
            f"codes must contain 0 and lie within -128..127 or 0..255, got {least}..{most}", op="Affine",
            help="int8 is -128..127, uint8 0..255, int4 -8..7, uint4 0..15",
        )  # fmt: skip


def _whole(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise SettingError(f"{name} must be a whole number, got {value!r}", op="Affine") from None


def _scales(value: Any) -> Floats:
    """Return a copy in float32, checked."""
    with np.errstate(all="ignore"):
        scale = np.array(value, np.float32)
    wrong = ~((scale >= LEAST_SCALE) & np.isfinite(scale))
    if wrong.any():
        raise SettingError(
            f"a scale must be a float32 number of at least 2^-126, and finite, got "
            f"{np.asarray(value)[wrong][0]:g}{_channel(wrong)}",
            op="Affine", help="mp.quant.choose makes one from a range",
        )  # fmt: skip
    return scale


def _zero_points(value: Any) -> npt.NDArray[np.int32]:
    zero = np.asarray(value)
    if zero.dtype.kind not in "iu":
        raise SettingError(f"zero points are whole numbers, got {zero.dtype}", op="Affine")
    return np.array(np.clip(zero, -(2**31), 2**31 - 1), np.int32)


def _channel(wrong: npt.NDArray[np.bool_]) -> str:
    return f" in channel {int(np.argmax(wrong))}" if wrong.ndim else ""


def _span(values: npt.NDArray[Any]) -> str:
    return f"{values.min():.6g}..{values.max():.6g}" if values.size else "of none"
