"""What has no code: ranges of nothing, NaN and infinities, scales and biases that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minimp import functional, nn
from minimp.errors import MinimpError
from minimp.frameworks.integers.beside import SECTION
from minimp.frameworks.integers.layers import linear_of
from minimp.frameworks.integers.samples import UINT8, numbers, single
from minimp.frameworks.judging import judged
from minimp.frameworks.results import Row
from minimp.frameworks.sides import Torch, show
from minimp.quant import MinMaxObserver, QTensor, choose, modules, quantize
from minimp.quant.dynamic import DynamicQuantizedLinear

__all__ = ["compare_edges"]

NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True, slots=True)
class _Edge:
    """One case: what each library makes of it, in words."""

    subject: str
    case: str
    ours: Callable[[], str]
    theirs: Callable[[], str]


def compare_edges() -> Iterator[Row]:
    """Compare what each library makes of the edges; torch's engine is QNNPACK."""
    refusals = Torch().refusals
    for edge in (*_observed(), *_settings(), *_layers()):
        told = _tried(edge.ours, (MinimpError,)), _tried(edge.theirs, refusals)
        yield judged("torch", SECTION, edge.subject, edge.case, *told)


def _tried(call: Callable[[], str], refusals: tuple[type[Exception], ...]) -> str:
    try:
        return call()
    except refusals:
        return "refused"


# ---- ranges -----------------------------------------------------------------------------------------------

BATCHES: dict[str, tuple[list[float], ...]] = {
    "nothing observed": (),
    "an infinity": ([1.0, INF],),
    "NaN": ([1.0, NAN],),
    "NaN in the second batch": ([1.0], [NAN]),
    "an empty batch": ([1.0, 3.0], []),
}


def _observed() -> Iterator[_Edge]:
    for case, seen in BATCHES.items():
        yield _Edge("MinMaxObserver", case, partial(_our_range, seen), partial(_its_range, seen))
    case = "reduce_range and symmetric, quint8"
    yield _Edge("MinMaxObserver", case, _our_reduced, _its_reduced)


def _our_range(seen: tuple[list[float], ...]) -> str:
    made = MinMaxObserver()
    for each in seen:
        made.observe(single(each))
    chosen = made.affine()
    return f"scale {show(chosen.scale)}, zero point {int(chosen.zero_point)}"


def _its_range(seen: tuple[list[float], ...]) -> str:
    import torch
    from torch.ao.quantization import observer

    made = observer.MinMaxObserver()
    for each in seen:
        made(torch.tensor(each))
    scale, zero = made.calculate_qparams()
    return f"scale {show(scale.item())}, zero point {int(zero)}"


def _our_reduced() -> str:
    return str(MinMaxObserver(symmetric=True, reduce_range=True))


def _its_reduced() -> str:
    import torch
    from torch.ao.quantization import observer

    scheme = torch.per_tensor_symmetric
    return str(observer.MinMaxObserver(dtype=torch.quint8, qscheme=scheme, reduce_range=True))


# ---- settings ---------------------------------------------------------------------------------------------

SETTINGS: dict[str, tuple[float, int]] = {
    "a scale of 0": (0.0, 3),
    "a negative scale": (-1.0, 3),
    "a scale of NaN": (NAN, 3),
    "an infinite scale": (INF, 3),
    "zero point 256 of 0..255": (0.1, 256),
    "zero point -1 of 0..255": (0.1, -1),
}
VALUES = [0.4, 1.0]


def _settings() -> Iterator[_Edge]:
    pairs = {
        "quantize_per_tensor": (_our_codes, _its_codes),
        "fake_quantize_per_tensor_affine": (_our_fakes, _its_fakes),
    }
    for subject, (ours, theirs) in pairs.items():
        for case, how in SETTINGS.items():
            yield _Edge(subject, case, partial(ours, *how), partial(theirs, *how))


def _our_codes(scale: float, zero: int) -> str:
    return show(quantize(single(VALUES), numbers(scale, zero)))


def _its_codes(scale: float, zero: int) -> str:
    import torch

    return show(torch.quantize_per_tensor(torch.tensor(VALUES), scale, zero, torch.quint8).int_repr().numpy())


def _our_fakes(scale: float, zero: int) -> str:
    return show(functional.fake_quantize_per_tensor_affine(single(VALUES), scale, zero, *UINT8).numpy())


def _its_fakes(scale: float, zero: int) -> str:
    import torch

    return show(torch.fake_quantize_per_tensor_affine(torch.tensor(VALUES), scale, zero, *UINT8).numpy())


# ---- layers -----------------------------------------------------------------------------------------------


def _layers() -> Iterator[_Edge]:
    for name, bad in (("NaN", NAN), ("an infinity", INF)):
        for place, x, w in (("input", bad, 1.0), ("weight", 1.0, bad)):
            case = f"{name} in the {place}"
            yield _Edge("dynamic linear", case, partial(_our_dynamic, x, w), partial(_its_dynamic, x, w))
    for fitted in (False, True):
        case = f"a bias beyond int32{', scales by weight_of' * fitted}"
        yield _Edge("linear", case, partial(_our_bias, fitted), partial(_its_bias, fitted))


def _our_dynamic(x: float, w: float) -> str:
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": single([[w, 0.5]]), "bias": single([0.25])})
    return show(DynamicQuantizedLinear.from_float(layer)(single([[x, 0.5]])).numpy())


def _its_dynamic(x: float, w: float) -> str:
    import torch
    from torch.ao import quantization

    layer: Any = torch.nn.Linear(2, 1)
    layer.weight.data, layer.bias.data = torch.tensor([[w, 0.5]]), torch.tensor([0.25])
    layer.qconfig = quantization.default_dynamic_qconfig
    packed = torch.ao.nn.quantized.dynamic.Linear.from_float(layer)._packed_params._packed_params
    return show(torch.ops.quantized.linear_dynamic(torch.tensor([[x, 0.5]]), packed, False).numpy())


def _alone(fitted: bool) -> tuple[QTensor, QTensor, Any, Any]:
    """Return input, weight, bias and the output's numbers: no weight and a bias of 1, which is code 100."""
    into, out = numbers(1e-5, 0), numbers(0.01, 0)
    zeros, bias = np.zeros((1, 2), np.float32), np.ones(1, np.float32)
    weight = QTensor.of(zeros, choose(0.0, 0.0, quant_min=-128, quant_max=127, symmetric=True))
    if fitted:
        seen = MinMaxObserver(quant_min=-128, quant_max=127, symmetric=True)
        weight = modules.weight_of(zeros, bias, into.scale, seen)
    return QTensor(np.array([[3, 9]], np.uint8), into), weight, bias, out


def _our_bias(fitted: bool) -> str:
    x, weight, bias, out = _alone(fitted)
    return show(modules.QuantizedLinear(weight, bias, x.affine, out)(x).codes)


def _its_bias(fitted: bool) -> str:
    return show(linear_of(*_alone(fitted), relu=False))
