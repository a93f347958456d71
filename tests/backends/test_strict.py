"""The strict backend: what CuPy refuses, what makes the host wait, and what it does where NumPy is kinder.

What CuPy does is from its own documents (14.2.0, "Differences between CuPy and NumPy") and its errors.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import minimp as mp
from minimp import functional
from minimp.backend import get_backend
from minimp.errors import DeviceError, FormatError
from tests.arrays import host

BACKEND: Any = get_backend("strict")
XP: Any = BACKEND.xp


def device(values: Any, dtype: Any = np.float32) -> Any:
    """Return a device array."""
    return BACKEND.from_host(np.asarray(values, dtype))


# ---- what is refused -------------------------------------------------------------------------------------


class Beside:
    """An object that would add itself to anything, if it were asked."""

    def __radd__(self, other: Any) -> str:
        return "asked"


class Before(Beside):
    """One that says so to CuPy and NumPy."""

    __array_ufunc__ = None


X = [[1.0, -2.0], [3.0, 4.0]]
REFUSED: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "asarray": (np.asarray, TypeError, r"Implicit conversion to a NumPy array is not allowed.*`\.get\(\)`"),
    "a function of NumPy": (np.sum, TypeError, "numpy.sum was given a device array"),
    "a host array beside it": (lambda x: x + np.ones((2, 2)), TypeError, "Unsupported type.*ndarray"),
    "it beside a host array": (lambda x: np.ones((2, 2)) * x, TypeError, "Unsupported type.*ndarray"),
    "a list beside it": (lambda x: x - [1.0, 2.0], TypeError, "Unsupported type.*list"),
    "a host array in a ufunc": (lambda x: XP.maximum(x, np.ones(2)), TypeError, "Unsupported type"),
    "a host array in a function": (lambda x: XP.where(x > 0, x, np.ones(2)), TypeError, "Unsupported type"),
    "a host array in a list": (lambda x: XP.stack([x, np.ones((2, 2))]), TypeError, "Unsupported type"),
    "a host array written": (lambda x: x.__setitem__(0, np.ones(2)), TypeError, "Unsupported type"),
    "a host index": (lambda x: x[np.array([0])], TypeError, "Unsupported type"),
    "a list written": (lambda x: x.__setitem__(0, [1.0, 2.0]), TypeError, "Unsupported type"),
    "a name CuPy lacks": (lambda _: XP.errstate, AttributeError, r"CuPy 14\.2\.0 has no cupy.errstate"),
    "a name in a module": (lambda _: XP.linalg.vecdot, AttributeError, "has no cupy.linalg.vecdot"),
    "a keyword CuPy lacks": (
        lambda x: XP.max(x, initial=0.0), TypeError,
        r"max\(\) has no argument initial; it has a, axis, keepdims, out",
    ),
    "a method's keyword": (lambda x: x.sum(where=True), TypeError, r"sum\(\) has no argument where"),
    "a ufunc's keyword": (lambda x: XP.exp(x, where=x > 0), TypeError, r"exp\(\) has no argument where"),
    "too many arguments": (
        lambda x: XP.take(x, 0, 0, None, "clip"), TypeError, r"take\(\) takes 4 positional arguments, got 5",
    ),
    "FP8": (lambda _: XP.zeros(3, ml_dtypes.float8_e4m3fn), ValueError, "Unsupported dtype float8_e4m3fn"),
    "objects": (lambda _: XP.empty(3, object), ValueError, "Unsupported dtype object"),
    "long doubles": (lambda _: XP.zeros(3, np.longdouble), ValueError, "Unsupported dtype"),
    "an attribute": (lambda x: x.setflags(write=False), AttributeError, "setflags"),
    "a length": (lambda x: range(x[0, 0].astype("int32")), TypeError, "integer"),
    "a key": (hash, TypeError, "unhashable"),
    "an iteration over a number": (lambda x: list(x[0, 0]), TypeError, "0-d array"),
    "several bfloat16 products": (
        lambda _: XP.matmul(*[XP.zeros((2, 3, 3), ml_dtypes.bfloat16)] * 2), ValueError, "bfloat16 matrices",
    ),
    "a condition of the host": (lambda x: XP.where(True, x, -x), AttributeError, "'bool'.*'astype'"),
    "an object's own operator": (lambda x: x + Beside(), TypeError, "Unsupported type.*Beside"),
    "the largest by a ufunc": (
        XP.maximum.reduce, NotImplementedError, r"`cupy_maximum\.reduce` is not supported yet",
    ),
    "a running product of quotients": (
        XP.divide.accumulate, NotImplementedError, r"`cupy_divide\.accumulate`",
    ),
    "a product at places": (lambda x: XP.multiply.at(x, 0, 2.0), NotImplementedError, r"`cupy_multiply\.at`"),
    "a sum of bfloat16 at places": (
        lambda _: XP.add.at(XP.zeros(2, ml_dtypes.bfloat16), 0, 1.0), TypeError, "at does not support bfl",
    ),
    "an array and a number, equal": (lambda x: XP.array_equal(x, 1), AttributeError, "no attribute 'shape'"),
    "bfloat16, sorted": (
        lambda _: XP.zeros(3, ml_dtypes.bfloat16).argsort(), NotImplementedError, "argsort has no kernel for",
    ),
    "bfloat16, summed on the way": (
        lambda _: XP.cumsum(XP.zeros(3, ml_dtypes.bfloat16)), NotImplementedError, "cumsum has no kernel for",
    ),
    "a bound beyond whole numbers": (
        lambda x: XP.clip(x.astype("uint8"), -1, 5), OverflowError, "-1 out of bounds for uint8",
    ),
    "no bound of booleans": (lambda x: XP.clip(x > 0, None, 1), TypeError, "NoneType"),
    "an axis of one number": (lambda x: XP.max(x[0, 0], axis=-1), ValueError, "axis -1 is out of bounds"),
    "an axis of one number, a method's": (lambda x: x[0, 0].sum(0), ValueError, "axis 0 is out of bounds"),
    "a sort that is not stable": (lambda x: XP.argsort(x, kind="quicksort"), ValueError, "stable"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cupy_refuses_is_refused(name: str) -> None:
    """Oracle: CuPy's errors; stricter on purpose are NumPy's functions and host indices."""
    call, error, message = REFUSED[name]
    x = device(X)
    with pytest.raises(error, match=message):
        call(x)
    np.testing.assert_array_equal(x.get(), np.float32(X))  # nothing was changed


def test_a_tensor_does_not_become_a_host_array_by_itself() -> None:
    """Oracle: our own error, with the way out in it; DLPack has none."""
    x = mp.tensor(X, backend="strict")
    with pytest.raises(DeviceError, match=r"strict backend does not become a NumPy array(.|\n)*\.numpy\(\)"):
        np.asarray(x)
    np.testing.assert_array_equal(x.numpy(), np.float32(X))
    with pytest.raises(FormatError, match="shares its memory with nobody"):
        x.__dlpack__()
    with mp.use_backend("strict"), pytest.raises(FormatError, match="shares no memory"):
        mp.from_dlpack(np.ones(3))
    with pytest.raises(DeviceError, match="two backends: strict and numpy"):
        x + mp.tensor(X)


def test_what_says_so_does_its_own_operators() -> None:
    """Oracle: NEP 13, as CuPy follows it (cupy/_core/core.pyx, _should_use_rop)."""
    assert device(X) + Before() == "asked"


# ---- what results are ------------------------------------------------------------------------------------

RESULTS: dict[str, tuple[Callable[[Any, Any], Any], tuple[int, ...]]] = {
    "sum": (lambda xp, x: xp.sum(x), ()),
    "a method": (lambda xp, x: x.max(), ()),
    "an element": (lambda xp, x: x[0, 1], ()),
    "a row": (lambda xp, x: x[0], (2,)),
    "a scalar beside it": (lambda xp, x: np.float32(2) * x, (2, 2)),
    "a number beside it": (lambda xp, x: 1 - x, (2, 2)),
    "a product": (lambda xp, x: x @ x, (2, 2)),
    "NumPy's ufunc": (lambda xp, x: np.exp(x), (2, 2)),
    "a comparison": (lambda xp, x: x > 0, (2, 2)),
    "all": (lambda xp, x: (x > 0).all(), ()),
    "two results": (lambda xp, x: xp.frexp(x)[1], (2, 2)),
    "in place": (lambda xp, x: x.__iadd__(1), (2, 2)),
    "out": (lambda xp, x: xp.multiply(x, x, out=x), (2, 2)),
    "windows": (lambda xp, x: xp.lib.stride_tricks.sliding_window_view(x, 2, axis=1), (2, 1, 2)),
    "transposed": (lambda xp, x: x.T, (2, 2)),
    "by index": (lambda xp, x: x[xp.asarray([1, 1, 0])], (3, 2)),
    "equal": (lambda xp, x: xp.array_equal(x, x), ()),
    "one number, laid out": (lambda xp, x: xp.ascontiguousarray(x[0, 0]), (1,)),
}


@pytest.mark.parametrize("name", list(RESULTS))
def test_results_are_device_arrays_with_numpys_values(name: str) -> None:
    """Oracle: NumPy, on the same numbers; single numbers are arrays too, and nothing waits."""
    call, shape = RESULTS[name]
    x = device(X)
    with BACKEND.counting() as counts:
        found = call(XP, x)
    assert isinstance(found, XP.ndarray)
    assert found.shape == shape
    assert counts.syncs == counts.to_host == 0
    wanted = np.asarray(call(np, np.array(X, np.float32)))
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found.get(), wanted)


# ---- what is counted -------------------------------------------------------------------------------------

WAITS: dict[str, tuple[Callable[[Any], Any], tuple[int, int]]] = {
    "float": (lambda x: float(x[0, 0]), (1, 4)),
    "bool": (lambda x: bool((x > 9).any()), (1, 1)),
    "int": (lambda x: int(x[0, 0]), (1, 4)),
    "item": (lambda x: x.sum().item(), (1, 4)),
    "get": (lambda x: x.get(), (1, 16)),
    "tolist": (lambda x: x.tolist(), (1, 16)),
    "print": (str, (1, 16)),
    "format": (lambda x: f"{x[0, 0]:.1f}", (1, 4)),
    "asnumpy": (XP.asnumpy, (1, 16)),
    "being pickled": (lambda x: x.__reduce__(), (1, 16)),
    "nonzero": (lambda x: x.nonzero(), (1, 0)),
    "unique": (XP.unique, (1, 0)),
    "a mask": (lambda x: x[x > 0], (1, 0)),
    "where with a condition alone": (XP.where, (1, 0)),
    "synchronize": (lambda _: BACKEND.synchronize(), (1, 0)),
    "to_host": (BACKEND.to_host, (1, 16)),
    "a mask written by a number": (lambda x: x.__setitem__(x > 0, 0.0), (0, 0)),
    "shape": (lambda x: (x.shape, x.dtype, x.size, len(x), x.nbytes), (0, 0)),
    "copy": (copy.deepcopy, (0, 0)),
}


@pytest.mark.parametrize("name", list(WAITS))
def test_every_wait_is_counted(name: str) -> None:
    """Oracle: CuPy's manual: these calls synchronize; with their bytes, of float32."""
    call, (syncs, size) = WAITS[name]
    x = device(X)
    with BACKEND.counting() as outer, BACKEND.counting() as counts:
        call(x)
    assert (counts.syncs, counts.to_host_bytes, counts.to_host) == (syncs, size, int(size > 0))
    assert (counts.to_device, counts.to_device_bytes) == (0, 0)
    assert outer == counts
    call(x)
    assert outer == counts  # what happens after the block is not counted
    with BACKEND.counting() as outer:
        with BACKEND.counting() as counts:
            pass
        call(x)
    assert (counts.syncs, outer.syncs) == (0, syncs)


