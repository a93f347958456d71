"""Attention and transformers; oracle: the formula in NumPy float64, and masks that must come to the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.checks.gradcheck import gradcheck
from minimp.errors import DataError, SettingError, ShapeError
from tests.arrays import host
from tests.tolerances import assert_close


def inputs(rng: np.random.Generator, *shape: int) -> mp.Tensor:
    """Return normal numbers in float64."""
    return mp.tensor(rng.standard_normal(shape))


def values(x: Any) -> np.ndarray[Any, Any]:
    """Return a tensor's values."""
    return host(x.detach())


def test_attention_is_its_formula(rng: np.random.Generator) -> None:
    """Oracle: Vaswani et al. 2017, section 3.2, head by head in NumPy float64."""
    module = nn.MultiheadAttention(6, 2, batch_first=True).double()
    x, k = inputs(rng, 3, 4, 6), inputs(rng, 3, 5, 6)
    y, weights = module(x, k, k, average_attn_weights=False)
    assert weights is not None
    w, b = values(module.in_proj_weight), values(module.in_proj_bias)
    parts = zip((values(x), values(k), values(k)), np.split(w, 3), np.split(b, 3), strict=True)
    q, keys, v = (part @ weight.T + bias for part, weight, bias in parts)
    heads = []
    for head in range(2):
        place = slice(3 * head, 3 * head + 3)
        scores = q[..., place] @ keys[..., place].transpose(0, 2, 1) / np.sqrt(3)
        share = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        assert_close(values(weights)[:, head], share, "fp64_sums")
        heads.append(share @ v[..., place])
    wanted = np.concatenate(heads, -1) @ values(module.out_proj.weight).T + values(module.out_proj.bias)
    assert_close(values(y), wanted, "fp64_sums")


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("extras", [{}, {"add_bias_kv": True}, {"add_zero_attn": True}])
def test_all_ways_to_say_causal_are_one(
    need_weights: bool, extras: dict[str, bool], rng: np.random.Generator
) -> None:
    """Oracle: the boolean mask; minus infinities; the flag alone; the flag beside a mask and a padding."""
    module = nn.MultiheadAttention(6, 2, batch_first=True, **extras).double()
    x = inputs(rng, 3, 4, 6)
    later = ~np.tri(4, dtype=bool)
    nobody = np.zeros((3, 4), bool)
    ways: list[dict[str, Any]] = [
        {"attn_mask": later},
        {"attn_mask": np.where(later, -np.inf, 0.0)},
        {"is_causal": True},
        {"is_causal": True, "attn_mask": later},
        {"is_causal": True, "key_padding_mask": nobody},
        {"attn_mask": np.broadcast_to(later, (6, 4, 4)), "key_padding_mask": np.zeros((3, 4))},
    ]
    found = [module(x, x, x, need_weights=need_weights, **way) for way in ways]
    for y, weights in found[1:]:
        assert_close(values(y), values(found[0][0]), "fp64_sums")
        assert (weights is None) is not need_weights
        if need_weights:
            assert_close(values(weights), values(found[0][1]), "fp64_sums")


def test_padded_keys_change_nothing(rng: np.random.Generator) -> None:
    """Oracle: the same call without those keys."""
    module = nn.MultiheadAttention(6, 3).double()
    q, k = inputs(rng, 4, 2, 6), inputs(rng, 5, 2, 6)
    mask = np.array([[False, False, False, True, True]] * 2)
    y, weights = module(q, k, k, key_padding_mask=mask)
    wanted, _ = module(q, k[:3], k[:3])
    assert_close(values(y), values(wanted), "fp64_sums")
    assert not values(weights)[..., 3:].any()


def test_dropout_of_weights_in_training_only(rng: np.random.Generator) -> None:
    """Oracle: with every weight dropped, the output is the bias of the last layer."""
    module = nn.MultiheadAttention(4, 2, dropout=1.0)
    nn.init.constant_(module.out_proj.bias, 0.5)
    x = mp.tensor(rng.standard_normal((3, 2, 4)), dtype="float32")
    for need in (True, False):
        assert set(values(module(x, x, x, need_weights=need)[0]).ravel()) == {0.5}
    module.eval()
    assert set(values(module(x, x, x)[0]).ravel()) != {0.5}


def test_gradients_reach_all_that_was_given(rng: np.random.Generator) -> None:
    """Oracle: central differences in float64, by every input and the mask; also of a gradient."""
    module = nn.MultiheadAttention(4, 2, kdim=3, vdim=2).double()

    def run(q: Any, k: Any, v: Any, mask: Any) -> Any:
        return module(q, k, v, attn_mask=mask)[0]

    shapes = ((3, 2, 4), (2, 2, 3), (2, 2, 2), (3, 2))
    assert gradcheck(run, [rng.standard_normal(shape) for shape in shapes])

    def penalty(q: Any) -> Any:
        y = nn.TransformerEncoderLayer.forward(layer, q)
        (slope,) = mp.grad((y**2).sum(), q, create_graph=True)
        return (slope * slope).sum()

    layer = nn.TransformerEncoderLayer(4, 2, 5, 0.0, mp.functional.tanh).double()
    assert gradcheck(penalty, [rng.standard_normal((3, 1, 4))])


