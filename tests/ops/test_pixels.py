"""Images rearranged: beside torch, there and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import minimp as mp
from minimp import functional
from minimp.errors import SettingError, ShapeError
from tests.ops.samples import numbers
from tests.ops.test_convolutions import FORMATS, OWN, twice
from tests.ops.test_torch_parity import both
from tests.tolerances import assert_close

Call = Callable[..., Any]


def _torch() -> Any:
    return pytest.importorskip("torch")


CASES: dict[str, tuple[str, tuple[int, ...], tuple[Any, ...]]] = {
    "shuffle": ("pixel_shuffle", (2, 18, 2, 4), (3,)),
    "shuffle_one": ("pixel_shuffle", (4, 2, 3), (2,)),
    "unshuffle": ("pixel_unshuffle", (2, 3, 4, 6), (2,)),
    "channels": ("channel_shuffle", (2, 6, 3, 2), (3,)),
    "unfold": ("unfold", (2, 3, 6, 7), ((2, 3), (2, 1), (1, 2), (2, 1))),
    "fold": ("fold", (2, 12, 25), ((4, 5), (2, 3), 1, (1, 1), 1)),
    "norm": ("lp_pool2d", (2, 3, 6, 7), (2.0, (2, 3), 2)),
    "norm_of_signals": ("lp_pool1d", (2, 3, 9), (4.0, 3, None, True)),
}


@pytest.mark.torch
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("name", list(CASES))
def test_results_and_gradients_are_torchs(name: str, fmt: str) -> None:
    """Oracle: torch 2.13.0 on the CPU; what only moves is bit for bit.

    lp_pool is held to torch in float32, as it rounds three times; fold to torch's float32 rounded once, as
    torch's own adds up in 16 bits.
    """
    op, shape, args = CASES[name]
    x = numbers(np.random.default_rng(1), shape, fmt, "positive")
    wide = op.startswith("lp_pool")
    theirs = getattr(_torch().nn.functional, op)
    own, other = both(
        lambda a: getattr(functional, op)(a.float() if wide and fmt != "float64" else a, *args),
        lambda a: (
            theirs(a.float(), *args).to(a.dtype) if op == "fold" and fmt != "float64"
            else theirs(a.float() if wide and fmt != "float64" else a, *args)
        ), [x], fmt,
    )  # fmt: skip
    if op not in ("fold", "lp_pool1d", "lp_pool2d"):
        np.testing.assert_array_equal(own[0].astype(np.float64), other[0])
    assert_close(own[0], other[0], OWN[fmt])
    assert_close(own[1], other[1], OWN[fmt].replace("_op_", "_gradient_"))


@pytest.mark.torch
@settings(deadline=None, max_examples=50)
@given(
    *[st.tuples(st.integers(1, n), st.integers(1, n)) for n in (6, 3, 2, 3)],
    st.tuples(*[st.integers(0, 2)] * 2),
)
def test_any_windows_are_torchs(size: Any, kernel: Any, dilation: Any, stride: Any, padding: Any) -> None:
    """Oracle: torch's unfold and fold in float64; fold(unfold(x)) counts how often each pixel was read."""
    parts = zip(size, kernel, dilation, padding, strict=True)
    assume(all(n + 2 * p >= d * (k - 1) + 1 for n, k, d, p in parts))
    torch, x = _torch(), np.random.default_rng(2).standard_normal((2, 2, *size))
    args = (kernel, dilation, padding, stride)
    columns = functional.unfold(mp.tensor(x, dtype="float64"), *args)
    wanted = torch.nn.functional.unfold(torch.from_numpy(x), *args)
    np.testing.assert_array_equal(columns.numpy(), wanted.numpy())
    image = functional.fold(columns, size, *args).numpy()
    assert_close(image, torch.nn.functional.fold(wanted, size, *args).numpy(), "fp64_sums")


@pytest.mark.torch
@pytest.mark.parametrize("name", ["unfold", "fold", "shuffle", "norm"])
def test_second_derivatives_are_torchs(name: str) -> None:
    """Oracle: torch's double backward in float64."""
    op, shape, args = CASES[name]
    x = np.random.default_rng(3).uniform(0.5, 2.0, shape)
    twice(
        lambda a: getattr(functional, op)(a * a, *args),
        lambda a: getattr(_torch().nn.functional, op)(a * a, *args), [x],
    )  # fmt: skip


def test_shuffles_lead_back() -> None:
    """Oracle: the identity, bit for bit."""
    x = np.random.default_rng(4).standard_normal((2, 12, 3, 5)).astype(np.float32)
    there = functional.pixel_shuffle(mp.tensor(x), 2)
    assert there.shape == (2, 3, 6, 10)
    np.testing.assert_array_equal(functional.pixel_unshuffle(there, 2).numpy(), x)
    back = functional.channel_shuffle(functional.channel_shuffle(mp.tensor(x), 3), 4)
    np.testing.assert_array_equal(back.numpy(), x)


X = mp.tensor(np.ones((2, 3, 4, 5)), dtype="float32")
REFUSED: dict[str, tuple[Call, type[Exception], str]] = {
    "channels": (lambda: functional.pixel_shuffle(X, 2), ShapeError, "channels in groups of 4"),
    "factor": (lambda: functional.pixel_shuffle(X, 0), SettingError, "upscale_factor: expected a whole"),
    "size": (lambda: functional.pixel_unshuffle(X, 2), ShapeError, "in multiples of 2"),
    "groups": (lambda: functional.channel_shuffle(X, 2), ShapeError, "in 2 equal groups"),
    "axes": (lambda: functional.unfold(X[0], 2), ShapeError, r"expected x \(N, C, H, W\)"),
    "window": (lambda: functional.unfold(X, 6), ShapeError, "does not fit"),
    "columns": (lambda: functional.fold(X[0], 4, 2), ShapeError, r"expected x \(N, C 4, 9\)"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_is_refused(name: str) -> None:
    """Oracle: type and words of each error."""
    call, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        call()
