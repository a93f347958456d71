"""Fake quantisation of tensors and of channels: beside torch, beside mp.quant, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional as f
from minimp.errors import FormatError, GradientError, SettingError, ShapeError
from minimp.quant import Affine, fake_quantize
from tests.ops.test_torch_parity import both

FLOATS = ("float64", "float32", "float16", "bfloat16")
CODES = [(-128, 127), (0, 255), (-8, 7), (0, 3), (-128, 1000)]
SCALES, ZEROS = np.float32([0.1, 0.5, 0.02]), np.int32([0, 3, 1])
X = mp.tensor(np.ones((2, 3), np.float32))


def crafted(seed: int, scale: Any) -> np.ndarray[Any, Any]:
    """Steps, ties and what lies beyond the codes, NaN and infinities among them: (400, 3)."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-600, 600, (400, 3)) / 2 * scale
    x[:3] = [[np.nan, np.inf, -np.inf], [0.0, -0.0, 1e-30], [1e6, -1e6, 1.0]]
    return np.asarray(x)


def _torch() -> Any:
    return pytest.importorskip("torch")


@pytest.mark.torch
@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("codes", CODES)
def test_tensors_are_torchs(codes: tuple[int, int], fmt: str) -> None:
    """Oracle: torch, results and gradients bit for bit; NaN, infinities, half steps beyond the codes."""
    for scale in (0.1, 0.5, 0.02):
        for zero in (codes[0], 0, 3):
            own, other = both(
                lambda x, s=scale, z=zero: f.fake_quantize_per_tensor_affine(x, s, z, *codes),
                lambda x, s=scale, z=zero: _torch().fake_quantize_per_tensor_affine(x, s, z, *codes),
                [crafted(1, scale)], fmt,
            )  # fmt: skip
            for got, wanted in zip(own, other, strict=True):
                np.testing.assert_array_equal(got.astype(np.float64), wanted)


@pytest.mark.torch
@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("codes", CODES)
def test_channels_are_torchs(codes: tuple[int, int], fmt: str) -> None:
    """Oracle: torch, bit for bit, infinities apart: there x (1/s) is cast to 64 bits, which wraps."""
    torch = _torch()
    x = crafted(2, SCALES)
    x[0, 1:], x[2, :2] = 1.0, 6e4
    own, other = both(
        lambda x: f.fake_quantize_per_channel_affine(x, SCALES, ZEROS, 1, *codes),
        lambda x: torch.fake_quantize_per_channel_affine(
            x, torch.from_numpy(SCALES), torch.from_numpy(ZEROS), 1, *codes
        ),
        [x], fmt,
    )  # fmt: skip
    for got, wanted in zip(own, other, strict=True):
        np.testing.assert_array_equal(got.astype(np.float64), wanted)


@pytest.mark.parametrize("codes", CODES[:4])
def test_they_are_what_quant_has(codes: tuple[int, int]) -> None:
    """Oracle: mp.quant.fake_quantize by the rule "torch", bit for bit: conversion keeps what was trained."""
    x = crafted(3, SCALES).astype(np.float32)
    one = f.fake_quantize_per_tensor_affine(x, 0.1, 3, *codes)
    assert one.numpy().tobytes() == fake_quantize(x, Affine(0.1, 3, *codes)).tobytes()
    many = f.fake_quantize_per_channel_affine(x, SCALES, ZEROS, -1, *codes)
    assert many.numpy().tobytes() == fake_quantize(x, Affine(SCALES, ZEROS, *codes, axis=-1)).tobytes()


def test_gradients_go_straight_through() -> None:
    """Oracle: by hand: a value moves up to half a step beyond the last code, and no further."""
    x = mp.tensor([-5.0, -4.49, -4.0, 0.0, 3.0, 3.49, 3.51, np.nan], dtype=mp.float32, requires_grad=True)
    y = f.fake_quantize_per_tensor_affine(x, 1.0, 0, -4, 3)
    (y * mp.tensor(np.arange(1, 9, dtype=np.float32))).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 6, 0, 0]
    assert y.tolist() == [-4, -4, -4, 0, 3, 3, 3, -4]


def test_numbers_and_tensors_are_scales() -> None:
    """Oracle: the same call with a number."""
    wanted = f.fake_quantize_per_tensor_affine(X, 0.1, 3, 0, 15).tolist()
    scale, zero = mp.tensor([0.1]), mp.tensor(np.array(3))
    assert f.fake_quantize_per_tensor_affine(X, scale, zero, 0, 15).tolist() == wanted


@pytest.mark.parametrize("policy", ["torch-cpu", "torch-cuda"])
def test_autocast(policy: str) -> None:
    """Oracle: torch's lists: of a tensor, fp32 on a CPU, and in no list on CUDA; of channels, in none."""
    x = mp.tensor(np.ones((2, 3), np.float16))
    with mp.autocast("float16", policy=policy):
        one = f.fake_quantize_per_tensor_affine(x, 0.1, 0, -8, 7)
        many = f.fake_quantize_per_channel_affine(x, SCALES, ZEROS, 1, -8, 7)
    assert one.format.name == {"torch-cpu": "float32", "torch-cuda": "float16"}[policy]
    assert many.format.name == "float16"


def refused() -> dict[str, tuple[Callable[[], Any], type[Exception], str]]:
    """Bad calls, the error of each, and what it says."""
    one, many = f.fake_quantize_per_tensor_affine, f.fake_quantize_per_channel_affine
    learnt = mp.tensor(SCALES, requires_grad=True)
    return {
        "zero": (lambda: one(X, 0.1, 300, -128, 127), SettingError, "must be codes, -128 to 127, got 300"),
        "scale": (lambda: one(X, 0.0, 0, -128, 127), SettingError, "positive and finite, got 0"),
        "nan": (lambda: many(X, SCALES * np.nan, ZEROS, 1, 0, 7), SettingError, "got nan"),
        "tiny": (lambda: one(X, 1e-45, 0, -128, 127), SettingError, "positive and finite"),
        "codes": (lambda: one(X, 0.1, 0, 7, -8), SettingError, "quant_min < quant_max, got 7 and -8"),
        "several": (lambda: one(X, SCALES, ZEROS, 0, 7), SettingError, "one scale and one zero point"),
        "fraction": (lambda: one(X, 0.1, 0.5, 0, 7), FormatError, "whole numbers, got float64"),
        "axis": (lambda: many(X, SCALES, ZEROS, 2, 0, 7), ShapeError, "for each channel on axis 2"),
        "channels": (lambda: many(X, SCALES, ZEROS, 0, 0, 7), ShapeError, r"on axis 0 of \(2, 3\)"),
        "learnt": (lambda: many(X, learnt, ZEROS, 1, 0, 7), GradientError, "have no gradient here"),
    }


@pytest.mark.parametrize("name", list(refused()))
def test_bad_calls_are_refused(name: str) -> None:
    """Oracle: one error each, which says what came."""
    call, error, says = refused()[name]
    with pytest.raises(error, match=says):
        call()
