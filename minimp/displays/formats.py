"""Number formats: their fields, limits, and the codes at the limits."""

from __future__ import annotations

from collections.abc import Iterator
from math import frexp, isfinite
from typing import Any

from minimp.displays.elements import FAINT, MONO, Html, badge, box, counted, head, rows, tag

__all__ = ["format_html"]

FIELDS = {"sign": "#b91c1c", "exponent": "#15803d", "mantissa": "#1d4ed8"}
"""The fields of a code and their colours: red, green, blue; white text on each has a contrast over 4.5."""


def format_html(fmt: Any) -> Html:
    """Return a format: how its bits are divided, its limits, and the bits of some values."""
    words = [badge(fmt.flavour)]
    words += [badge(f"{'has' if has else 'no'} {name}") for has, name in
              ((fmt.has_inf, "inf"), (fmt.has_nan, "NaN"), (fmt.has_subnormals, "subnormals"))]  # fmt: skip
    rest = f"{fmt.bits} bits, stored as {fmt.dtype.name} ({counted(fmt.dtype.itemsize, 'byte')})"
    limits = rows(("", "", ""), list(_limits(fmt)), right=(1,))
    codes = rows(("value", "bits", "number"), [*_codes(fmt)], right=(2,)) if not fmt.is_integer else ""
    beside = tag("div", "display:flex;flex-wrap:wrap;gap:8px 28px;margin-top:8px", limits, codes)
    return box(f"number format {fmt.name}", head(fmt.name, rest, words), _fields(fmt), beside)


def _widths(fmt: Any) -> dict[str, int]:
    return dict(zip(FIELDS, (int(fmt.signed), fmt.exponent_bits, fmt.mantissa_bits), strict=True))


def _fields(fmt: Any) -> Html:
    """Return a bar of the fields, as wide as they have bits."""
    parts = [
        tag(
            "div",
            f"flex:{bits} 1 auto;background:{FIELDS[name]};color:#fff;padding:0 6px;text-align:center;"
            "white-space:nowrap;overflow:hidden",
            f"{bits} {'digits' if fmt.is_integer and name == 'mantissa' else name}",
        )
        for name, bits in _widths(fmt).items()
        if bits
    ]
    style = f"display:flex;gap:2px;border-radius:4px;overflow:hidden;font-size:12px;max-width:520px;{MONO}"
    return tag("div", style, *parts)


def _limits(fmt: Any) -> Iterator[tuple[Any, ...]]:
    if fmt.is_integer:
        yield tag("span", FAINT, "largest"), f"{fmt.max:.9g}", ""
        yield tag("span", FAINT, "lowest"), f"{fmt.lowest:.9g}", "" if not fmt.signed else "two's complement"
        return
    sizes = [("largest", fmt.max), ("smallest normal", fmt.smallest_normal)]
    if fmt.is_gradual:
        sizes.append(("smallest", fmt.smallest_subnormal))
    for name, size in [*sizes, ("eps", fmt.eps)]:
        part, exponent = frexp(size)
        power = f"2^{exponent - 1}" if part == 0.5 else f"{part * 2:.6g} x 2^{exponent - 1}"
        yield tag("span", FAINT, name), f"{size:.9g}", power
    yield tag("span", FAINT, "bias"), fmt.bias, ""
    yield tag("span", FAINT, "digits"), fmt.precision, "bits of precision"


def _codes(fmt: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the name, the bits and the number of the values at the limits."""
    one = fmt.bias << fmt.mantissa_bits
    named = [("one", one if one <= fmt.max_code else None, 1.0), ("largest", fmt.max_code, fmt.max)]
    named += [("smallest normal", int(fmt.has_zero) << fmt.mantissa_bits, fmt.smallest_normal)]
    if fmt.has_subnormals:
        named += [("smallest", 1, fmt.smallest_subnormal)]
    named += [("inf", fmt.inf_code, float("inf")), ("NaN", fmt.nan_code, float("nan"))]
    for name, code, value in named:
        if code is not None:
            yield name, _bits(fmt, code), f"{value:.9g}" if isfinite(value) else name


def _bits(fmt: Any, code: int) -> Html:
    """Return a code with its fields in their colours."""
    text, parts, at = f"{code:0{fmt.bits}b}", [], 0
    for name, width in _widths(fmt).items():
        style = f"border-bottom:2px solid {FIELDS[name]};margin-right:4px"
        parts.append(tag("span", style, text[at : at + width], title=name) if width else Html())
        at += width
    return tag("span", "white-space:nowrap", *parts)
