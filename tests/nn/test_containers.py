"""Containers; oracle: Python's list and dict, torch's renaming rules by hand, and torch where it is there."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.errors import DataError, GradientError, SettingError


def names(module: nn.Module) -> list[str]:
    """Return the names of the children."""
    return list(module._modules)


def test_rows_add_and_take_out_like_lists() -> None:
    """Oracle: the same on Python lists."""
    a, b, c = nn.ReLU(), nn.Tanh(), nn.Sigmoid()
    row = nn.ModuleList([a]) + nn.ModuleList([b, c])
    assert list(row) == [a, b, c]
    assert row.pop(1) is b
    assert list(row) == [a, c]
    row += nn.ModuleList([b])
    assert list(row) == [a, c, b]
    assert names(row) == ["0", "1", "2"]
    joined = nn.Sequential(a, b) + nn.Sequential(c)
    assert isinstance(joined, nn.Sequential)
    assert list(joined) == [a, b, c]
    assert joined.insert(1, c) is joined
    assert list(joined) == [a, c, b, c]
    assert "0" not in dir(joined)


def test_a_sequence_times_a_number_repeats_the_same_modules() -> None:
    """Oracle: list * n; the weights are tied, as in torch."""
    layer = nn.Linear(2, 2)
    row = nn.Sequential(layer, nn.ReLU()) * 3
    assert len(row) == 6
    assert row[4] is layer
    assert len(list(row.parameters())) == 2
    assert len(2 * nn.Sequential(layer)) == 2
    row = nn.Sequential(layer)
    row *= 2
    assert [each is layer for each in row] == [True, True]
    for times in (0, True, 1.5):
        with pytest.raises(SettingError, match="whole number of at least 1"):
            _ = row * times  # type: ignore[operator]  # the fault under test


def test_parameter_lists_behave_like_lists() -> None:
    """Oracle: Python's list; arrays become parameters."""
    p = nn.Parameter([1.0])
    row = nn.ParameterList([p, np.ones(2, np.float32)])
    assert row[0] is p
    assert isinstance(row[-1], nn.Parameter)
    row.append(mp.tensor([3.0]))
    row += [p]
    assert [name for name, _ in row.named_parameters(remove_duplicate=False)] == ["0", "1", "2", "3"]
    assert len(row[1:3]) == 2
    row[1] = [7.0]
    assert row[1].tolist() == [7.0]
    assert len(list(row)) == len(row) == 4
    with pytest.raises(IndexError, match="has 4 parameters, there is none at 4"):
        _ = row[4]
    with pytest.raises(SettingError, match="use append"):
        row.extend(p)
    with pytest.raises(GradientError, match="must be a leaf"):
        row.append(p * 2.0)
    with pytest.raises(DataError):
        row.append(["text"])
    made = copy.deepcopy(row)
    assert made[3] is made[0]
    assert made[0] is not p
    assert row.half()[2].format is mp.float16


def test_parameter_dicts_behave_like_dicts() -> None:
    """Oracle: Python's dict."""
    held = nn.ParameterDict({"w": [1.0, 2.0]})
    held["b"] = nn.Parameter([0.0])
    assert list(held) == ["w", "b"]
    assert list(reversed(held)) == ["b", "w"]
    assert held.get("c") is None
    assert held.setdefault("c", [4.0]).tolist() == [4.0]
    other = held.copy()
    assert other["w"] is held["w"]
    assert held.pop("c").tolist() == [4.0]
    assert "c" not in held
    assert list((held | {"d": [1.0]}).keys()) == ["w", "b", "d"]
    held |= {"e": [2.0]}
    assert list(held.state_dict()) == ["w", "b", "e"]
    assert [name for name, _ in held.items()] == ["w", "b", "e"]
    with pytest.raises(KeyError, match="did you mean 'w'"):
        _ = held["ww"]
    with pytest.raises(SettingError, match="taken by another attribute"):
        held["items"] = [1.0]
    held.clear()
    assert len(held) == len(list(held.values())) == 0


@pytest.mark.torch
@pytest.mark.parametrize("count", [0, 1, 2])
def test_they_are_shown_as_torch_shows_them(count: int) -> None:
    """Oracle: torch's repr, with our names of formats, and its keys."""
    torch = pytest.importorskip("torch", reason="needs torch==2.13.0")

    def both(kind: str, values: Any) -> tuple[Any, Any]:
        left = [nn.Parameter(np.zeros(s, np.float32)) for s in values]
        right = [torch.nn.Parameter(torch.zeros(s)) for s in values]
        if kind == "ParameterList":
            return nn.ParameterList(left), torch.nn.ParameterList(right)
        keys = "ab"[: len(values)]
        return (
            nn.ParameterDict(dict(zip(keys, left, strict=True))),
            torch.nn.ParameterDict(dict(zip(keys, right, strict=True))),
        )

    def plain(module: Any) -> str:
        return repr(module).replace("torch.", "").replace("FloatTensor", "float32")

    for kind in ("ParameterList", "ParameterDict"):
        ours, theirs = both(kind, [(2, 3), (4,)][:count])
        assert repr(ours) == plain(theirs)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        holder, torch_holder = nn.Sequential(ours), torch.nn.Sequential(theirs)
        assert repr(holder) == plain(torch_holder)
