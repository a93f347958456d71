"""Dynamic layers; oracles: their definition step by step, laws, and torch's layers on QNNPACK."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from minimp import nn
from minimp.errors import DataError, GradientError, SettingError
from minimp.modes import no_grad
from minimp.quant.dynamic import (
    DynamicQuantizedEmbedding,
    DynamicQuantizedGRU,
    DynamicQuantizedLinear,
    DynamicQuantizedLSTM,
    DynamicQuantizedMultiheadAttention,
    DynamicQuantizedRNN,
    dynamic_linear,
)
from minimp.quant.dynamic.products import GRANULARITIES, quantize_weight
from minimp.rng import manual_seed
from minimp.tensors import tensor
from tests.tolerances import assert_close

pytestmark = pytest.mark.filterwarnings("ignore:.*(deprecated|reduce_range)")
Floats = npt.NDArray[np.float32]
RECURRENT = {"LSTM": DynamicQuantizedLSTM, "GRU": DynamicQuantizedGRU, "RNN": DynamicQuantizedRNN}


@pytest.fixture(autouse=True)
def _seed() -> None:
    manual_seed(3)


def values(*shape: int, seed: int = 0) -> Floats:
    """Draw normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def sigmoid(x: Any) -> Any:
    """The logistic function in float64."""
    return 1 / (1 + np.exp(-x))


# ---- linear, embedding, attention -------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_linear_is_the_product(granularity: str) -> None:
    """Oracle: dynamic_linear on the codes of the same weight."""
    layer = nn.Linear(9, 5)
    q = quantize_weight(layer.weight.detach().numpy(), granularity)
    made = DynamicQuantizedLinear.from_float(layer, granularity=granularity)
    expected = dynamic_linear(tensor(values(4, 9)), tensor(q.codes.copy()), q.affine, layer.bias.detach())
    assert made(values(4, 9)).numpy().tobytes() == expected.numpy().tobytes()
    assert not list(made.parameters())


def test_embedding_reads_rows() -> None:
    """Oracle: s_i q_i by its definition, s_i = max |w_i| / 127.5; the error is half a step, a whole one of
    the largest, which -128..127 has on one side only."""
    layer = nn.Embedding(11, 6, padding_idx=0)
    table = layer.weight.detach().numpy()
    made = DynamicQuantizedEmbedding.from_float(layer)
    index = np.array([[0, 10, 3], [3, 5, 0]])
    scales = np.maximum(np.abs(table).max(axis=1) / np.float32(127.5), np.float32(2.0**-23))
    codes = np.clip(np.rint(table / scales[:, None]), -128, 127).astype(np.float32)
    rows = made(index).numpy()
    assert rows.tobytes() == (codes * scales[:, None])[index].tobytes()
    assert (np.abs(rows - table[index]) <= scales[index][..., None] * (0.5 + 2.0**-15)).all()
    assert not rows[0, 0].any()
    with pytest.raises(DataError, match="expected indices from 0 to 10, got 11"):
        made(np.array([11]))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("lengths", [{}, {"kdim": 7, "vdim": 5}])
def test_attention_has_dynamic_projections(granularity: str, lengths: dict[str, int]) -> None:
    """Oracle: attention in float64 on the projections that dynamic_linear gives; no output meets a tie."""
    layer = nn.MultiheadAttention(8, 2, batch_first=True, **lengths)
    layer.in_proj_bias.array = values(24, seed=9)  # type: ignore[union-attr]  # there is one
    made = DynamicQuantizedMultiheadAttention.from_float(layer, granularity=granularity)
    inputs = values(2, 3, 8), values(2, 4, lengths.get("kdim", 8)), values(2, 4, lengths.get("vdim", 8))
    if lengths:
        weights = [getattr(layer, f"{each}_proj_weight").detach().numpy() for each in "qkv"]
        packed = [quantize_weight(each, granularity) for each in weights]
        parts = [(q.codes, q.affine) for q in packed]
    else:
        q = quantize_weight(layer.in_proj_weight.detach().numpy(), granularity)  # type: ignore[union-attr]  # packed
        parts = [(q.codes[i : i + 8], rows_of(q.affine, i)) for i in (0, 8, 16)]
    bias = layer.in_proj_bias.detach()  # type: ignore[union-attr]  # there is one
    q, k, v = (
        dynamic_linear(tensor(x), tensor(codes.copy()), affine, bias[8 * i : 8 * i + 8]).numpy()
        for i, (x, (codes, affine)) in enumerate(zip(inputs, parts, strict=True))
    )
    heads = [x.reshape(2, -1, 2, 4).transpose(0, 2, 1, 3).astype(np.float64) for x in (q, k, v)]
    scores = heads[0] @ heads[1].swapaxes(-1, -2) / 2
    shares = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    y = (shares @ heads[2]).transpose(0, 2, 1, 3).reshape(2, 3, 8).astype(np.float32)
    out, weights_seen = made(*inputs)
    expected = DynamicQuantizedLinear.from_float(plain(layer.out_proj), granularity=granularity)(y)
    assert_close(weights_seen.numpy(), shares.mean(axis=1), "parity_op_fp32")
    assert_close(out.numpy(), expected.numpy(), "parity_op_fp32")


