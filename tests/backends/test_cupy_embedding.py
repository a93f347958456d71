"""The gradient of an embedding's table by a kernel of ours, beside the array functions that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import formats, functional
from minimp.errors import DataError
from minimp_backends.strict.counts import DEVICE
from tests.tolerances import assert_bound, assert_close, dot_bound

Array = np.ndarray[Any, Any]
STORED = {"float32": "float", "float16": "half", "bfloat16": "bfloat16"}
ROWS, WIDTH = 11, 5


def numbers(shape: tuple[int, ...], name: str, seed: int = 0) -> Array:
    """Return numbers of many magnitudes."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * 2.0 ** rng.uniform(-4, 4, shape)).astype(formats.get(name).dtype)


def gradient(index: Array, grad: Array, backend: str = "cupy", **options: Any) -> Array:
    """Return the gradient of a table of ROWS rows."""
    name = formats.get(grad.dtype).name
    table = mp.tensor(numbers((ROWS, grad.shape[-1]), name), requires_grad=True, dtype=name, backend=backend)
    found = functional.embedding(mp.tensor(index, backend=backend), table, **options)
    found.backward(mp.tensor(grad, dtype=name, backend=backend))
    made: Array = table.grad.numpy()
    return made


def exactly(index: Array, grad: Array, left_out: int | None = None, *, shared: bool = False) -> Any:
    """Return the sums in float64, those of magnitudes, and the largest number of rows that meet."""
    places, rows = index.reshape(-1), grad.astype(np.float64).reshape(index.size, -1)
    totals, sizes, counts = np.zeros((ROWS, rows.shape[1])), np.zeros((ROWS, rows.shape[1])), np.zeros(ROWS)
    for place, row in zip(places, rows, strict=True):
        counts[place] += 1
        if place != left_out:
            totals[place] += row
            sizes[place] += abs(row)
    by = np.maximum(counts, 1)[:, None] if shared else 1
    return totals / by, sizes / by, int(counts.max(initial=1))


OPTIONS: dict[str, tuple[dict[str, Any], int | None]] = {
    "plain": ({}, None),
    "padding": ({"padding_idx": 3}, 3),
    "padding from the end": ({"padding_idx": -1}, ROWS - 1),
    "by frequency": ({"scale_grad_by_freq": True}, None),
    "both": ({"scale_grad_by_freq": True, "padding_idx": 0}, 0),
}


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("options", OPTIONS)
def test_sums_keep_their_bound(device: Any, options: str, stored: str) -> None:
    """Oracle: float64 sums, and the bound of float32 ones that are rounded once; the kernel ran."""
    rng, (given, left_out) = np.random.default_rng(4), OPTIONS[options]
    for dtype, shape in ((np.int64, (6, 9)), (np.int32, (400,)), (np.uint8, (2,)), (np.int64, ())):
        index = rng.integers(0, ROWS, shape).astype(dtype)
        grad = numbers((*shape, WIDTH), stored, 1)
        device.ran.clear()
        made = gradient(index, grad, **given)
        single = stored if "scale_grad_by_freq" not in given else "float32"
        assert f"sum_segments_{STORED[single]}" in device.ran
        wanted, sizes, meeting = exactly(index, grad, left_out, shared="scale_grad_by_freq" in given)
        bound = dot_bound(wanted, sizes, meeting + 1, "float32", stored)
        assert_bound(made, wanted, bound, "dot_product")


@pytest.mark.parametrize("stored", STORED)
def test_few_rows_have_the_bits_of_the_cpu(device: Any, stored: str) -> None:
    """Oracle: the numpy backend, which adds fewer than 8 rows a place in the order of the rows, too."""
    index = np.random.default_rng(5).integers(0, ROWS, (4, 7))
    grad = numbers((4, 7, WIDTH), stored, 2)
    grad[0, 0] = [np.nan, np.inf, -np.inf, -0.0, 0]
    for options, _ in OPTIONS.values():
        made, wanted = (gradient(index, grad, backend, **options) for backend in ("cupy", "numpy"))
        np.testing.assert_array_equal(made.astype(np.float64), wanted.astype(np.float64), strict=True)
    assert device.ran