def test_transfers_and_allocations_are_counted() -> None:
    """Oracle: by hand: bytes of what goes over, of what has memory of its own; views have none."""
    with BACKEND.counting() as counts:
        x = mp.tensor(np.ones((4, 8), np.float32), backend="strict").array
        y = XP.asarray([1.0, 2.0])
    assert (counts.to_device, counts.to_device_bytes) == (2, 128 + 16)
    assert (counts.allocations, counts.allocated_bytes) == (2, 128 + 16)
    with BACKEND.counting() as counts:
        for view in (x.T, x.reshape(-1), x[1:], x[..., None], XP.broadcast_to(x, (3, 4, 8)), x.view("int32")):
            assert isinstance(view, XP.ndarray)
        assert XP.asarray(y) is y
        XP.add(x, x, out=x)
    assert (counts.allocations, counts.to_device) == (0, 0)
    with BACKEND.counting() as counts:
        x + 1.0
        XP.zeros((2, 2), "float16")
        x[XP.zeros(3, "int64")]
    assert (counts.allocations, counts.allocated_bytes) == (4, 128 + 8 + 24 + 96)


def test_a_step_of_a_network_waits_for_nothing() -> None:
    """Oracle: the counts: forward and backward copy nothing and wait for nothing, whatever the layers."""
    mp.manual_seed(0)
    with mp.use_backend("strict"):
        net = mp.nn.Sequential(
            mp.nn.Conv2d(2, 4, 3, padding=1), mp.nn.BatchNorm2d(4), mp.nn.ReLU(), mp.nn.MaxPool2d(2),
            mp.nn.Upsample(scale_factor=2.0, mode="bilinear"), mp.nn.AdaptiveAvgPool2d(4),
            mp.nn.Dropout(0.1), mp.nn.Flatten(), mp.nn.Linear(64, 16), mp.nn.LayerNorm(16), mp.nn.GELU(),
            mp.nn.Linear(16, 3),
        )  # fmt: skip
        x = mp.tensor(np.random.default_rng(0).standard_normal((5, 2, 8, 8)), dtype="float32")

        def step() -> Any:
            with mp.autocast("float16"):
                y = net(x)
            (y * y).sum().backward()

        step()  # tables are copied once
        with BACKEND.counting() as counts:
            step()
    assert (counts.syncs, counts.to_host, counts.to_device) == (0, 0, 0)
    assert counts.allocations > 0


