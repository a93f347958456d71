"""The HTML of a notebook: one number as a diagram of its bits, and a calculation step by step.

Everything is in style attributes: no script, no style sheet, nothing to load. Text takes the page's colour,
and the tints let its background through, so that light and dark pages will do; the colours of the fields
carry white digits with a contrast of at least 4.5 (WCAG 2.2, 1.4.3). A diagram has one ``aria-label`` that
says what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from html import escape
from typing import TYPE_CHECKING

from minimp.formats.inspection.reasons import (
    exact_of,
    headline,
    is_exact_cast,
    operand_names,
    settings,
    title,
    total,
)
from minimp.formats.inspection.wording import clipped, lost_text, number, power_of_two, share

if TYPE_CHECKING:
    from minimp.formats.inspection.anatomy import Inspection
    from minimp.formats.inspection.calculation import Calculation, Step

__all__ = ["calculation_html", "inspection_html"]

FIELDS = {"sign": "#b91c1c", "exponent": "#15803d", "mantissa": "#1d4ed8"}
"""The fields of a code and their colours, as `minimp inspect` has them: red, green, blue."""
ALARMS = (
    "overflow",
    "underflow",
    "invalid",
    "division_by_zero",
    "absorbed",
    "double_rounding",
    "cancellation",
)
BOX = (
    "font-family:ui-sans-serif,system-ui,sans-serif;font-size:14px;line-height:1.5;max-width:860px;"
    "padding:14px 18px;border:1px solid rgba(127,127,127,.35);border-radius:10px;"
    "background:rgba(127,127,127,.06)"
)
MONO = "font-family:ui-monospace,Menlo,Consolas,monospace;font-variant-numeric:tabular-nums"
FAINT = "opacity:.7;font-size:12px"
WIDEST_BESIDE = 32
"""Bits that stand beside a number; more stand on a line of their own."""
ROW = "display:grid;grid-template-columns:{};column-gap:16px;row-gap:3px;align-items:center"


def _tag(name: str, style: str, *inner: str, **attributes: str) -> str:
    """One element; `inner` is HTML, attribute values are text (`aria_label` is written ``aria-label``)."""
    given = ({"style": style} if style else {}) | attributes
    said = "".join(f' {key.replace("_", "-")}="{escape(value)}"' for key, value in given.items())
    return f"<{name}{said}>{''.join(inner)}</{name}>"


def _box(label: str, *inner: str) -> str:
    return _tag("div", BOX, *inner, role="group", aria_label=label)


def _badge(text: str) -> str:
    colour = "190,80,10" if text in ALARMS else "127,127,127"
    style = (
        f"font-size:12px;padding:1px 9px;border-radius:9px;background:rgba({colour},.16);"
        f"border:1px solid rgba({colour},.55);white-space:nowrap"
    )
    return _tag("span", style, escape(text.replace("_", " ")))


def _head(strong: str, rest: str, badges: Iterable[str]) -> str:
    style = "display:flex;flex-wrap:wrap;gap:4px 10px;align-items:center"
    name = _tag("span", f"font-size:17px;font-weight:600;overflow-wrap:anywhere;{MONO}", escape(strong))
    return _tag("div", style, name, _tag("span", "opacity:.85", escape(rest)), *map(_badge, badges))


# ---- bits --------------------------------------------------------------------------------------------------


def _cells(bits: str, colour: str, size: int) -> str:
    """A row of bits in one colour."""
    style = (
        f"display:inline-block;width:{size}px;line-height:{size + 6}px;text-align:center;color:#fff;"
        f"background:{colour};border-radius:3px;margin:1px 1px 0 0"
    )
    return "".join(_tag("span", style, each) for each in bits)


def _field(name: str, bits: str, first: int, note: str, size: int) -> str:
    """A field of the diagram: its name, the index of each bit, the bits, and what they say."""
    cell = f"display:inline-block;width:{size}px;margin-right:1px;text-align:center;font-size:8px;opacity:.65"
    indexes = "".join(_tag("span", cell, str(first - place)) for place in range(len(bits)))
    return _tag(
        "div",
        "display:inline-block",
        _tag("div", f"{FAINT};border-bottom:2px solid {FIELDS[name]}", name),
        _tag("div", "height:15px;line-height:12px;white-space:nowrap", indexes),
        _tag("div", f"{MONO};white-space:nowrap;height:{size + 8}px", _cells(bits, FIELDS[name], size)),
        _tag("div", f"{FAINT};{MONO}", escape(note)),
    )


def _hidden_bit(seen: Inspection, size: int) -> str:
    """The bit before the mantissa that is not stored: 1, or 0 in subnormal numbers and zero."""
    style = (
        f"display:inline-block;width:{size}px;line-height:{size + 4}px;text-align:center;margin-top:1px;"
        f"border:1px dashed {FIELDS['mantissa']};border-radius:3px"
    )
    bit = "1" if seen.kind == "normal" else "0"
    return _tag(
        "div",
        "display:inline-block",
        _tag("div", f"{FAINT};border-bottom:2px dashed rgba(127,127,127,.5)", "hidden"),
        _tag("div", "height:15px", ""),
        _tag("div", f"{MONO};height:{size + 8}px", _tag("span", style, bit), "&#8201;."),
        _tag("div", f"{FAINT};{MONO}", "not stored"),
    )


def _diagram(seen: Inspection) -> str:
    fmt = seen.format
    size = 18 if fmt.bits <= 24 else 14 if fmt.bits <= 32 else 11
    sign, exponent, mantissa = seen.parts
    parts = []
    if sign:
        parts.append(_field("sign", sign, fmt.bits - 1, "minus" if seen.sign else "plus", size))
    if exponent:
        parts.append(_field("exponent", exponent, fmt.magnitude_bits - 1, _exponent_note(seen), size))
    if exponent and mantissa and seen.kind not in ("inf", "nan"):
        parts.append(_hidden_bit(seen, size))
    if mantissa:
        weight = f" - {1 << fmt.mantissa_bits}" if fmt.is_integer and seen.sign else ""  # two's complement
        parts.append(_field("mantissa", mantissa, fmt.mantissa_bits - 1, f"{seen.mantissa}{weight}", size))
    style = "display:flex;flex-wrap:wrap;gap:6px 12px;align-items:flex-end;margin:10px 0 6px"
    return _tag("div", style, *parts, role="img", aria_label=_spoken(seen))


def _exponent_note(seen: Inspection) -> str:
    if seen.kind in ("inf", "nan"):
        return f"{seen.exponent}"
    scale = max(seen.exponent - seen.format.bias, seen.format.emin)
    lowest = seen.exponent - seen.format.bias < seen.format.emin
    return f"lowest: {scale}" if lowest else f"{seen.exponent} - {seen.format.bias} = {scale}"


def _spoken(seen: Inspection) -> str:
    """The diagram in words."""
    fields = zip(FIELDS, seen.parts, strict=True)
    parts = ", ".join(f"{name} {bits}" for name, bits in fields if bits)
    return f"bits of {seen.format.name}: {parts}; {seen.kind}, value {number(seen.value)}"


def _small_bits(seen: Inspection) -> str:
    """The bits without their indexes, for a row of a calculation."""
    size = 12 if seen.format.bits <= 24 else 9
    fields = zip(FIELDS.values(), seen.parts, strict=True)
    font = f"font-size:{12 if size > 9 else size + 2}px;line-height:1;white-space:nowrap;{MONO}"
    rows = [_tag("span", "margin-right:5px", _cells(bits, colour, size)) for colour, bits in fields if bits]
    return _tag("div", font, *rows, role="img", aria_label=_spoken(seen))


# ---- one number --------------------------------------------------------------------------------------------


def inspection_html(seen: Inspection) -> str:
    """The diagram of one number's bits, with its value, error and neighbours."""
    given = clipped(str(seen.given), 60)
    badges = (seen.kind, *(each for each in seen.flags if each != seen.kind))
    rows = [
        ("code", seen.code),
        ("error", lost_text(seen.error, seen.ulp).replace("nothing", "none")),
        ("ulp", "none" if math.isnan(seen.ulp) else f"{number(seen.ulp)} = {power_of_two(seen.ulp)}"),
        ("neighbours", "  and  ".join(map(number, seen.neighbours))),
    ]
    if seen.chance is not None:
        rows.append(("chance", f"{share(seen.chance)} to be rounded to the upper value"))
    cells = _pair("value", _value_formula(seen) + escape(number(seen.value)))
    cells += "".join(_pair(name, escape(text)) for name, text in rows)
    return _box(
        f"{given} in {seen.format.name}",
        _head(given, f"in {seen.format.name}, {seen.rounding}", badges),
        _diagram(seen),
        _tag("div", ROW.format("auto 1fr"), cells),
        _number_line(seen),
    )


