"""Powers by products; oracle: the contract of pow, and its own way through the library's function."""

from __future__ import annotations

import numpy as np
import pytest

import minimp as mp
from minimp.checks import check_events
from minimp.checks.gradcheck import gradcheck
from minimp.modes import listen
from minimp.tape import Event
from tests.arrays import host
from tests.ops.samples import FLOATS, KINDS, numbers
from tests.tolerances import assert_close

FLUSHED = pytest.mark.host("powers below 2^-126, which CuPy's own kernels take for zero")
SAMPLES = [
    pytest.param(kind, fmt, marks=[FLUSHED] if kind == "wide" and fmt in ("float32", "bfloat16") else [])
    for kind in KINDS
    for fmt in FLOATS
]


@pytest.mark.parametrize(("kind", "fmt"), SAMPLES)
@pytest.mark.parametrize("exponent", [3, 3.0, 4, 5])
def test_cubes_and_fourth_powers_keep_the_contract(exponent: float, kind: str, fmt: str) -> None:
    """Oracle: float64 powers within pow's bound, on numbers of every kind, and the gradient's."""
    x = mp.tensor(numbers(np.random.default_rng(1), (40, 25), fmt, kind), dtype=fmt, requires_grad=True)
    events: list[Event] = []
    with listen(events.append):
        y = x**exponent
        y.backward(mp.tensor(np.ones(y.shape), dtype=fmt))
    found = check_events(events)
    assert found, str(found)


@pytest.mark.parametrize("exponent", [3, 4])
def test_a_number_is_as_an_array_of_it(exponent: int, rng: np.random.Generator) -> None:
    """Oracle: the library's power, which an array of exponents goes through; and central differences."""
    x = rng.standard_normal((50, 7))
    by_number, by_array = mp.tensor(x) ** exponent, mp.tensor(x) ** np.full(x.shape, float(exponent))
    assert_close(host(by_number), host(by_array), "fp64_sums")
    assert gradcheck(lambda t: t**exponent, [x])
