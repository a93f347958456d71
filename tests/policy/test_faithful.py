"""Frameworks' defects: named, listed, absent by default, and reproduced where somebody asks for them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import minimp as mp
from minimp.errors import FormatError, FrameworkWarning, SettingError
from minimp.modes import MODES
from minimp.policy import Policy, defects
from minimp.policy.region import SHARED
from tests.policy.defect_programs import CASES, Ours

ROWS = [(name, policy) for name, row in defects.items() for policy in row.policies]
FAITHFUL = [row for row in ROWS if defects[row[0]].reproduced]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Fail a test that leaves casts in the cache of all threads."""
    yield
    left = len(SHARED)
    SHARED.clear()
    assert left == 0


def test_every_defect_has_a_program() -> None:
    """Oracle: the table of defects, name for name."""
    assert list(CASES) == list(defects)


@pytest.mark.parametrize(("name", "policy"), ROWS)
def test_by_default_there_is_no_defect(name: str, policy: str) -> None:
    """Oracle: what the program should give, by hand; `defects` is empty, and nothing is warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert CASES[name].program(Ours(policy)) == CASES[name].right
    assert mp.autocast("bfloat16", policy=policy).defects == ()


@pytest.mark.parametrize(("name", "policy"), FAITHFUL)
def test_it_is_reproduced_where_it_is_asked_for(name: str, policy: str) -> None:
    """Oracle: what PyTorch 2.13.0 gives (seen live in tests/parity/test_autocast_semantics.py)."""
    assert CASES[name].program(Ours(policy, faithful=True)) == CASES[name].wrong
    assert defects[name] in mp.autocast("bfloat16", policy=policy, faithful=True).defects


@pytest.mark.parametrize("name", [name for name, row in defects.items() if not row.reproduced])
def test_what_is_never_reproduced_is_not(name: str) -> None:
    """Oracle: the table's word; the program comes out right in a faithful region too."""
    assert CASES[name].program(Ours(faithful=True)) == CASES[name].right
    assert defects[name] not in mp.autocast("bfloat16", policy="torch-cpu", faithful=True).defects


def test_the_caches_defects_need_a_cache() -> None:
    """Oracle: by hand: without a cache the weight is cast at each use, and its format is the region's."""
    for name in ("cache-ignores-format", "cache-ignores-changes"):
        assert CASES[name].program(Ours(faithful=True, cache="none")) == CASES[name].right
        assert defects[name] not in mp.autocast(policy="torch-cpu", faithful=True, cache="none").defects
    old = Ours(faithful=True, cache="torch-before-2.13")
    assert CASES["cache-ignores-changes"].program(old) == [1.0, 1.0]


@pytest.mark.parametrize("policy", ["torch-cpu", "torch-cuda"])
def test_a_region_lists_what_is_in_force(policy: str) -> None:
    """Oracle: the table's rows of that policy; a copy that was edited counts as what it was."""
    edited = mp.policies[policy].with_(softmax="lower")
    expected = [row for row in defects.values() if policy in row.policies and row.reproduced]
    for each in (policy, mp.policies[policy], edited):
        made = mp.autocast("bfloat16", policy=each, faithful=True)
        assert list(made.defects) == expected
        with made:
            region = MODES.get().autocast
            assert region is not None
            assert region.defects == made.defects
            assert region.has("cache-ignores-changes")
            with mp.autocast("bfloat16", policy=each):
                inner = MODES.get().autocast
                assert inner is not None
                assert (inner.defects, inner.has("cache-ignores-changes")) == ((), False)


def test_a_region_that_is_not_faithful_is_none_inside_a_faithful_one() -> None:
    """Oracle: the contract: what a region is asked for holds for it alone."""
    w, one = mp.tensor([[1.0]], requires_grad=True), mp.tensor([[1.0]])
    with mp.autocast("bfloat16", policy="torch-cpu", faithful=True):
        one @ w
        w.array = w.array * 3
        with mp.autocast("float16", policy="torch-cpu"):
            assert ((one @ w).format, (one @ w).item()) == (mp.float16, 3.0)


@pytest.mark.parametrize("low", ["float32", "float64", "float8_e4m3fn", "int8"])
def test_the_warning_is_a_class_of_our_own(low: str) -> None:
    """Oracle: its class, its words, and the line that it blames; a disabled region says nothing."""
    with pytest.warns(FrameworkWarning, match=f"float16 or bfloat16, not in {low}: switched off") as said:
        made = mp.autocast(low, policy="torch-cpu", faithful=True)
    assert said[0].filename == __file__
    with made:
        assert mp.get_autocast_dtype() is mp.formats.get(low)
    mp.autocast(low, enabled=False, policy="torch-cpu", faithful=True)


@pytest.mark.parametrize("low", ["float8_e4m3fn", "int8"])
def test_formats_that_tensors_cannot_have_stay_refused(low: str) -> None:
    """Oracle: the contract of dtype-unchecked; PyTorch computes in them."""
    with pytest.raises(FormatError, match=f"not in {low}"):
        mp.autocast(low, faithful=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"policy": Policy("mine")},
            "faithful: no defect is known of policy 'mine'\n.*minimp.policy.defects",
        ),
        ({"policy": "torch-cpu", "cache": "per-dtype"}, "faithful: PyTorch has no cast cache 'per-dtype'"),
    ],
)
def test_a_setting_that_cannot_act_is_refused(options: dict[str, Any], message: str) -> None:
    """Oracle: type and words of the error."""
    with pytest.raises(SettingError, match=message):
        mp.autocast(faithful=True, **options)


def test_an_exception_empties_the_shared_cache_too() -> None:
    """Oracle: the state before."""
    w = mp.tensor([[1.0]], requires_grad=True)

    def fail() -> None:
        with mp.autocast("bfloat16", policy="torch-cpu", faithful=True):
            w @ w
            assert SHARED
            raise KeyError("on purpose")

    with pytest.raises(KeyError):
        fail()
    assert not SHARED
    assert not mp.is_autocast_enabled()


def test_the_table_prints_within_a_terminal() -> None:
    """Oracle: 100 columns; each name begins a line; an unknown name is refused with the nearest."""
    lines = str(defects).splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split(":")[0] for line in lines if not line.startswith(" ")] == list(defects)
    with pytest.raises(SettingError, match="did you mean 'cache-ignores-format'"):
        defects["cache-ignores-formats"]