def test_layers_of_a_stack_begin_equal_and_are_their_own(rng: np.random.Generator) -> None:
    """Oracle: torch's copies: equal values, other parameters."""
    stack = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 3)
    first, last = stack.layers[0], stack.layers[2]
    for (_, p), (_, q) in zip(first.named_parameters(), last.named_parameters(), strict=True):
        assert p is not q
        np.testing.assert_array_equal(values(p), values(q))
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    np.testing.assert_array_equal(host(mask), np.where(np.tri(3, dtype=bool), 0.0, -np.inf))
    assert stack.eval()(mp.tensor(rng.standard_normal((3, 2, 4)), dtype="float32"), mask).shape == (3, 2, 4)


def test_a_low_precision_region_is_followed(rng: np.random.Generator) -> None:
    """Oracle: torch 2.13.0's lists: products low, softmax float32 on CUDA; gradients float32."""
    module = nn.MultiheadAttention(4, 2)
    x = mp.tensor(rng.standard_normal((3, 2, 4)), dtype="float32", requires_grad=True)
    with mp.autocast("float16", policy="torch-cuda"):
        y, weights = module(x, x, x)
        direct, _ = module(x, x, x, need_weights=False)
    assert weights is not None
    assert (y.format, direct.format, weights.format) == (mp.float16, mp.float16, mp.float32)
    assert_close(values(y).astype(np.float64), values(direct).astype(np.float64), "parity_module_bf16")
    y.sum().backward()
    assert {p.grad.format for p in module.parameters() if p.grad is not None} == {mp.float32}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.MultiheadAttention(5, 2), "expected embed_dim to be a multiple of 2, got 5"),
        (lambda: nn.MultiheadAttention(4, 0), "expected num_heads to be a whole number of at least 1"),
        (lambda: nn.MultiheadAttention(4, 2, dropout=2), "expected dropout from 0 to 1, got 2"),
        (lambda: nn.TransformerEncoderLayer(4, 2, activation="relo"), "unknown activation 'relo'; did you"),
        (lambda: nn.TransformerEncoder(nn.Identity(), 0), "expected num_layers to be a whole number"),
        (lambda: nn.Embedding(3, 2, max_norm=1.0), "max_norm=1.0 is not offered"),
        (lambda: nn.Embedding(3, 2, sparse=True), "sparse=True is not offered"),
        (lambda: nn.Embedding(3, 2, padding_idx=3), "expected padding_idx from -3 to 2, got 3"),
        (lambda: nn.Embedding.from_pretrained(mp.tensor([1.0])), "expected a table of rows and columns"),
    ],
)
def test_settings_that_cannot_act_are_refused(make: Any, message: str) -> None:
    """Oracle: the errors in the docstrings."""
    with pytest.raises(SettingError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"attn_mask": np.zeros((4, 4), bool)}, ShapeError, r"expected attn_mask of shape \(3, 3\) or"),
        ({"key_padding_mask": np.zeros((3, 2), bool)}, ShapeError, r"key_padding_mask of shape \(2, 3\)"),
        ({"attn_mask": np.zeros((3, 3), int)}, DataError, "attn_mask of booleans or of floats, got int64"),
    ],
)
def test_masks_that_do_not_fit_are_named(
    options: dict[str, Any], error: type[Exception], message: str, rng: np.random.Generator
) -> None:
    """Oracle: the errors in the docstrings."""
    x = mp.tensor(rng.standard_normal((3, 2, 4)), dtype="float32")
    with pytest.raises(error, match=message):
        nn.MultiheadAttention(4, 2)(x, x, x, **options)


def test_inputs_that_do_not_fit_are_named(rng: np.random.Generator) -> None:
    """Oracle: the errors in the docstrings."""
    x = mp.tensor(rng.standard_normal((3, 2, 4)), dtype="float32")
    with pytest.raises(ShapeError, match=r"queries, keys and values of lengths \(6, 6, 6\)"):
        nn.MultiheadAttention(6, 2)(x, x, x)
    with pytest.raises(ShapeError, match="expected one batch of sequences of length 4"):
        nn.Transformer(4, 2, 1, 1, 8)(x, x[:, :1])


def test_a_table_of_given_values_and_its_padding() -> None:
    """Oracle: by hand: the values, a frozen table; a row of zeros that takes no gradient."""
    given = mp.tensor([[1.0, 2.0], [3.0, 4.0]])
    table = nn.Embedding.from_pretrained(given)
    assert table(np.array([1, 0])).tolist() == [[3.0, 4.0], [1.0, 2.0]]
    assert not table.weight.requires_grad
    padded = nn.Embedding(3, 2, padding_idx=1)
    assert padded.weight.tolist()[1] == [0.0, 0.0]
    padded(np.array([0, 1, 1])).sum().backward()
    assert padded.weight.grad is not None
    assert padded.weight.grad.tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