# ---- where NumPy is kinder -------------------------------------------------------------------------------


def test_whole_numbers_to_a_negative_power_round_to_zero() -> None:
    """Oracle: CuPy's kernel of power, which raises nothing; the engine does, as NumPy's backend."""
    x = device([1, -1, 2, -3, 0], np.int32)
    assert ((x**-1).get().tolist(), (x**-1).dtype) == ([1, -1, 0, 0, 0], np.int32)
    assert (x ** device([-2, -2, 3, -1, -1], np.int32)).get().tolist() == [1, 1, 8, 0, 0]
    t = mp.tensor([2, 3], backend="strict")
    for exponent in (-1, mp.tensor([1, -1], backend="strict")):
        with pytest.raises(mp.errors.ShapeError, match="negative integer powers"):
            t**exponent


def test_where_of_bfloat16_is_wider_and_choose_is_not() -> None:
    """Oracle: the loops of CuPy's where, the first that holds them all (cupy/_sorting/search.py); NumPy."""
    x = device(X, ml_dtypes.bfloat16)
    mask = x > 0
    assert XP.where(mask, x, -x).dtype == XP.where(mask, x, 0).dtype == np.float32
    assert XP.where(mask, x, x.astype(np.float64)).dtype == np.float64
    found, values = BACKEND.choose(mask, x, -x.T), np.asarray(X, ml_dtypes.bfloat16)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found.get(), np.where(values > 0, values, -values.T))


