"""Every fault planted in a kernel is found by some rung; which one is in the test's properties and output."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from minimp.errors import DeviceError
from minimp_backends.kernels import sources
from minimp_backends.kernels.nvrtc import Compiler
from minimp_backends.kernels.registry import KERNELS
from tests.kernels.planting import found_by, planted
from tests.kernels.samples import BUGS, Bug

CHEAP = {"checking.cu"}
EVERY_BUG = [
    pytest.param(
        bug,
        marks=() if KERNELS[bug.kernel].source in CHEAP else pytest.mark.slow,
        id=f"{bug.kernel}: {bug.name}",
    )
    for bug in BUGS
]


@pytest.mark.parametrize("bug", EVERY_BUG)
def test_every_planted_bug_is_found(
    compiler: Compiler, host_compiler: str, record_property: Callable[[str, object], None], bug: Bug
) -> None:
    """Oracle: the source without the bug, in which no rung finds anything."""
    rung, what = found_by(bug)
    record_property("rung", rung)
    print(f"{bug.kernel}: {bug.name}: found by the {rung}: {what}")
    assert rung


MARKED = Bug("the sign of the comparison", "find_nonfinite_float", "i < count;", "i <= count;")


def test_a_bug_goes_into_the_kernels_file_or_a_header() -> None:
    """Oracle: the texts, of which one alone changes, in one place; lines that make other kernels are gone."""
    plain = sources.read("checking.cu")
    changed = planted(MARKED)
    assert changed.headers == plain.headers
    assert changed.text.count("i <= count;") == 1
    header = planted(Bug("in a header", "find_nonfinite_float", "!= 0x7C00u;", "!= 0x7E00u;"))
    kept = [line for line in header.text.splitlines() if line]
    gone = [line for line in plain.text.splitlines() if line and line not in kept]
    assert gone == [
        f"FIND_NONFINITE({each})" for each in ("double, double", "half, __half", "bfloat16, __nv_bfloat16")
    ]
    assert "FIND_NONFINITE(float, float)" in kept
    assert [name for name in plain.headers if header.headers[name] != plain.headers[name]] == ["elements.cuh"]


def test_an_array_that_is_read_too_far_is_found(compiler: Compiler, host_compiler: str) -> None:
    """Oracle: one element beyond the end, which changes no result that is right by chance."""
    rung, what = found_by(MARKED)
    assert rung == "interpreter"
    assert "out of bounds in or near values" in what


def test_what_is_no_bug_is_not_found(compiler: Compiler, host_compiler: str) -> None:
    """Oracle: a change of the words alone."""
    assert found_by(Bug("another name", "find_nonfinite_float", "int bad = 0;", "int bad{0};")) == ("", "")


@pytest.mark.parametrize(
    ("bug", "error"),
    [
        (Bug("nowhere", "find_nonfinite_float", "no such text", "x"), ValueError),
        (Bug("nothing", "find_nonfinite_float", "int bad = 0;", "int bad = 0;"), ValueError),
        (Bug("no C++", "find_nonfinite_float", "int bad = 0;", "int bad = ;"), DeviceError),
    ],
)
def test_a_bug_that_is_none_is_refused(compiler: Compiler, bug: Bug, error: type[Exception]) -> None:
    """Oracle: a text that is not there, a change that changes nothing, a source that does not compile."""
    with pytest.raises(error):
        found_by(bug)
