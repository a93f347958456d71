"""Elementwise ops, statistics, scans and selections beside torch 2.13.0; what they keep; what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional as f
from minimp import ops
from minimp.errors import FormatError, MinimpError, SettingError, ShapeError
from tests.ops.samples import numbers
from tests.ops.test_torch_parity import ROWS, both, to_torch
from tests.tolerances import assert_close

FLOATS = ("float64", "float32", "float16", "bfloat16")
S, WIDE = (7, 5), (3, 4, 6)
MASK = np.arange(35).reshape(S) % 3 == 0
Call = Callable[..., Any]


def _torch() -> Any:
    return pytest.importorskip("torch")


def _t(name: str, *rest: Any, **options: Any) -> Call:
    """torch's function of that name, from torch.nn.functional or torch."""

    def call(*inputs: Any) -> Any:
        torch = _torch()
        home = torch.nn.functional if hasattr(torch.nn.functional, name) else torch
        return getattr(home, name)(*inputs, *rest, **options)

    return call


def _m(name: str, *rest: Any, **options: Any) -> Call:
    """The method of that name, here and in torch."""
    return lambda a, *inputs: getattr(a, name)(*inputs, *rest, **options)


def _f(name: str, *rest: Any, **options: Any) -> Call:
    return lambda *inputs: getattr(f, name)(*inputs, *rest, **options)


def _where(lib: Any, mask: Any) -> Call:
    return lambda a, b: lib().where(mask(), a, b)


def _same(name: str, *rest: Any, **options: Any) -> tuple[Call, Call]:
    """A function that both libraries call the same."""
    return _f(name, *rest, **options), _t(name, *rest, **options)


def _method(name: str, *rest: Any, **options: Any) -> tuple[Call, Call]:
    return _m(name, *rest, **options), _m(name, *rest, **options)


ONCE: dict[str, tuple[Call, Call, int]] = {
    "where": (
        lambda a, b: f.where(MASK, a, b),
        lambda a, b: _torch().where(to_torch(MASK), a, b),
        2,
    ),
    "masked_fill": (
        lambda a: a.masked_fill(MASK, 0.25),
        lambda a: a.masked_fill(to_torch(MASK), 0.25),
        1,
    ),
    "clamp": (*_method("clamp", -0.7, 0.9), 1),
    "clamp_below": (*_method("clamp", min=0.1), 1),
    "clamp_tensors": (*_method("clamp"), 3),
    "maximum": (*_same("maximum"), 2),
    "minimum": (*_same("minimum"), 2),
    "leaky_relu": (*_same("leaky_relu", 0.3), 1),
    "hardtanh": (*_same("hardtanh", -0.7, 0.3), 1),
    "relu6": (*_same("relu6"), 1),
    "floor": (*_method("floor"), 1),
    "ceil": (*_method("ceil"), 1),
    "round": (*_method("round"), 1),
    "trunc": (*_method("trunc"), 1),
    "tril": (*_method("tril", -1), 1),
    "triu": (*_method("triu", 2), 1),
    "stack": (lambda a, b: f.stack([a, b], -1), lambda a, b: _torch().stack([a, b], -1), 2),
    "sort": (lambda a: a.sort(0).values, lambda a: a.sort(dim=0, stable=True).values, 1),
    "sort_down": (
        lambda a: a.sort(1, descending=True).values,
        lambda a: a.sort(dim=1, descending=True, stable=True).values,
        1,
    ),
    "flip": (*_method("flip", 0, 1), 1),
    "roll": (*_method("roll", (2, -3), (0, 1)), 1),
    "roll_flat": (*_method("roll", 4), 1),
    "movedim": (*_method("movedim", 0, 1), 1),
    "unflatten": (*_method("unflatten", 1, (5, -1)), 1),
    "diagonal": (*_method("diagonal", -2), 1),
    "diag": (*_method("diag", 1), 1),
    "split": (lambda a: a.split(3)[2], lambda a: a.split(3)[2], 1),
    "chunk": (lambda a: a.chunk(3, 1)[1], lambda a: a.chunk(3, 1)[1], 1),
    "unbind": (lambda a: a.unbind(1)[3], lambda a: a.unbind(1)[3], 1),
    "repeat_interleave": (*_method("repeat_interleave", 2, 0), 1),
}


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["normal", "wide", "subnormal", "special", "ties"])
@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("name", list(ONCE))
def test_choices_and_moves_are_bit_equal(name: str, fmt: str, kind: str) -> None:
    """Oracle: torch, results and gradients: at ties, at the bounds, at NaN and infinities too."""
    mine, theirs, count = ONCE[name]
    random = np.random.default_rng(len(name))
    arrays = [numbers(random, S, fmt, kind) for _ in range(count)]
    if name in ("hardtanh", "relu6"):  # torch's gradient at NaN is g in the last elements of a row, else 0
        arrays = [np.where(np.isnan(x), 1.0, x) for x in arrays]
    own, other = both(mine, theirs, arrays, fmt)
    for got, wanted in zip(own, other, strict=True):
        np.testing.assert_array_equal(got.astype(np.float64), wanted)