def _pair(name: str, html: str) -> str:
    return _tag("div", FAINT, name) + _tag("div", f"{MONO};overflow-wrap:anywhere", html)


def _value_formula(seen: Inspection) -> str:
    """How the fields make the value, as HTML: (-1)^s x 2^e x significand."""
    fmt = seen.format
    if not seen.formula:
        return ""
    scale = max(seen.exponent - fmt.bias, fmt.emin)
    hidden = int(seen.kind == "normal")
    sign = f"(&#8722;1){_tag('sup', _SUPER, str(seen.sign))} &#215; " if fmt.signed else ""
    fraction = f" &#215; ({hidden} + {seen.mantissa}/{1 << fmt.mantissa_bits})" if fmt.mantissa_bits else ""
    power = _tag("sup", _SUPER, str(scale).replace("-", "&#8722;"))
    return f"{sign}2{power}{fraction} = "


_SUPER = "font-size:11px;line-height:0"


def _number_line(seen: Inspection) -> str:
    """The given number between two values; a value between its neighbours."""
    if not math.isfinite(seen.value) or not isinstance(seen.exact, Fraction) or seen.position is None:
        return ""
    below, above = seen.between if seen.error else seen.neighbours
    ends = [each for each in (below, above) if each is not None and math.isfinite(each)]
    if len(ends) < 2:
        return ""
    low, high = map(Fraction, ends)
    place = (seen.exact - low) / (high - low)
    taken = (Fraction(seen.value) - low) / (high - low)
    what = f"{share(place)} of the way up" if seen.error else "a value of the format"
    label = f"number line from {number(ends[0])} to {number(ends[1])}: the number is {what}"
    marks = [_mark(Fraction(0), taken == 0), _mark(Fraction(1), taken == 1)]
    marks += [_mark(taken, True)] if not seen.error else []
    line = "position:absolute;left:0;right:0;top:8px;border-top:2px solid rgba(127,127,127,.6)"
    dot = (
        f"position:absolute;left:{_percent(place)};top:3px;width:10px;height:10px;margin-left:-6px;"
        "border-radius:50%;background:#d97706;border:1px solid rgba(255,255,255,.8)"
    )
    bar = _tag("div", line) + "".join(marks) + (_tag("div", dot) if seen.error else "")
    words = (number(ends[0]), f"{clipped(str(seen.given), 24)}: {what}", number(ends[1]))
    labels = "".join(_tag("span", "", escape(each)) for each in words)
    below_line = f"display:flex;justify-content:space-between;gap:12px;{FAINT};{MONO}"
    return _tag(
        "div",
        "margin:14px 8px 2px",
        _tag("div", "position:relative;height:18px", bar, role="img", aria_label=label),
        _tag("div", below_line, labels),
    )


