"""The linear layer in FP8; oracle: ml_dtypes' casts and float64 products, put together in the test."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minimp as mp
from minimp import formats, functional, nn, ops
from minimp.backend import get_backend
from minimp.errors import GradientError, SettingError, ShapeError
from minimp.fp8 import (
    DelayedScaling,
    FixedScaling,
    Float8BlockScaling,
    Float8CurrentScaling,
    Fp8Recipe,
    MXFP8BlockScaling,
    copy_of,
    fp8_autocast,
    fp8_recipes,
    inverse_of,
    losses_of,
    operand_of,
    watch,
)
from minimp.modes import listen, setting
from minimp.tape import Event
from tests.tolerances import assert_close

NUMPY = get_backend("numpy")
DTYPES = {"input": ml_dtypes.float8_e4m3fn, "weight": ml_dtypes.float8_e4m3fn, "grad": ml_dtypes.float8_e5m2}
TOP = {"input": 448.0, "weight": 448.0, "grad": 57344.0}
Array = np.ndarray[Any, Any]


def eight_bits(x: Array, role: str, scale: float) -> Array:
    """Scale in float32, clamp, and cast as ml_dtypes does."""
    with np.errstate(over="ignore"):
        scaled = np.clip(x.astype(np.float32) * np.float32(scale), -TOP[role], TOP[role])
    return scaled.astype(DTYPES[role])


def numbers(seed: int, shape: tuple[int, ...], spread: float = 1.0) -> Array:
    """Return float32 numbers of many sizes."""
    random = np.random.default_rng(seed)
    found: Array = (random.normal(size=shape) * np.exp(spread * random.normal(size=shape))).astype(np.float32)
    return found


def pieces(recipe: Fp8Recipe, spread: float = 1.0, **options: Any) -> tuple[Any, ...]:
    """Return x, W, b, dY, and y, dX, dW, db of the op."""
    x, w, b, g = (numbers(i, s, spread) for i, s in enumerate([(24, 40), (36, 40), (36,), (24, 36)]))
    tilt = np.where(np.arange(24) % 2, 2.0**7, 2.0**-7).astype(np.float32)[:, None]
    x, g = x * tilt, g / tilt  # in wgrad, rows of either size weigh the same
    leaves = [mp.tensor(a, requires_grad=True) for a in (x, w, b)]
    y = ops.linear_fp8(*leaves, recipe=recipe, **options)
    y.backward(mp.tensor(g))
    return x, w, b, g, y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)


@pytest.mark.parametrize("kind", ["delayed", "current", "power", "unscaled"])
def test_a_scale_for_each_tensor(kind: str) -> None:
    """Oracle: ml_dtypes' casts of the scaled numbers; float64 products, times 1 / s; forward and backward."""
    given_scales = {"delayed": (30.0, 100.5, 2.0**14), "unscaled": (1.0, 1.0, 1.0)}.get(kind)
    recipe = {
        "delayed": DelayedScaling(), "current": Float8CurrentScaling(), "unscaled": FixedScaling(),
        "power": Float8CurrentScaling(use_power_2_scales=True),
    }[kind]  # fmt: skip
    options = {"scales": given_scales} if kind == "delayed" else {}
    x, w, b, g, y, dx, dw, db = pieces(recipe, **options)
    scales = given_scales or tuple(
        float(np.float32(TOP[role]) / np.abs(a).max()) for role, a in zip(TOP, (x, w, g), strict=True)
    )
    if kind == "power":
        scales = tuple(2.0 ** np.floor(np.log2(s)) for s in scales)
    q = [
        eight_bits(a, role, s).astype(np.float64) * inverse_of(s)
        for a, role, s in zip((x, w, g), DTYPES, scales, strict=True)
    ]
    assert_close(y, q[0] @ q[1].T + b, "layout_fp32")
    assert_close(dx, q[2] @ q[1], "layout_fp32")
    assert_close(dw, q[2].T @ q[0], "layout_fp32")
    assert_close(db, g.astype(np.float64).sum(0), "layout_fp32")


