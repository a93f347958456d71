"""Sums, pools, ReLU and shapes of codes, beside exact fractions and torch."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import functional, nn
from minimp.errors import FormatError, SettingError, ShapeError
from minimp.nn.module import Module
from minimp.quant import Affine, QTensor
from minimp.quant.modules import (
    Add,
    Cat,
    DeQuantize,
    DeQuantStub,
    Mul,
    Quantize,
    QuantizedAdaptiveAvgPool2d,
    QuantizedAdd,
    QuantizedAvgPool2d,
    QuantizedCat,
    QuantizedFlatten,
    QuantizedMaxPool2d,
    QuantizedMul,
    QuantizedReLU,
    QuantizedSub,
    QuantStub,
    Sub,
)
from minimp.quant.static import calibrate, convert
from minimp.tensors import tensor
from minimp_backends.integer_layers import integer_add
from minimp_backends.integer_pointwise import integer_mul
from minimp_backends.requantizing import requantize_reference
from tests.quant.static.samples import INT8, MODES, UINT8, Array

HALVES = Affine(0.5, 7, *UINT8)
CHANNELS = Affine(np.ones(2), np.zeros(2, np.int32), *INT8, axis=1)


def some(shape: tuple[int, ...], affine: Affine = HALVES, seed: int = 0) -> QTensor:
    """Return codes of all sizes."""
    rng = np.random.default_rng(seed)
    return QTensor(rng.integers(affine.quant_min, affine.quant_max + 1, shape).astype(affine.storage), affine)


@pytest.mark.parametrize("codes", [UINT8, INT8])
def test_relu(codes: tuple[int, int]) -> None:
    """Oracle: max(x, 0) of the numbers read back, exact as 0 has a code."""
    q = some((100,), Affine(0.5, 7, *codes))
    made = QuantizedReLU()(q)
    np.testing.assert_array_equal(made.dequantize(), np.maximum(q.dequantize(), 0))
    assert made.affine == q.affine


@pytest.mark.parametrize("axes", [(1, -1), (0, -1), (-2, -1), (2, 2), (0, 1)])
def test_flatten(axes: tuple[int, int]) -> None:
    """Oracle: the engine's flatten of the numbers read back."""
    q = some((2, 3, 4, 5))
    made = QuantizedFlatten(*axes)(q)
    np.testing.assert_array_equal(made.dequantize(), tensor(q.dequantize()).flatten(*axes).array)
    with pytest.raises(ShapeError, match="cannot join axes 1 to 4"):
        QuantizedFlatten(1, 4)(q)


@pytest.mark.parametrize("window", [(2,), (3, 2, 1), ((2, 3), (1, 2), 0, (2, 1)), (2, 2, 0, 1, True)])
def test_max_pool(window: Any) -> None:
    """Oracle: the float pool of the numbers read back."""
    q = some((2, 3, 7, 9), Affine(0.5, 3, *INT8))
    made = QuantizedMaxPool2d(*window)(q)
    its = functional.max_pool2d(tensor(q.dequantize()), *window)
    np.testing.assert_array_equal(made.dequantize(), its.array)