def test_indices_wrap_where_they_are_asked_to() -> None:
    """Oracle: CuPy's manual: an index out of range wraps; NumPy refuses it."""
    x, far = device([1.0, 2.0, 3.0]), device([3, -4, 7], np.int64)
    with pytest.raises(IndexError, match="out of bounds"):
        x[far]
    with BACKEND.behaving(wrap_index=True):
        assert x[far].tolist() == [1.0, 3.0, 2.0]
        assert XP.take(x, far).tolist() == [1.0, 3.0, 2.0]
        wide = device([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        assert wide[..., device([4], np.int64)].tolist() == [[2.0], [5.0]]
        assert wide[None, :, device([3, -1], np.int64)].tolist() == [[[1.0, 3.0], [4.0, 6.0]]]
        x[far] = 0.0
        assert x.tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(IndexError):
        x[far]


def test_of_values_for_one_place_any_may_stay() -> None:
    """Oracle: CuPy's manual: which one is not defined; over 50 writes each of three wins, and no other."""
    seen = set()
    with BACKEND.behaving(undefined_duplicates=True):
        for _ in range(50):
            x = device(np.zeros(4))
            x[device([1, 1, 1, 2], np.int64)] = device([5.0, 6.0, 7.0, 8.0])
            a, b, c, d = x.tolist()
            assert (a, c, d) == (0.0, 8.0, 0.0)
            seen.add(b)
    assert seen == {5.0, 6.0, 7.0}


def test_a_sum_of_halves_is_a_half_unless_a_dtype_is_said() -> None:
    """Oracle: 4096 ones: float16's running sum stays at 2048; with a dtype, and by the backend, 4096."""
    ones = device(np.ones((2, 4096)), np.float16)
    assert ones.sum(axis=1).tolist() == [2048.0, 2048.0]
    assert XP.sum(ones, axis=1, keepdims=True).shape == (2, 1)
    assert XP.sum(ones, axis=1, dtype="float32").tolist() == [4096.0, 4096.0]
    assert BACKEND.sum(ones, axis=1, accumulate="float32").tolist() == [4096.0, 4096.0]
    with BACKEND.behaving(half_cub_sum=False):
        assert ones.sum(axis=1).tolist() == [4096.0, 4096.0]


def test_what_is_too_small_is_flushed_where_it_is_asked_to() -> None:
    """Oracle: float32 below 2^-126 becomes a zero of its sign, in results alone."""
    tiny = device([2.0**-130, -(2.0**-130), 2.0**-126, 1.0])
    assert (tiny * 1.0).tolist() == [2.0**-130, -(2.0**-130), 2.0**-126, 1.0]
    with BACKEND.behaving(ftz=True):
        found = (tiny * 1.0).get()
    assert found.tolist() == [0.0, 0.0, 2.0**-126, 1.0]
    assert np.signbit(found).tolist() == [False, True, False, False]


def test_what_was_not_written_is_nan() -> None:
    """Oracle: `empty` and `empty_like` of every kind of dtype: NaN, or no likely number."""
    for dtype in ("float32", "float16", ml_dtypes.bfloat16, "float64"):
        assert np.isnan(XP.empty((2, 3), dtype).get().astype(np.float64)).all()
    assert np.isnan(XP.empty_like(device(X)).get()).all()
    assert (XP.empty(3, "int32").get() != 0).all()


def test_a_fault_in_the_queue_comes_out_at_the_next_wait() -> None:
    """Oracle: the call that is at fault says nothing; the next wait raises, and then it is forgotten."""
    x, far = device([1.0, 2.0]), device([5], np.int64)
    with BACKEND.behaving(queue=True):
        taken = x[far] * 2.0
        assert taken.shape == (1,)
        with pytest.raises(IndexError, match="out of bounds"):
            BACKEND.synchronize()
        assert np.isnan(taken.get()).all()
        XP.add.at(x, far, 1.0)
        with pytest.raises(IndexError):
            float(x[0])
        assert x.tolist() == [1.0, 2.0]


# ---- the real one ----------------------------------------------------------------------------------------


def test_the_engine_gives_numpys_numbers_on_the_device() -> None:
    """Oracle: the NumPy backend: a convolution, its pooling and their gradients, in float64."""
    random = np.random.default_rng(0)
    x, w = random.integers(-2, 3, (2, 4, 9, 7)) / 2, random.integers(-2, 3, (6, 2, 3, 2)) / 2  # with ties
    found = []
    for name in ("numpy", "strict"):
        a, b = (mp.tensor(each, requires_grad=True, backend=name) for each in (x, w))
        y = functional.conv2d(a, b, stride=(2, 1), padding=(1, 2), dilation=(2, 2), groups=2)
        z = functional.max_pool2d(y, 3, 2, 1) + functional.avg_pool2d(y, 3, 2, 1)
        (z * z).sum().backward()
        found.append([host(each) for each in (y, z, a.grad, b.grad)])
    for mine, wanted in zip(found[1], found[0], strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-12, atol=1e-12)
