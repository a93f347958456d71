"""The ratios with an aim; oracles: quotients by hand of made-up times, the project's aims."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from minimp.benchmarks.formats import FormatTimes, figures
from minimp.benchmarks.formats.rows import Row, Weight
from tests.tolerances import assert_close

N = 1000
SECONDS = {
    ("copy", "float32", "numpy"): 1.0,
    ("grid", "fp16", "minimp"): 4.0,
    ("grid", "fp16", "numpy astype"): 20.0,
    ("grid", "fp16", "torch to"): 0.5,
    ("grid", "bf16", "minimp"): 2.0,
    ("grid", "bf16", "ml_dtypes astype"): 3.0,
    ("grid", "e4m3fn", "minimp"): 4.0,
    ("grid", "e4m3fn", "ml_dtypes astype"): 24.0,
    ("storage", "fp16", "minimp"): 4.0,
    ("storage", "fp16", "numpy astype"): 8.0,
    ("storage", "e5m2", "minimp"): 2.0,
    ("storage", "e5m2", "ml_dtypes astype"): 8.0,
    ("decode", "fp16", "minimp"): 2.0,
    ("decode", "fp16", "numpy astype"): 3.0,
    ("decode", "e4m3fn", "minimp"): 1.0,
    ("decode", "e4m3fn", "ml_dtypes astype"): 6.0,
    ("stochastic", "fp16", "minimp"): 10.0,
    ("stochastic", "bf16", "minimp"): 8.0,
    ("matmul", "float16", "sgemm with rounding"): 1.0,
    ("matmul", "float16", "numpy float16 @"): 80.0,
    ("matmul", "float16", "chunked:16"): 5.0,
    ("matmul", "float16", "float16"): 60.0,
    ("matmul", "float16", "float16:fma"): 70.0,
    ("matmul", "float16", "tensorcore:volta"): 40.0,
    ("matmul", "float8_e4m3fn", "tensorcore:hopper"): 100.0,
}
EXPECTED = {
    # figure: (measured, aim, an upper one)
    "fp16 grid: minimp's speed / numpy astype there and back": (5.0, 4.0, False),
    "bf16 grid: minimp's speed / ml_dtypes astype there and back": (1.5, 1.2, False),
    "e4m3fn grid: minimp's speed / ml_dtypes astype there and back": (6.0, 7.0, False),
    "e5m2 storage: minimp's speed / ml_dtypes astype": (4.0, 4.0, False),
    "fp16 decode: minimp's speed / numpy astype": (1.5, 2.0, False),
    "e4m3fn decode: minimp's speed / ml_dtypes astype": (6.0, 5.0, False),
    "fp16: speed of stochastic rounding / nearest even": (0.4, 1 / 3, False),
    "bf16: speed of stochastic rounding / nearest even": (0.25, 1 / 3, False),
    "fp16 nearest even: speed / memcpy (aim: CPFloat in C, Zen 3)": (0.25, 275 / 2290, False),
    "fp16 stochastic: speed / memcpy (aim: CPFloat in C, Zen 3)": (0.1, 70 / 2290, False),
    "chunked:16: time / sgemm with rounding": (5.0, 4.0, True),
    "float16: time / sgemm with rounding": (60.0, 60.0, True),
    "tensorcore:volta: time / sgemm with rounding": (40.0, 90.0, True),
    "tensorcore:hopper of float8_e4m3fn: time / sgemm with rounding": (100.0, 90.0, True),
    "the slowest (tensorcore:hopper of float8_e4m3fn): time / numpy float16 @": (1.25, 1.0, True),
    "extra memory for 4 times the values, at worst (storage e5m2)": (2.0, 1.05, True),
}
WEIGHTS = [Weight("grid", "fp16", {N: 8192, 4 * N: 8200}), Weight("storage", "e5m2", {N: 8192, 4 * N: 16384})]


def made_up() -> FormatTimes:
    """Return the times of the table above."""
    rows = [Row(family, fmt, maker, seconds, N) for (family, fmt, maker), seconds in SECONDS.items()]
    return FormatTimes(4 * N, 5, rows, WEIGHTS)


def test_ratios_of_made_up_times() -> None:
    """Oracle: quotients by hand, each with its aim and side; storage of fp16 and fma have none."""
    found = figures(made_up())
    assert {figure.name: (figure.target, figure.at_most) for figure in found} == {
        name: row[1:] for name, row in EXPECTED.items()
    }
    values = {figure.name: figure.value for figure in found}
    assert_close(
        [values[name] for name in EXPECTED], [row[0] for row in EXPECTED.values()], "fp64_same_maths"
    )


def test_speed_counts_elements() -> None:
    """Oracle: the same time for twice the values is twice the speed."""
    times = made_up()
    rows = [replace(row, elements=2 * N) if row.maker == "numpy astype" else row for row in times.rows]
    halved = {figure.name: figure.value for figure in figures(replace(times, rows=rows))}
    assert halved["fp16 grid: minimp's speed / numpy astype there and back"] == 2.5


@pytest.mark.parametrize("left", [[], ["copy"], ["matmul"], ["grid", "stochastic"]])
def test_what_was_not_measured_has_no_ratio(left: list[str]) -> None:
    """Oracle: only ratios both sides of which are there; nothing at all of nothing."""
    times = made_up()
    rows = [row for row in times.rows if row.family in left]
    names = {figure.name for figure in figures(replace(times, rows=rows, weights=[]))}
    kept = {
        name for name in EXPECTED
        if ("matmul" in left and ("sgemm" in name or "slowest" in name))
        or ("grid" in left and (" grid:" in name or "stochastic rounding" in name))
    }  # fmt: skip
    assert names == kept


def test_products_are_compared_only_beside_both_yardsticks() -> None:
    """Oracle: without NumPy's own product, or without sgemm, there is no ratio of products."""
    times = made_up()
    for missing in ("numpy float16 @", "sgemm with rounding"):
        rows = [row for row in times.rows if row.maker != missing]
        assert not [f for f in figures(replace(times, rows=rows)) if "time /" in f.name]


def test_what_json_has_of_it() -> None:
    """Oracle: the made-up times, through JSON and back."""
    times = replace(made_up(), threaded=[Row("grid", "fp16", "minimp", 2.0, N, threads=2)])
    made = json.loads(json.dumps(times.as_dict()))
    assert set(made) == {"size", "rounds", "rows", "memory", "threads"}
    assert (made["size"], made["rounds"], len(made["rows"])) == (4 * N, 5, len(SECONDS))
    assert made["threads"] == [{
        "family": "grid", "format": "fp16", "maker": "minimp", "seconds": 2.0, "elements": N, "threads": 2,
        "elements_per_second": 500.0,
    }]  # fmt: skip
    assert made["memory"][1] == {
        "family": "storage", "format": "e5m2", "bytes": {"1000": 8192, "4000": 16384}, "growth": 2.0
    }  # fmt: skip
