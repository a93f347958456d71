"""softmax, log_softmax, layer_norm and rms_norm by kernels of ours: their bounds, and the array functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import formats, functional
from minimp.backend import get_backend
from minimp_backends.cupy_rows import LONGEST_SUM
from minimp_backends.kernels.calls import SPELLINGS
from minimp_backends.kernels.families.rows import part_rows
from minimp_backends.kernels.references import rows
from minimp_backends.strict.counts import DEVICE
from tests.tolerances import assert_bound, assert_close

Array = np.ndarray[Any, Any]
UNIT = 2.0**-24
"""Half an ulp of 1 in float32."""
STORED = ("float32", "float16", "bfloat16")
UNITS = {"float32": 0.0, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""An ulp of 1 in what is rounded to in the end."""
LENGTHS = (1, 2, 7, 64, 255, 256, 257, 1000, 4096, 5000, 9001)


def numbers(shape: tuple[int, ...], name: str = "float32", seed: int = 0, *, odd: bool = False) -> Array:
    """Return numbers of many magnitudes; with `odd`, one in each of the first rows that is none."""
    rng = np.random.default_rng(seed)
    wide = rng.standard_normal(shape) * 2.0 ** rng.uniform(-4, 3, shape)
    if odd:
        wide[:5, 1] = (np.nan, np.inf, -np.inf, -0.0, 1e-7)
        wide[5] = -np.inf
        wide[6] = 3
    return wide.astype(formats.get(name).dtype)


# ---- the mathematics -------------------------------------------------------------------------------------