@pytest.mark.parametrize("form", ["E4M3", "HYBRID"])
def test_mxfp8_reads_a_copy_of_its_own_for_each_product(form: str) -> None:
    """Oracle: minimp.formats.quantize along the axis of each sum, of the numbers as they came."""
    x, w, b, g, y, dx, dw, _ = pieces(MXFP8BlockScaling(fp8_format=form), spread=3.0)
    grads = "float8_e5m2" if form == "HYBRID" else "float8_e4m3fn"

    def q(a: Array, axis: int, element: str = "float8_e4m3fn") -> Array:
        how = formats.BlockFormat("mx", element, "e8m0", (32,), "rceil")
        return formats.quantize(a, how, axis=axis).dequantize(np.float64)

    assert_close(y, q(x, 1) @ q(w, 1).T + b, "layout_fp32")
    assert_close(dx, q(g, 1, grads) @ q(w, 0), "layout_fp32")
    assert_close(dw, q(g, 0, grads).T @ q(x, 0), "layout_fp32")
    again = q(q(x, 1).astype(np.float32), 0)
    assert (again != q(x, 0)).any(), "a copy of a copy differs, so the test can tell"


def test_blocks_of_128_and_squares_of_weights() -> None:
    """Oracle: minimp.formats.quantize: 1 x 128 along the sum, 128 x 128 of W both ways."""
    x, w, g = (numbers(i, s) for i, s in enumerate([(150, 260), (140, 260), (150, 140)]))
    leaves = [mp.tensor(a, requires_grad=True) for a in (x, w)]
    y = ops.linear_fp8(*leaves, recipe=Float8BlockScaling())
    y.backward(mp.tensor(g))

    def q(a: Array, axis: int, block: tuple[int, ...] = (128,)) -> Array:
        how = formats.BlockFormat("block", "float8_e4m3fn", "e8m0", block, "rceil")
        return formats.quantize(a, how, axis=axis).dequantize(np.float64)

    square = q(w, -1, (128, 128))
    assert_close(y.detach().numpy(), q(x, 1) @ square.T, "layout_fp32")
    assert_close(leaves[0].grad.numpy(), q(g, 1) @ square, "layout_fp32")
    assert_close(leaves[1].grad.numpy(), q(g, 0).T @ q(x, 0), "layout_fp32")


