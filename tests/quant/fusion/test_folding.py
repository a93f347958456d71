"""Batch norm folded into the layer before it; oracles: the two run one after the other, and torch."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import formats, nn
from minimp.errors import SettingError
from minimp.quant.fusion import fold_batch_norm
from tests.quant.fusion.samples import NORM_OF, moved, pairs, run, state_of
from tests.tolerances import assert_bound, assert_close, assert_ulp, dot_bound


def magnitude(layer: Any, bn: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return sum |s w||x| + |s|(|b| + |mean|) + |beta| of each output: the layers on absolute values."""
    sizes = nn.Sequential(layer, bn)
    before = {leaf: leaf.array for leaf in [*sizes.parameters(), *sizes.buffers()]}
    try:
        for leaf in before:
            leaf.array = np.abs(leaf.array)
        bn.running_mean.array = -bn.running_mean.array
        return run(sizes, np.abs(x))
    finally:
        for leaf, array in before.items():
            leaf.array = array


@given(pairs())
def test_the_fold_computes_what_the_two_compute(case: tuple[Any, Any, np.ndarray[Any, Any]]) -> None:
    """Oracle: layer, then batch norm, in float64; the bound is a dot product's, with its few terms more."""
    layer, bn, x = case
    expected = run(bn, run(layer, x))
    folded = fold_batch_norm(layer, bn)
    length = 2 * (layer.weight.size + 8)  # both sides round
    bound = dot_bound(expected, magnitude(layer, bn, x), length, np.float64, np.float64)
    assert_bound(run(folded, x), expected, 2 * bound, "dot_product")


@given(st.sampled_from(["float32", "bfloat16", "float16"]), st.booleans(), st.integers(0, 2**16))
def test_parameters_are_rounded_once(form: str, bias: bool, seed: int) -> None:
    """Oracle: the formula in long double; float64 rounded once is half a unit off, a second rounding more."""
    rng = np.random.default_rng(seed)
    layer, bn = nn.Linear(3, 4, bias, dtype=form), moved(nn.BatchNorm1d(4), rng)
    wide = {name: leaf.array.astype(np.longdouble) for name, leaf in layer.named_parameters()}
    mean, var, gamma, beta = (
        leaf.array.astype(np.longdouble) for leaf in (bn.running_mean, bn.running_var, bn.weight, bn.bias)
    )
    scale = gamma / np.sqrt(var + np.longdouble(bn.eps))
    made = fold_batch_norm(layer, bn)
    assert made.weight.format is made.bias.format is formats.get(form)
    weight = (wide["weight"] * scale[:, None]).astype(np.float64)
    assert_ulp(made.weight.array, weight, "erf_float32")
    shift = ((wide.get("bias", 0) - mean) * scale + beta).astype(np.float64)
    unit = np.abs(wide.get("bias", 0)) + np.abs(mean)  # what may cancel
    slack = 2.0**-50 * (unit * np.abs(scale) + np.abs(beta)).astype(np.float64)
    step = 0.5 * float(ml_dtypes.finfo(made.bias.dtype).eps) * np.abs(shift)
    tiny = float(ml_dtypes.finfo(made.bias.dtype).smallest_subnormal)
    assert_bound(made.bias.array, shift, step + slack + tiny, "dot_product")


@pytest.mark.torch
@pytest.mark.parametrize("kind", sorted(NORM_OF))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("bias", [True, False])
def test_torch_folds_to_the_same_parameters(kind: str, dtype: str, bias: bool) -> None:
    """Oracle: torch 2.13 CPU, fuse_conv_bn_eval and fuse_linear_bn_eval, with groups where torch has them."""
    torch = pytest.importorskip("torch")
    from torch.nn.utils import fusion

    rng = np.random.default_rng(3)
    axes = {"Linear": 0, "1": 1, "2": 2}[kind if kind == "Linear" else kind[-2]]
    groups = 2 if kind.startswith("Conv") and "Transpose" not in kind else 1
    args: tuple[Any, ...] = (4, 6, 3) if axes else (4, 6)
    options = {"groups": groups} if axes else {}
    layer = getattr(nn, kind)(*args, bias=bias, dtype=dtype, **options)
    bn = moved(NORM_OF[kind](6, dtype=dtype), rng)
    theirs = getattr(torch.nn, kind)(*args, bias=bias, dtype=getattr(torch, dtype), **options).eval()
    norm = getattr(torch.nn, type(bn).__name__)(6, dtype=getattr(torch, dtype)).eval()
    for ours, other in ((layer, theirs), (bn, norm)):
        state = {name: torch.tensor(leaf.numpy()) for name, leaf in ours.state_dict().items()}
        other.load_state_dict(state)
    if axes:
        expected = fusion.fuse_conv_bn_eval(theirs, norm, transpose="Transpose" in kind)
    else:
        expected = fusion.fuse_linear_bn_eval(theirs, norm)
    made, row = fold_batch_norm(layer, bn), f"parity_op_fp{dtype[-2:]}"
    assert_close(made.weight.array, expected.weight.detach().numpy(), row)
    assert_close(made.bias.array, expected.bias.detach().numpy(), row)
    assert made.weight.requires_grad is expected.weight.requires_grad


def test_the_layer_and_the_batch_norm_stay_as_they_are() -> None:
    """Oracle: identities and bytes before and after; the copy owns its memory and asks for no gradient."""
    both = nn.Sequential(nn.Conv2d(2, 4, 3), moved(nn.BatchNorm2d(4), np.random.default_rng(0)))
    both[0].weight.requires_grad_(False)
    before = state_of(both)
    made = fold_batch_norm(both[0], both[1])
    assert state_of(both) == before
    assert made.weight is not both[0].weight
    assert not made.weight.requires_grad
    assert made.bias.requires_grad


def test_a_bias_that_comes_new_asks_for_a_gradient_as_the_weight_does() -> None:
    """Oracle: the docstring, for a layer without bias."""
    bn = moved(nn.BatchNorm1d(2), np.random.default_rng(0))
    for wanted in (True, False):
        layer = nn.Linear(3, 2, bias=False)
        layer.weight.requires_grad_(wanted)
        assert fold_batch_norm(layer, bn).bias.requires_grad is wanted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda layer, bn: setattr(bn, "running_mean", None), "no running statistics"),
        (lambda layer, bn: setattr(bn.running_var, "array", np.float32([-1.0, 1.0])), "is not finite"),
        (
            lambda layer, bn: setattr(bn.running_mean, "array", np.float32([np.nan, 1.0])),
            "bias is not finite",
        ),
        (lambda layer, bn: setattr(bn.weight, "array", np.float32([1e6, 1.0])), "more than float16 holds"),
    ],
)
def test_what_cannot_be_folded_is_refused(change: Any, said: str) -> None:
    """Oracle: the reason: statistics missing, negative or NaN, or a weight that overflows."""
    layer, bn = nn.Linear(3, 2).half(), moved(nn.BatchNorm1d(2), np.random.default_rng(0))
    change(layer, bn)
    with pytest.raises(SettingError, match=said):
        fold_batch_norm(layer, bn)


def test_other_channels_are_refused() -> None:
    """Oracle: 4 channels before 5, and before 1, which torch would spread over all."""
    for count in (5, 1):
        with pytest.raises(SettingError, match=f"the layer gives 4 channels, the batch norm takes {count}"):
            fold_batch_norm(nn.Conv1d(2, 4, 1), nn.BatchNorm1d(count).eval())
