"""Pictures by matplotlib; oracles: what is drawn read back from the Axes, beside all values."""

from __future__ import annotations

import math
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402 - only where there is matplotlib

from minimp.errors import DataError, FormatError, SettingError  # noqa: E402 - the same
from minimp.formats import FORMATS, Format, decode, get, make, round  # noqa: A004, E402 - the pinned name
from minimp.formats.pictures.figures import new_figure, save_figure  # noqa: E402 - the same
from minimp.formats.pictures.plots import figure_height, plot_number_line, plot_rounding_error  # noqa: E402 - the same
from tests.tolerances import assert_close  # noqa: E402 - the same

OWN = (make(3, 2, subnormals=False), make(5, 4, signed=False))
SMALL = [*(each for each in FORMATS.values() if each.bits <= 16), *OWN]


@pytest.fixture(autouse=True)
def _no_window_and_no_figure_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in which something asks for a window; close its figures."""

    def show(*_: Any, **__: Any) -> None:
        raise AssertionError("plt.show was called")

    monkeypatch.setattr(plt, "show", show)
    yield
    plt.close("all")


def positive_values(fmt: Format) -> np.ndarray:
    """Return the positive finite values of a small format."""
    values = np.unique(decode(np.arange(1 << fmt.bits), fmt))
    return values[np.isfinite(values) & (values > 0)]


def steps(ax: Any) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Return edges, tops and floor of everything that is drawn as steps."""
    drawn = [each.get_data() for each in ax.patches]
    return [(data.edges, data.values, float(data.baseline)) for data in drawn]


# ---- number lines ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", SMALL, ids=repr)
def test_the_hill_of_a_format(fmt: Format) -> None:
    """Oracle: every value decoded: a step a binade, as high as log2 of its values, hatched below 2^emin."""
    ax = plot_number_line(fmt)
    exponents = np.frexp(positive_values(fmt))[1] - 1
    counts = Counter(exponents.tolist())
    parts = [each for each in ax.patches if len(each.get_data().values)]
    heights: dict[int, float] = {}
    for part, (edges, tops, floor) in zip(parts, steps(ax), strict=True):
        assert list(edges[:-1]) == list(range(int(edges[0]), int(edges[0]) + len(tops)))
        heights |= dict(zip(edges[:-1].astype(int).tolist(), tops - floor, strict=True))
        subnormal = (edges[:-1] < fmt.emin) & (not fmt.is_integer)
        assert np.all(subnormal == bool(part.get_hatch()))
    most = max(counts.values()).bit_length()
    full = max(heights.values()) / max(each.bit_length() for each in counts.values()) * most
    expected = [full * counts[each].bit_length() / most for each in sorted(heights)]
    assert sorted(heights) == sorted(counts)
    assert_close([heights[each] for each in sorted(heights)], expected, "fp64_same_maths")
    assert math.log2(fmt.max) <= max(edges[-1] for edges, _, _ in steps(ax)) <= math.log2(fmt.max) + 0.1


def test_numbers_and_shares() -> None:
    """Oracle: bars by exponent counted in Python; shares by hand: e4m3fn flushes up to 2^-10, ends at 448."""
    x = [2.0**-12, 2.0**-8, 1.0, 1.5, 500.0, 0.0, math.nan]
    ax = plot_number_line(["e4m3fn", "bf16"], x)
    edges, tops, floor = steps(ax)[-1]
    counts = Counter([-12, -8, 0, 0, 8])
    expected = [counts[each] / 2 for each in edges[:-1].astype(int).tolist()]
    assert_close((tops - floor) / (tops - floor).max(), expected, "fp64_same_maths")
    said = "\n".join(each.get_text() for each in ax.texts)
    assert "14.3 % flushed to 0, 14.3 % subnormal, 28.6 % normal, 14.3 % beyond the range" in said
    assert "7 numbers; highest bar 28.6 %; 14.3 % zero; 14.3 % NaN" in said
    assert [each.get_text() for each in ax.get_yticklabels()] == ["float8_e4m3fn", "bfloat16", "x"]
    left, right = ax.get_xlim()
    assert left < -13 < 9 < right < 40  # bfloat16 is cut
    guides = [
        each.get_xdata()[0]
        for each in ax.lines
        if each.get_linestyle() == ":" and len(set(each.get_xdata())) == 1
    ]
    assert_close(guides, [-12, math.log2(500)], "fp64_same_maths")


def test_ticks_are_powers_of_two() -> None:
    """Oracle: the text of each tick, 2 to its place."""
    for names in ("fp16", "fp64", "fp4", ["bf16", "int8"]):
        axis = plot_number_line(names).xaxis
        places, labels = axis.get_ticklocs(), [each.get_text() for each in axis.get_ticklabels()]
        assert labels == [f"$2^{{{int(each)}}}$" for each in places]
        assert 2 <= len(labels) <= 16


@pytest.mark.parametrize("fmt", [each for each in SMALL if each.bits <= 8], ids=repr)
def test_the_linear_axis_has_a_mark_for_each_value(fmt: Format) -> None:
    """Oracle: every value decoded, 0 included."""
    ax = plot_number_line(fmt, scale="linear")
    marks = np.sort(np.concatenate([[each[0][0] for each in part.get_segments()] for part in ax.collections]))
    assert marks.tolist() == [0.0] * fmt.has_zero + positive_values(fmt).tolist()


