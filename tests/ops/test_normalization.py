"""layer_norm, rms_norm and vector_norm: beside torch, by scalar sums, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional
from minimp.errors import FormatError, SettingError, ShapeError
from minimp.nn.normalization import LayerNorm, RMSNorm
from tests.arrays import host
from tests.ops.samples import numbers
from tests.ops.sums import WAYS, sums, to
from tests.ops.test_torch_parity import FLOATS, ROWS, both
from tests.tolerances import assert_close

SUMMING = [name for name in WAYS if not name.startswith("tensorcore:")]
f32 = np.float32


def _torch() -> Any:
    return pytest.importorskip("torch")


Call = Callable[..., Any]
NORMALISED: dict[str, tuple[Call, Call, list[tuple[int, ...]]]] = {
    "layer_norm": (
        lambda x, w, b: functional.layer_norm(x, (4, 5), w, b),
        lambda x, w, b: _torch().nn.functional.layer_norm(x, (4, 5), w, b),
        [(3, 4, 5), (4, 5), (4, 5)],
    ),
    "layer_norm_bare": (
        lambda x: functional.layer_norm(x, (5,), eps=0.1),
        lambda x: _torch().nn.functional.layer_norm(x, (5,), eps=0.1),
        [(7, 5)],
    ),
    "rms_norm": (
        lambda x, w: functional.rms_norm(x, (5,), w),
        lambda x, w: _torch().nn.functional.rms_norm(x, (5,), w),
        [(7, 5), (5,)],
    ),
    "rms_norm_eps": (
        lambda x: functional.rms_norm(x, (4, 5), eps=0.5),
        lambda x: _torch().nn.functional.rms_norm(x, (4, 5), eps=0.5),
        [(3, 4, 5)],
    ),
    **{
        f"norm_{p}_{dim}": (
            lambda x, p=p, dim=dim: functional.vector_norm(x, p, dim),
            lambda x, p=p, dim=dim: _torch().linalg.vector_norm(x, p, dim),
            [(3, 4, 5)],
        )
        for p, dim in [(2, None), (2, 1), (1, (0, 2)), (math.inf, -1), (3, 0), (1.5, 2), (0.5, (0, 1))]
    },
}  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("name", list(NORMALISED))
def test_results_and_gradients_are_near_torchs(name: str, fmt: str) -> None:
    """Oracle: torch 2.13.0 on the CPU in the same format, to a unit of the largest element (gradients: 4)."""
    mine, theirs, shapes = NORMALISED[name]
    random = np.random.default_rng(5)
    arrays = [numbers(random, shape, fmt) for shape in shapes]
    own, other = both(mine, theirs, arrays, fmt)
    assert_close(own[0], other[0], ROWS[fmt])
    for got, wanted in zip(own[1:], other[1:], strict=True):
        assert_close(got, wanted, ROWS[fmt].replace("_op_", "_gradient_"))


@pytest.mark.torch
def test_the_gradient_of_a_norm_at_its_kinks_is_torchs() -> None:
    """Oracle: torch 2.13.0: zeros, equal maxima of both signs, a row of zeros."""
    x = np.array([[0.0, 2.0, -2.0], [0.0, 0.0, 0.0], [1.0, 0.0, -0.0]], np.float32)
    for p in (0.5, 1, 1.5, 2, 3, math.inf):
        own, other = both(
            lambda a, p=p: functional.vector_norm(a, p, 1),
            lambda a, p=p: _torch().linalg.vector_norm(a, p, 1), [x], "float32",
        )  # fmt: skip
        assert_close(own[0], other[0], "parity_op_fp32")
        assert_close(own[1], other[1], "parity_gradient_fp32")


@pytest.mark.torch
@pytest.mark.parametrize("fmt", [*FLOATS, "float64"])
def test_the_default_eps_is_torchs(fmt: str) -> None:
    """Oracle: torch.nn.functional.rms_norm with eps=None on tiny numbers, where only eps counts."""
    x = mp.tensor(np.full((1, 4), 1e-3), dtype=fmt)
    torch = _torch()
    theirs = torch.nn.functional.rms_norm(torch.full((1, 4), 1e-3, dtype=getattr(torch, fmt)), (4,))
    rows = {**ROWS, "float64": "fp64_same_maths"}
    assert_close(functional.rms_norm(x, 4).numpy(), theirs.double().numpy(), rows[fmt])


@pytest.mark.parametrize("fmt", ["float16", "float32"])
@pytest.mark.parametrize("name", SUMMING)
def test_statistics_are_summed_by_name(name: str, fmt: str) -> None:
    """Oracle: the docstrings' formulas in float32 with scalar sums over D = 12 elements, and over rows."""
    random = np.random.default_rng(6)
    x, w, b, g = (numbers(random, s, fmt) for s in [(3, 3, 4), (3, 4), (3, 4), (3, 3, 4)])
    leaves = [mp.tensor(a, dtype=fmt, requires_grad=True) for a in (x, w, b, x, w)]
    with mp.accumulate(name):
        y = functional.layer_norm(leaves[0], (3, 4), leaves[1], leaves[2])
        z = functional.rms_norm(leaves[3], (3, 4), leaves[4], eps=0.25)
    y.backward(g)
    z.backward(g)
    x, w, b, g = (a.astype(f32) for a in (x, w, b, g))

    def mean(terms: Any) -> Any:
        return (sums(name, terms, (1, 2)) / 12).astype(f32)

    def check(got: mp.Tensor, wanted: Any) -> None:
        np.testing.assert_array_equal(host(got.detach()).astype(float), to(fmt, wanted).astype(float))

    centred = x - mean(x)
    scale = 1 / np.sqrt(mean(centred * centred) + f32(1e-5))
    unit, h = centred * scale, g * w
    check(y, unit * w + b)
    check(leaves[0].grad, (h - mean(h) - unit * mean(h * unit)) * scale)
    check(leaves[1].grad, sums(name, g * unit, (0,))[0])
    check(leaves[2].grad, sums(name, g, (0,))[0])
    scale = 1 / np.sqrt(mean(x * x) + f32(0.25))
    check(z, x * scale * w)
    check(leaves[3].grad, (h - x * scale * mean(h * (x * scale))) * scale)
    check(leaves[4].grad, sums(name, g * (x * scale), (0,))[0])


