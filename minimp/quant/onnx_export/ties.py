"""How near to a tie the exact value of a code must lie for ONNX's float32 to round it the other way.

Both sides round a number r to rint(r) + z and clamp it: minimp r = v + e1, the QDQ graph r = v + e2, where v
is the exact value in steps of the output, and |e1| + |e2| <= E < 1/2. The whole numbers nearest to v + e1 and
v + e2 are alike, or neighbours with a tie between (or at) v + e1 and v + e2, and then v is within E of that
tie. So: codes differ by at most 1, and only where a tie is within E of v. With u = 2^-24 and
gamma_n = n u / (1 - n u) (Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 3.1):

linear, convolution, of K products  v = M a, M = s_x s_w / s, a the int32 sum and bias b;
    E = gamma_(K+4) M (sum |q - z_x| |p - z_w| + |b|) + gamma_5 |v|
Add, Sub   v = (s_a (a - z_a) +- s_b (b - z_b)) / s;  E = 2 gamma_4 (the sum of both terms' sizes)
Mul        v = s_a (a - z_a) s_b (b - z_b) / s;      E = 2 gamma_4 |v|
Cat        v = s_i (q - z_i) / s;                    E = 2 gamma_2 |v|
Softmax    v = p / s, of N numbers;                  E = (N + 1) 2^-31 / s + (gamma_(N+8) + 4 u max |x|) |v|
Quantize   v = x / s;                                E = u (3 |v| + |v + z|) (1 + 2^-20); rule onnx: none

In the first, each product of a sum takes two roundings of what is read back, one of its own, at most K of
sums and one of the division; the other side rounds a, M (three times) and a M. Where all scales are powers of
two and sums stay below 2^24 steps, every number is exact in float32: e1 = e2 = 0, and no code differs.

Long sums that cancel have a large E: from 1/2 on, all codes count as near to a tie, and that they differ by 1
at most is all that is said. Form "integer" has no such limit.

In fixed-point mode, M0 and n add 2^-31 |v| + 2^-(n+1) to E, and to that of Add what
:func:`minimp_backends.integer_layers.integer_add` rounds on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp import functional
from minimp.backend import default_backend
from minimp.modes import no_grad
from minimp.nn.module import Module
from minimp.quant.modules import (
    Quantize,
    QuantizedAdd,
    QuantizedCat,
    QuantizedConv1d,
    QuantizedConv2d,
    QuantizedConvTranspose1d,
    QuantizedConvTranspose2d,
    QuantizedLinear,
    QuantizedMul,
    QuantizedSoftmax,
    QuantizedSub,
)
from minimp.quant.modules.layers import turned
from minimp.quant.onnx_export.tracing import Site, Value, array_of
from minimp.quant.qtensor import QTensor
from minimp.tensors import tensor

__all__ = ["BOUNDS", "Bound", "near_tie"]

Reals = npt.NDArray[np.float64]
Bound = tuple[Reals, Reals]
"""v and E of every code."""
U = 2.0**-24
SLACK = 2.0**-48
"""What v and E themselves are off by, computed in float64, relative to |v|."""


def near_tie(bound: Bound) -> npt.NDArray[np.bool_]:
    """Tell of each code whether a tie lies within E of its exact value."""
    v, reach = bound
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(v - np.floor(v) - 0.5) <= reach + SLACK * np.abs(v))


def gamma(n: int) -> float:
    """n u / (1 - n u)."""
    return n * U / (1 - n * U)


def _offsets(value: Value) -> Reals:
    """q - z in float64."""
    assert isinstance(value, QTensor)
    return value.codes.astype(np.float64) - value.affine.zero_point


def _fixed(multiplier: Any, v: Reals, mode: str) -> Reals:
    """Return what fixed-point adds to E; `multiplier` broadcasts to v."""
    if mode == "float":
        return np.zeros_like(v)
    _, shift = default_backend().fixed_point(multiplier)
    return np.asarray(2.0**-31 * np.abs(v) + np.where(shift >= 1, 2.0 ** -(shift + 1.0), 0))


def _products(module: Any, site: Site, sums: Callable[[Reals, Reals], Reals], axis: int) -> Bound:
    """Return the bound of sums of products, whose channels are on an axis."""
    w_affine = module.kept("weight_")
    codes = array_of(module.weight).astype(np.float64)
    zero = (
        w_affine.zero_point.reshape(-1, *(1,) * (codes.ndim - 1))
        if w_affine.per_channel
        else w_affine.zero_point
    )
    x, w = _offsets(site.inputs[0]), codes - zero
    assert isinstance(site.output, QTensor)
    shape = [1] * site.output.codes.ndim
    shape[axis] = -1
    bias = np.float64(0) if module.bias is None else array_of(module.bias).astype(np.float64).reshape(shape)
    total, mass = sums(x, w) + bias, sums(np.abs(x), np.abs(w)) + np.abs(bias)
    factor = w_affine.scale.astype(np.float64) * np.float64(module.kept("input_").scale)
    factor = (factor / np.float64(module.kept("").scale)).reshape(shape)
    v = total * factor
    reach = gamma(w[0].size + 4) * mass * factor + gamma(5) * np.abs(v) + _fixed(factor, v, module.mode)
    return v, reach


def _linear(module: Any, site: Site) -> Bound:
    return _products(module, site, lambda x, w: x @ w.T, -1)


def _convolution(module: Any, site: Site) -> Bound:
    geometry = (module.stride, module.padding, module.dilation, module.groups)
    convolve = functional.conv2d if module.axes == 2 else functional.conv1d

    def sums(x: Reals, w: Reals) -> Reals:
        with no_grad():  # whole numbers below 2^53: exact in any order
            made = convolve(tensor(x), tensor(w), None, *geometry)
        return np.asarray(array_of(made), np.float64)

    return _products(module, site, sums, 1)


def _transposed(module: Any, site: Site) -> Bound:
    geometry = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)
    convolve = functional.conv_transpose2d if module.axes == 2 else functional.conv_transpose1d

    def sums(x: Reals, w: Reals) -> Reals:
        with no_grad():
            made = convolve(tensor(x), tensor(turned(w, module.groups)), None, *geometry)
        return np.asarray(array_of(made), np.float64)

    return _products(module, site, sums, 1)


def _add(module: Any, site: Site) -> Bound:
    scale = float(module.kept("").scale)
    factors = [float(module.kept(name).scale) / scale for name in ("a_", "b_")]
    terms = [_offsets(each) * factor for each, factor in zip(site.inputs, factors, strict=True)]
    sign = -1 if isinstance(module, QuantizedSub) else 1
    v, mass = terms[0] + sign * terms[1], np.abs(terms[0]) + np.abs(terms[1])
    reach = 2 * gamma(4) * mass
    if module.mode != "float":
        unit = 2 * max(factors) / 2**20
        reach = reach + 2 * unit + 2.0**-30 * mass + _fixed(unit, v, module.mode)
    return v, reach


def _mul(module: Any, site: Site) -> Bound:
    factor = module.multiplier()
    v = _offsets(site.inputs[0]) * _offsets(site.inputs[1]) * factor
    return v, 2 * gamma(4) * np.abs(v) + _fixed(factor, v, module.mode)


def _softmax(module: Any, site: Site) -> Bound:
    axis = -1 if module.dim is None else module.dim
    x = _offsets(site.inputs[0]) * np.float64(module.kept("input_").scale)
    shares = np.exp(x - x.max(axis=axis, keepdims=True))
    scale, count = float(module.kept("").scale), x.shape[axis]
    v = shares / shares.sum(axis=axis, keepdims=True) / scale
    far = np.abs(x).max(axis=axis, keepdims=True)
    return v, (count + 1) * 2.0**-31 / scale + (gamma(count + 8) + 4 * U * far) * v


def _cat(module: Any, site: Site) -> Bound:
    output, parts = module.kept(""), []
    for each in site.inputs:
        assert isinstance(each, QTensor)
        factor = float(each.affine.scale) / float(output.scale)
        v = _offsets(each) * factor
        same = each.affine == output
        parts.append(
            (v, np.zeros_like(v) if same else 2 * gamma(2) * np.abs(v) + _fixed(factor, v, module.mode))
        )
    first, second = (np.concatenate(each, module.dim) for each in zip(*parts, strict=True))
    return first, second


def _quantize(module: Any, site: Site) -> Bound:
    affine = module.kept("")
    with np.errstate(all="ignore"):
        v = array_of(site.inputs[0]).astype(np.float64) / np.float64(affine.scale)
        reach = U * (3 * np.abs(v) + np.abs(v + affine.zero_point)) * (1 + 2.0**-20)
    return v, reach if affine.rule != "onnx" else np.full_like(v, -1.0)


BOUNDS: Mapping[type[Module], Callable[[Any, Site], Bound]] = MappingProxyType(
    {
        Quantize: _quantize,
        QuantizedLinear: _linear,
        **dict.fromkeys((QuantizedConv1d, QuantizedConv2d), _convolution),
        **dict.fromkeys((QuantizedConvTranspose1d, QuantizedConvTranspose2d), _transposed),
        **dict.fromkeys((QuantizedAdd, QuantizedSub), _add),
        QuantizedMul: _mul,
        QuantizedSoftmax: _softmax,
        QuantizedCat: _cat,
    }
)
"""Class of a module -> v and E; of the others the codes are the same."""