def _mark(place: Fraction, taken: bool) -> str:
    """A tick of the number line; the value that was taken is a filled one."""
    fill = f"background:{FIELDS['mantissa']}" if taken else "background:rgba(127,127,127,.6)"
    size = (
        "top:0;width:8px;height:18px;margin-left:-4px;border-radius:3px"
        if taken
        else ("top:3px;width:2px;height:12px;margin-left:-1px")
    )
    return _tag("div", f"position:absolute;left:{_percent(place)};{size};{fill}")


def _percent(place: Fraction) -> str:
    return f"{float(place) * 100:.2f}%"


# ---- a calculation -----------------------------------------------------------------------------------------


def calculation_html(whole: Calculation) -> str:
    """All steps of a calculation: operands, exact result, rounded result, what was lost and why."""
    raised = {flag: None for step in whole.steps for flag in step.flags}
    width = max(len(each) for step in whole.steps for each in _texts(step))
    steps = "".join(_step(place, step, width) for place, step in enumerate(whole.steps, 1))
    last = _tag("div", "margin-top:12px;font-weight:500", escape(total(whole)))
    return _box(headline(whole), _head(headline(whole), f"in {settings(whole)}", raised), steps, last)


def _texts(step: Step) -> Iterator[str]:
    """What stands in the column of numbers."""
    yield from (number(each.value) for each in (*step.operands, step.result))
    if not is_exact_cast(step):
        yield from (exact_of(step), lost_text(step.lost, step.result.ulp))


def _step(place: int, step: Step, width: int) -> str:
    style = "margin-top:10px;padding:1px 0 1px 14px;border-left:3px solid rgba(127,127,127,.35)"
    top = _tag("span", f"font-weight:600;{MONO}", f"{place}.&#160; {escape(title(step))}")
    row = "display:flex;flex-wrap:wrap;gap:3px 8px;align-items:center"
    head = _tag("div", row, top, *map(_badge, step.flags))
    if is_exact_cast(step):
        cells = _row("exactly", number(step.result.value), step.result)
        return _tag("div", style, head, _grid(width, cells))
    names = operand_names(step)
    cells = "".join(
        _row(name, number(each.value), each) for name, each in zip(names, step.operands, strict=False)
    )
    cells += _row("exact", exact_of(step), None)
    cells += _row("rounded", number(step.result.value), step.result)
    cells += _row("lost", lost_text(step.lost, step.result.ulp), None)
    return _tag("div", style, head, _grid(width, cells), _tag("div", "", escape(step.why)))


def _grid(width: int, cells: str) -> str:
    """Rows of a name, a number and its bits, the numbers in columns of one width in all steps."""
    return _tag("div", f"{ROW.format(f'60px minmax({width}ch,auto) 1fr')};margin:3px 0;{MONO}", cells)


def _row(name: str, value: str, seen: Inspection | None) -> str:
    start = _tag("div", FAINT, name) + _tag("div", "text-align:right", escape(value))
    if seen is None:
        return start + _tag("div", "")
    if seen.format.bits <= WIDEST_BESIDE:
        return start + _small_bits(seen)
    return start + _tag("div", "") + _tag("div", "grid-column:1/-1;padding-left:76px", _small_bits(seen))