NEAR: dict[str, tuple[Call, Call, list[tuple[int, ...]]]] = {
    **{
        name: (*_same(name), [S])
        for name in (
            "silu", "softplus", "elu", "selu", "celu", "hardsigmoid", "hardswish", "mish", "logsigmoid",
            "softsign", "sin", "cos", "tan", "sinh", "cosh", "atan", "erf", "expm1",
        )
    },
    **{name: (lambda x, n=name: getattr(f, n)(x.abs() + 0.5), lambda x, n=name: _t(n)(x.abs() + 0.5), [S])
       for name in ("log1p", "log2", "log10", "rsqrt")},
    **{name: (lambda x, n=name: getattr(f, n)(x.tanh() * 0.5), lambda x, n=name: _t(n)(x.tanh() * 0.5), [S])
       for name in ("asin", "acos")},
    "softplus_beta": (*_same("softplus", 2.5, 1.5), [S]),
    "glu": (*_same("glu", 1), [(7, 6)]),
    "prelu": (*_same("prelu"), [(2, 3, 4), (3,)]),
    "softmin": (*_same("softmin", dim=1), [S]),
    "square": (*_same("square"), [S]),
    "atan2": (*_same("atan2"), [S, (5,)]),
    "remainder": (*_same("remainder"), [S, S]),
    "lerp": (*_same("lerp"), [S, S, (5,)]),
    "lerp_number": (*_same("lerp", 0.3), [S, S]),
    "addcmul": (*_same("addcmul", value=0.25), [S, S, (5,)]),
    "addcdiv": (
        lambda x, a, b: f.addcdiv(x, a, b.abs() + 1),
        lambda x, a, b: _torch().addcdiv(x, a, b.abs() + 1),
        [S, S, S],
    ),
    "var": (*_method("var", 1), [S]),
    "var_all": (*_method("var"), [WIDE]),
    "var_axes": (*_method("var", (0, 2), correction=0, keepdim=True), [WIDE]),
    "std": (*_method("std", 0, unbiased=False), [S]),
    "var_mean": (lambda x: sum(f.var_mean(x, 1)), lambda x: sum(_torch().var_mean(x, 1)), [S]),
    "std_mean": (lambda x: sum(f.std_mean(x)), lambda x: sum(_torch().std_mean(x)), [S]),
    "logsumexp": (*_method("logsumexp", (0, 2)), [WIDE]),
    "prod": (*_method("prod", 1), [(4, 3)]),
    "prod_all": (*_method("prod"), [(2, 3)]),
    "cumsum": (*_method("cumsum", 1), [S]),
    "cumprod": (*_method("cumprod", 0), [(4, 5)]),
    "amin": (*_method("amin", 1), [S]),
    "min": (lambda x: x.min(1).values, lambda x: x.min(1).values, [S]),
    "topk": (lambda x: x.topk(3, 0).values, lambda x: x.topk(3, 0).values, [S]),
    "topk_small": (lambda x: x.topk(2, largest=False).values, lambda x: x.topk(2, largest=False).values, [S]),
    "tile": (*_method("tile", (2, 1, 3)), [S]),
    "repeat": (*_method("repeat", 2, 1, 3), [S]),
    "norm": (*_method("norm"), [S]),
    "norm_fro": (*_method("norm", "fro", 1), [S]),
    **{f"norm_{p}": (*_same("norm", p, 1), [S]) for p in (1, 3, 0.5, -1, math.inf, -math.inf)},
    "normalize": (*_same("normalize"), [S]),
    "cosine_similarity": (*_same("cosine_similarity"), [S, S]),
    "pairwise_distance": (*_same("pairwise_distance"), [S, S]),
}  # fmt: skip


