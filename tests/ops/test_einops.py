"""einops on tensors; oracle: einops on NumPy arrays, and difference quotients for gradients."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import minimp as mp
from minimp.checks import gradcheck
from minimp.operators import einops_backend
from tests.tolerances import assert_close

einops = pytest.importorskip("einops")
einops_backend.register()

X = np.random.default_rng(0).standard_normal((2, 3, 4, 6)) + 0.1
REARRANGED = [
    ("b c h w -> b (c h w)", {}),
    ("b c (h p) (w q) -> b (h w) (p q c)", {"p": 2, "q": 3}),
    ("b c h w -> w h b c", {}),
    ("b ... -> ... b", {}),
]


@pytest.mark.parametrize(("pattern", "lengths"), REARRANGED)
def test_rearrange(pattern: str, lengths: dict[str, int]) -> None:
    """Oracle: einops on the NumPy array; the gradient of a weighted sum."""
    np.testing.assert_array_equal(
        einops.rearrange(mp.tensor(X, dtype="float64"), pattern, **lengths).numpy(),
        einops.rearrange(X, pattern, **lengths),
    )
    assert gradcheck(lambda x: einops.rearrange(x, pattern, **lengths), [X])


@pytest.mark.parametrize("how", ["min", "max", "sum", "mean", "prod"])
def test_reduce(how: str) -> None:
    """Oracle: einops on the NumPy array, over two axes; the gradient."""
    pattern = "b c (h p) w -> b p c"
    got = einops.reduce(mp.tensor(X, dtype="float64"), pattern, how, p=2)
    assert_close(got.numpy(), einops.reduce(X, pattern, how, p=2), "fp64_sums")
    assert gradcheck(lambda x: einops.reduce(x, pattern, how, p=2), [X])


@pytest.mark.parametrize("how", ["any", "all"])
def test_reduce_truth(how: str) -> None:
    """Oracle: einops on the NumPy array."""
    mask = X > 0.5
    np.testing.assert_array_equal(
        einops.reduce(mp.tensor(mask), "b c h w -> b w", how).numpy(),
        einops.reduce(mask, "b c h w -> b w", how),
    )


def test_repeat_pack_and_lists() -> None:
    """Oracle: einops on the NumPy arrays."""
    x = mp.tensor(X, dtype="float64")
    for pattern, lengths in [("b c h w -> b c (h 2) (w n)", {"n": 3}), ("b c h w -> b k c h w", {"k": 2})]:
        np.testing.assert_array_equal(
            einops.repeat(x, pattern, **lengths).numpy(), einops.repeat(X, pattern, **lengths)
        )
        assert gradcheck(lambda x, p=pattern, n=lengths: einops.repeat(x, p, **n), [X])
    stacked = einops.rearrange([x, x], "two b c h w -> b (two c) h w")
    np.testing.assert_array_equal(stacked.numpy(), einops.rearrange([X, X], "two b c h w -> b (two c) h w"))
    packed, shapes = einops.pack([x, x[:, :, :, 0]], "b c *")
    np.testing.assert_array_equal(packed.numpy(), einops.pack([X, X[:, :, :, 0]], "b c *")[0])
    first, second = einops.unpack(packed, shapes, "b c *")
    np.testing.assert_array_equal(first.numpy(), X)
    np.testing.assert_array_equal(second.numpy(), X[:, :, :, 0])


def test_einsum() -> None:
    """Oracle: NumPy's einsum in float64, and the gradient."""
    a, b = X[0, 0], X[1, 1].T
    pattern = "rows inner, inner columns -> rows columns"
    got = einops.einsum(mp.tensor(a, dtype="float64"), mp.tensor(b, dtype="float64"), pattern)
    assert_close(got.numpy(), a @ b, "fp64_sums")
    assert gradcheck(lambda a, b: einops.einsum(a, b, pattern), [a, b])


def test_formats_stay() -> None:
    """Oracle: moves round nothing; a mean of float16 is float16."""
    x = mp.tensor(X, dtype="float16")
    assert einops.rearrange(x, "b c h w -> (b c) (h w)").format is mp.float16
    assert einops.reduce(x, "b c h w -> b", "mean").format is mp.float16


def test_einops_before_minimp_is_enough() -> None:
    """Oracle: a fresh process that imports both, in the order of isort."""
    code = (
        "import einops, minimp as mp; print(einops.rearrange(mp.tensor([[1.0, 2.0]]), 'a b -> (b a)').shape)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True
    )
    assert found.stdout == "(2,)\n"


def test_minimp_alone_does_not_import_einops() -> None:
    """Oracle: the modules of a fresh process."""
    code = "import sys, minimp; assert 'einops' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
