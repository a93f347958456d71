"""How inputs lie in memory changes nothing: transposed, strided, reversed, repeated, read-only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minimp as mp
from minimp.backend import default_backend
from minimp.checks import check_events
from minimp.modes import listen
from minimp.ops import OPS
from minimp.tape import Event
from minimp.tensors import Tensor
from tests.arrays import host
from tests.ops.samples import SAMPLES, Sample, leaves, numbers
from tests.tolerances import assert_close

Array = np.ndarray[Any, Any]
FLOATS = ("float64", "float32", "float16", "bfloat16")
NARROW = ("float16", "bfloat16")


def _read_only(a: Array) -> Array:
    a = a.copy()
    default_backend().freeze((a,))
    return a


def _reversed(a: Array) -> Array:
    turn = (slice(None, None, -1),) * a.ndim
    return a[turn].copy()[turn]


def _first_axis_last(a: Array) -> Array:
    xp = default_backend().xp
    return xp.moveaxis(xp.moveaxis(a, 0, -1).copy(), -1, 0) if a.ndim else a


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "contiguous": lambda a: a,
    "transposed": lambda a: a.T.copy().T,
    "first axis last": _first_axis_last,
    "strided": lambda a: default_backend().xp.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
    "reversed": _reversed,
    "part of another": lambda a: default_backend().xp.pad(a, 1)[(slice(1, -1),) * a.ndim],
    "read-only": _read_only,
}
"""From a contiguous array to one with the same elements that lies otherwise."""
STRETCHES: dict[str, Callable[[Array], Array]] = {
    "one row": lambda a: default_backend().xp.broadcast_to(a[:1], a.shape) if a.ndim else a,
    "one column": lambda a: default_backend().xp.broadcast_to(a[..., :1], a.shape) if a.ndim else a,
    "one number": lambda a: (
        default_backend().xp.broadcast_to(a.reshape(-1)[:1].reshape(()), a.shape) if a.size else a
    ),
}
"""From an array to one of its shape whose elements are repeated by strides of 0."""


def _run(sample: Sample, arrays: Sequence[Array]) -> tuple[list[Array], list[Event]]:
    """Return [result, gradients...] of tensors that are these arrays, and the events on the way."""
    events: list[Event] = []
    backend = mp.tensor(0.0).backend
    inputs = [Tensor(a, backend) for a in arrays]
    for x in inputs:
        x.requires_grad_()
    mp.manual_seed(4)
    with listen(events.append):
        y = sample.call(*inputs)
        if y.requires_grad:
            grad = numbers(np.random.default_rng(9), y.shape, y.format.name)
            y.backward(mp.tensor(grad, dtype=y.format))
    grads = [x.grad.array for x in inputs if x.grad is not None]
    return [host(a) for a in (y.array, *grads)], events


def _given(sample: Sample, fmt: str) -> list[Array]:
    return [x.array for x in leaves(sample, fmt, "normal", np.random.default_rng(6), requires_grad=False)]


def _compare(sample: Sample, fmt: str, found: list[Array], wanted: list[Array]) -> None:
    assert [(a.shape, a.dtype) for a in found] == [(a.shape, a.dtype) for a in wanted]
    for got, expected in zip(found, wanted, strict=True):
        if fmt in NARROW or OPS[sample.op].bound == "exact":
            np.testing.assert_array_equal(got.astype(np.float64), expected.astype(np.float64))
        else:
            row = "layout_fp64" if fmt == "float64" else "layout_fp32"
            assert_close(got.astype(np.float64), expected.astype(np.float64), row)


@pytest.mark.parametrize("fmt", FLOATS[1:])
@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_every_layout_gives_the_same(sample: Sample, fmt: str) -> None:
    """Oracle: contiguous copies: the same bits in 16 bits and where nothing is rounded, else last places."""
    arrays = _given(sample, fmt)
    wanted, _ = _run(sample, arrays)
    for name, lay in LAYOUTS.items():
        laid = [lay(a) for a in arrays]
        found, _ = _run(sample, laid)
        for a, b in zip(arrays, laid, strict=True):
            np.testing.assert_array_equal(host(a), host(b), err_msg=f"{name}: the input was written to")
        _compare(sample, fmt, found, wanted)


@given(st.sampled_from(SAMPLES), st.sampled_from(FLOATS), st.data())
@settings(max_examples=150)
def test_every_op_keeps_its_contract_on_mixed_layouts(sample: Sample, fmt: str, data: st.DataObject) -> None:
    """Oracle: float64 references and bounds, each input laid and stretched in its own way."""
    way = st.sampled_from([*LAYOUTS.values(), *STRETCHES.values()])
    arrays = [data.draw(way)(a) for a in _given(sample, fmt)]
    _, events = _run(sample, arrays)
    found = check_events(events)
    assert found, str(found)


SCALARS = [sample for sample in SAMPLES if () in sample.shapes]


@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("sample", SCALARS, ids=str)
def test_one_element_is_handed_out_as_an_array(sample: Sample, fmt: str) -> None:
    """Oracle: numpy() of a result and of gradients without axes: an ndarray that can be written to."""
    inputs = leaves(sample, fmt, "positive", np.random.default_rng(0))
    y = sample.call(*inputs)
    if y.requires_grad:
        y.backward(np.ones(y.shape))
    for x in (y.detach(), *(x.grad for x in inputs if x.grad is not None)):
        found = x.numpy()
        assert isinstance(found, np.ndarray)
        assert found.flags.writeable
