"""Layers, batch norms and models that the tests of fusion share."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from minimp import nn
from minimp.tensors import Tensor, tensor

NORM_OF = {
    "Linear": nn.BatchNorm1d,
    "Conv1d": nn.BatchNorm1d,
    "Conv2d": nn.BatchNorm2d,
    "ConvTranspose1d": nn.BatchNorm1d,
    "ConvTranspose2d": nn.BatchNorm2d,
}
"""The name of a layer -> the batch norm behind it."""


def moved(bn: Any, rng: np.random.Generator, spread: float = 1.0) -> Any:
    """Give a batch norm statistics and parameters of its own, of both signs, and put it in evaluation."""
    count = bn.num_features

    def put(leaf: Any, wide: np.ndarray[Any, Any]) -> None:
        if leaf is not None:
            leaf.array = wide.astype(leaf.dtype)

    put(bn.running_mean, rng.normal(size=count))
    put(bn.running_var, np.exp(spread * rng.normal(size=count)))
    put(bn.weight, rng.normal(size=count))
    put(bn.bias, rng.normal(size=count))
    return bn.eval()


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Any, Any, np.ndarray[Any, Any]]:
    """Draw a float64 layer, the batch norm behind it, and an input of the layer."""
    kind = draw(st.sampled_from(sorted(NORM_OF)))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    bias, affine = draw(st.booleans()), draw(st.booleans())
    eps = draw(st.sampled_from([1e-5, 1e-3, 0.5]))
    if kind == "Linear":
        taken, given = draw(st.integers(1, 6)), draw(st.integers(1, 6))
        layer: Any = nn.Linear(taken, given, bias, dtype="float64")
        x = rng.normal(size=(3, taken))
    else:
        groups = draw(st.sampled_from([1, 2, 3]))
        taken, given = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
        options = {
            "stride": draw(st.integers(1, 2)), "padding": draw(st.integers(0, 1)), "groups": groups,
            "dilation": draw(st.integers(1, 2)), "bias": bias,
        }  # fmt: skip
        layer = getattr(nn, kind)(taken, given, draw(st.integers(1, 3)), **options, dtype="float64")
        x = rng.normal(size=(2, taken, *(7, 6)[: layer.axes]))
    bn = NORM_OF[kind](given, eps=eps, affine=affine, dtype="float64")
    return layer, moved(bn, rng), x


def run(module: Any, x: Any) -> np.ndarray[Any, Any]:
    """Return what a module makes of an array or a tensor, as an array."""
    found = module(x if isinstance(x, Tensor) else tensor(x))
    return np.asarray(found.detach().array)


def state_of(model: Any) -> dict[str, tuple[int, bytes]]:
    """Return path -> which leaf stands there and its bytes, and path -> which module, to compare later."""
    leaves = {
        path: (id(leaf), leaf.array.tobytes())
        for path, leaf in [*model.named_parameters(), *model.named_buffers()]
    }
    modules = {f"module {path}": (id(each), b"") for path, each in model.named_modules()}
    return leaves | modules
