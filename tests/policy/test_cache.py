"""What becomes of the casts of weights: the four choices, and what each does to gradients."""

from __future__ import annotations

import doctest
import gc
import weakref
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp.errors import SettingError
from minimp.modes import MODES, listen
from minimp.policy import caches, clear_autocast_cache, is_autocast_cache_enabled, region
from minimp.tape import Event

ONE = mp.tensor([[1.0]])
HELD = [name for name, row in caches.items() if row.held]


def weight(value: float = 1.0) -> Any:
    """Return a 1 x 1 float32 weight."""
    return mp.tensor([[value]], requires_grad=True)


def casts_of(program: Any) -> list[str]:
    """Return the formats to which a program casts what requires a gradient, or is a leaf that does."""
    events: list[Event] = []
    with listen(events.append):
        program()
    casts = [event.node for event in events if event.phase == "forward" and event.node.op.name == "cast"]
    return [node.options["format"].name for node in casts if node.inputs[0] is not None]


@pytest.mark.parametrize(("cache", "expected"), [(name, 256.0) for name in HELD] + [("none", 257.0)])
def test_two_uses_of_a_weight_add_up_their_gradients(cache: str, expected: float) -> None:
    """Oracle: bfloat16 has 8 bits of significand: 256 + 1 rounds to 256; float32 holds 257."""
    w = weight()
    with mp.autocast("bfloat16", cache=cache):
        y = mp.tensor([[256.0]]) @ w + ONE @ w
    y.sum().backward()
    assert (w.grad.item(), w.grad.format) == (expected, mp.float32)


@pytest.mark.parametrize(
    ("cache", "expected"), [("torch", 3.0), ("none", 3.0), ("per-dtype", 3.0), ("torch-before-2.13", None)]
)
def test_a_cast_first_made_under_no_grad(cache: str, expected: float | None) -> None:
    """Oracle: pytorch#65766 for the old rule, where the later use has no gradient; else d(3 w)/dw = 3."""
    w, b = weight(2.0), weight(0.0)
    with mp.autocast("bfloat16", cache=cache):
        with mp.no_grad():
            silent = ONE @ w
        y = mp.tensor([[3.0]]) @ w + b
    assert not silent.requires_grad
    y.sum().backward()
    assert b.grad.item() == 1.0
    assert (w.grad and w.grad.item()) == expected


def test_a_gradientless_cast_is_lost_for_its_region_alone() -> None:
    """Oracle: the old rule: the cast dies with the outermost region; a recorded one serves no_grad too."""
    w = weight()
    for _ in range(2):
        with mp.autocast("bfloat16", cache="torch-before-2.13"):
            y = ONE @ w
            with mp.no_grad():
                ONE @ w
            assert (ONE @ w).requires_grad
    with mp.autocast("bfloat16", cache="torch-before-2.13"):
        with mp.no_grad(), mp.autocast("bfloat16", cache="torch-before-2.13"):
            ONE @ w
        assert not (ONE @ w).requires_grad
    assert y.requires_grad


def in_two_formats(cache: str) -> None:
    """Use a weight in float16, inside that in bfloat16, and in float16 again."""
    w = weight()
    with mp.autocast("float16", cache=cache):
        ONE @ w
        with mp.autocast("bfloat16", cache=cache):
            assert (ONE @ w).format is mp.bfloat16
        assert (ONE @ w).format is mp.float16


@pytest.mark.parametrize(
    ("cache", "expected"),
    [
        ("torch", ["float16", "bfloat16", "float16"]),
        ("torch-before-2.13", ["float16", "bfloat16", "float16"]),
        ("none", ["float16", "bfloat16", "float16"]),
        ("per-dtype", ["float16", "bfloat16"]),
    ],
)
def test_a_second_format_takes_the_casts_place_or_stands_beside_it(cache: str, expected: list[str]) -> None:
    """Oracle: the casts that the events show: one entry for each weight, or for each weight and format."""
    assert casts_of(lambda: in_two_formats(cache)) == expected


@pytest.mark.parametrize("cache", HELD)
def test_a_replaced_weight_is_cast_anew(cache: str) -> None:
    """Oracle: the new values; PyTorch 2.13.0 hands out the old cast after a change in place."""
    w = weight()
    with mp.autocast("float16", cache=cache):
        before = (ONE @ w).item()
        w.array = w.array * 3
        assert (before, (ONE @ w).item(), (ONE @ w).item()) == (1.0, 3.0, 3.0)


NESTED = [(outer, inner) for outer in caches for inner in caches]


@pytest.mark.parametrize(("outer", "inner"), NESTED)
def test_a_nested_region_follows_its_own_choice(outer: str, inner: str) -> None:
    """Oracle: by hand: a choice sees the casts of its own kind that the outer regions keep, and no others."""
    w = weight()

    def program() -> None:
        with mp.autocast("bfloat16", cache=outer):
            ONE @ w
            for _ in range(2):
                with mp.autocast("bfloat16", cache=inner):
                    ONE @ w
            ONE @ w

    if outer == inner:
        expected = 4 if outer == "none" else 1
    else:
        expected = (2 if outer == "none" else 1) + (2 if inner == "none" else 1)
    assert len(casts_of(program)) == expected


def test_an_old_cast_without_gradient_does_not_reach_a_region_of_the_new_rule() -> None:
    """Oracle: the contract: two choices never see each other's casts."""
    w = weight(2.0)
    with mp.autocast("bfloat16", cache="torch-before-2.13"):
        with mp.no_grad():
            ONE @ w
        with mp.autocast("bfloat16"):
            y = ONE @ w
        assert not (ONE @ w).requires_grad
    y.sum().backward()
    assert w.grad.item() == 1.0