def test_nan_that_goes_to_the_padding_is_dropped(device: Any) -> None:
    """Oracle: zeros in the padding's row, and no NaN anywhere."""
    index, grad = np.array([2, 3, 2]), numbers((3, WIDTH), "float16", 3)
    grad[[0, 2]] = np.nan
    made = gradient(index, grad, padding_idx=2)
    assert not made[2].any()
    np.testing.assert_array_equal(made[3], grad[1])
    assert "sum_segments_half" in device.ran


def test_nothing_looked_up_and_no_columns(device: Any) -> None:
    """Oracle: zeros of the table's shape, from the array functions."""
    for index, width in ((np.zeros(0, np.int64), 4), (np.zeros(3, np.int64), 0)):
        made = gradient(index, np.zeros((len(index), width), np.float32))
        np.testing.assert_array_equal(made, np.zeros((ROWS, width), np.float32), strict=True)
    assert not device.ran


def test_what_the_kernel_does_not_take(device: Any) -> None:
    """Oracle: the numpy backend; float64, sums by another name, and the route of array functions."""
    index = np.array([1, 4, 1, 1])
    double = numbers((4, WIDTH), "float64", 4)
    assert_close(gradient(index, double), gradient(index, double, "numpy"), "fp64_sums")
    half = numbers((4, WIDTH), "float16", 4)
    with mp.accumulate("float16"):
        made, wanted = (gradient(index, half, backend) for backend in ("cupy", "numpy"))
        np.testing.assert_array_equal(made, wanted, strict=True)
    with device.use_route("arrays"):
        gradient(index, half)
    assert not [name for name in device.ran if name.startswith("sum_segments")]


@pytest.mark.parametrize("stored", STORED)
def test_rows_are_added_in_their_order(device: Any, stored: str) -> None:
    """Oracle: float32 sums, one row after the other, then one rounding: the bits, however many meet."""
    index, rows = np.random.default_rng(9).integers(0, 3, 500), numbers((500, WIDTH), stored, 9)
    wanted = np.zeros((ROWS, WIDTH), np.float32)
    for place, row in zip(index, rows.astype(np.float32), strict=True):
        wanted[place] += row
    made = gradient(index, rows)
    np.testing.assert_array_equal(made.astype(np.float32), wanted.astype(rows.dtype).astype(np.float32))


LOOKUPS: dict[str, Callable[[Any], Any]] = {
    "rows": lambda x: x[np.array([[1, -1], [1, 0]])],
    "the only index": lambda x: x[(np.array([2, 2, 1], np.int32),)],
    "index_select": lambda x: functional.index_select(x, 0, np.array([3, 3, 0])),
    "numbers": lambda x: x[:, 0][np.array([4, -7, 4])],
    "planes": lambda x: x.reshape(ROWS, 1, WIDTH)[np.array([0, -1, 0])],
}


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("how", LOOKUPS)
def test_every_lookup_of_rows_is_summed_so(device: Any, how: str, stored: str) -> None:
    """Oracle: the numpy backend, bit for bit: few rows meet, and it adds those in their order, too."""
    made = []
    for backend in ("cupy", "numpy"):
        x = mp.tensor(numbers((ROWS, WIDTH), stored), requires_grad=True, dtype=stored, backend=backend)
        y = LOOKUPS[how](x)
        y.backward(mp.tensor(numbers(y.shape, stored, 1), dtype=stored, backend=backend))
        made.append(x.grad.numpy().astype(np.float64))
    np.testing.assert_array_equal(*made)
    assert "sum_segments_float" in device.ran