@pytest.mark.parametrize("fmt", ["float16", "float32"])
@pytest.mark.parametrize("name", SUMMING)
def test_norms_are_summed_by_name(name: str, fmt: str) -> None:
    """Oracle: scalar sums of |x|, x^2 and |x|^3 in C order over the axes; a library's powers are its own."""
    x = numbers(np.random.default_rng(7), (4, 3, 5), fmt)
    wide = np.abs(x).astype(f32)
    with mp.accumulate(name):
        t = mp.tensor(x, dtype=fmt)
        found = [functional.vector_norm(t, p, (2, 0)) for p in (1, 2, 3)]
    total = [sums(name, terms, (0, 2))[0, :, 0] for terms in (wide, wide * wide, np.power(wide, f32(3)))]
    wanted = [total[0], np.sqrt(total[1]), np.power(total[2], 1 / 3)]
    for got, right in zip(found[:2], wanted[:2], strict=True):
        np.testing.assert_array_equal(got.numpy().astype(float), to(fmt, right).astype(float))
    assert_close(found[2].numpy(), to(fmt, wanted[2]), ROWS[fmt])


def test_a_wider_format_is_computed_in() -> None:
    """Oracle: 300^2 is beyond float16 and the sum of 2^24 and 1 beyond float32; dtype= holds them."""
    assert functional.vector_norm(mp.tensor([300.0, 400.0], dtype="float16")).item() == 500.0
    x = mp.tensor([2.0**12, 1.0], dtype="float32")
    y = functional.vector_norm(x, dtype="float64")
    assert y.format is mp.float64
    assert y.item() == math.sqrt(2.0**24 + 1)
    assert functional.vector_norm(x).item() == 4096.0
    with mp.autocast("float16"):
        assert functional.vector_norm(x.half(), dtype="float64").format is mp.float64