def mean_code(codes: Array, zero: int, mode: str) -> int:
    """Return the mean of a window by the rule, in fractions."""
    mean = Fraction(int(codes.astype(np.int64).sum()), codes.size)
    if mode == "float":
        return round(mean - zero) + zero
    return int(abs(mean) + Fraction(1, 2)) * (1 if mean >= 0 else -1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("codes", [UINT8, INT8])
@pytest.mark.parametrize("size", [1, 2, (3, 2), (None, 1), (5, 4)])
def test_adaptive_means(mode: str, codes: tuple[int, int], size: Any) -> None:
    """Oracle: exact means of the windows floor(i H / H') to ceil((i + 1) H / H'), rounded by each rule."""
    q = some((2, 2, 6, 4), Affine(0.5, 3, *codes))
    made = QuantizedAdaptiveAvgPool2d(size, mode=mode)(q)
    pair = size if isinstance(size, tuple) else (size, size)
    height, width = pair[0] or 6, pair[1] or 4
    assert made.shape == (2, 2, height, width)
    for n, c, i, j in np.ndindex(made.shape):
        rows = slice(i * 6 // height, -((i + 1) * -6 // height))
        columns = slice(j * 4 // width, -((j + 1) * -4 // width))
        assert made.codes[n, c, i, j] == mean_code(q.codes[n, c, rows, columns], 3, mode)


@pytest.mark.parametrize("mode", MODES)
def test_means(mode: str) -> None:
    """Oracle: exact means of windows that stride apart."""
    q = some((1, 2, 6, 6))
    made = QuantizedAvgPool2d(2, (1, 3), mode=mode)(q)
    for c, i, j in np.ndindex(2, 5, 2):
        window = q.codes[0, c, i : i + 2, 3 * j : 3 * j + 2]
        assert made.codes[0, c, i, j] == mean_code(window, 7, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("relu", [False, True])
def test_add(mode: str, relu: bool) -> None:
    """Oracle: the backend's sum; and the real sum, from which a code is hardly more than half a step away."""
    a, b, out = Affine(0.05, 120, *UINT8), Affine(0.11, -30, *INT8), Affine(0.13, 90, *UINT8)
    left, right = some((4, 1, 9), a), some((3, 1), b, seed=1)
    made = QuantizedAdd(a, b, out, relu=relu, mode=mode)(left, right)
    scales = tuple(float(each.scale) for each in (a, b, out))
    its = integer_add(left.codes, right.codes, scales, (120, -30, 90), *UINT8, mode, relu=relu)
    np.testing.assert_array_equal(made.codes, its)
    real = left.dequantize().astype(np.float64) + right.dequantize()
    steps = np.clip((np.maximum(real, 0) if relu else real) / np.float64(out.scale) + 90, 0, 255)
    assert abs(made.codes - steps).max() < 0.501
    assert made.affine == out


@pytest.mark.parametrize("mode", MODES)
def test_cat(mode: str) -> None:
    """Oracle: the reference of requantising; and what is read back, half a step away in ``"float"``."""
    affines = [Affine(0.05, 120, *UINT8), Affine(0.2, -30, *INT8), Affine(0.13, 90, *UINT8)]
    out, exact = affines[2], np.float64 if mode == "fixed-point" else np.float32
    parts = [some((2, n, 5), affine, n) for n, affine in zip((1, 3, 9), affines, strict=True)]
    made = QuantizedCat(affines, out, 1, mode=mode)(*parts)
    assert made.affine == out
    its = [
        requantize_reference(
            each.codes.astype(np.int32) - each.affine.zero_point,
            each.affine.scale.astype(exact) / exact(out.scale), 90, *UINT8, mode,
        ) for each in parts[:2]
    ]  # fmt: skip
    np.testing.assert_array_equal(made.codes, np.concatenate([*its, parts[2].codes], 1))
    real = np.concatenate([each.dequantize().astype(np.float64) for each in parts], 1)
    steps = np.clip(real / np.float64(out.scale) + 90, 0, 255)
    assert abs(made.codes - steps).max() < (0.501 if mode == "float" else 1)


def test_cat_of_one_list() -> None:
    """Oracle: the same inputs one by one, in floats, on codes, and through converting; torch.cat's way."""

    class Twice(nn.Module):
        def __init__(self, *, apart: bool) -> None:
            super().__init__()
            self.relu, self.cat, self.apart = nn.ReLU(), Cat(1), apart

        def forward(self, x: Any) -> Any:
            both = [self.relu(x), x]
            return self.cat(*both) if self.apart else self.cat(both)

    x, parts = np.float32([[-1, 2, 3]]), [some((2, 3)), some((2, 1))]
    found = []
    for apart in (True, False):
        model: Any = Twice(apart=apart).eval()
        assert model(tensor(x)).tolist() == [[0, 2, 3, -1, 2, 3]]
        found.append(convert(model, calibrate(model, [x]))(tensor(x)))
    np.testing.assert_array_equal(*found)
    assert found[0].shape == (1, 6)
    cat = QuantizedCat([HALVES, HALVES], HALVES, 1)
    np.testing.assert_array_equal(cat(parts).codes, cat(*parts).codes)


def test_what_cat_refuses() -> None:
    """Oracle: the message: another scale than it was made for, another count, shapes that do not fit."""
    cat = QuantizedCat([HALVES, HALVES], HALVES, 1)
    with pytest.raises(SettingError, match=r"made for codes of uint8, scale 0.5.*got uint8, scale 0.25"):
        cat(some((2, 1)), some((2, 1), Affine(0.25, 7, *UINT8)))
    with pytest.raises(SettingError, match="joins 2 inputs, got 3"):
        cat(*[some((2, 1))] * 3)
    with pytest.raises(ShapeError, match="along axis 1"):
        cat(some((2, 1)), some((3, 1)))
    with pytest.raises(SettingError, match="must have one scale"):
        QuantizedCat([HALVES, CHANNELS], HALVES)


@pytest.mark.parametrize("kind", [QuantizedAdd, QuantizedSub, QuantizedMul])
def test_what_two_numbers_refuse(kind: Any) -> None:
    """Oracle: the message: other scales or zero points than it was made for, floats, channels, shapes."""
    module = kind(HALVES, HALVES, HALVES)
    quarters, moved = some((2,), Affine(0.25, 7, *UINT8)), some((2,), Affine(0.5, 8, *UINT8))
    for wrong in ((some((2,)), quarters), (quarters, some((2,)))):
        with pytest.raises(SettingError, match=r"made for codes of uint8, scale 0.5.*got uint8, scale 0.25"):
            module(*wrong)
    with pytest.raises(SettingError, match=r"zero point 7.*zero point 8"):
        module(some((2,)), moved)
    with pytest.raises(FormatError, match="takes codes"):
        module(some((2,)), np.zeros(2, "f4"))
    with pytest.raises(SettingError, match="must have one scale"):
        kind(HALVES, CHANNELS, HALVES)
    with pytest.raises(ShapeError, match="do not broadcast"):
        module(some((2,)), some((3,)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("relu", [False, True])
def test_mul(mode: str, relu: bool) -> None:
    """Oracle: the backend's product; and the real one, hardly more than half a step away."""
    a, b, out = Affine(0.05, 120, *UINT8), Affine(0.11, -30, *INT8), Affine(0.53, 90, *UINT8)
    left, right = some((4, 1, 9), a), some((3, 1), b, seed=1)
    made = QuantizedMul(a, b, out, relu=relu, mode=mode)(left, right)
    multiplier = float(a.scale) * float(b.scale) / float(out.scale)
    its = integer_mul(left.codes, right.codes, multiplier, (120, -30, 90), *UINT8, mode, relu=relu)
    np.testing.assert_array_equal(made.codes, its)
    real = left.dequantize().astype(np.float64) * right.dequantize()
    steps = np.clip((np.maximum(real, 0) if relu else real) / np.float64(out.scale) + 90, 0, 255)
    assert abs(made.codes - steps).max() < (0.501 if mode == "float" else 0.51)
    assert made.affine == out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("relu", [False, True])
@given(st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(-128, 127))
def test_sub(mode: str, relu: bool, seed: int, zero: int, other: int) -> None:
    """Oracle: the real difference, half a step away; a - b is a + c, c the codes of -b."""
    a, b, out = Affine(0.05, zero, *UINT8), Affine(0.11, other, *INT8), Affine(0.13, 90, *UINT8)
    left, right = some((4, 1, 9), a, seed), some((3, 1), b, seed)
    made = QuantizedSub(a, b, out, relu=relu, mode=mode)(left, right)
    real = left.dequantize().astype(np.float64) - right.dequantize()
    steps = np.clip((np.maximum(real, 0) if relu else real) / np.float64(out.scale) + 90, 0, 255)
    assert abs(made.codes - steps).max() < 0.501
    minus = QTensor(-1 - right.codes, Affine(b.scale, -1 - b.zero_point, *INT8))
    np.testing.assert_array_equal(minus.dequantize(), -right.dequantize())
    its = QuantizedAdd(a, minus.affine, out, relu=relu, mode=mode)(left, minus)
    np.testing.assert_array_equal(made.codes, its.codes)


class Gated(Module):
    """Marks of two numbers, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.gate = nn.Linear(4, 6), nn.Linear(4, 6), nn.Sigmoid()
        self.mul, self.sub, self.last = Mul(), Sub(relu=True), nn.Linear(6, 2)

    def forward(self, x: Any) -> Any:
        """(N, 4) -> (N, 2)."""
        a, b = self.one(x), self.two(x)
        return self.last(self.sub(self.mul(a, self.gate(b)), b))


@pytest.mark.parametrize("mode", MODES)
def test_marks_in_a_model(mode: str) -> None:
    """Oracle: the float model, 25 dB at least; a product of other scales is refused by its path."""
    x = np.random.default_rng(9).normal(size=(60, 4)).astype(np.float32)
    model = Gated().eval()
    made: Any = convert(model, calibrate(model, [x]), mode=mode)
    y, q = (np.asarray(each(tensor(x)).detach().array, np.float64) for each in (model, made))
    assert 10 * np.log10((y**2).sum() / ((y - q) ** 2).sum()) > 25
    inner = made.model
    assert [type(each) for each in (inner.mul, inner.sub)] == [QuantizedMul, QuantizedSub]
    assert (inner.mul.kept("b_"), inner.sub.kept("a_")) == (inner.gate.kept(""), inner.mul.kept(""))
    with pytest.raises(SettingError, match=r"'mul' .QuantizedMul. was made for codes of"):
        inner.mul(some((2, 6)), some((2, 6)))


@pytest.mark.parametrize(
    "module", [QuantizedReLU(), QuantizedFlatten(), QuantizedAvgPool2d(1), QuantizedMaxPool2d(1),
               QuantizedAdaptiveAvgPool2d(1)], ids=lambda module: type(module).__name__,
)  # fmt: skip
def test_what_all_refuse(module: Any) -> None:
    """Oracle: the message: floats, a tensor of integers, codes with channels."""
    for wrong in (np.zeros((1, 2, 2, 2), "f4"), tensor(np.zeros((1, 2, 2, 2), "i1"))):
        with pytest.raises(FormatError, match="takes codes, got a"):
            module(wrong)
    with pytest.raises(SettingError, match="takes codes of one scale"):
        module(some((1, 2, 2, 2), CHANNELS))
    assert not module.training


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20))
def test_there_and_back(values: list[float]) -> None:
    """Law: what is quantised and read back lies within half a step, inside the range."""
    affine = Affine(1.0, 127, *UINT8)
    x = np.float32(values)
    y = DeQuantize()(Quantize(affine)(tensor(x)))
    assert y.array.dtype == np.float32
    assert abs(y.array - x).max() <= np.float32(0.5)


def test_codes_are_not_quantised_twice() -> None:
    """Oracle: the message."""
    with pytest.raises(FormatError, match="would be quantised twice"):
        Quantize(HALVES)(some((2,)))
    with pytest.raises(FormatError, match="DeQuantize takes codes"):
        DeQuantize()(np.zeros(2, "f4"))


def test_marks_of_products_and_differences() -> None:
    """Oracle: the plain ops, and their gradients."""
    x, y = (tensor(np.float32(each), requires_grad=True) for each in ([-1, 2, 3], [4, 5, -6]))
    assert Mul()(x, y).array.tolist() == [-4, 10, -18]
    assert Mul(relu=True)(x, y).array.tolist() == [0, 10, 0]
    assert Sub()(x, y).array.tolist() == [-5, -3, 9]
    z = Sub(relu=True)(x, y)
    assert z.array.tolist() == [0, 0, 9]
    z.sum().backward()
    assert (x.grad.array.tolist(), y.grad.array.tolist()) == ([0, 0, 1], [0, 0, -1])


@pytest.mark.parametrize("relu", [False, True])
def test_marks_do_nothing_in_floats(relu: bool) -> None:
    """Oracle: the plain ops, and their gradients."""
    x = tensor(np.float32([-1, 2, 3]), requires_grad=True)
    y = DeQuantStub()(Add(relu)(QuantStub()(x), tensor(np.float32([-1, -3, 1]))))
    assert y.array.tolist() == ([0, 0, 4] if relu else [-2, -1, 4])
    y.sum().backward()
    assert x.grad.array.tolist() == ([0, 0, 1] if relu else [1, 1, 1])
