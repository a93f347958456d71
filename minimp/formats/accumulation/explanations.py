"""A page about each accumulation, its numbers computed when it is read."""

from __future__ import annotations

import textwrap
from functools import lru_cache

import numpy as np

from minimp.formats.accumulation.bounds import error_bound
from minimp.formats.accumulation.orders import matmul, parse_accumulate
from minimp.formats.accumulation.pages import PAGES, Page
from minimp.formats.accumulation.tensorcore import UNITS
from minimp.formats.rounding import Float64s, round_to

__all__ = ["explain"]

_WIDTH, _LABEL = 100, 12
_LONG = 4096  # terms of the bound that a page tells
_TRIED = 1024, 32  # terms, and how many sums of them: what a page measures


def explain(name: str | None = None) -> str:
    """Explain an accumulation on one page, or list them all.

    Args:
        name: a name that ``minimp.formats.matmul`` knows, with a number (``"chunked:32"``) or as the list has
            it (``"chunked:B"``); None for the list.

    Returns:
        At most 45 lines of 100 columns. The worked sum, the errors and the bounds in it are computed by
        ``matmul`` and ``error_bound`` at that moment.

    Raises:
        SettingError: unknown accumulation; the nearest name is offered.
    """
    if name is None:
        return _list()
    order = name if name in PAGES else parse_accumulate(name).order
    page = PAGES[order]
    return _page(page.example or name if name == order else name, page)


@lru_cache(maxsize=1)
def _list() -> str:
    head = f"{'name':<20} {'bound, K = 4096':<16} what is added how"
    lines = [head, "-" * len(head)]
    for order, page in PAGES.items():
        example = {"chunked:B": "chunked:64", "splitk:S": "splitk:4"}.get(order, order)
        relative = error_bound(example, _LONG, fmt=page.factors).relative
        lines.append(f"{order:<20} {relative:<16.2g} {page.title}")
    tail = (
        "The bound is relative to the sum of the magnitudes |a||b|, for float16 factors (bfloat16 in its own"
        " row), chunked:64 and splitk:4, before the output's rounding. explain(name) tells more."
    )
    return "\n".join([*lines, "", *textwrap.wrap(tail, _WIDTH)])


def _page(name: str, page: Page) -> str:
    sections = {
        "What": page.what,
        "Equation": page.recurrence,
        "Order": page.order,
        "Rounding": page.rounding,
        "Unit": _unit(name),
        "Bound": _bound(name, page),
        "Expect": page.expected,
        "Used": page.users,
        "Cost": page.cost,
        "Worked out": _worked(name, page) + "\n" + page.lesson,
        "Measured": _measured(name, page),
        "Source": page.sources,
    }
    lines = [f"{name}: {page.title}", ""]
    for label, text in sections.items():
        wrapped = [part for line in text.splitlines() for part in _wrapped(line)]
        labels = [label, *[""] * len(wrapped)]
        lines += [f"{left:<{_LABEL}}{part}" for left, part in zip(labels, wrapped, strict=False)]
    return "\n".join(lines)


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, _WIDTH - _LABEL, break_on_hyphens=False, drop_whitespace=True)


def _unit(name: str) -> str:
    """The unit's own figures, from the table of units."""
    head, _, unit = name.partition(":")
    if head != "tensorcore":
        return ""
    return "\n".join(
        f"L = {row.terms}, F = {row.fraction_bits}, sums cut to {row.result.mantissa_bits} fraction bits:"
        f" {', '.join(row.formats)}"
        for row in UNITS[unit]
    )


def _bound(name: str, page: Page) -> str:
    bound = error_bound(name, _LONG, fmt=page.factors)
    return (
        f"|error| <= S ({bound.formula}) + underflow, S = sum |a||b|; r = u where products are rounded,"
        f" else 0. {bound.relative:.3g} for K = {_LONG} and {page.factors} factors. Overflow excluded."
    )


def _worked(name: str, page: Page) -> str:
    """The page's terms, added one more at a time."""
    start, *terms = page.terms
    sums = [_sum(name, page, start, terms[:count]) for count in range(1, len(terms) + 1)]
    shown = " ".join(f"{'-' if term < 0 else '+'} {_short(abs(term))}" for term in terms)
    first = f"{_short(start)} " if start else ""
    exact = _sum("exact", page, start, terms)
    return (
        f"{(first + shown).removeprefix('+ ')}\nafter each term: {', '.join(_short(each) for each in sums)};"
        f" exactly {_short(exact)}"
    )


def _sum(name: str, page: Page, start: float, terms: list[float]) -> float:
    """c + sum of terms, each a product of two factors of its own size's root."""
    factors = [_factors(term) for term in terms]
    a, b = np.array([[left for left, _ in factors]]), np.array([[right] for _, right in factors])
    return float(matmul(a, b, start, fmt=page.factors, accumulate=name, output="float64").item())


def _factors(term: float) -> tuple[float, float]:
    """Two numbers whose product is the term, of like size, the second a power of two."""
    if term == 0:
        return 0.0, 1.0
    second = 2.0 ** (int(np.frexp(term)[1]) // 2)
    return term / second, second


def _short(x: float) -> str:
    """A number for people; what is near 1 or small in powers of two."""
    rest = x - 1
    if x and abs(x) < 1e-3 and np.frexp(x)[0] in (0.5, -0.5):
        return f"2^{int(np.frexp(x)[1]) - 1}"
    if 0 < abs(rest) < 1e-2:
        exponent = int(np.frexp(rest)[1]) - 1
        times = rest / 2.0**exponent
        return f"1 + 2^{exponent}" if times == 1 else f"1 + {times:.10g} * 2^{exponent}"
    return f"{x:.10g}"


@lru_cache(maxsize=4)
def _data(fmt: str) -> tuple[Float64s, Float64s]:
    random = np.random.default_rng(0)
    shapes = (_TRIED[1], _TRIED[0]), (_TRIED[0], 1)
    a, b = (round_to(random.random(shape), fmt).astype(np.float64) for shape in shapes)
    return a, b


def _measured(name: str, page: Page) -> str:
    """The errors of some sums of positive products, and of products of both signs."""
    positive, b = _data(page.factors)
    bound = error_bound(name, _TRIED[0], fmt=page.factors, output="float64")
    lines = [f"error / S of {_TRIED[1]} sums of {_TRIED[0]} products, bound {bound.relative:.1e}:"]
    for words, shift in (("[0, 1)", 0.0), ("[-1/2, 1/2)", 0.5)):
        a = round_to(positive - shift, page.factors).astype(np.float64)
        got, exact = (
            matmul(a, b, fmt=page.factors, accumulate=each, output="float64") for each in (name, "exact")
        )
        error = (got - exact) / bound.magnitudes(a, b)
        lines.append(f"a in {words}: {error.mean():+.1e} on average, {np.abs(error).max():.1e} at most")
    return "\n".join(lines)