def rows_of(affine: Any, start: int) -> Any:
    """The affine numbers of eight rows of a weight."""
    from minimp.quant import Affine

    if not affine.per_channel:
        return affine
    return Affine(affine.scale[start : start + 8], affine.zero_point[start : start + 8], axis=0)


def plain(layer: Any) -> nn.Linear:
    """The output projection as a linear layer."""
    made = nn.Linear(layer.in_features, layer.out_features)
    made.load_state_dict(layer.state_dict())
    return made


def test_attention_to_itself_is_attention() -> None:
    """Law: one product for queries, keys and values has the bits of three."""
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    made = DynamicQuantizedMultiheadAttention.from_float(layer, granularity="per-channel")
    x = tensor(values(2, 5, 8))
    one = made(x, x, x)[0].numpy()
    assert one.tobytes() == made(x, x.detach() * 1, x.detach() * 1)[0].numpy().tobytes()


def test_attention_keeps_its_extras() -> None:
    """Law: a key behind the mask has no weight and changes none, within the range that all keys share; the
    learned key and value act."""
    layer = nn.MultiheadAttention(16, 4, add_bias_kv=True, add_zero_attn=True)
    made: Any = DynamicQuantizedMultiheadAttention.from_float(layer)
    x, mask = values(6, 2, 16), np.triu(np.ones((6, 6), bool), 1)
    x[0, 0, :2] = -4, 4  # the ends of the range
    other = x.copy()
    other[5] *= np.float32(0.5)
    with no_grad():
        (before, weights), (_, others) = (made(each, each, each, attn_mask=mask) for each in (x, other))
        assert weights.shape == (2, 6, 8)
        assert not weights.numpy()[:, :5, 5].any()
        assert (weights.numpy()[:, :5] == others.numpy()[:, :5]).all()
        assert (weights.numpy()[:, 5] != others.numpy()[:, 5]).any()
        made.bias_v.array = made.bias_v.array + np.float32(9)
        moved = made(x, x, x, attn_mask=mask)[0]
    assert (moved.numpy() != before.numpy()).any(axis=(1, 2)).all()
    assert [name for name, _ in made.named_parameters()] == ["bias_k", "bias_v"]


# ---- recurrences ------------------------------------------------------------------------------------------


def by_hand(kind: str, layer: Any, x: Floats, granularity: str) -> Floats:
    """One layer of a recurrence, (T, N, in): dynamic products, and float64 for all that follows them."""
    packs = {
        each: quantize_weight(getattr(layer, f"weight_{each}_l0").detach().numpy(), granularity)
        for each in ("ih", "hh")
    }
    bias = {each: getattr(layer, f"bias_{each}_l0").detach() for each in ("ih", "hh")}

    def times(each: str, a: Any) -> Any:
        q = packs[each]
        return dynamic_linear(tensor(a.astype(np.float32)), tensor(q.codes.copy()), q.affine, bias[each])

    inputs = times("ih", x).numpy().astype(np.float64)
    h = c = np.zeros((x.shape[1], layer.hidden_size))
    states = []
    for each in inputs:
        product = times("hh", h).numpy().astype(np.float64)
        a, b = (np.split(part, {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], axis=1) for part in (each, product))
        if kind == "LSTM":
            i, f, g, o = (p + q for p, q in zip(a, b, strict=True))
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        elif kind == "GRU":
            r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
            n = np.tanh(a[2] + r * b[2])
            h = (1 - z) * n + z * h
        else:
            h = np.tanh(a[0] + b[0])
        states.append(h)
    return np.stack(states).astype(np.float32)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("kind", sorted(RECURRENT))
def test_recurrence_is_its_definition(kind: str, granularity: str) -> None:
    """Oracle: the formulas in float64 about the same products, for seeds at which no state meets a tie."""
    layer = getattr(nn, kind)(5, 7)
    made: Any = RECURRENT[kind].from_float(layer, granularity=granularity)
    x = values(6, 3, 5)
    with no_grad():
        y, last = made(x)
    expected = by_hand(kind, layer, x, granularity)
    assert_close(y.numpy(), expected, "parity_op_fp32")
    assert ((last[0] if kind == "LSTM" else last).numpy()[0] == y.numpy()[-1]).all()