FLOAT32_CONSTANTS = ("hardsigmoid",)
"""torch's kernel multiplies by a sixth that is a float32 number, in float64 too."""


@pytest.mark.torch
@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("name", list(NEAR))
def test_results_and_gradients_are_near(name: str, fmt: str) -> None:
    """Oracle: torch in the same format, to one unit of the largest element (four for gradients)."""
    mine, theirs, shapes = NEAR[name]
    random = np.random.default_rng(5)
    own, other = both(mine, theirs, [numbers(random, shape, fmt) for shape in shapes], fmt)
    row = ROWS.get(fmt, "parity_op_fp32" if name in FLOAT32_CONSTANTS else "fp64_sums")
    assert_close(own[0], other[0], row)
    for got, wanted in zip(own[1:], other[1:], strict=True):
        assert_close(got, wanted, row.replace("_op_", "_gradient_"))


KINKS = ("hardswish", "hardsigmoid", "hardtanh", "relu6", "leaky_relu", "elu", "silu", "mish", "softsign")


@pytest.mark.torch
@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("name", KINKS)
def test_kinks_lie_where_torch_has_them(name: str, fmt: str) -> None:
    """Oracle: torch's gradients at every quarter from -7 to 7, the kinks among them."""
    mine, theirs = _same(name)
    own, other = both(mine, theirs, [np.arange(-28, 29) / 4], fmt)
    row = ROWS.get(fmt, "parity_op_fp32")
    assert_close(own[0], other[0], row)
    assert_close(own[1], other[1], row.replace("_op_", "_gradient_"))


# ---- what is kept ----------------------------------------------------------------------------------------

BYTE, FLOAT = "a byte an element", "its own format"
KEPT: dict[str, tuple[Call, int, list[str | None]]] = {
    "where": (lambda a, b: f.where(MASK, a, b), 2, [BYTE]),
    "masked_fill": (lambda a: a.masked_fill(MASK, 0.0), 1, [BYTE]),
    "clamp": (lambda a: a.clamp(0, 1), 1, [BYTE, None, None]),
    "clamp_tensors": (lambda a, b, c: a.clamp(b, c), 3, [BYTE, BYTE, BYTE]),
    "maximum": (f.maximum, 2, [BYTE]),
    "leaky_relu": (f.leaky_relu, 1, [BYTE]),
    "hardtanh": (f.hardtanh, 1, [BYTE]),
    "hardsigmoid": (f.hardsigmoid, 1, [BYTE]),
    **{name: (_f(name), 1, [FLOAT]) for name in (
        "silu", "softplus", "elu", "hardswish", "mish", "logsigmoid", "sin", "cos", "tan", "asin", "atan",
        "erf", "log1p", "log2", "log10", "expm1", "rsqrt", "sinh", "cosh", "var",
    )},
    "glu": (lambda a: f.glu(a, 0), 1, [FLOAT]),
    **{name: (_f(name), 1, []) for name in ("floor", "ceil", "round", "trunc", "sign", "tril", "triu")},
    "flatten": (f.flatten, 1, []),
    "cumsum": (lambda a: a.cumsum(0), 1, []),
    "stack": (lambda a, b: f.stack([a, b]), 2, []),
    "sort": (lambda a: a.sort().values, 1, []),
    "atan2": (f.atan2, 2, [FLOAT, FLOAT]),
    "lerp": (lambda a, b: a.lerp(b, 0.5), 2, [None, None, None]),
    "addcmul": (f.addcmul, 3, [FLOAT, FLOAT]),
}  # fmt: skip


