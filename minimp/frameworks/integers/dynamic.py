"""Layers that quantise their activations in each call: linear, LSTM and GRU, beside torch's dynamic ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp import nn
from minimp.frameworks.integers.beside import SECTION, Arrays, Excuse, all_same, beside
from minimp.frameworks.integers.samples import codes_of, floats, single
from minimp.frameworks.judging import judged
from minimp.frameworks.results import Row
from minimp.modes import no_grad
from minimp.quant import choose, quantize
from minimp.quant.dynamic import DynamicQuantizedGRU, DynamicQuantizedLinear, DynamicQuantizedLSTM
from minimp.quant.dynamic.products import GRANULARITIES
from minimp.tensors import tensor

__all__ = ["compare_dynamic", "compare_fused_dynamic"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
SHAPES = ((3, 7, 5), (17, 64, 33), (50, 300, 10), (1, 1000, 9), (9, 1, 1))
"""Rows, in_features, out_features."""
RECURRENT = {"LSTM": DynamicQuantizedLSTM, "GRU": DynamicQuantizedGRU}
LINEAR = "codes of weights, outputs"
STEPS, BATCH, INPUT, HIDDEN = 6, 4, 13, 21
GATES = 2.0**-20
"""How far a state in [-1, 1] may lie from torch's: sigmoid and tanh of float32 differ by a few ULPs. A
product that is off by one code is off by far more, 2^-8 of its range."""


def compare_dynamic(rng: np.random.Generator) -> Iterator[Row]:
    """Compare all layers; torch's engine is QNNPACK."""
    for granularity in GRANULARITIES:
        ours, theirs, _ = _linears(rng, granularity, reduced=False)
        yield beside("dynamic linear", f"qnnpack, {granularity}, {LINEAR}", ours, theirs)
        for kind in RECURRENT:
            yield _recurrence(rng, kind, granularity)


def compare_fused_dynamic(rng: np.random.Generator) -> Iterator[Row]:
    """Compare linear layers on FBGEMM, codes 0..127: it adds the bias in a fused multiply-add."""
    for granularity in GRANULARITIES:
        ours, theirs, fused = _linears(rng, granularity, reduced=True)
        right = partial(_rounded_once_more, ours, theirs[0], fused)
        excuse = Excuse(right, {"fused multiply-add": partial(all_same, fused, theirs[1])})
        yield beside("dynamic linear", f"fbgemm, {granularity}, 0..127, {LINEAR}", ours, theirs, excuse)


def _rounded_once_more(ours: Arrays, its_codes: Array, fused: Array) -> bool:
    """Tell whether weights have torch's codes, and outputs are the fused ones but for a rounding more."""
    codes, y = ours
    far = np.abs(np.float64(y) - fused).max()
    return all_same(codes, its_codes) and bool(far <= 2.0**-22 * np.abs(fused).max())


def _linears(
    rng: np.random.Generator, granularity: str, *, reduced: bool
) -> tuple[Arrays, Arrays, npt.NDArray[Any]]:
    """Return codes and outputs of layers of all shapes, ours and torch's, and our outputs if fused."""
    found = [_linear(rng, shape, granularity, reduced=reduced) for shape in SHAPES]
    codes, its_codes, y, its_y, fused = (
        np.concatenate([each.ravel() for each in parts]) for parts in zip(*found, strict=True)
    )
    return (codes, y), (its_codes, its_y), fused


def _linear(
    rng: np.random.Generator, shape: tuple[int, int, int], granularity: str, *, reduced: bool
) -> tuple[npt.NDArray[Any], ...]:
    """Return the codes of the weights, ours and torch's, both outputs, and ours if it were fused."""
    import torch

    m, k, n = shape
    x, w, bias = floats(rng, m, k) + single(rng.choice([0, 3, -3])), floats(rng, n, k), floats(rng, n)
    layer, its = nn.Linear(k, n), torch.nn.Linear(k, n)
    layer.load_state_dict({"weight": w, "bias": bias})
    its.weight.data, its.bias.data = torch.from_numpy(w), torch.from_numpy(bias)
    packed = _in_torch(its, granularity)._packed_params._packed_params
    theirs = torch.ops.quantized.linear_dynamic(torch.from_numpy(x), packed, reduced).numpy()
    made = DynamicQuantizedLinear.from_float(layer, granularity=granularity, reduce_range=reduced)
    codes = np.asarray(made.weight_codes), codes_of(packed.unpack()[0])
    return *codes, made(x).numpy(), theirs, _fused(x, made, bias)


