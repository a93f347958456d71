"""GradScaler row by row: what PyTorch 2.13.0 does, as a table, and both libraries held against it.

The rows are those in which PyTorch's scaler is usually described; each has its cases, run as programs
(:mod:`minimp.frameworks.scalers.programs`), and what PyTorch was seen to do in each. "refused: ..." stands
for a kind of error.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from minimp.errors import MinimpError, ScalerError
from minimp.frameworks.scalers.programs import MAKING, SCALING, Program
from minimp.frameworks.scalers.rules import SAVING, STEPPING, UNSCALING, UPDATING
from minimp.frameworks.scalers.workbench import Workbench
from minimp.frameworks.sides import Side, both_sides

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::minimp.errors.ScaleWarning")]

PROGRAMS: dict[tuple[str, str], Program] = {
    (each.subject, each.case): each for each in (*MAKING, *SCALING, *UNSCALING, *STEPPING, *UPDATING, *SAVING)
}
START = str(
    {"scale": 8.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 0}
)
HALF_TAKEN = str(
    {"scale": 4.0, "growth_factor": 3.0, "backoff_factor": 0.25, "growth_interval": 2, "_growth_tracker": 0}
)
TAKEN = HALF_TAKEN.replace("'_growth_tracker': 0", "'_growth_tracker': 1")

ROWS: dict[str, dict[tuple[str, str], str]] = {
    "constructor": {
        ("constructor", "growth_factor=1"): "refused: growth not above 1",
        ("constructor", "backoff_factor=1"): "refused: backoff not below 1",
        ("constructor", "factors of a disabled one"): "1.0",
        ("constructor", "backoff_factor=0"): "weights [-0.5], S 8, tracker 1; weights [0], S 0, tracker 0",
        (
            "constructor",
            "backoff_factor=-0.5",
        ): "weights [-0.5], S 8, tracker 1; weights [0], S -4, tracker 0",
        ("constructor", "growth_interval=0"): "weights [-0.5], S 8, tracker 1; weights [0], S 4, tracker 0",
        ("constructor", "growth_interval=1"): "weights [-0.5], S 16, tracker 0; weights [0], S 8, tracker 0",
        ("constructor", "init_scale=0"): "weights [-inf], S 0, tracker 1; weights [0], S 0, tracker 0",
        ("constructor", "init_scale=-4"): "weights [1], S -4, tracker 1; weights [0], S -2, tracker 0",
        ("constructor", "init_scale=inf"): "weights [0], S inf, tracker 1; weights [0], S inf, tracker 0",
        ("constructor", "init_scale=0.1, rounded by the first scale()"): "0.1, then 0.10000000149011612",
        ("constructor", "init_scale=nan"): "nan",
        ("constructor", "device='cuda' without CUDA"): "disabled, 1 warning",
    },
    "scale(t)": {
        ("scale", "float16 vector at 2^16"): "[inf] float16",
        ("scale", "float16 without axes at 2^16"): "65536 float32",
        ("scale", "bfloat16 vector"): "[65536] bfloat16",
        ("scale", "bfloat16 without axes"): "65536 float32",
        ("scale", "bfloat16 vector at 3.7"): "[4.0625] bfloat16",
        ("scale", "float64"): "[4.07000005] float64",
        ("scale", "whole numbers"): "[11.1000004] float32",
        ("scale", "infinity by 0"): "[nan] float32",
        ("scale", "a list"): "list, 24 float32",
        ("scale", "a tuple"): "tuple, 24 float32",
        ("scale", "nested"): "tuple, 24 float32",
        (
            "scale",
            "a named tuple",
        ): "refused: TypeError: Pair.__new__() missing 1 required positional argument: 'b'",
        ("scale", "a generator"): "0 taken at first; 24 float32",
        ("scale", "an empty list starts nothing"): "refused: nothing was scaled",
        ("scale", "a Python float"): "refused: no tensor",
        ("scale", "None"): "refused: no tensor",
        ("scale", "a list with a float in it"): "refused: no tensor",
        ("scale", "a dict"): "map",
        ("scale", "a string"): "map",
    },
    "unscale_": {
        ("unscale_", "before scale()"): "refused: nothing was scaled",
        ("unscale_", "twice"): "refused: unscaled before; S 8, tracker 0",
        ("unscale_", "after step()"): "refused: unscaled after its step; S 8, tracker 0",
        (
            "unscale_",
            "1/3.7 rounded from float64",
        ): "gradient [0.270270258, 0.810810804, -0]; None, weights [-0.270270258, -0.810810804, 0]",
        ("unscale_", "bfloat16"): "gradient [0.26953125, 0.8125]; None, weights [-0.26953125, -0.8125]",
        (
            "unscale_",
            "float64",
        ): "gradient [0.270270258, 0.810810775]; None, weights [-0.270270258, -0.810810775]",
        ("unscale_", "finite before, infinite after"): "gradient [inf]; None, weights [-inf]",
        ("unscale_", "float16"): "refused: float16 gradients",
        ("unscale_", "float16 refused, then dropped"): "refused: float16 gradients; then unscaled",
        ("unscale_", "a parameter without gradient"): "None, weights [0], [-1]; gradients none, [1]",
        ("unscale_", "another name on the gradient"): "it sees [1] float32",
        ("unscale_", "sparse gradients"): "weights [0, -1]",
    },
    "kernel": {
        ("unscale_", "all multiplied, though one is inf"): "gradient [inf, 1]; None, weights [0, 0]",
        ("unscale_", "NaN"): "gradient [nan, 1]; None, weights [0, 0]",
        ("unscale_", "underflow"): "gradient [0]; None, weights [0]",
        (
            "unscale_",
            "S = 1",
        ): "gradient [0.100000001, 1.40129846e-45]; None, weights [-0.100000001, -1.40129846e-45]",
    },
    "step": {
        ("step", "before scale()"): "refused: nothing was scaled",
        ("step", "unscales first"): "None, weights [-1]",
        ("step", "skips an infinity"): "None, weights [0], [0, 0]",
        ("step", "skips a NaN"): "None, weights [0], [0]",
        ("step", "no gradients at all"): "refused: no gradients to check",
        ("step", "twice"): "refused: stepped before; S 8, tracker 0",
        ("step", "closure by keyword"): "refused: a closure",
        ("step", "closure by position"): "2.5, weights [-1]",
    },
    "step with fused optimizers": {
        (
            "step",
            "an optimizer that unscales",
        ): "grad_scale 8.0, found_inf 0, weights [0]; S 8, tracker 1; left on it: []",
        (
            "step",
            "an optimizer that unscales, inf",
        ): "grad_scale 8.0, found_inf 1, weights [0]; S 4, tracker 0; left on it: []",
        (
            "step",
            "an optimizer that unscales, unscaled before",
        ): "grad_scale None, found_inf 0, weights [0]; S 8, tracker 1; left on it: []",
        (
            "step",
            "an optimizer that unscales, unscaled before, inf",
        ): "grad_scale None, found_inf 1, weights [0]; S 4, tracker 0; left on it: []",
    },
    "update()": {
        ("update", "before scale()"): "refused: nothing was scaled",
        ("update", "nothing was checked"): "refused: nothing was checked; S 8, tracker 0",
        ("update", "grows at the interval"): "weights [-0.125], S 16, tracker 0",
        ("update", "counts anew after a bad step"): "weights [-0.25], S 4, tracker 1",
        ("step", "two bad optimizers, one backoff"): "S 4, tracker 0",
    },
    "update(v)": {
        ("update", "to a float; the tracker stays"): "None; S 3.70000005, tracker 1",
        ("update", "to infinity"): "None; S inf, tracker 1",
        ("update", "to 1e39, beyond float32"): "refused: beyond float32; S 8, tracker 1",
        ("update", "to NaN"): "None; S nan, tracker 1",
        ("update", "to a whole number"): "refused: not one float; S 8, tracker 1",
        ("update", "to a tensor without axes"): "None; S 3.70000005, tracker 0",
        ("update", "to a tensor that requires a gradient"): "refused: not one float; S 8, tracker 0",
        ("update", "to a tensor of one axis"): "refused: not one float; S 8, tracker 1",
        ("update", "to a tensor of two numbers"): "refused: not one float; S 8, tracker 1",
        ("update", "to a float, amid an iteration"): "S 16, tracker 0; refused: nothing was checked",
    },
    "unscale_ then update without step": {
        ("update", "unscaled, not stepped"): "None; S 8, tracker 1",
    },
    "two optimizers, one inf": {
        ("step", "two optimizers, one infinity"): "None, weights [-1]; None, weights [0]; S 4, tracker 0",
    },
    "one param in two optimizers": {
        ("step", "a parameter in two optimizers"): "gradient [0.015625]",
    },
    "disabled": {
        (
            "disabled",
            "every call",
        ): "same True; None, weights [-inf]; (1.0, False, {}, 1.0); refused: a disabled scaler has none",
    },
    "state_dict": {
        ("state_dict", "its entries"): START,
        ("state_dict", "loaded before scale()"): f"None; {TAKEN}",
        ("state_dict", "loaded after scale()"): f"None; {TAKEN}",
        (
            "state_dict",
            "training goes on from it",
        ): "weights [-1], S 12, tracker 0; weights [0], S 3, tracker 0",
        ("state_dict", "an empty one"): f"refused: an empty state; {START}",
        ("state_dict", "into a disabled scaler"): "None; {}",
        ("state_dict", "one without a scale"): f"refused: an entry is missing; {START}",
        ("state_dict", "one without a tracker"): f"refused: an entry is missing; {HALF_TAKEN}",
    },
    "pickle": {
        ("copy", "between iterations"): "S 8, tracker 1; refused: nothing was scaled",
        ("copy", "amid an iteration"): "refused: amid an iteration",
    },
    "extremes": {
        ("extremes", "2^127 cannot grow"): "weights [-5.87747175e-39], S 1.70141183e+38, tracker 0",
        ("extremes", "2^126 grows to 2^127"): "weights [-1.17549435e-38], S 1.70141183e+38, tracker 0",
        ("extremes", "1e38, bad steps"): "weights [0], S 3.1249999e+36, tracker 0",
        ("extremes", "149 bad steps from 1"): "weights [0], S 1.40129846e-45, tracker 0",
        ("extremes", "150 bad steps from 1"): "weights [0], S 0, tracker 0",
        ("extremes", "S = 0, then a good step"): "weights [-inf], S 0, tracker 1",
        ("extremes", "S = inf, then good gradients"): "weights [0], S inf, tracker 2",
    },
    "getters and setters": {
        (
            "settings",
            "set_growth_factor(4)",
        ): "4.0; weights [-0.125], S 8, tracker 1; weights [0], S 4, tracker 0",
        (
            "settings",
            "set_backoff_factor(0.1)",
        ): "0.1; weights [-0.125], S 8, tracker 1; weights [0], S 0.800000012, tracker 0",
        (
            "settings",
            "set_growth_interval(1)",
        ): "1; weights [-0.125], S 16, tracker 0; weights [0], S 8, tracker 0",
        (
            "settings",
            "set_growth_factor(0.5)",
        ): "0.5; weights [-0.125], S 8, tracker 1; weights [0], S 4, tracker 0",
        (
            "settings",
            "set_backoff_factor(2)",
        ): "2.0; weights [-0.125], S 8, tracker 1; weights [0], S 16, tracker 0",
    },
}

OURS = {
    ("constructor", "init_scale=nan"): "refused: SettingError: init_scale: expected a number, got nan",
    (
        "constructor",
        "device='cuda' without CUDA",
    ): "refused: TypeError: GradScaler.__init__() got an unexpected keyword argument 'device'",
    ("scale", "a named tuple"): "Pair, 24 float32",
    ("scale", "a dict"): "refused: no tensor",
    ("scale", "a string"): "refused: no tensor",
    ("unscale_", "another name on the gradient"): "it sees [8] float32",
    ("unscale_", "sparse gradients"): "there are no sparse tensors",
    (
        "update",
        "to NaN",
    ): "refused: SettingError: GradScaler.update: new_scale: expected a number, got nan; S 8, tracker 1",
    ("state_dict", "one without a tracker"): f"refused: an entry is missing; {START}",
    (
        "settings",
        "set_growth_factor(0.5)",
    ): "refused: SettingError: growth_factor: expected at least 1, got 0.5",
    (
        "settings",
        "set_backoff_factor(2)",
    ): "refused: SettingError: backoff_factor: expected at most 1, got 2.0",
}
"""What minimp does otherwise, and on purpose: see the docstring of GradScaler, and minimp/frameworks."""


@pytest.fixture
def sides() -> tuple[Side, Side]:
    """minimp and PyTorch."""
    return both_sides()


@pytest.mark.parametrize("row", ROWS)
def test_pytorch_does_what_its_row_says(row: str, sides: tuple[Side, Side]) -> None:
    """Oracle: the installed PyTorch 2.13.0 itself, live."""
    with warnings.catch_warnings(action="ignore"):  # of a scaler for CUDA, where there is none
        seen = {case: PROGRAMS[case].outcome(sides[1]) for case in ROWS[row]}
    assert seen == ROWS[row]


@pytest.mark.parametrize("row", ROWS)
def test_minimp_does_what_the_row_says_but_for_the_listed(row: str, sides: tuple[Side, Side]) -> None:
    """Oracle: the same table, with the listed differences."""
    seen = {case: PROGRAMS[case].outcome(sides[0]) for case in ROWS[row]}
    assert seen == ROWS[row] | {case: OURS[case] for case in ROWS[row] if case in OURS}


def test_every_program_has_a_row_and_every_difference_is_one() -> None:
    """Oracle: the programs themselves."""
    listed = [case for cases in ROWS.values() for case in cases]
    assert sorted(listed) == sorted(PROGRAMS)
    assert {case: OURS[case] for case in OURS if OURS[case] == ROWS[row_of(case)][case]} == {}


def row_of(case: tuple[str, str]) -> str:
    """Return the row that a case is in."""
    return next(row for row, cases in ROWS.items() if case in cases)


REFUSED = [
    case
    for cases in ROWS.values()
    for case, seen in cases.items()
    if "refused: " in seen and "refused: " in OURS.get(case, seen)
]


class Raising(Workbench):
    """A workbench that lets errors through, and keeps the last."""

    def __init__(self, side: Side) -> None:
        super().__init__(side)
        self.met: list[Exception] = []

    def tried(self, call: Any) -> str:
        """Make a call, and keep its refusal."""
        try:
            return str(call())
        except self.side.refusals as fault:
            self.met.append(fault)
            return "refused"


@pytest.mark.parametrize("case", REFUSED, ids=": ".join)
def test_refusals_name_the_call_and_the_remedy(case: tuple[str, str], sides: tuple[Side, Side]) -> None:
    """Oracle: the house's rule: each error has the call it came from, and a next step after `help:`."""
    bench = Raising(sides[0])
    bench.tried(lambda: PROGRAMS[case].run(bench))
    assert bench.met
    for fault in bench.met:
        assert isinstance(fault, MinimpError)
        assert (fault.op or "").startswith("GradScaler")
        assert fault.help


@pytest.mark.parametrize(("call", "dtype"), [("unscale_", "float16"), ("step", "float32")])
def test_refusals_name_the_parameters(call: str, dtype: str, sides: tuple[Side, Side]) -> None:
    """Oracle: the planted parameters by their names, where PyTorch names none."""
    bench = Workbench(sides[0])
    scaler = bench.scaler()
    optimizer = bench.optimizer([8.0] if dtype == "float16" else None, dtype=dtype)
    scaler.name_parameters([("fc.weight", bench.params(optimizer)[0])])
    with pytest.raises(ScalerError, match=r"fc\.weight"):
        getattr(scaler, call)(optimizer)
