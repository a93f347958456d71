"""Laws of ranges, codes and observers, whatever the numbers; oracle: the laws."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minimp.quant import RULES, Affine, choose, dequantize, fake_quantize, quantize
from minimp.quant.observers import (
    EntropyObserver,
    MinMaxObserver,
    Observer,
    PercentileObserver,
    PerChannelMinMaxObserver,
)
from tests.quant.test_rules import allowed
from tests.tolerances import assert_close

Floats = npt.NDArray[np.float32]
RANGES = [(-128, 127), (-127, 127), (-64, 63), (0, 255), (0, 127), (-8, 7), (0, 15), (-1, 1), (0, 3)]
NUMBERS = st.one_of(st.floats(-(2.0**60), 2.0**60, width=32), st.floats(-2, 2, width=32))
EXACT: list[Callable[..., Observer]] = [
    MinMaxObserver, PerChannelMinMaxObserver, PercentileObserver, partial(EntropyObserver, bins=512),
]  # fmt: skip
"""Observers whose merging is exact."""


@given(
    st.sampled_from(sorted(RULES)), hnp.arrays(np.float32, st.integers(1, 40), elements=NUMBERS),
    st.sampled_from(RANGES), st.booleans(), st.booleans(),
)  # fmt: skip
def test_nothing_within_its_own_range_loses_more_than_half_a_step(
    rule: str, x: Floats, codes: tuple[int, int], symmetric: bool, faked: bool
) -> None:
    """Law: |x - s (q - z)| <= s / 2 for all x of the range that s and z were chosen for, at its ends too: the
    zero point is off by half a step at most. Slack: 255 steps of a scale rounded to float32, and z's sum."""
    if not allowed(rule, symmetric, codes):
        return
    ends: dict[str, Any] = {"quant_min": codes[0], "quant_max": codes[1], "symmetric": symmetric}
    affine = choose(x.min(), x.max(), rule=rule, **ends)
    made = fake_quantize(x, affine) if faked else dequantize(quantize(x, affine), affine)
    step = float(affine.scale)
    assert np.abs(x.astype(np.float64) - made).max() <= step * (0.5 + 2.0**-12)


@given(st.sampled_from(sorted(RULES)), st.floats(2.0**-20, 2.0**20, width=32), st.integers(-128, 127),
       hnp.arrays(np.float32, st.integers(1, 40), elements=NUMBERS))  # fmt: skip
def test_faked_codes_are_monotone_and_next_to_the_others(
    rule: str, scale: float, zero: int, x: Floats
) -> None:
    """Law: fake_quantize rises with x, gives 0 for 0, and is a code of quantize's or the one beside it."""
    affine = Affine(np.float32(scale), np.int32(zero), rule=rule)  # type: ignore[arg-type]  # scalars will do
    x = np.sort(x)
    made = fake_quantize(x, affine)
    assert (np.diff(made) >= 0).all()
    assert fake_quantize(np.zeros(1, np.float32), affine)[0] == 0
    codes = np.rint(made.astype(np.float64) / float(affine.scale)).astype(int) + zero
    assert np.abs(codes - quantize(x, affine)).max() <= 1


# ---- layouts -----------------------------------------------------------------------------------------------


@st.composite
def views(draw: st.DrawFn) -> tuple[Any, int | None]:
    """Draw an array that lies in memory in any order, with gaps or none, 0-d and empty too; and an axis."""
    shape = draw(st.lists(st.sampled_from([0, 1, 2, 3, 70]), max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps = [draw(st.sampled_from([1, 2, -1, -2])) for _ in shape]
    room = rng.normal(size=[n * abs(step) for n, step in zip(shape, steps, strict=True)]).astype(np.float32)
    view = room[tuple(slice(None, None, step) for step in steps)]
    view = view.transpose(draw(st.permutations(range(len(shape)))))
    axes = [i for i, n in enumerate(view.shape) if n]
    return view, draw(st.sampled_from([None, *axes]))


@given(views(), st.sampled_from(sorted(RULES)), st.booleans())
def test_memory_does_not_show(case: tuple[Any, int | None], rule: str, shifted: bool) -> None:
    """Law: a view gives what a copy of it gives, in an array of its shape; and it stays as it was."""
    x, axis = case
    count = () if axis is None else (x.shape[axis],)
    scale = np.linspace(0.01, 0.02, int(np.prod(count)), dtype=np.float32).reshape(count)
    zero = np.full(count, 5 if shifted else 0, np.int32)
    affine = Affine(scale, zero, axis=axis, rule=rule)
    before, plain = x.tobytes(), np.ascontiguousarray(x).reshape(x.shape)
    codes = quantize(x, affine)
    spread = np.repeat(codes, 2, axis=-1)[..., ::2] if codes.ndim else codes
    for found, expected in (
        (codes, quantize(plain, affine)),
        (fake_quantize(x, affine), fake_quantize(plain, affine)),
        (dequantize(spread, affine), dequantize(codes, affine)),
        (dequantize(codes.T, _turned(affine, codes.ndim)), dequantize(codes, affine).T),
    ):
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        assert found.tobytes() == expected.tobytes()
        assert found.flags.c_contiguous
    assert x.tobytes() == before
    assert codes.shape == x.shape


def _turned(affine: Affine, ndim: int) -> Affine:
    """Return the same numbers for an array whose axes are in reverse order."""
    if affine.axis is None:
        return affine
    return Affine(affine.scale, affine.zero_point, axis=ndim - 1 - affine.axis % ndim, rule=affine.rule)


# ---- observers ---------------------------------------------------------------------------------------------


ARRAYS = hnp.arrays(
    np.float32, st.tuples(st.just(2), st.integers(1, 20)),
    elements=st.one_of(st.floats(-(2.0**40), 2.0**40, width=32), st.sampled_from([0.0, 1.0, -1.0])),
)  # fmt: skip


@pytest.mark.parametrize("kind", EXACT)
@given(data=st.data(), parts=st.lists(ARRAYS, min_size=1, max_size=6), workers=st.integers(1, 4))
def test_workers_in_any_order_are_one_observer(
    kind: Callable[..., Observer], data: st.DataObject, parts: list[Floats], workers: int
) -> None:
    """Law: batches dealt out to any workers, who are merged in any order, one with nothing to say among them,
    leave what one observer of all batches holds; squares are added in another order."""
    one = _seen(kind, parts)
    dealt: list[list[Floats]] = [[] for _ in range(workers)]
    for part in data.draw(st.permutations(parts)):
        dealt[data.draw(st.integers(0, workers - 1))].append(part)
    first, *others = (_seen(kind, some) for some in data.draw(st.permutations(dealt)))
    for other in others:
        first.merge(other)
    mine, its = first.state_dict(), one.state_dict()
    assert_close(mine.pop("counts.signal"), its.pop("counts.signal"), "fp64_same_maths")
    assert mine.keys() == its.keys()
    assert all(np.array_equal(mine[name], its[name]) for name in mine)
    assert first.affine() == one.affine()


def _seen(kind: Callable[..., Observer], parts: list[Floats]) -> Observer:
    made = kind()
    for part in parts:
        made.observe(part)
    return made