@pytest.mark.parametrize("kind", sorted(RECURRENT))
def test_directions_layers_and_shapes(kind: str) -> None:
    """Law: the backward direction is the forward one of the sequence turned round; batch_first swaps axes;
    a second layer takes the outputs of the first."""
    layer: Any = getattr(nn, kind)(5, 4, bidirectional=True, batch_first=True)
    once: Any = getattr(nn, kind)(5, 4)
    for name, leaf in once.named_parameters():
        leaf.array = getattr(layer, f"{name}_reverse").array
    form: Any = RECURRENT[kind]
    x = values(3, 6, 5)
    with no_grad():
        both, alone = (
            form.from_float(layer)(x)[0],
            form.from_float(once)(x.transpose(1, 0, 2)[::-1].copy())[0],
        )
        assert both.shape == (3, 6, 8)
        assert (both.numpy()[..., 4:] == alone.numpy()[::-1].transpose(1, 0, 2)).all()
        single = form.from_float(once)(x[0])[0].numpy()
        assert (single == form.from_float(once)(x[0][:, None])[0].numpy()[:, 0]).all()
        two: Any = getattr(nn, kind)(5, 5, num_layers=2, bias=False)
        upper: Any = getattr(nn, kind)(5, 5, bias=False)
        lower: Any = getattr(nn, kind)(5, 5, bias=False)
        for part, place in ((lower, 0), (upper, 1)):
            for name in ("weight_ih", "weight_hh"):
                getattr(part, f"{name}_l0").array = getattr(two, f"{name}_l{place}").array
        y = form.from_float(two)(x)[0].numpy()
        assert (y == form.from_float(upper)(form.from_float(lower)(x)[0])[0].numpy()).all()


@pytest.mark.torch
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrence_is_qnnpacks(qnnpack: Any, kind: str, granularity: str) -> None:
    """Oracle: torch.ao.nn.quantized.dynamic.LSTM and GRU, engine qnnpack: the products' bits; sigmoid and
    tanh a few ULPs apart. At most one run in eight meets a tie with them, and stays in the codes' noise."""
    import torch.ao.quantization as ao

    torch, apart = qnnpack, []
    for seed in range(8):
        torch.manual_seed(seed)
        how = {"num_layers": 1 + seed % 2, "bidirectional": seed % 4 > 1, "batch_first": seed > 3}
        theirs = getattr(torch.nn, kind)(13, 21, **how)
        layer = getattr(nn, kind)(13, 21, **how)
        layer.load_state_dict({name: each.numpy() for name, each in theirs.state_dict().items()})
        made: Any = RECURRENT[kind].from_float(layer, granularity=granularity)
        x = values(5, 4, 13, seed=seed)
        with torch.no_grad(), no_grad():
            float_y = theirs(torch.from_numpy(x))[0].numpy()
            per_tensor = granularity == "per-tensor"
            theirs.qconfig = ao.default_dynamic_qconfig if per_tensor else ao.per_channel_dynamic_qconfig
            dynamic = getattr(torch.ao.nn.quantized.dynamic, kind).from_float(theirs)
            expected, y = dynamic(torch.from_numpy(x))[0].numpy(), made(x)[0].numpy()
        far, noise = np.abs(y - expected).max(), np.abs(expected - float_y).max()
        assert far <= noise
        apart.append(far > np.abs(expected).max() * 2.0**-20)
    assert sum(apart) <= 1


# ---- what does not go -------------------------------------------------------------------------------------


def test_made_from_the_layer_alone() -> None:
    """Oracle: the errors that the docstrings name."""
    with pytest.raises(SettingError, match="expected a Linear, got a GRU"):
        DynamicQuantizedLinear.from_float(nn.GRU(2, 2))
    with pytest.raises(SettingError, match="is made from a layer in floating point"):
        DynamicQuantizedLinear(3, 4)
    layer = nn.Linear(3, 2)
    with pytest.raises(SettingError, match="codes are not drawn anew"):
        DynamicQuantizedLinear.from_float(layer).reset_parameters()
    layer.weight.array = np.array([[1, np.nan, 0], [0, 0, np.inf]], np.float32)
    with pytest.raises(DataError, match="2 of 6 numbers of weight of a Linear are infinite or NaN"):
        DynamicQuantizedLinear.from_float(layer)


def test_recurrences_have_no_gradient() -> None:
    """Oracle: a GradientError that says why."""
    made = DynamicQuantizedLSTM.from_float(nn.LSTM(3, 2))
    y, _ = made(tensor(values(2, 1, 3), requires_grad=True))
    with pytest.raises(GradientError, match="dynamically quantised layer has no gradient"):
        y.sum().backward()