@pytest.mark.parametrize("fmt", ["float32", "float16"])
@pytest.mark.parametrize("name", list(KEPT))
def test_what_is_kept_is_the_closed_form(name: str, fmt: str) -> None:
    """Oracle: the row: a byte an element for choices, an input or the result for curves, none for moves."""
    call, count, wanted = KEPT[name]
    x = np.linspace(0.1, 0.8, 48).reshape(6, 8) if name == "glu" else np.linspace(0.1, 0.8, 35).reshape(S)
    y = call(*[mp.tensor(x + 0.01 * i, dtype=fmt, requires_grad=True) for i in range(count)])
    size = {BYTE: x.size, FLOAT: x.size * mp.formats.get(fmt).bits // 8, None: 0}
    assert [getattr(kept, "nbytes", 0) for kept in y.node.saved] == [size[each] for each in wanted]


def test_statistics_keep_their_input_and_a_number_a_row() -> None:
    """Oracle: std and logsumexp are differentiated from x and their result; prod and cumprod from x."""
    x = mp.tensor(np.ones(S), dtype="float16", requires_grad=True)
    assert [a.nbytes for a in x.std(1).node.saved] == [70, 14]
    assert [a.nbytes for a in x.logsumexp(1).node.saved] == [70, 14]
    assert [a.nbytes for a in x.prod(1).node.saved] == [70]
    assert [a.nbytes for a in x.cumprod(1).node.saved] == [70]


# ---- what is refused -------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Call, type[MinimpError], str]] = {
    "where_floats": (lambda x: f.where(x, x, x), FormatError, "where: expected a condition of booleans, got"),
    "masked_fill_overflow": (
        lambda x: x.half().masked_fill(x > 0, -1e9), FormatError, r"-1e\+09 does not fit in float16",
    ),
    "clamp_nothing": (lambda x: x.clamp(), SettingError, "expected a lower or an upper bound"),
    "bits_of_floats": (lambda x: ~x, FormatError, "bitwise_not: expected integers or booleans, got float64"),
    "glu_odd": (lambda x: f.glu(x, 1), ShapeError, "expected an even length"),
    "prelu_slopes": (lambda x: f.prelu(x, x[0, :3]), ShapeError, "expected one slope or 5, got"),
    "stack_shapes": (lambda x: f.stack([x, x[0]]), ShapeError, "expected tensors of one shape"),
    "stack_nothing": (lambda _: f.stack([]), SettingError, "at least one tensor"),
    "split_sizes": (lambda x: x.split([3, 3]), ShapeError, "add up to 7"),
    "topk_too_many": (lambda x: x.topk(6), SettingError, "expected k from 0 to 5, got 6"),
    "softplus_beta": (lambda x: f.softplus(x, 0), SettingError, "beta other than 0"),
    "norm_nuc": (lambda x: f.norm(x, "nuc"), SettingError, "expected a number or 'fro'"),
    "norm_empty": (lambda x: f.norm(x[:0], -1), ShapeError, "no norm of order -1"),
    "amin_empty": (lambda x: x[:0].amin(), ShapeError, "no smallest element"),
    "squeeze_axis": (lambda x: x.squeeze(2), ShapeError, "dim 2 is out of range"),
    "var_twice": (lambda x: x.var(0, True, correction=1), SettingError, "not both"),
    "set_item": (lambda x: x.__setitem__(0, 1.0), SettingError, "never changed in place"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_is_refused_in_words(name: str) -> None:
    """Oracle: the row: the kind of error, and what it says."""
    call, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        call(mp.tensor(np.linspace(-1, 1, 35).reshape(S)))


def test_order_counts_nan_as_the_largest_and_keeps_equal_elements_in_place() -> None:
    """Oracle: torch's documented order, and stability."""
    x = mp.tensor([2.0, np.nan, 1.0, 2.0, -np.inf, np.inf])
    assert x.argsort().tolist() == [4, 2, 0, 3, 5, 1]
    assert x.argsort(descending=True).tolist() == [1, 5, 0, 3, 2, 4]
    assert x.topk(3).indices.tolist() == [1, 5, 0]
    assert ops.argsort(mp.tensor(3.0), count=1).tolist() == 0


def test_products_with_zeros_have_their_gradients() -> None:
    """Oracle: by hand: with one zero only its own gradient is left, with two none; second derivatives."""
    x = mp.tensor([2.0, 0.0, 3.0], dtype="float64", requires_grad=True)
    (slope,) = mp.grad(x.prod(), x, create_graph=True)
    assert slope.tolist() == [0.0, 6.0, 0.0]
    (curve,) = mp.grad((slope * mp.tensor([1.0, 10.0, 100.0], dtype="float64")).sum(), x)
    assert curve.tolist() == [30.0, 203.0, 20.0]  # d2 y / dx_i dx_j is the third element
    zeros = mp.tensor([2.0, 0.0, 0.0], requires_grad=True)
    zeros.prod().backward()
    assert zeros.grad.tolist() == [0.0, 0.0, 0.0]
    running = mp.tensor([2.0, 0.0, 3.0, 0.0, 5.0], requires_grad=True)
    running.cumprod(0).sum().backward()
    assert running.grad.tolist() == [1.0, 8.0, 0.0, 0.0, 0.0]
