"""Transformers made dynamic; oracle: their formulas in float64 around products of codes in int64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from minimp import nn
from minimp.modes import no_grad
from minimp.quant import choose, quantize
from minimp.quant.dynamic import quantize_dynamic
from minimp.quant.dynamic.products import GRANULARITIES, quantize_weight
from minimp.rng import manual_seed
from tests.tolerances import assert_close

Array = npt.NDArray[Any]
WIDTH, HEADS, HIDDEN = 16, 4, 24
CAUSAL = np.triu(np.ones((5, 5), bool), 1)
NEAR = (-0.3 * np.abs(np.subtract.outer(np.arange(5), np.arange(5)))).astype(np.float32)
ENDS = np.array([[False] * 5, [False, False, False, True, True]])
"""Places that are padding, of two sequences of five."""
MEMORY_ENDS = np.array([[False] * 4 + [True] * 3, [False] * 7])
MEMORY_MASK = np.arange(5)[:, None] + 3 < np.arange(7)


class Definition:
    """A layer's forward by its formulas, in float64 but for the inputs of products, which are float32."""

    def __init__(self, layer: Any, granularity: str) -> None:
        self.layer, self.granularity = layer, granularity

    def product(self, x: Array, layer: Any, name: str = "weight", rows: slice = slice(None)) -> Array:
        """Return s_x s_w sum (q - z) p + b: the scales of a whole weight, and some of its rows."""
        seen = x.astype(np.float32)
        affine = choose(seen.min(), seen.max(), rule="torch-dynamic", quant_min=0, quant_max=255)
        codes = quantize(seen, affine).astype(np.int64) - int(affine.zero_point)
        w = quantize_weight(np.asarray(getattr(layer, name).array), self.granularity)
        scale = np.broadcast_to(w.affine.scale.astype(np.float64), len(w.codes))[rows]
        bias = np.asarray(getattr(layer, name.replace("weight", "bias")).array, np.float64)[rows]
        return (codes @ w.codes[rows].T.astype(np.int64)) * (float(affine.scale) * scale) + bias

    def attention(self, layer: Any, x: Array, memory: Array, added: Array) -> Array:
        """(N, L, E), (N, S, E), what is added to scores (N, 1, L, S) -> (N, L, E)."""
        size, heads = WIDTH, []
        for i, source in enumerate((x, memory, memory)):
            y = self.product(source, layer, "in_proj_weight", slice(i * size, (i + 1) * size))
            heads.append(y.reshape(*y.shape[:2], HEADS, -1).transpose(0, 2, 1, 3))
        q, k, v = heads
        scores = q @ k.swapaxes(-1, -2) / np.sqrt(size // HEADS) + added
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        return self.product((shares @ v).transpose(0, 2, 1, 3).reshape(x.shape), layer.out_proj)

    def hidden(self, x: Array) -> Array:
        """Return what the two linear layers make of x."""
        return self.product(np.maximum(self.product(x, self.layer.linear1), 0), self.layer.linear2)

    def around(self, i: int, x: Array, block: Any) -> Array:
        """Return x and what a block makes of it, normalised before or after."""
        norm = getattr(self.layer, f"norm{i}")
        weight, bias = (np.asarray(each.array, np.float64) for each in (norm.weight, norm.bias))

        def normal(y: Array) -> Array:
            centred = y - y.mean(axis=-1, keepdims=True)
            spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + norm.eps)
            return np.asarray(centred / spread * weight + bias)

        made: Array = x + block(normal(x)) if self.layer.norm_first else normal(x + block(x))
        return made


def added(mask: Any, padding: Any) -> Array:
    """Return what masks add to scores, (N, 1, L, S): -inf where a query does not attend."""
    walls = np.zeros((2, 1, 1, 1))
    for each in (mask, None if padding is None else padding[:, None, None]):
        if each is not None:
            walls = walls + (np.where(each, -np.inf, 0.0) if each.dtype == bool else each)
    return walls


def drawn(kind: type, *, norm_first: bool, seed: int) -> Any:
    """Return a layer in evaluation mode, all of whose parameters are drawn."""
    manual_seed(seed)
    layer = kind(WIDTH, HEADS, HIDDEN, batch_first=True, norm_first=norm_first).eval()
    rng = np.random.default_rng(seed)
    for path, leaf in layer.named_parameters():
        if leaf.ndim == 1:
            centre = 1.0 if path.startswith("norm") and path.endswith("weight") else 0.0
            leaf.array = (centre + 0.2 * rng.normal(size=leaf.shape)).astype(np.float32)
    return layer


def values(*shape: int, seed: int) -> Any:
    """Draw normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize(
    ("mask", "padding", "causal"),
    [
        (None, None, False), (CAUSAL, None, False), (CAUSAL, ENDS, True), (NEAR, None, False),
        (None, ENDS, False),
    ],
    ids=["none", "order", "order and padding", "added", "padding"],
)  # fmt: skip
def test_encoder_layers(granularity: str, norm_first: bool, mask: Any, padding: Any, causal: bool) -> None:
    """Oracle: the formulas; no activation meets a tie."""
    layer = drawn(nn.TransformerEncoderLayer, norm_first=norm_first, seed=2)
    made, report = quantize_dynamic(layer, granularity=granularity)
    assert [row.path for row in report.converted] == ["self_attn", "linear1", "linear2"]
    x, by = values(2, 5, WIDTH, seed=1), Definition(layer, granularity)
    walls = added(mask, padding)
    expected = by.around(1, x.astype(np.float64), lambda y: by.attention(layer.self_attn, y, y, walls))
    expected = by.around(2, expected, by.hidden)
    with no_grad():
        found = made(x, mask, padding, causal).numpy()
    assert_close(found, expected, "parity_op_fp32")


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_decoder_layers(granularity: str, norm_first: bool, masked: bool) -> None:
    """Oracle: the formulas, with masks on both attentions or none; no activation meets a tie."""
    layer = drawn(nn.TransformerDecoderLayer, norm_first=norm_first, seed=4)
    made, report = quantize_dynamic(layer, granularity=granularity)
    paths = ["self_attn", "multihead_attn", "linear1", "linear2"]
    assert [row.path for row in report.converted] == paths
    x, memory = values(2, 5, WIDTH, seed=5), values(2, 7, WIDTH, seed=6)
    masks = (CAUSAL, MEMORY_MASK, ENDS, MEMORY_ENDS) if masked else (None,) * 4
    own, cross = added(masks[0], masks[2]), added(masks[1], masks[3])
    by = Definition(layer, granularity)
    expected = by.around(1, x.astype(np.float64), lambda y: by.attention(layer.self_attn, y, y, own))
    expected = by.around(2, expected, lambda y: by.attention(layer.multihead_attn, y, memory, cross))
    expected = by.around(3, expected, by.hidden)
    with no_grad():
        found = made(x, memory, *masks).numpy()
    assert_close(found, expected, "parity_op_fp32")


def test_whole_transformers_run() -> None:
    """Oracle: the model in floating point: every attention and linear layer is exchanged, norms are left, and
    results are near."""
    manual_seed(0)
    model = nn.Transformer(WIDTH, HEADS, 2, 2, HIDDEN, batch_first=True).eval()
    made, report = quantize_dynamic(model, granularity="per-channel")
    assert len(report.converted) == 2 * 3 + 2 * 4
    assert {row.kind for row in report.left} == {"LayerNorm"}
    source, target = values(2, 7, WIDTH, seed=7), values(2, 5, WIDTH, seed=8)
    with no_grad():
        before, after = (each(source, target, tgt_mask=CAUSAL).numpy() for each in (model, made))
    assert not (before == after).any()
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.999