# ---- copies -----------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.sampled_from(["input", "grad"]), st.floats(2.0**-20, 2.0**20, width=32))
@settings(max_examples=60)
def test_codes_are_ml_dtypes_bits(seed: int, role: str, scale: float) -> None:
    """Oracle: ml_dtypes' cast of the clamped product, bit for bit; infinities are clamped, NaN stays NaN."""
    x = numbers(seed, (5, 9), 4.0)
    x[0, :4] = [np.inf, -np.inf, 0.0, -0.0]
    copy = copy_of(NUMPY, x, DelayedScaling(), role, 1, scale)
    wanted = eight_bits(x, role, scale)
    assert copy.codes.dtype == wanted.dtype
    np.testing.assert_array_equal(copy.codes.view(np.uint8), wanted.view(np.uint8))
    x[1, 1] = np.nan
    assert np.isnan(copy_of(NUMPY, x, DelayedScaling(), role, 1, scale).codes.astype(np.float32)[1, 1])


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 140), st.sampled_from([0, 1]),
    st.sampled_from(["input", "weight", "grad"]), st.sampled_from(["mxfp8", "block"]),
    st.floats(-60, 60),
)  # fmt: skip
@settings(max_examples=80)
def test_blocks_are_those_of_formats(
    seed: int, rows: int, columns: int, axis: int, role: str, name: str, power: float
) -> None:
    """Oracle: minimp.formats.quantize: codes and scales, of full blocks and of what is left over."""
    recipe = fp8_recipes[name]
    x = numbers(seed, (rows, columns), 3.0) * np.float32(2.0**power)
    x[:, columns // 2] = 0
    copy = copy_of(NUMPY, x, recipe, role, axis)
    extent = (128, 128) if (name, role) == ("block", "weight") else ({"mxfp8": 32, "block": 128}[name],)
    how = formats.BlockFormat("check", "float8_e4m3fn", "e8m0", extent, "rceil")
    wanted = formats.quantize(x, how, axis=axis if len(extent) == 1 else -1)
    np.testing.assert_array_equal(copy.codes.view(np.uint8), wanted.codes)
    np.testing.assert_array_equal(copy.scales.astype(np.float64), wanted.scales)
    assert copy.scales.dtype == (ml_dtypes.float8_e8m0fnu if name == "mxfp8" else np.float32)
    np.testing.assert_array_equal(operand_of(NUMPY, copy).values, wanted.dequantize())


@given(st.integers(0, 2**32 - 1), st.integers(-20, 20))
@settings(max_examples=40)
def test_scaling_by_a_power_of_two_is_exact(seed: int, power: int) -> None:
    """Oracle: x 2^k with the scale s 2^-k has the codes of x with s: nothing is rounded but to FP8."""
    x = numbers(seed, (6, 7))
    plain = copy_of(NUMPY, x, DelayedScaling(), "input", 1, 2.0**3)
    moved = copy_of(NUMPY, x * np.float32(2.0**power), DelayedScaling(), "input", 1, 2.0 ** (3 - power))
    np.testing.assert_array_equal(plain.codes.view(np.uint8), moved.codes.view(np.uint8))
    assert moved.factor == plain.factor * 2.0**power


@given(st.integers(0, 2**32 - 1), st.sampled_from(["current", "mxfp8", "block"]), st.sampled_from([0, 1]))
@settings(max_examples=40)
def test_quantising_twice_changes_nothing_more(seed: int, name: str, axis: int) -> None:
    """Property: what was read from FP8 is representable with the scales that it was read by."""
    recipe, x = fp8_recipes[name], numbers(seed, (33, 40))
    scale = 448 / float(np.abs(x).max()) if name == "current" else None
    scale = None if scale is None else float(np.float32(2.0 ** np.floor(np.log2(scale))))
    first = operand_of(NUMPY, copy_of(NUMPY, x, recipe, "input", axis, scale))
    read = (first.values * np.float32(first.factor)).astype(np.float32)
    again = operand_of(NUMPY, copy_of(NUMPY, read, recipe, "input", axis, scale))
    np.testing.assert_array_equal(again.values * np.float32(again.factor), read)


@pytest.mark.parametrize("role", ["input", "grad"])
def test_a_scale_is_the_least_that_clamps_nothing(role: str) -> None:
    """Oracle: by hand: the largest value takes 2^0, the next number 2^1; limits; what is not finite."""
    top = np.float32(TOP[role])
    amax = np.array([top, np.nextafter(top, np.float32(np.inf)), top * 2.0**-9, 0, 2.0**-149, np.inf, np.nan])
    made = NUMPY.power_scales(amax.astype(np.float32), DelayedScaling().format_of(role))
    np.testing.assert_array_equal(made, [1, 2, 2.0**-9, 2.0**-127, 2.0**-127, np.nan, np.nan])


def test_a_block_that_is_not_finite_is_lost_alone() -> None:
    """Oracle: OCP MX 1.0: a NaN scale makes its block NaN, and no other."""
    x = np.ones((2, 64), np.float32)
    x[0, 3], x[1, 40] = np.inf, np.nan
    read = operand_of(NUMPY, copy_of(NUMPY, x, MXFP8BlockScaling(), "input", 1)).values
    assert np.isnan(read[0, :32]).all()
    assert np.isnan(read[1, 32:]).all()
    assert (read[0, 32:] == 1).all()
    assert (read[1, :32] == 1).all()


# ---- the op in the engine ---------------------------------------------------------------------------------


@pytest.mark.parametrize("low", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", fp8_recipes)
def test_formats_under_autocast(name: str, low: str) -> None:
    """Oracle: the result has the region's format, each gradient its input's; FP32 weights are not cast."""
    layer = nn.Linear(40, 36)
    x = mp.tensor(numbers(0, (5, 40)), requires_grad=True)
    events: list[Event] = []
    with listen(events.append), mp.autocast(low), fp8_autocast(recipe=name):
        y = layer(x)
    y.sum().backward()
    assert y.format.name == low
    assert {x.grad.format.name, layer.weight.grad.format.name, layer.bias.grad.format.name} == {"float32"}
    assert [event.node.op.name for event in events] == ["linear_fp8"]


def test_what_is_saved_takes_a_byte_an_element() -> None:
    """Oracle: dtypes and bytes of what the node keeps."""
    x = mp.tensor(numbers(0, (64, 128)), requires_grad=True)
    w = mp.tensor(numbers(1, (96, 128)), requires_grad=True)
    kept = ops.linear_fp8(x, w, recipe=Float8CurrentScaling()).node.saved
    assert [a.dtype for a in kept if a is not None] == [ml_dtypes.float8_e4m3fn] * 2
    assert sum(a.nbytes for a in kept if a is not None) == 64 * 128 + 96 * 128
    kept = ops.linear_fp8(x, w, recipe=MXFP8BlockScaling()).node.saved
    assert sum(a.nbytes for a in kept) == (64 * 128 + 96 * 128) * 33 // 32


def test_sums_are_accumulated_as_the_name_says() -> None:
    """Oracle: minimp.formats.matmul of the same FP8 numbers, by the same name; forward and gradients."""
    x, w, g = (numbers(i, s) for i, s in enumerate([(6, 300), (5, 300), (6, 5)]))
    q = [eight_bits(a, role, 1.0).astype(np.float64) for a, role in zip((x, w, g), DTYPES, strict=True)]
    for name in ("float16", "float32:sequential", "chunked:4"):
        leaves = [mp.tensor(a, requires_grad=True) for a in (x, w)]
        with mp.accumulate(name):
            y = ops.linear_fp8(*leaves, recipe=FixedScaling())
        y.backward(mp.tensor(g))
        wanted = formats.matmul(q[0], q[1].T, fmt="float32", accumulate=name, output="float32")
        np.testing.assert_array_equal(y.detach().numpy(), wanted)
        wanted = formats.matmul(q[2].T, q[0], fmt="float32", accumulate=name, output="float32")
        np.testing.assert_array_equal(leaves[1].grad.numpy(), wanted)


def test_what_is_refused() -> None:
    """Oracle: an error of the tree, naming the op."""
    x, w = mp.tensor(numbers(0, (3, 4)), requires_grad=True), mp.tensor(numbers(1, (5, 4)))
    with pytest.raises(ShapeError, match="linear_fp8"):
        ops.linear_fp8(x, w.T, recipe=FixedScaling())
    with pytest.raises(ShapeError, match="bias"):
        ops.linear_fp8(x, w, mp.tensor([1.0]), recipe=FixedScaling())
    with mp.accumulate("tensorcore:hopper"), pytest.raises(SettingError, match="cannot act"):
        ops.linear_fp8(x, w, recipe=FixedScaling())
    with pytest.raises(SettingError, match="not 'current'"):
        ops.linear_fp8(x, w, recipe="current")
    for options in ({"scales": (1.0, 1.0, 1.0)}, {"stage": print}):
        with pytest.raises(SettingError, match="cannot act: MXFP8BlockScaling has no history"):
            ops.linear_fp8(x, w, recipe=MXFP8BlockScaling(), **options)
    for wrong in (0.0, -1.0, np.nan, np.inf, 2.0**-140):
        with pytest.raises(SettingError, match="three numbers above 0"):
            ops.linear_fp8(x, w, recipe=DelayedScaling(), scales=(1.0, wrong, 1.0))
    with pytest.raises(SettingError, match="three numbers above 0"):
        ops.linear_fp8(x, w, recipe=DelayedScaling(), scales=(1.0, 1.0))
    y = ops.linear_fp8(x, w, recipe=FixedScaling())
    with pytest.raises(GradientError, match="no second derivative"):
        mp.grad(y.sum(), x, create_graph=True)


def test_extreme_scales_do_not_leave_the_range_on_the_way() -> None:
    """Oracle: float64: a tiny x with a huge scale times a huge W with a tiny one."""
    x, w = np.full((1, 2), 2.0**-140, np.float32), np.full((1, 2), 2.0**120, np.float32)
    made = ops.linear_fp8(mp.tensor(x), mp.tensor(w), recipe=Float8CurrentScaling()).item()
    scale = inverse_of(float(np.finfo(np.float32).max))  # the scale of x cannot be larger
    code = float(np.float32(x[0, 0] / scale).astype(ml_dtypes.float8_e4m3fn))
    assert_close(np.array(made), np.array(2 * code * scale * 2.0**120), "layout_fp32")


def test_the_product_of_factors_may_lie_outside_of_float32() -> None:
    """Oracle: float64: two small tensors, whose factors multiply to 2^-138; two large ones."""
    small = np.array([[1.3, 0.7, 1.1]], np.float32) * np.float32(2.0**-60)
    made = ops.linear_fp8(mp.tensor(small), mp.tensor(small), recipe=Float8CurrentScaling())
    scale = float(np.float32(448) / small.max())
    read = eight_bits(small, "input", scale).astype(np.float64) * inverse_of(scale)
    assert_close(made.numpy(), read @ read.T, "layout_fp32")
    large = np.array([[2.0**80, 0.0]], np.float32)
    made = ops.linear_fp8(mp.tensor(large), mp.tensor(large[:, ::-1]), recipe=Float8CurrentScaling())
    assert made.item() == 0


# ---- what was lost ----------------------------------------------------------------------------------------


def test_losses_are_counted() -> None:
    """Oracle: by hand: one number too small, one too large, one zero, one infinite, the rest exact."""
    x = mp.tensor([[2.0**-11, 1.0, 500.0, 0.0, np.inf, -3.0]], requires_grad=True)
    w = mp.tensor(np.ones((1, 6)), dtype="float32")
    events: list[Event] = []
    with listen(events.append):
        ops.linear_fp8(x, w, recipe=FixedScaling()).backward(mp.tensor([[2.0**-18]]))
    lost = losses_of(events[0])["input"]
    assert (lost.nonzero, lost.flushed, lost.saturated) == (4, 1, 1)
    signal = 2.0**-22 + 1 + 500.0**2 + 9
    assert_close(np.array(lost.sqnr), 10 * np.log10(signal / (2.0**-22 + 52.0**2)), "fp64_same_maths")
    assert losses_of(events[0])["weight"].sqnr == np.inf
    assert losses_of(events[1])["grad"].flushed == 1


def test_watching_names_layers_with_frozen_and_shared_weights() -> None:
    """Oracle: the paths of the layers; a weight that an embedding has too, and one that needs no gradient."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.middle = nn.Embedding(16, 16), nn.Linear(16, 16)
            self.head = nn.Linear(16, 16, bias=False)
            self.head.weight = self.tokens.weight
            self.middle.weight.requires_grad = False

        def forward(self, codes: Any) -> mp.Tensor:
            return self.head(self.middle(self.tokens(codes)))

    model = Tied()
    with watch(model) as seen:
        with fp8_autocast(recipe="current"):
            y = model(mp.tensor(np.arange(4)))
        y.sum().backward()
    assert {path: set(roles) for path, roles in seen.by_layer.items()} == {
        "middle": {"input", "weight", "grad"},
        "head": {"input", "weight", "grad"},
    }


def test_watching_a_model_adds_up_by_layer_and_role() -> None:
    """Oracle: the counts of elements, and torchao's compute_error of the copies."""
    mp.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 32), nn.ReLU(), nn.Linear(32, 10))
    x = numbers(3, (8, 40))
    with watch(model) as seen:
        for _ in range(2):
            with fp8_autocast(recipe="current"):
                loss = functional.cross_entropy(model(mp.tensor(x)), np.arange(8))
            loss.backward()
    assert list(seen.by_layer) == ["0", "2"]
    assert [(path, role) for path, role, _ in seen.rows()][:3] == [
        ("0", "input"),
        ("0", "weight"),
        ("0", "grad"),
    ]
    assert seen.by_layer["0"]["weight"].nonzero == 2 * 40 * 32
    assert seen["weight"].nonzero == 2 * (40 * 32 + 32 * 10)
    scale = float(np.float32(448) / np.abs(x).max())
    read = eight_bits(x, "input", scale).astype(np.float64) * inverse_of(scale)
    wanted = 20 * np.log10(np.linalg.norm(x.astype(np.float64)) / np.linalg.norm(x - read))
    assert_close(np.array(seen.by_layer["0"]["input"].sqnr), wanted, "layout_fp32")
    lines = str(seen).split("\n")
    assert len(lines) == 7
    assert max(map(len, lines)) <= 100


def test_nothing_watched_is_nothing() -> None:
    """Oracle: no number of any role."""
    with watch() as seen, setting():
        functional.linear(mp.tensor([[1.0]]), mp.tensor([[1.0]]))
    assert seen["input"].nonzero == 0
    assert np.isnan(seen["input"].sqnr)
