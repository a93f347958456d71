"""Products over cuBLAS: planned without a GPU, and carried out by a stand-in that checks every call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import formats
from minimp.errors import DeviceError, FormatError, OutOfMemoryError, ShapeError
from minimp_backends import cublas, gemm_plan
from minimp_backends.cublas import Cublas
from minimp_backends.gemm_plan import PRODUCTS, Layout, plan

pytest.importorskip("cupy")
from tests.backends.cublas_stand_in import HANDLE, StandIn
from tests.backends.host_cupy import HostArray, HostLibrary, host_view

Array = npt.NDArray[Any]
BFLOAT16 = formats.bfloat16.dtype
KINDS = sorted(PRODUCTS)


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the dtype of a name, bfloat16's included."""
    return BFLOAT16 if name == "bfloat16" else np.dtype(name)


@dataclass(frozen=True)
class Way:
    """How an operand lies in memory: an order of its axes, what is cut off, and where it begins."""

    order: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    step: tuple[int, ...]
    misaligned: int = 0


def plain(ndim: int) -> Way:
    """Return C order, whole."""
    nothing = (0,) * ndim
    return Way(tuple(range(ndim)), nothing, nothing, (1,) * ndim)


def swapped(ndim: int) -> Way:
    """Return the last two axes exchanged in memory."""
    way = plain(ndim)
    return replace(way, order=(*range(ndim - 2), ndim - 1, ndim - 2))


def laid_out(library: HostLibrary, values: Array, way: Way) -> HostArray:
    """Return an array of the GPU's with these values, lying in memory as said."""
    room = [
        b + n * abs(s) + a for b, n, s, a in zip(way.before, values.shape, way.step, way.after, strict=True)
    ]
    block = library.allocate(int(np.prod([room[i] for i in way.order])) * values.itemsize, way.misaligned)
    base = library.array(block, tuple(room[i] for i in way.order), values.dtype)
    view = base.transpose(*np.argsort(way.order)) if values.ndim else base
    for axis, (first, length, step) in enumerate(zip(way.before, values.shape, way.step, strict=True)):
        part = slice(first, first + length * abs(step), abs(step))
        view = view[(slice(None),) * axis + (part,)]
        if step < 0:
            view = view[(slice(None),) * axis + (slice(None, None, -1),)]
    view[...] = values
    return view


def multiply(
    kind: tuple[str, str, str], values: tuple[Array, Array], ways: tuple[Way, Way], mode: int = 0
) -> tuple[Array, StandIn]:
    """Multiply through the stand-in; return the result on the host, and the stand-in."""
    library = HostLibrary()
    stand_in = StandIn(library, mode)
    a, b = (laid_out(library, x, way) for x, way in zip(values, ways, strict=True))
    made = Cublas(library, stand_in, HANDLE, 90).matmul(a, b, output=kind[1], compute=kind[2])
    assert stand_in.mode == mode, "the handle's math mode is put back"
    return host_view(made), stand_in


def check(kind: tuple[str, str, str], values: tuple[Array, Array], ways: tuple[Way, Way]) -> None:
    """Compare with NumPy's product in int64; every number is a small integer, so nothing is rounded."""
    made, _ = multiply(kind, values, ways)
    expected = values[0].astype(np.int64) @ values[1].astype(np.int64)
    assert made.dtype == numpy_dtype(kind[1])
    assert made.shape == expected.shape
    np.testing.assert_array_equal(made.astype(np.float64), expected)