def test_what_are_no_rows_stays_with_array_functions(device: Any) -> None:
    """Oracle: numpy.add.at; places along another axis, and values that broadcast."""
    columns = np.array([1, 1, 4])
    for index, shape in (((slice(None), columns), (ROWS, 3)), (columns, (1, WIDTH)), (columns, (WIDTH,))):
        values, wanted = numbers(shape, "float32", 2), np.zeros((ROWS, WIDTH), np.float32)
        np.add.at(wanted, index, values)
        there = device.from_host(values)
        made = device.scatter_add((ROWS, WIDTH), index, there, accumulate="float32")
        np.testing.assert_array_equal(device.to_host(made), wanted)
    assert not device.ran


def test_rows_in_any_order_of_memory(device: Any) -> None:
    """Oracle: the same rows in C order, bit for bit."""
    rows = numbers((WIDTH, 30), "float32", 5)
    index = device.from_host(np.random.default_rng(6).integers(0, ROWS, 30))
    there = device.from_host(rows)

    def total(rows: Any) -> Array:
        made: Array = device.to_host(
            device.sum_rows((ROWS, WIDTH), index, rows, formats.float32, accumulate="float32")
        )
        return made

    np.testing.assert_array_equal(total(there.T), total(device.from_host(np.ascontiguousarray(rows.T))))


def test_a_recording_sees_the_rounding(device: Any) -> None:
    """Oracle: the bits of the kernel that rounds by itself; what rounds in sight is a cast."""
    index, grad = np.random.default_rng(7).integers(0, ROWS, 40), numbers((40, WIDTH), "bfloat16", 6)
    at_once = gradient(index, grad)
    device.ran.clear()
    device.rounds_in_sight = True
    apart = gradient(index, grad)
    np.testing.assert_array_equal(apart.view(np.uint16), at_once.view(np.uint16))
    assert "sum_segments_float" in device.ran


@pytest.mark.parametrize("options", OPTIONS)
def test_the_host_waits_for_nothing(device: Any, options: str) -> None:
    """Oracle: the device's own count of waits and copies, of the gradient alone."""
    table = mp.tensor(numbers((ROWS, WIDTH), "float16"), requires_grad=True, dtype="float16", backend="cupy")
    index = mp.tensor(np.array([1, 2, 1]), backend="cupy")
    found = functional.embedding(index, table, **OPTIONS[options][0])
    grad = mp.tensor(numbers((3, WIDTH), "float16", 1), dtype="float16", backend="cupy")
    with DEVICE.counting() as counts:
        found.backward(grad)
    assert (counts.syncs, counts.to_host, counts.to_device) == (0, 0, 0)
    assert device.ran


def test_indices_out_of_range_are_refused(device: Any) -> None:
    """Oracle: the error's text, as on NumPy; nothing was launched."""
    table = mp.tensor(numbers((ROWS, WIDTH), "float32"), backend="cupy")
    for wrong in (-1, ROWS):
        with pytest.raises(DataError, match=f"from 0 to {ROWS - 1}, got {wrong}"):
            functional.embedding(mp.tensor(np.array([0, wrong]), backend="cupy"), table)
    assert not device.ran


SECOND: dict[str, Callable[[Any], Any]] = {"squares": lambda x: x * x, "sums": lambda x: x}


@pytest.mark.parametrize("how", SECOND)
def test_gradients_that_record(device: Any, how: str) -> None:
    """Oracle: the second derivative on NumPy, with a row left out."""
    index, x = np.array([[1, 3], [1, 2]]), numbers((ROWS, WIDTH), "float32", 8)
    second = []
    for backend in ("cupy", "numpy"):
        table = mp.tensor(x, requires_grad=True, backend=backend)
        taken = functional.embedding(mp.tensor(index, backend=backend), table, padding_idx=2)
        (slope,) = mp.grad((SECOND[how](taken) * table.sum()).sum(), table, create_graph=True)
        second.append(mp.grad((slope * slope).sum(), table)[0].numpy())
    assert_close(*second, "parity_gradient_fp32")
    assert device
