"""The pages about accumulations: one for each name, fitting the screen, their numbers computed."""

from __future__ import annotations

import re

import numpy as np
import pytest

from minimp import formats
from minimp.errors import SettingError
from minimp.formats import matmul
from minimp.formats.accumulation import explanations
from minimp.formats.accumulation.bounds import error_bound
from minimp.formats.accumulation.explanations import explain
from minimp.formats.accumulation.pages import PAGES

NAMED = [page.example or order for order, page in PAGES.items()]


def section(text: str, label: str) -> str:
    """Cut one section out of a page, its lines joined."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(label))
    rest = next((i for i, line in enumerate(lines[first + 1 :], first + 1) if line[:1].strip()), len(lines))
    return " ".join(line[12:].strip() for line in lines[first:rest])


def test_each_name_has_a_page() -> None:
    """Oracle: the table of accumulations; every field of every page says something."""
    assert set(PAGES) == {"exact", *formats.ACCUMULATES}
    for page in PAGES.values():
        for field in (
            "title",
            "what",
            "recurrence",
            "order",
            "rounding",
            "expected",
            "users",
            "cost",
            "lesson",
        ):
            assert len(getattr(page, field)) > 8
        assert re.search(r"(19|20)\d\d", page.sources)


@pytest.mark.parametrize("name", [*PAGES, "chunked:64", "splitk:7"])
def test_pages_fit(name: str) -> None:
    """Oracle: 45 lines of 100 columns, no blank ends, nothing but ASCII; and the name that was asked for."""
    text = explain(name)
    lines = text.splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 100
    assert text.isascii()
    assert all(line == line.rstrip() for line in lines)
    assert lines[0].startswith(f"{PAGES[name].example or name if name in PAGES else name}: ")
    for label in (
        "What",
        "Equation",
        "Order",
        "Rounding",
        "Bound",
        "Expect",
        "Used",
        "Cost",
        "Worked",
        "Source",
    ):
        assert any(line.startswith(label) for line in lines)


def test_the_list_has_every_name() -> None:
    """Oracle: the table, in its order, one line each."""
    lines = explain().splitlines()
    assert [line.split()[0] for line in lines[2 : 2 + len(PAGES)]] == list(PAGES)
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("name", NAMED)
def test_the_worked_sum_is_computed(name: str) -> None:
    """Oracle: ``matmul`` on the page's terms, split into other factors."""
    page = PAGES[formats.parse_accumulate(name).order]
    start, *terms = page.terms
    text = section(explain(name), "Worked")
    for count in range(1, len(terms) + 1):
        a = np.array([terms[:count]]) * 2.0**12
        b = np.full((count, 1), 2.0**-12)
        if np.abs(a).max() >= 2.0**16:  # 2^35 is no float16
            a, b = a * 2.0**-24, b * 2.0**24
        if page.factors == "float16" and not formats.representable(a, "float16").all():
            continue
        got = matmul(a, b, start, fmt=page.factors, accumulate=name, output="float64").item()
        assert explanations._short(got) in text.split("exactly")[0]
    assert explanations._short(float(np.sum(page.terms))) in text.split("exactly")[1]


def test_numbers_follow_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a product that is off by one, and a bound that is doubled: the page tells of both."""
    plain = explain("float16")
    assert "2048, 2048, 2052" in plain
    assert f"{error_bound('float16', 4096, fmt='float16').relative:.3g} for K = 4096" in plain
    monkeypatch.setattr(explanations, "matmul", lambda *args, **options: matmul(*args, **options) + 1)
    shifted = explain("float16")
    assert "2049, 2049, 2053" in shifted
    assert section(shifted, "Measured") == section(plain, "Measured")  # both sums there are off


def test_what_is_measured_is_within_the_bound() -> None:
    """Law: errors on a page stay below its bound; cutting is a bias, rounding is none."""
    number = r"([+-]?\d\.\de[+-]\d\d)"
    for name in NAMED:
        text = section(explain(name), "Measured")
        bound = float(re.search(rf"bound {number}:", text)[1])
        found = re.findall(rf"\): {number} on average, {number} at most", text)
        assert len(found) == 2
        for mean, most in found:
            assert abs(float(mean)) <= float(most) <= bound
        if name.startswith("tensorcore"):
            assert float(found[0][0]) < -0.5 * float(found[0][1])


def test_numbers_for_people() -> None:
    """Oracle: by hand."""
    for value, text in (
        (2048.0, "2048"),
        (2.0**-24, "2^-24"),
        (1 + 2.0**-23, "1 + 2^-23"),
        (1 + 3 * 2.0**-24, "1 + 1.5 * 2^-23"),
        (0.0, "0"),
        (-0.75, "-0.75"),
        (1.0, "1"),
    ):
        assert explanations._short(value) == text


def test_unknown_names() -> None:
    """Oracle: the message offers the nearest name."""
    with pytest.raises(SettingError, match="did you mean 'kahan'"):
        explain("kahn")