def numbers(shape: tuple[int, ...], name: str, seed: int) -> Array:
    """Return small integers, so that sums of some are exact in every format."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(numpy_dtype(name))


@st.composite
def layouts(draw: st.DrawFn, shape: tuple[int, ...]) -> Way:
    """Draw how an array of a shape lies in memory."""
    ndim = len(shape)
    order = draw(st.one_of(st.just(plain(ndim).order), st.permutations(range(ndim)).map(tuple)))
    cut = st.tuples(*[st.sampled_from((0, 0, 1, 4))] * ndim)
    steps = st.tuples(*[st.sampled_from((1, 1, 1, 2, -1))] * ndim)
    return Way(order, draw(cut), draw(cut), draw(steps), draw(st.sampled_from((0, 0, 8))))


@st.composite
def products(draw: st.DrawFn) -> tuple[tuple[Array, Array], tuple[Way, Way], tuple[str, str, str]]:
    """Draw two operands that fit, how they lie in memory, and a row of PRODUCTS."""
    kind = draw(st.sampled_from(KINDS))
    m, k, n = (draw(st.sampled_from((0, 1, 2, 3, 4, 5, 8))) for _ in range(3))
    lead = draw(st.lists(st.integers(0, 3), max_size=2).map(tuple))
    shapes = []
    for matrix in ((m, k), (k, n)):
        kept = lead[draw(st.integers(0, len(lead))) :]
        shapes.append((*(length if draw(st.booleans()) else 1 for length in kept), *matrix))
    values = tuple(numbers(shape, kind[0], seed) for seed, shape in enumerate(shapes))
    ways = tuple(draw(layouts(shape)) for shape in shapes)
    return (values[0], values[1]), (ways[0], ways[1]), kind


@given(products())
def test_the_product_is_numpys(case: Any) -> None:
    """Every layout, batch, broadcast and type; oracle: NumPy's product of integers, in int64."""
    values, ways, kind = case
    check(kind, values, ways)


BATTERY: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((5, 3), (3, 7)), ((4, 8), (8, 12)), ((1, 6), (6, 1)), ((2, 5, 3), (2, 3, 4)), ((2, 3, 4, 8), (3, 8, 4)),
    ((3, 4, 5), (5, 6)), ((2, 1, 3, 5), (1, 4, 5, 2)),
)  # fmt: skip


def battery() -> Iterable[tuple[tuple[str, str, str], tuple[Array, Array], tuple[Way, Way]]]:
    """Yield each type with each pair of shapes, as it is and transposed, and cut out of something larger."""
    for kind in KINDS:
        for left, right in BATTERY:
            values = numbers(left, kind[0], 1), numbers(right, kind[0], 2)
            a, b = plain(len(left)), plain(len(right))
            cut = replace(a, after=(*a.after[:-1], 4))
            for ways in ((a, b), (swapped(len(left)), b), (a, swapped(len(right))), (cut, b)):
                yield kind, values, ways


def test_the_battery_is_right() -> None:
    """What the planted faults below are looked for with; oracle: NumPy's product of integers, in int64."""
    for case in battery():
        check(*case)


