"""Delta debugging; oracle: every subset, tried one by one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.bisecting.delta import ddmin, smaller, thin

Part = tuple[int, ...]


def subsets(items: Part) -> list[Part]:
    """Every subset, the smaller ones first."""
    return list(chain.from_iterable(combinations(items, size) for size in range(len(items) + 1)))


def counting(test: Callable[[Part], bool]) -> tuple[Callable[[Part], bool], list[Part]]:
    """The test, and what it was asked, once each."""
    asked: dict[Part, bool] = {}

    def ask(part: Part) -> bool:
        if part not in asked:
            asked[part] = test(part)
        return asked[part]

    return ask, asked  # type: ignore[return-value]  # a dict is as good as its keys here


families = st.integers(1, 7).flatmap(
    lambda n: st.tuples(
        st.just(n), st.lists(st.frozensets(st.integers(0, n - 1), min_size=1), min_size=1, max_size=4)
    )
)


@given(families)
def test_where_more_never_spoils_the_part_found_is_a_least_one(
    made: tuple[int, list[frozenset[int]]],
) -> None:
    """Oracle: brute force: passing sets of which no proper subset passes."""
    n, causes = made
    items = tuple(range(n))

    def test(part: Part) -> bool:
        return any(cause <= {*part} for cause in causes)

    passing = [{*part} for part in subsets(items) if test(part)]
    least = [part for part in passing if not any(other < part for other in passing)]
    assert {*ddmin(items, test)} in least
    assert {*thin(items, test)} in least
    found, whole = smaller(items, ddmin(items, test), test, most=10**6)
    assert whole
    assert len(found) == min(map(len, least))


@given(st.integers(2, 6).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(1, 2**n - 2)))))
def test_any_test_at_all_gives_a_one_minimal_part(made: tuple[int, set[int]]) -> None:
    """Oracle: the definition: it passes, and fails without any one element; of all tests, monotone or not."""
    n, lucky = made
    items = tuple(range(n))

    def test(part: Part) -> bool:
        return part == items or sum(2**i for i in part) in lucky

    for search in (ddmin, thin):
        ask, asked = counting(test)
        found = search(items, ask)
        assert test(found)
        assert len(found) == 1 or not any(test(tuple(x for x in found if x is not each)) for each in found)
        assert len(asked) <= n * n + 3 * n


def test_one_of_many_is_found_by_halving() -> None:
    """Oracle: 2 log2(256) = 16 tests at most."""
    for culprit in (0, 100, 255):
        for search in (ddmin, thin):
            ask, asked = counting(lambda part, culprit=culprit: culprit in part)
            assert search(tuple(range(256)), ask) == (culprit,)
            assert len(asked) <= 16


def test_many_that_are_needed_are_found_in_few_tests() -> None:
    """Oracle: 2 k tests for k elements that are all needed; twice that if every third is."""
    everything = tuple(range(64))
    ask, asked = counting(lambda part: part == everything)
    assert thin(everything, ask) == everything
    assert len(asked) <= 128
    ask, asked = counting(lambda part: {*range(0, 64, 3)} <= {*part})
    assert thin(everything, ask) == everything[::3]
    assert len(asked) <= 256


def test_the_paper_s_example() -> None:
    """Oracle: Zeller and Hildebrandt 2002, section 3: of 1 to 8, it takes 1, 7 and 8 together."""
    assert ddmin((1, 2, 3, 4, 5, 6, 7, 8), lambda part: {1, 7, 8} <= {*part}) == (1, 7, 8)


@pytest.mark.parametrize(("most", "whole"), [(3, False), (4, False), (9, False), (10, True)])
def test_a_size_that_is_too_dear_is_not_begun(most: int, whole: bool) -> None:
    """Oracle: counted by hand: of 4 elements 4 single ones and 6 pairs."""
    ask, asked = counting(lambda part: len(part) >= 3)
    assert smaller((1, 2, 3, 4), (1, 2, 3), ask, most) == ((1, 2, 3), whole)
    assert len(asked) == {3: 0, 4: 4, 9: 4, 10: 10}[most]
