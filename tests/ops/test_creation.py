"""Tensors made of a shape and a rule; oracle: torch 2.13.0, and statistics where numbers are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp.errors import SettingError
from minimp.functional import creation as make
from tests.arrays import host
from tests.tolerances import assert_close

CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "zeros": ((2, 3), {}),
    "ones": (((2, 3),), {"dtype": "float16"}),
    "full": (((2,), 0.1), {"dtype": "bfloat16"}),
    "eye": ((3, 4), {}),
    "arange": ((1, 2.5, 0.5), {}),
    "linspace": ((-1, 1, 5), {"dtype": "float64"}),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", list(CALLS))
def test_constants_are_torchs(name: str) -> None:
    """Oracle: torch's function of that name: values, shape and format."""
    torch = pytest.importorskip("torch")
    args, options = CALLS[name]
    mine = getattr(make, name)(*args, **options)
    theirs = getattr(torch, name)(*args, **{k: getattr(torch, v) for k, v in options.items()})
    np.testing.assert_array_equal(host(mine).astype(np.float64), theirs.double().numpy())
    assert mine.dtype.name == str(theirs.dtype).removeprefix("torch.")


def test_whole_numbers_stay_whole() -> None:
    """Oracle: torch's documented dtypes: int64, and bool."""
    assert make.arange(5).tolist() == [0, 1, 2, 3, 4]
    assert make.arange(5).dtype == np.int64
    assert make.full((2,), 3).dtype == np.int64
    assert make.full((2,), True).dtype == np.bool_
    assert make.zeros_like(np.array([True, False])).dtype == np.bool_


def test_likes_take_shape_format_and_no_more() -> None:
    """Oracle: the docstrings."""
    x = mp.tensor(np.ones((2, 3)), dtype="bfloat16", requires_grad=True)
    for made in (
        make.zeros_like(x),
        make.ones_like(x),
        make.full_like(x, 2),
        make.rand_like(x),
        make.randn_like(x),
    ):
        assert (made.shape, made.format, made.requires_grad) == ((2, 3), mp.bfloat16, False)
    assert make.ones_like(x, dtype="float64", requires_grad=True).format is mp.float64


@pytest.mark.parametrize("fmt", ["float64", "float32", "float16", "bfloat16"])
def test_uniform_numbers_lie_below_one_on_the_grid(fmt: str) -> None:
    """Oracle: multiples of 2^-p in [0, 1); mean 1/2 to six deviations; one seed, one sequence."""
    mp.manual_seed(5)
    drawn = host(make.rand(200, 100, dtype=fmt)).astype(np.float64)
    p = mp.formats.get(fmt).mantissa_bits + 1
    assert drawn.min() >= 0
    assert drawn.max() < 1
    np.testing.assert_array_equal(drawn, np.floor(drawn * 2.0**p) * 2.0**-p)
    expected = 0.5 - 2.0**-p / 2
    assert_close((drawn.mean() - expected) * np.sqrt(12 * drawn.size), 0.0, "six_deviations")
    mp.manual_seed(5)
    np.testing.assert_array_equal(host(make.rand((200, 100), dtype=fmt)).astype(np.float64), drawn)


def test_normal_numbers_are_normal() -> None:
    """Oracle: mean 0 and mean square 1, to six deviations."""
    mp.manual_seed(6)
    drawn = host(make.randn(40000))
    assert drawn.dtype == np.float32
    assert_close(drawn.mean(dtype=np.float64) * 200, 0.0, "six_deviations")
    assert_close((np.square(drawn, dtype=np.float64).mean() - 1) * 200 / np.sqrt(2), 0.0, "six_deviations")


def test_what_has_no_shape_is_refused() -> None:
    """Oracle: the messages."""
    with pytest.raises(SettingError, match="a shape of whole numbers"):
        make.zeros(-1)
    with pytest.raises(SettingError, match="cannot go from 0 to 3 in steps of -1"):
        make.arange(0, 3, -1)


def test_methods_that_change_a_tensor_are_not_there() -> None:
    """Oracle: hasattr; and the advice, where one is looked up."""
    x = mp.tensor([1.0])
    assert not hasattr(x, "add_")
    with pytest.raises(
        SettingError, match=r"no add_: arrays are never changed in place.*\n  help: write x = x.add"
    ):
        x.add_(1.0)
    with pytest.raises(AttributeError, match="make a new tensor"):
        x.zero_()
    before = x
    x += 1.0
    assert (before.item(), x.item()) == (1.0, 2.0)