def _changed(**changes: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what changes fields of a planned call."""
    return lambda call: replace(call, **{name: change(call) for name, change in changes.items()})


def _side(**changes: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda side: replace(side, **{name: change(side) for name, change in changes.items()})


FAULTS: dict[str, Callable[[Any], Any]] = {
    "operands not swapped": _changed(first=lambda c: c.second, second=lambda c: c.first),
    "m and n exchanged": _changed(m=lambda c: c.n, n=lambda c: c.m),
    "first not transposed": _changed(first=lambda c: replace(c.first, transposed=not c.first.transposed)),
    "second not transposed": _changed(second=lambda c: replace(c.second, transposed=not c.second.transposed)),
    "first's ld too long": _changed(first=lambda c: replace(c.first, ld=c.first.ld + 1)),
    "second's ld is k": _changed(second=lambda c: replace(c.second, ld=c.k)),
    "ldc is n": _changed(ldc=lambda c: c.n),
    "k one short": _changed(k=lambda c: max(1, c.k - 1)),
    "the batch stride of A doubled": _changed(first=lambda c: replace(c.first, stride=2 * c.first.stride)),
    "the batch stride of B zero": _changed(second=lambda c: replace(c.second, stride=0)),
    "the batch stride of C short": _changed(stride_c=lambda c: c.stride_c - 1),
    "one matrix of the batch forgotten": _changed(batch=lambda c: max(1, c.batch - 1)),
    "what needs a copy read in place": _changed(second=lambda c: replace(c.second, copy=None)),
}
"""What is wrong -> the planned call with that fault."""


def found_by_the_battery() -> bool:
    """Tell whether some case of the battery fails."""
    for case in battery():
        try:
            check(*case)
        except (AssertionError, DeviceError, RuntimeError):
            return True
    return False


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_in_the_plan_are_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in a planned call is one that a case of the battery shows; oracle: the fault itself."""
    right = gemm_plan.plan

    def wrong(*args: Any) -> Any:
        planned = right(*args)
        return replace(planned, call=planned.call and FAULTS[fault](planned.call))

    monkeypatch.setattr(cublas, "plan", wrong)
    assert found_by_the_battery()


def test_a_wrong_type_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data type or compute type of another format is refused or misread; oracle: the fault itself."""
    for name in cublas.DATA_TYPES:
        with monkeypatch.context() as patch:
            patch.setattr(cublas, "DATA_TYPES", {**cublas.DATA_TYPES, name: 2 if name != "float16" else 14})
            assert found_by_the_battery(), name
    for name in cublas.COMPUTE_TYPES:
        with monkeypatch.context() as patch:
            wrong = 70 if name != "CUBLAS_COMPUTE_64F" else 68
            patch.setattr(cublas, "COMPUTE_TYPES", {**cublas.COMPUTE_TYPES, name: wrong})
            assert found_by_the_battery(), name


def test_alpha_and_beta_are_not_exchanged_and_have_the_right_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exchanged, they leave what the memory held: NaN; oracle: the fault itself."""
    right = cublas._NUMBERS
    with monkeypatch.context() as patch:
        patch.setattr(cublas, "_NUMBERS", {name: (zero, one) for name, (one, zero) in right.items()})
        assert found_by_the_battery()
    with monkeypatch.context() as patch:
        patch.setattr(cublas, "_NUMBERS", dict.fromkeys(right, right["float64"]))
        assert found_by_the_battery()


def test_int8_not_filled_up_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the rule of four the stand-in refuses as cuBLAS does; oracle: the manual of cublasGemmEx."""
    kind = ("int8", "int32", "int32")
    monkeypatch.setattr(gemm_plan, "PRODUCTS", {**PRODUCTS, kind: replace(PRODUCTS[kind], grain=1)})
    monkeypatch.setattr(cublas, "plan", gemm_plan.plan.__wrapped__)  # not what was remembered
    assert found_by_the_battery()


def test_int8_at_an_odd_address_is_copied() -> None:
    """Four bytes alignment is what cuBLAS asks for; oracle: the stand-in, and NumPy's product."""
    for misaligned in (1, 2, 3, 4):
        way = replace(plain(2), misaligned=misaligned)
        check(
            ("int8", "int32", "int32"), (numbers((8, 8), "int8", 1), numbers((8, 8), "int8", 2)), (way, way)
        )


def test_int8_extremes_are_exact() -> None:
    """The largest sums of 100 products of codes; oracle: arithmetic, 100 * 128 * 128."""
    least = np.full((4, 100), -128, np.int8)
    made, _ = multiply(("int8", "int32", "int32"), (least, least.T.copy()), (plain(2), plain(2)))
    assert (made == 100 * 128 * 128).all()


IN_PLACE: tuple[tuple[Any, ...], ...] = (
    ("C order", (4, 5), (5, 6), lambda a: a, lambda b: b),
    ("both transposed", (5, 4), (6, 5), lambda a: a.T, lambda b: b.T),
    ("columns of a wider array", (4, 9), (5, 9), lambda a: a[:, 2:7], lambda b: b[:, :6]),
    ("heads of attention", (2, 7, 3, 4), (2, 3, 4, 7), lambda a: a[:1].swapaxes(1, 2), lambda b: b[:1]),
    ("one matrix for a batch", (3, 4, 5), (5, 6), lambda a: a, lambda b: b),
    ("a transposed batch and one matrix", (3, 5, 4), (5, 6), lambda a: a.swapaxes(1, 2), lambda b: b),
    ("a column with others beside it", (5, 9), (1, 6), lambda a: a[:, 2:3:3], lambda b: b),
    ("a row that is a vector", (3, 5), (5, 6), lambda a: a[1][None, :], lambda b: b),
    ("one matrix before a batch", (4, 5), (3, 5, 6), lambda a: a, lambda b: b),
)  # fmt: skip


@pytest.mark.parametrize("case", IN_PLACE, ids=lambda case: case[0])
def test_views_that_cublas_can_read_are_not_copied(case: Any) -> None:
    """One allocation is made, the result's; oracle: the count of allocations."""
    _, left, right, take_a, take_b = case
    library = HostLibrary()
    stand_in = StandIn(library)
    a, b = (laid_out(library, numbers(s, "float16", i), plain(len(s))) for i, s in enumerate((left, right)))
    before = len(library.blocks)
    made = Cublas(library, stand_in, HANDLE, 90).matmul(
        take_a(a), take_b(b), output="float32", compute="float32"
    )
    assert len(library.blocks) == before + 1
    assert stand_in.calls == 1
    np.testing.assert_array_equal(
        host_view(made), host_view(take_a(a)).astype(np.int64) @ host_view(take_b(b)).astype(np.int64)
    )


def test_a_batch_times_one_matrix_is_one_product() -> None:
    """A linear layer on (B, T, C) is no batch: its rows follow each other, or those of a copy do.

    Oracle: the plan.
    """
    w = Layout.fresh((32, 64), "float16")
    for strides, copied in (((512, 32, 1), False), ((1024, 64, 2), True)):
        call = plan(Layout((8, 16, 32), strides, "float16"), w, "float32", "float32").call
        assert call is not None
        assert (call.m, call.n, call.k, call.batch) == (64, 128, 32, 1)
        assert (call.second.copy is not None) is copied


def test_int8_rows_need_no_filling() -> None:
    """Four is asked of K, N and leading dimensions, not of M; oracle: the plan."""
    call = plan(Layout.fresh((5, 8), "int8"), Layout.fresh((8, 12), "int8"), "int32", "int32").call
    assert call is not None
    assert (call.first.copy, call.second.copy, call.n) == (None, None, 5)


def test_int8_with_odd_steps_is_copied() -> None:
    """Rows, or the matrices of a batch, that are no multiple of four apart; oracle: NumPy's product."""
    library = HostLibrary()
    wide, long = (laid_out(library, numbers(s, "int8", 3), plain(len(s))) for s in ((8, 9), (40,)))
    windows = HostArray((3, 4, 8), np.int8, memptr=long.data, strides=(1, 8, 1))
    stand_in = StandIn(library)
    for a, b in ((wide[:, :8], wide[:, 1:]), (windows, wide[:, :8]), (wide[:4, 1:], windows.swapaxes(1, 2))):
        made = Cublas(library, stand_in, HANDLE, 90).matmul(a, b, output="int32", compute="int32")
        expected = host_view(a).astype(np.int64) @ host_view(b).astype(np.int64)
        np.testing.assert_array_equal(host_view(made), expected)


@pytest.mark.parametrize(
    ("left", "right"), [((4,), (4, 3)), ((2, 4), (4,)), ((4,), (4,)), ((4,), (2, 4, 3)), ((2, 3, 4), (4,))]
)
def test_one_dimension(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    """Vectors become rows and columns, and stop being so; oracle: numpy.matmul."""
    kind = ("float32", "float32", "float32")
    check(
        kind,
        (numbers(left, "float32", 1), numbers(right, "float32", 2)),
        (plain(len(left)), plain(len(right))),
    )


def test_nothing_to_add_up_gives_zeros_without_a_call() -> None:
    """K = 0 gives zeros, M or N = 0 nothing; oracle: NumPy."""
    for left, right in (((3, 0), (0, 2)), ((0, 4), (4, 2)), ((2, 3, 4), (2, 4, 0)), ((0, 3, 4), (4, 2))):
        values = numbers(left, "float16", 1), numbers(right, "float16", 2)
        made, stand_in = multiply(
            ("float16", "float32", "float32"), values, (plain(len(left)), plain(len(right)))
        )
        assert stand_in.calls == 0
        np.testing.assert_array_equal(made, np.zeros(np.matmul(*values).shape, np.float32))


def test_the_handles_math_mode_is_ours_during_a_call_and_then_the_users() -> None:
    """TF32 that somebody allowed on the handle does not reach our product; oracle: the stand-in's check."""
    x = numbers((4, 4), "float32", 1)
    multiply(("float32", "float32", "float32"), (x, x), (plain(2), plain(2)), mode=3)


def test_refusals() -> None:
    """What cannot be is said before anything is called; oracle: the messages."""
    library = HostLibrary()
    old = Cublas(library, StandIn(library), HANDLE, 75)
    half = library.zeros((4, 4), "float16")
    brain = library.zeros((4, 4), BFLOAT16)
    made = Cublas(library, StandIn(library), HANDLE, 80).matmul(
        brain, brain, output="float32", compute="float32"
    )
    assert not host_view(made).any(), "8.0 has it"
    with pytest.raises(DeviceError, match=r"compute capability 7\.5.*bfloat16.*needs 8\.0"):
        old.matmul(brain, brain, output="float32", compute="float32")
    single = library.zeros((4, 4), "float32")
    with pytest.raises(DeviceError, match=r"compute capability 7\.5.*TF32"):
        old.matmul(single, single, output="float32", compute="tf32")
    with pytest.raises(FormatError, match="does not make float32 of float16 factors with sums in float16"):
        old.matmul(half, half, output="float32", compute="float16")
    with pytest.raises(FormatError, match="one dtype, got float16 and bfloat16"):
        old.matmul(half, brain, output="float32", compute="float32")
    with pytest.raises(ShapeError, match=r"\(4, 4\) and \(3, 4\)"):
        old.matmul(half, library.zeros((3, 4), "float16"), output="float32", compute="float32")
    with pytest.raises(DeviceError, match="arrays of the GPU, got ndarray"):
        old.matmul(half, np.zeros((4, 4), np.float16), output="float32", compute="float32")
    with pytest.raises(ShapeError, match="cuBLAS counts to 2147483647"):
        plan(Layout.fresh((1 << 31, 1), "float16"), Layout.fresh((1, 1), "float16"), "float32", "float32")


def test_a_fault_of_cublas_says_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuBLAS's status alone tells nobody what to do; oracle: the message."""
    library = HostLibrary()
    stand_in = StandIn(library)

    def refuse(*_: Any) -> None:
        raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")

    monkeypatch.setattr(stand_in, "gemmEx", refuse)
    half = library.zeros((4, 8), "float16")
    with pytest.raises(DeviceError, match=r"m, n, k = 4, 4, 8.*leading dimensions 8, 8, 4.*NOT_SUPPORTED"):
        Cublas(library, stand_in, HANDLE, 90).matmul(half, half.T, output="float16", compute="float32")
    assert stand_in.mode == 0


def test_cublas_without_room_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workspace lies beside the pool, and float32 would not help; oracle: the error's class."""
    library = HostLibrary()
    stand_in = StandIn(library)

    def refuse(*_: Any) -> None:
        raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")

    monkeypatch.setattr(stand_in, "gemmEx", refuse)
    half = library.zeros((4, 8), "float16")
    with pytest.raises(OutOfMemoryError, match="no room for what is needed beside the arrays") as caught:
        Cublas(library, stand_in, HANDLE, 90).matmul(half, half.T, output="float16", compute="float32")
    assert caught.value.op == "matmul"
    assert "backend.memory.release()" in (caught.value.help or "")
    assert stand_in.mode == 0
