"""Saving and loading modules; oracle: bit equality, and the promise that a failed load changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp import nn
from minimp.errors import DataError, FormatError, SettingError, ShapeError
from tests.arrays import host


def model() -> nn.Module:
    """Return a small model with parameters and a buffer."""
    made = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3, bias=False))
    made.register_buffer("count", mp.tensor([1, 2]))
    return made


def bits(module: nn.Module) -> dict[str, bytes]:
    """Return path -> the bytes of every leaf."""
    return {name: host(leaf).tobytes() for name, leaf in module.state_dict().items()}


def test_a_round_trip_is_exact_and_shares_no_memory() -> None:
    """Oracle: bit equality; afterwards a change of one leaves the other as it was."""
    source, target = model(), model()
    result = target.load_state_dict(source.state_dict())
    assert bits(target) == bits(source)
    assert repr(result) == "<All keys matched successfully>"
    with mp.no_grad():
        mp.nn.init.zeros_(target.get_submodule("3").weight)
    assert bits(target) != bits(source)


def test_a_state_dict_is_a_snapshot() -> None:
    """Oracle: the bytes before a weight was replaced, as an optimizer does."""
    made = model()
    before, state = bits(made), made.state_dict()
    weight = made.get_submodule("3").weight
    weight.array = weight.array + 1
    assert {name: host(leaf).tobytes() for name, leaf in state.items()} == before
    assert not any(leaf.requires_grad for leaf in state.values())


def test_plain_arrays_are_taken_and_rounded_once() -> None:
    """Oracle: minimp.formats.round of the float64 values."""
    made = nn.Linear(1, 1).half()
    value = 1.0 + 2.0**-11 + 2.0**-40  # just above a tie: through float32 it would round down
    made.load_state_dict({"weight": np.array([[value]]), "bias": np.array([2.0])})
    assert made.weight.item() == mp.formats.round(np.array(value), "float16")
    assert made.weight.item() == 1.0 + 2.0**-10
    assert made.weight.format is mp.float16


FAULTS = ("drop", "add", "reshape", "text", "integers")


@given(st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(0, 3)), min_size=1, max_size=4))
def test_a_failed_load_changes_nothing(faults: list[tuple[str, int]]) -> None:
    """Oracle: the bytes of the model before; law: any set of faults raises and leaves them."""
    made, state = model(), dict(model().state_dict())
    names = list(state)
    for kind, at in faults:
        name = names[at % len(names)]
        changes: dict[str, Any] = {
            "add": {f"{name}_extra": np.zeros(1)},
            "reshape": {name: np.zeros((1, 2, 3), np.float32)},
            "text": {name: np.array(["a"])},
            "integers": {name: np.zeros(3, np.int64 if "count" not in name else np.float32)},
        }
        if kind == "drop":
            state.pop(name, None)
        else:
            state.update(changes[kind])
    before = bits(made)
    with pytest.raises((SettingError, ShapeError, FormatError, DataError)):
        made.load_state_dict(state)
    assert bits(made) == before


def test_the_message_lists_what_is_wrong() -> None:
    """Oracle: the message, by hand."""
    made = model()
    state: dict[str, Any] = dict(made.state_dict())
    state["0.wieght"] = state.pop("0.weight")
    state["0.bias"] = np.zeros(5, np.float32)
    with pytest.raises(SettingError) as caught:
        made.load_state_dict(state)
    for part in ("missing keys: 0.weight", "unexpected keys: 0.wieght", "0.bias: expected (2,), got (5,)"):
        assert part in str(caught.value)
    with pytest.raises(ShapeError, match=r"0.bias: expected \(2,\), got \(5,\)"):
        made.load_state_dict(state, strict=False)
    with pytest.raises(FormatError, match="count: expected values of int64, got float32"):
        made.load_state_dict({"count": np.zeros(2, np.float32)}, strict=False)
    with pytest.raises(SettingError, match="expected a mapping"):
        made.load_state_dict([1])  # type: ignore[arg-type]  # the fault under test
    many = {f"k{i}": np.zeros(1) for i in range(20)}
    with pytest.raises(SettingError, match="k7 and 12 more"):
        made.load_state_dict(many)


def test_a_loose_load_takes_what_fits_and_says_what_not() -> None:
    """Oracle: the result's two lists, by hand."""
    made = model()
    result = made.load_state_dict({"0.bias": np.array([1.0, 2.0]), "other": np.zeros(1)}, strict=False)
    assert made.state_dict()["0.bias"].tolist() == [1.0, 2.0]
    assert result.missing_keys == ["count", "0.weight", "3.weight"]
    assert result.unexpected_keys == ["other"]
    assert "unexpected_keys=['other']" in repr(result)