T = mp.tensor(np.ones((2, 3)), dtype="float32")
REFUSED: dict[str, tuple[Call, type[Exception], str]] = {
    "shape": (lambda: functional.layer_norm(T, (2,)), ShapeError, r"expected x \(..., 2\), got \(2, 3\)"),
    "longer": (lambda: functional.rms_norm(T, (1, 2, 3)), ShapeError, r"\(..., 1, 2, 3\)"),
    "none": (lambda: functional.layer_norm(T, ()), ShapeError, "at least one axis"),
    "weight": (lambda: functional.layer_norm(T, 3, T), ShapeError, r"of shape \(3,\), got \(2, 3\)"),
    "bias": (lambda: functional.layer_norm(T, 3, None, T), ShapeError, r"of shape \(3,\), got \(2, 3\)"),
    "mixed": (lambda: functional.rms_norm(T, 3, T[0].half()), FormatError, "or float32 beside 16 bits"),
    "ord_nan": (lambda: functional.vector_norm(T, float("nan")), SettingError, "expected a number, got nan"),
    "ord_fro": (lambda: functional.vector_norm(T, "fro"), SettingError, "expected a number, got 'fro'"),
    "narrow": (lambda: functional.vector_norm(T, dtype="float16"), FormatError, "would narrow float32"),
    "sideways": (
        lambda: functional.vector_norm(T.bfloat16(), dtype="float16"), FormatError, "would narrow bfloat16",
    ),
    "integers": (lambda: functional.vector_norm(mp.tensor([1, 2])), FormatError, "a floating tensor"),
    "empty": (lambda: functional.vector_norm(T[:0], math.inf), ShapeError, "no norm of order inf"),
    "dim": (lambda: functional.vector_norm(T, 2, 2), ShapeError, "dim 2 is out of range"),
    "module": (lambda: LayerNorm(0), SettingError, "LayerNorm: .*whole numbers of at least 1, got 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_is_refused(name: str) -> None:
    """Oracle: type and words of each error."""
    call, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        call()


def test_empty_inputs() -> None:
    """Oracle: torch's results: empty, and 0 for the norm of nothing."""
    assert functional.layer_norm(mp.tensor(np.zeros((0, 3))), 3).shape == (0, 3)
    assert functional.layer_norm(mp.tensor(np.zeros((2, 0))), 0).shape == (2, 0)
    assert functional.vector_norm(mp.tensor(np.zeros((0,)))).item() == 0.0
    assert functional.vector_norm(mp.tensor(np.zeros((0, 2))), math.inf, 1).shape == (0,)


@pytest.mark.torch
@pytest.mark.parametrize("settings", [{}, {"elementwise_affine": False}, {"bias": False}])
def test_modules_are_torchs(settings: dict[str, bool]) -> None:
    """Oracle: torch.nn.LayerNorm and RMSNorm: names and values of the state, what is shown, the result."""
    torch, x = _torch(), numbers(np.random.default_rng(8), (2, 3, 4), "float32").astype(f32)
    pairs = [(LayerNorm((3, 4), 1e-3, **settings), torch.nn.LayerNorm((3, 4), 1e-3, **settings))]
    if "bias" not in settings:
        pairs.append((RMSNorm(4, **settings), torch.nn.RMSNorm(4, **settings)))
    for own, other in pairs:
        assert {k: v.numpy().tolist() for k, v in own.state_dict().items()} == {
            k: v.tolist() for k, v in other.state_dict().items()
        }
        assert repr(own) == repr(other)
        assert_close(
            own(mp.tensor(x)).detach().numpy(), other(torch.tensor(x)).detach().numpy(), "parity_op_fp32"
        )