def _fused(x: Floats, made: Any, bias: Floats) -> Floats:
    """Return y with one rounding after the sums are scaled and the bias is added."""
    seen = choose(
        x.min(), x.max(), rule="torch-dynamic", quant_min=0, quant_max=255, reduce_range=made.how.reduce_range
    )
    codes = quantize(x, seen).astype(np.int64) - int(seen.zero_point)
    sums = (codes @ np.asarray(made.weight_codes).T.astype(np.int64)).astype(np.float32)
    scales = seen.scale * made.affine("weight").scale
    return single(np.multiply(sums, scales, dtype=np.float64) + bias)


def _in_torch(layer: Any, granularity: str) -> Any:
    """Return torch's dynamic form of its layer."""
    import torch
    from torch.ao import quantization

    kind = type(layer).__name__
    whole = granularity == "per-tensor"
    layer.qconfig = (
        quantization.default_dynamic_qconfig if whole else quantization.per_channel_dynamic_qconfig
    )
    return getattr(torch.ao.nn.quantized.dynamic, kind).from_float(layer)


def _recurrence(rng: np.random.Generator, kind: str, granularity: str) -> Row:
    """Compare single steps in both directions, each from torch's state.

    Over many steps a last bit that differs may put a state on the other side of a tie between two codes; from
    one state both make the same codes.
    """
    import torch

    layer: Any = getattr(nn, kind)(INPUT, HIDDEN, bidirectional=True)
    its: Any = getattr(torch.nn, kind)(INPUT, HIDDEN, bidirectional=True)
    weights = {name: floats(rng, *each.shape) / 4 for name, each in its.state_dict().items()}
    layer.load_state_dict(weights)
    its.load_state_dict({name: torch.from_numpy(each) for name, each in weights.items()})
    made: Any = RECURRENT[kind].from_float(layer, granularity=granularity)
    dynamic = _whole_codes(_in_torch(its, granularity))
    state = [torch.zeros(2, BATCH, HIDDEN)] * (2 if kind == "LSTM" else 1)
    ours, theirs = [], []
    for _ in range(STEPS):
        x = floats(rng, 1, BATCH, INPUT)
        held = [tensor(each.numpy().copy()) for each in state]
        with no_grad(), torch.no_grad():
            y, last = made(tensor(x), tuple(held) if kind == "LSTM" else held[0])
            z, after = dynamic(torch.from_numpy(x), tuple(state) if kind == "LSTM" else state[0])
        state = list(after) if kind == "LSTM" else [after]
        mine = [y, *(last if kind == "LSTM" else [last])]
        ours.append(np.concatenate([each.numpy().ravel() for each in mine]))
        theirs.append(np.concatenate([each.numpy().ravel() for each in (z, *state)]))
    case = f"qnnpack, {granularity}: states after each of {STEPS} steps"
    return _within(f"dynamic {kind}", case, np.concatenate(ours), np.concatenate(theirs))


def _whole_codes(dynamic: Any) -> Any:
    """Return a layer of torch's whose cells do not ask for reduced codes: QNNPACK warns, and has none."""
    import torch

    for each in dynamic._all_weight_values:
        (_, biases, _, _, packs), _ = each.param.__getstate__()
        each.param = torch.ops.quantized.make_quantized_cell_params_dynamic(*packs, *biases, False)
    return dynamic


def _within(subject: str, case: str, ours: Floats, theirs: Floats) -> Row:
    """Return a row that agrees where no state is further away than GATES."""
    far = np.abs(np.float64(ours) - theirs)
    other = int((~(far <= GATES)).sum())
    told = f"{ours.size:,} states, within 2^-20" if not other else f"{other:,} of {ours.size:,} states differ"
    figures = {"elements": ours.size, "others": other, "apart": float(far.max())}
    return judged("torch", SECTION, subject, case, told, told, agrees=not other, figures=figures)
