"""The choice of casts: every route returns the same bits, and a choice ends where its block ends."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

from minimp.errors import DeviceError, SettingError
from minimp_backends.casts import ROUTES, casts, use_casts
from tests.backends.cast_samples import (
    BFLOAT16,
    assert_same_values,
    bfloat16_boundaries,
    float16_boundaries,
)


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_returns_the_same_bits(route: str) -> None:
    """Oracle: the reference route, through the record of functions that the backend uses."""
    if route == "numkong":
        pytest.importorskip("numkong")
    for kind, dtype, wide in (
        ("float16", np.dtype(np.float16), float16_boundaries()),
        ("bfloat16", BFLOAT16, bfloat16_boundaries()),
    ):
        results = []
        for name in ("reference", route):
            low, grid, back = np.empty(wide.shape, dtype), np.empty_like(wide), np.empty_like(wide)
            once = np.empty(wide.shape, dtype)
            with use_casts(name) as chosen:
                assert casts() is chosen
                assert chosen.name == name
                getattr(casts(), f"narrow_{kind}")(wide, low, grid)
                getattr(casts(), f"widen_{kind}")(low, back)
                casts().narrow_from_float64(wide.astype(np.float64), once, kind)
            results.append((low, grid, back, once))
        for actual, expected in zip(results[1], results[0], strict=True):
            assert_same_values(actual, expected, wide)
    results_16 = []
    for name in ("reference", route):
        out = np.empty_like(float16_boundaries())
        with use_casts(name):
            casts().round_to_float16_grid(float16_boundaries(), out)
        results_16.append(out)
    assert_same_values(results_16[1], results_16[0], float16_boundaries())


def test_a_choice_is_scoped() -> None:
    """Blocks nest; another thread does not see the choice; the record cannot be written to."""
    default = casts()
    with use_casts("reference") as outer:
        with use_casts("blocks") as inner:
            assert casts() is inner
            elsewhere: list[object] = []
            thread = threading.Thread(target=lambda: elsewhere.append(casts()))
            thread.start()
            thread.join()
            assert elsewhere == [default]
        assert casts() is outer
    assert casts() is default
    with pytest.raises(dataclasses.FrozenInstanceError):
        default.name = "other"  # type: ignore[misc]


def test_a_choice_ends_with_an_exception() -> None:
    """The block puts the old choice back whatever happens inside."""
    default = casts()
    with pytest.raises(ZeroDivisionError), use_casts("reference"):
        raise ZeroDivisionError
    assert casts() is default


def test_unknown_route_is_refused() -> None:
    """The nearest name is offered, and nothing is changed."""
    default = casts()
    with pytest.raises(SettingError, match="did you mean 'blocks'"):
        use_casts("block")
    assert casts() is default


def test_absent_accelerator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for numkong where it is missing raises; it never falls back in silence."""
    monkeypatch.setitem(__import__("sys").modules, "numkong", None)
    ROUTES["numkong"].cache_clear()  # type: ignore[attr-defined]
    with pytest.raises(DeviceError, match="not installed"):
        use_casts("numkong")