def test_the_linear_axis_of_a_wide_format() -> None:
    """Oracle: float16 is twice as dense in each binade further down: a step of one unit of log2."""
    ax = plot_number_line("fp16", [1.0, 60000.0, -60000.0], scale="linear")
    (edges, tops, floor), (_, bars, ground) = steps(ax)
    heights = (tops - floor)[np.searchsorted(edges, [50000, 20000, 10000, 5000])]
    # 65504 / 239 = 274 for a part of the axis: 8 or 9 values at a distance of 32, then 17, 34 and 68
    assert_close(heights / heights[0], [4 / 4, 5 / 4, 6 / 4, 7 / 4], "fp64_same_maths")
    assert np.count_nonzero(bars - ground) == 2


def test_axes_are_taken_and_given_back() -> None:
    """Oracle: the same object; without one, a figure that plt.show() would show."""
    figure = new_figure(6, figure_height(1, histogram=False))
    ax = figure.add_subplot()
    assert plot_number_line("fp16", ax=ax) is ax
    assert plot_rounding_error("fp16", ax) is ax
    assert plt.get_fignums() == []
    assert plot_number_line("fp16").figure.number in plt.get_fignums()


# ---- the rounding error ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", SMALL, ids=repr)
def test_the_rounding_error(fmt: Format) -> None:
    """Oracle: in the middle between two values the error is half their distance; else no larger."""
    line = plot_rounding_error([fmt, "fp64"]).lines[0]
    at, errors = (np.asarray(each, float) for each in line.get_data())
    values = positive_values(fmt)[: 1 << 12]
    if fmt.has_zero:
        values = np.concatenate([[0.0], values])
    low, high = values[:-1], values[1:]
    middles = (low + high) / 2
    bound = np.interp(np.log2(middles), at, errors)
    assert_close(np.exp2(bound), (high - low) / 2 / middles, "fp64_same_maths")
    x = np.random.default_rng(5).uniform(low[1:], high[1:])
    off = np.abs(round(x, fmt) - x) / x
    assert np.all(off <= np.exp2(np.interp(np.log2(x), at, errors)) * (1 + 1e-9))
    assert at[-1] == math.log2(fmt.max)
    if fmt.has_zero:
        assert errors[0] == 0.0  # 100 % where everything becomes 0


def test_dots_are_single_errors() -> None:
    """Oracle: with one format only, dots; each on or below the curve, and many of them near it."""
    dots, curve = plot_rounding_error("e4m3fn").lines
    bound = np.interp(dots.get_xdata(), *curve.get_data())
    assert np.all(dots.get_ydata() <= bound + 1e-9)
    assert np.count_nonzero(dots.get_ydata() > bound - 0.1) > 300
    assert len(plot_rounding_error(["e4m3fn", "fp16"]).lines) == 2


def test_a_curve_is_known_by_more_than_its_colour() -> None:
    """Oracle: the markers, which the legend shows too."""
    ax = plot_rounding_error(["fp16", "bf16", "e4m3fn", "e5m2"])
    assert len({each.get_marker() for each in ax.lines}) == len(ax.lines) == 4
    assert [each.get_text() for each in ax.get_legend().get_texts()] == [
        each.get_label() for each in ax.lines
    ]


# ---- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_files(kind: str, start: bytes, tmp_path: Path) -> None:
    """Oracle: the first bytes of such files; XML's parser; the same picture gives the same bytes."""
    paths = [tmp_path / "first", tmp_path / "second"]
    for path in paths:
        figure = new_figure(6, 3)
        plot_number_line(["fp16", "int8"], [0.5], figure.add_subplot())
        save_figure(figure, path, kind)
    first, second = (path.read_bytes() for path in paths)
    assert first.startswith(start)
    assert first == second
    if kind == "svg":
        assert ET.fromstring(first).tag.endswith("svg")
    if kind == "png":
        assert plt.imread(paths[0], "png").shape == (300, 600, 4)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """Oracle: what was there before, after faults on the way."""
    figure = new_figure(6, 3)
    with pytest.raises(DataError, match="its folder does not exist"):
        save_figure(figure, tmp_path / "nowhere" / "a.png", "png")
    with pytest.raises(SettingError, match="expected one of png, svg, got 'gif'"):
        save_figure(figure, tmp_path / "a.gif", "gif")
    assert list(tmp_path.iterdir()) == []


# ---- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [plot_number_line, plot_rounding_error])
def test_without_matplotlib(draw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: an import that fails as it does where the package is missing; the error names the remedy."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(SettingError, match=r'pip install "minimp\[plot\]"'):
        draw("fp16")


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"formats": []}, SettingError, "expected at least one format, got none"),
        ({"formats": "fp17"}, FormatError, "unknown number format"),
        ({"scale": "lin"}, SettingError, "unknown scale 'lin'; did you mean 'linear'"),
        ({"x": []}, DataError, "expected at least one number"),
        ({"formats": "fp64", "scale": "linear"}, SettingError, r"no linear axis up to 1.8e\+308"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], error: type[Exception], said: str) -> None:
    """Oracle: one clear error each, before a figure is made."""
    before = plt.get_fignums()
    with pytest.raises(error, match=said):
        plot_number_line(**({"formats": get("fp16")} | arguments))
    assert plt.get_fignums() == before