@pytest.mark.parametrize("cache", HELD)
@pytest.mark.parametrize("outermost", [True, False], ids=["enabled", "disabled"])
def test_casts_die_with_the_outermost_region(cache: str, outermost: bool) -> None:
    """Oracle: a weak reference to the cast's array."""
    w = weight()
    with mp.autocast("bfloat16", outermost, cache=cache):
        with mp.autocast("bfloat16", cache=cache):
            ONE @ w
        held = MODES.get().autocast
        assert held is not None
        (entry,) = held.cache.values()
        cast = weakref.ref(entry[2].array)
        del entry, held
        assert cast() is not None
    gc.collect()
    assert cast() is None


@pytest.mark.parametrize("cache", HELD)
def test_a_second_backward_goes_through_a_kept_cast(cache: str) -> None:
    """Oracle: PyTorch: two forwards and two backwards in one region; 1 + 1."""
    w = weight()
    with mp.autocast("bfloat16", cache=cache):
        for _ in range(2):
            (ONE @ w).sum().backward()
    assert w.grad.item() == 2.0


@given(
    choice=st.sampled_from(list(caches)),
    nested=st.sampled_from([None, *caches]),
    looks=st.lists(st.booleans(), max_size=4),
    values=st.lists(st.sampled_from([1.0, 3.0, 256.0, 0.0078125]), min_size=1, max_size=5),
)
def test_forward_values_do_not_depend_on_the_choice(
    choice: str, nested: str | None, looks: list[bool], values: list[float]
) -> None:
    """Oracle: the law that a cast is a cast: every choice gives the bits of cache="none"."""

    def run(outer: str, inner: str | None) -> list[float]:
        w = weight(1.0 + 2.0**-7)
        found = []
        with mp.autocast("bfloat16", cache=outer):
            for i, value in enumerate(values):
                quiet = mp.no_grad() if i < len(looks) and looks[i] else nullcontext()
                within = mp.autocast("float16", cache=inner) if inner and i % 2 else nullcontext()
                with quiet, within:
                    found.append((mp.tensor([[value]]) @ w).item())
        return found

    assert run(choice, nested) == run("none", nested and "none")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "torch"), ({"cache_enabled": True}, "torch"), ({"cache_enabled": False}, "none"),
        ({"cache_enabled": False, "cache": "none"}, "none"), ({"cache": "none"}, "none"),
        ({"cache": "per-dtype"}, "per-dtype"), ({"cache_enabled": None}, "torch"),
        ({"cache_enabled": None, "cache": "none"}, "none"),
    ],
)  # fmt: skip
def test_two_ways_of_saying_it(options: dict[str, Any], name: str) -> None:
    """Oracle: the contract: cache_enabled is torch's switch, cache the finer one."""
    made = mp.autocast(**options)
    assert (made.casts, made.cache_enabled) == (caches[name], name != "none")
    with made:
        assert is_autocast_cache_enabled() is (name != "none")
    assert is_autocast_cache_enabled()


@pytest.mark.parametrize("cache", HELD)
def test_contradictory_and_unknown_choices_are_refused(cache: str) -> None:
    """Oracle: type and words of the error; the nearest name is offered."""
    with pytest.raises(SettingError, match=f"cache_enabled=False and cache='{cache}' contradict each other"):
        mp.autocast(cache_enabled=False, cache=cache)
    with pytest.raises(SettingError, match=f"unknown cast cache '{cache}s'; did you mean '{cache}'"):
        mp.autocast(cache=f"{cache}s")


def test_the_switch_takes_the_outer_choice_where_none_is_given() -> None:
    """Oracle: PyTorch's cache_enabled=None: what is in force where the object is made."""
    with mp.autocast(cache="per-dtype"):
        assert mp.autocast(cache_enabled=None).casts is caches["per-dtype"]
        assert mp.autocast().casts is caches["torch"]


def test_the_cache_can_be_emptied() -> None:
    """Oracle: torch.clear_autocast_cache: the next use casts anew; outside a region nothing happens."""
    w = weight()
    clear_autocast_cache()
    with mp.autocast("bfloat16"):
        y = mp.tensor([[256.0]]) @ w
        clear_autocast_cache()
        y = y + ONE @ w
    y.sum().backward()
    assert w.grad.item() == 257.0


def test_the_choices_print_within_a_terminal() -> None:
    """Oracle: 100 columns; every name begins a line."""
    lines = str(caches).splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split(" (")[0] for line in lines if not line.startswith(" ")] == list(caches)


def test_the_examples_of_the_docstring() -> None:
    """Oracle: the examples themselves."""
    ran = doctest.testmod(region, extraglobs={"mp": mp})
    assert ran.attempted >= 4
    assert not ran.failed


@pytest.mark.parametrize(("outer", "inner"), NESTED)
@pytest.mark.parametrize("low", ["float16", "bfloat16"])
def test_a_part_that_runs_again_finds_the_casts_that_it_found(outer: str, inner: str, low: str) -> None:
    """Oracle: the same program without `recompute`: the same bits, whichever casts were kept before it."""

    def gradients(looks: int, run: Any) -> list[float | None]:
        w, x = weight(1.5), weight(256.0)

        def part(x: Any) -> Any:
            with mp.autocast(low, cache=inner):
                y = x @ w
            return y + x @ w

        with mp.autocast("bfloat16", cache=outer):
            if looks:
                with mp.no_grad():
                    x @ w
            if looks > 1:
                with mp.autocast(low, cache=inner):
                    x @ w
            y = run(part, x) + ONE @ w + x
        y.sum().backward()
        return [w.grad and w.grad.item(), x.grad and x.grad.item()]

    for looks in range(3):
        assert gradients(looks, mp.recompute) == gradients(looks, lambda part, x: part(x))