def soft(x: Array) -> tuple[Array, Array, Array]:
    """Return x - max, softmax and log_softmax in float64."""
    shifted = x.astype(np.float64) - x.max(1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return shifted, np.exp(log), log


@pytest.mark.parametrize("length", LENGTHS)
def test_softmax_keeps_its_bound(length: int) -> None:
    """Oracle: float64. A difference s is off by u |s|, e^s by 2 u, a sum in parts by 30 u, a product by u.

    (A thread adds up 8 ceil(N / 8 T) numbers one after the other, then the threads in 10 halvings.)
    """
    x = numbers((3, length), seed=length)
    shifted, soft_exact, log_exact = soft(x)
    made, logs = np.empty_like(x), np.empty_like(x)
    rows.softmax(x, made, 0, 3, length)
    rows.softmax(x, logs, 1, 3, length)
    far = (np.abs(shifted).max(1, keepdims=True) + np.abs(shifted) + 40) * UNIT
    assert_bound(made, soft_exact, soft_exact * far + 2.0**-149, "row_kernels")
    assert_bound(logs, log_exact, far + 2 * np.abs(log_exact) * UNIT, "row_kernels")


@pytest.mark.parametrize("length", LENGTHS)
def test_gradients_of_softmax_keep_their_bound(length: int) -> None:
    """Oracle: float64, from the same y: the sum in parts, and what is done to each number."""
    y, g = abs(numbers((3, length), seed=length)) / length, numbers((3, length), seed=length + 1)
    made, wide, p = np.empty_like(y), g.astype(np.float64), y.astype(np.float64)
    rows.softmax_gradient(g, y, made, 0, 3, length)
    inner, size = ((each * p).sum(1, keepdims=True) for each in (wide, np.abs(wide)))
    assert_bound(made, p * (wide - inner), 30 * UNIT * p * (np.abs(wide) + size) + 2.0**-149, "row_kernels")
    rows.softmax_gradient(g, -y, made, 1, 3, length)
    inner, size = (each.sum(1, keepdims=True) for each in (wide, np.abs(wide)))
    assert_bound(made, wide - np.exp(-p) * inner, 30 * UNIT * (np.abs(wide) + size), "row_kernels")


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("length", LENGTHS)
def test_norms_and_their_gradients_keep_their_bounds(length: int, centred: bool) -> None:
    """Oracle: float64, from the same mean and scale where the gradient is asked for."""
    x, g, w = (numbers((3, length), seed=length + k) for k in (0, 1, 2))
    y, dx, scale = np.empty_like(x), np.empty_like(x), np.empty(3, np.float32)
    means = [np.empty(3, np.float32)] if centred else []
    rows.norm(x, [w[0]], [], y, means, scale, 1e-5, 3, length)
    wide, weight = x.astype(np.float64), w[0].astype(np.float64)
    mean = wide.mean(1, keepdims=True) * centred
    s = 1 / np.sqrt(((wide - mean) ** 2).mean(1, keepdims=True) + 1e-5)
    lost = 30 * UNIT * np.abs(wide).mean(1, keepdims=True) * centred  # of the mean
    near = 60 * UNIT * np.abs((wide - mean) * s) + 2 * s * lost * (1 + s * lost + np.abs((wide - mean) * s))
    assert_bound(y, (wide - mean) * s * weight, near * np.abs(weight), "row_kernels")

    rows.norm_gradient(g, x, [w[0]], means, scale, dx, 3, length)
    kept, s = (means[0][:, None] if centred else 0.0), scale[:, None].astype(np.float64)
    h, z = g * weight, (wide - kept) * s
    inner, middle = (h * z).mean(1, keepdims=True), h.mean(1, keepdims=True) * centred
    sizes = np.abs(h) + np.abs(h).mean(1, keepdims=True) + np.abs(z) * np.abs(h * z).mean(1, keepdims=True)
    assert_bound(dx, (h - middle - z * inner) * s, 60 * UNIT * sizes * s, "row_kernels")


@pytest.mark.parametrize("shape", [(1, 3), (63, 5), (64, 40), (65, 2), (9000, 3)])
def test_sums_over_rows_keep_their_bound(device: Any, shape: tuple[int, int]) -> None:
    """Oracle: float64 sums of g z and g over few rows and many."""
    x, g, scale = numbers(shape), numbers(shape, seed=1), np.ones((shape[0], 1), np.float32)
    arrays = [device.from_host(each) for each in (g, x, np.zeros_like(scale), scale)]
    _, dw, db = device.layer_norm_gradient(
        *arrays[:2], None, *arrays[2:], (-1,), (False, True, True), accumulate="float32"
    )
    for made, terms in ((dw, x.astype(np.float64) * g), (db, g.astype(np.float64))):
        bound = (shape[0] // 8 + 40) * UNIT * np.abs(terms).sum(0)
        assert_bound(device.to_host(made), terms.sum(0), bound, "row_kernels")
    assert device.ran == ["norm_columns_float"] + ["sum_parts"] * (shape[0] > 64)


# ---- beside the array functions --------------------------------------------------------------------------

OPS: dict[str, Callable[..., Any]] = {
    "softmax": lambda x, w, b: functional.softmax(x, -1),
    "log_softmax": lambda x, w, b: functional.log_softmax(x, -1),
    "layer_norm": lambda x, w, b: functional.layer_norm(x, x.shape[-1:], w, b),
    "plain_layer_norm": lambda x, w, b: functional.layer_norm(x, x.shape[-1:]),
    "rms_norm": lambda x, w, b: functional.rms_norm(x, x.shape[-1:], w),
    "plain_rms_norm": lambda x, w, b: functional.rms_norm(x, x.shape[-1:]),
}
RAN = {
    "softmax": ["softmax", "softmax_gradient"],
    "log_softmax": ["softmax", "softmax_gradient"],
    "layer_norm": ["norm", "norm_gradient", "norm_columns"],
    "plain_layer_norm": ["norm", "norm_gradient"],
    "rms_norm": ["norm", "norm_gradient", "norm_columns"],
    "plain_rms_norm": ["norm", "norm_gradient"],
}
KINDS = {"float32": "float", "float16": "half", "bfloat16": "bfloat16"}


def run(op: str, x: Array, g: Array, parameters: str) -> list[Array]:
    """Return the value and all gradients on the device."""
    a = mp.tensor(x, requires_grad=True, backend="cupy")
    w, b = (
        mp.tensor(numbers(x.shape[-1:], parameters, seed), requires_grad=True, backend="cupy")
        for seed in (8, 9)
    )
    y = OPS[op](a, w, b)
    y.backward(mp.tensor(g, backend="cupy"))
    return [y.detach().numpy(), *(each.grad.numpy() for each in (a, w, b) if each.grad is not None)]


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("op", OPS)
def test_ops_are_those_of_the_arrays(device: Any, op: str, stored: str) -> None:
    """Oracle: the array functions, within their roundings; NaN and infinities are in the same places."""
    for shape, odd in (((5, 40), False), ((8, 6), True), ((2, 3, 300), False), ((7,), False)):
        x, g = numbers(shape, stored, 1, odd=odd), numbers(shape, stored, 2)
        device.ran.clear()
        made = run(op, x, g, stored)
        assert device.ran == [f"{name}_{KINDS[stored]}" for name in RAN[op]]
        with device.use_route("arrays"):
            wanted = run(op, x, g, stored)
        assert len(made) == len(wanted)
        for one, other in zip(made, wanted, strict=True):
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            wide = np.abs(np.nan_to_num(other.astype(np.float64), posinf=0.0, neginf=0.0))
            assert_bound(one, other, UNITS[stored] * wide + 256 * UNIT * (1 + wide.max()), "row_kernels")


@pytest.mark.parametrize("op", ["layer_norm", "rms_norm"])
def test_parameters_in_float32_beside_16_bits(device: Any, op: str) -> None:
    """Oracle: the array functions; gradients have the formats of what they belong to."""
    x, g = numbers((70, 20), "float16", 1), numbers((70, 20), "float16", 2)
    made = run(op, x, g, "float32")
    with device.use_route("arrays"):
        wanted = run(op, x, g, "float32")
    assert [each.dtype.name for each in made] == ["float16", "float16"] + ["float32"] * (len(made) - 2)
    for one, other in zip(made[2:], wanted[2:], strict=True):
        assert_close(one, other, "parity_gradient_fp32")


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_the_format_of_the_result_may_be_another(device: Any, name: str) -> None:
    """Oracle: the array functions, within a last place of the result's format; dtypes of both directions."""
    op = getattr(functional, name)
    for stored, wanted in (("float16", "float32"), ("float32", "bfloat16"), ("bfloat16", "float16")):
        found = []
        for route in ("kernels", "arrays"):
            with device.use_route(route):
                x = mp.tensor(numbers((4, 33), stored), requires_grad=True, backend="cupy")
                y = op(x, -1, dtype=wanted)
                y.sum().backward()
                found.append((y.detach().numpy(), x.grad.numpy()))
        (one, slope), (other, other_slope) = found
        assert one.dtype == other.dtype == formats.get(wanted).dtype
        assert slope.dtype == other_slope.dtype == formats.get(stored).dtype
        assert_bound(one, other, UNITS[wanted] * np.abs(other.astype(np.float64)) + 16 * UNIT, "row_kernels")
    assert {each.rpartition("_")[0] for each in device.ran} == {"softmax", "softmax_gradient"}


def test_rows_with_gaps_between_their_numbers(device: Any) -> None:
    """Oracle: the same rows side by side, bit for bit."""
    x = numbers((40, 30), "float16")
    for op in ("softmax", "layer_norm"):
        found = []
        for given in (mp.tensor(x, backend="cupy").transpose(0, 1), mp.tensor(x.T.copy(), backend="cupy")):
            w, b = (mp.tensor(numbers((40,), "float16", k), backend="cupy") for k in (8, 9))
            found.append(OPS[op](given, w, b).numpy())
        assert found[0].tobytes() == found[1].tobytes()


def test_several_axes_are_one_row(device: Any) -> None:
    """Oracle: layer_norm of the same numbers in one axis, bit for bit, gradients too."""
    x, w, g = numbers((6, 4, 10), seed=1), numbers((4, 10), seed=2), numbers((6, 4, 10), seed=3)
    found = []
    for shape in ((4, 10), (40,)):
        a, v = (mp.tensor(each, requires_grad=True, backend="cupy") for each in (x, w))
        y = functional.layer_norm(a.reshape(6, *shape), shape, v.reshape(shape))
        y.backward(mp.tensor(g.reshape(6, *shape), backend="cupy"))
        found.append([each.numpy().tobytes() for each in (y.detach(), a.grad, v.grad)])
    assert found[0] == found[1]


def test_what_kernels_do_not_take_goes_to_the_arrays(device: Any) -> None:
    """Oracle: the NumPy backend: float64, other axes, sums by name, empty arrays, no axis at all."""
    tried: list[tuple[Array, Callable[[Any], Any]]] = [
        (numbers((4, 6), "float64"), lambda x: functional.softmax(x, -1)),
        (numbers((4, 6), "float64"), lambda x: functional.layer_norm(x, (6,))),
        (numbers((4, 6)), lambda x: functional.log_softmax(x, 0)),
        (np.zeros((0, 6), np.float32), lambda x: functional.rms_norm(x, (6,))),
        (np.zeros((3, 0), np.float32), lambda x: functional.softmax(x, -1)),
        (np.zeros((), np.float32), lambda x: functional.softmax(x, -1)),
    ]
    for x, op in tried:
        made = op(mp.tensor(x, backend="cupy")).numpy()
        assert_close(made, op(mp.tensor(x)).numpy(), "parity_op_fp32")
    with mp.accumulate("float64"):
        functional.rms_norm(mp.tensor(numbers((4, 6)), backend="cupy"), (6,))
        functional.softmax(mp.tensor(numbers((4, 6)), backend="cupy"), -1)
    x, g, one = (numbers((2, 3), "float16"), numbers((2, 3)), np.ones((2, 1), np.float32))
    there = [device.from_host(each) for each in (g, x, one)]
    dx, _ = device.rms_norm_gradient(*there[:2], None, there[2], (-1,), (True, False), accumulate="float32")
    assert dx.dtype == np.float32
    assert device.ran == ["row_sum_float"]  # of the readable form of that gradient


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
def test_sums_of_rows_have_one_order(device: Any, stored: str) -> None:
    """Oracle: the kernel's reference, to the bit, over the last axis and over several, kept or not."""
    x = numbers((3, 4, 50), stored)
    there = device.from_host(x)
    for axis, shape in ((-1, (12, 50)), (2, (12, 50)), ((1, 2), (3, 200)), ((-1, -2), (3, 200))):
        wanted = rows.row_totals(x.reshape(shape).astype(np.float32))
        for keepdims in (False, True):
            made = device.to_host(device.sum(there, axis, keepdims, accumulate="float32"))
            assert made.shape == x.astype(np.float32).sum(axis, keepdims=keepdims).shape
            np.testing.assert_array_equal(made.reshape(-1, 1), wanted, strict=True)
    assert set(device.ran) == {f"row_sum_{SPELLINGS[stored]}"}


def test_sums_that_a_team_would_do_badly_or_not_at_all(device: Any) -> None:
    """Oracle: the NumPy backend: all numbers, first axes, one very long row, whole numbers, sums by name."""
    x, whole = numbers((4, 6)), np.arange(24, dtype=np.int64).reshape(4, 6)
    long = np.ones((1, LONGEST_SUM + 1), np.float32)
    tried: list[tuple[Array, Any, str]] = [
        (x, None, "float32"), (x, (0, 1), "float32"), (x, 0, "float32"), (x, (), "float32"),
        (x, 1, "float64"), (x, 1, "kahan"), (whole, 1, "float32"), (x[:0], 1, "float32"),
        (x[:, :0], 1, "float32"), (long, 1, "float32"), (numbers((4, 6), "float64"), 1, "float32"),
    ]  # fmt: skip
    for given, axis, name in tried:
        made = device.to_host(device.sum(device.from_host(given), axis, accumulate=name))
        wanted = get_backend("numpy").sum(given, axis, accumulate=name)
        assert made.dtype == np.asarray(wanted).dtype
        assert_close(np.asarray(made, np.float64), np.asarray(wanted, np.float64), "parity_op_fp32")
    turned = device.sum(device.from_host(x).T, 1, accumulate="float32")  # rows that do not lie together
    assert_close(device.to_host(turned), x.sum(0), "parity_op_fp32")
    assert device.ran == []


def test_a_sum_over_rows_has_few_parts() -> None:
    """Oracle: at least 64 rows in each, at most 128 of them, every row in one."""
    for count in (1, 64, 65, 8192, 8193, 10**7):
        each = part_rows(count)
        assert each >= 64
        assert (-(-count // each) - 1) * each < count <= -(-count // each) * each
        assert -(-count // each) <= 128


def test_a_matrix_unit_leaves_rows_to_the_kernels(device: Any) -> None:
    """Oracle: "float32", bit for bit: beside a matrix unit, float32 units add."""
    x, w, b = (mp.tensor(numbers((4, 9), seed=1)[k:], backend="cupy") for k in (0, 3, 3))
    for op in ("softmax", "layer_norm"):
        found = []
        for accumulate in ("float32", "tensorcore:hopper"):
            with mp.accumulate(accumulate):
                found.append(OPS[op](x, w.reshape(9), b.reshape(9)).numpy().tobytes())
        assert found[0] == found[1]
    assert device.ran == ["softmax_float"] * 2 + ["norm_float"] * 2


@pytest.mark.parametrize("op", OPS)
def test_one_array_is_made_for_a_result(device: Any, op: str) -> None:
    """Oracle: the device's own counts: nothing wide on the way, and nobody waits."""
    x = mp.tensor(numbers((16, 8), "float16"), backend="cupy")
    w, b = (mp.tensor(numbers((8,), "float32", k), backend="cupy") for k in (8, 9))
    with DEVICE.counting() as counts, mp.no_grad():
        OPS[op](x, w, b)
    kept = {"layer_norm": 2, "plain_layer_norm": 2, "rms_norm": 1, "plain_rms_norm": 1}.get(op, 0)
    assert counts.allocations == 1 + kept
    assert counts.syncs == 0
