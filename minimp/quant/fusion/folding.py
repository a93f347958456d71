"""Batch normalisation folded into the layer before it: one layer that computes what the two do in evaluation.

y = gamma (W x + b - mean) / sqrt(var + eps) + beta = W' x + b', channel by channel, with

    s = gamma / sqrt(var + eps),    W' = s W,    b' = (b - mean) s + beta

(Jacob et al. 2018, section 3.2; torch.nn.utils.fusion, 2.13). Everything is computed in float64 and rounded
once, to the formats of the layer's own parameters; torch computes in those formats, with some roundings more.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from minimp.errors import SettingError
from minimp.formats import Format
from minimp.nn.parameter import Parameter
from minimp.quant.fusion.channels import Wide, output_factors, outputs_of
from minimp.tensors import Tensor

__all__ = ["fold_batch_norm", "overflow", "parameter", "scale_and_shift", "values"]


def fold_batch_norm(layer: Any, bn: Any) -> Any:
    """Return a copy of a layer that also does what the batch norm behind it does in evaluation.

    Args:
        layer: a Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d or Linear, in any number of groups. It and
            its parameters stay as they are; those of the copy are new, without a gradient.
        bn: a batch norm with running statistics over as many channels as the layer gives out. gamma is 1
            and beta 0 where it has none.

    Returns:
        The copy. Its weight keeps the format of the layer's weight; so does its bias, that of the layer's
        bias or, without one, of the weight. They ask for gradients as those did.

    Raises:
        SettingError: no running statistics, other channels, or numbers that cannot be folded: a variance
            that is negative or NaN, a folded weight that the format cannot hold.
    """
    channels = outputs_of(layer)
    if bn.running_mean is None or bn.running_var is None:
        raise SettingError(
            "the batch norm has no running statistics (track_running_stats=False)", op="fold_batch_norm"
        )
    if bn.num_features != channels:
        raise SettingError(
            f"the layer gives {channels} channels, the batch norm takes {bn.num_features}",
            op="fold_batch_norm",
        )
    scale, shift = scale_and_shift(bn)
    bias = np.zeros(channels) if layer.bias is None else values(layer.bias)
    with np.errstate(all="ignore"):  # what is not finite is found below
        wide = values(layer.weight) * output_factors(layer, scale)
        wide_bias = bias * scale + shift
    made = copy.deepcopy(layer)
    like = layer.weight if layer.bias is None else layer.bias
    made.weight = parameter(wide, layer.weight)
    made.bias = parameter(wide_bias, like)
    if getattr(made, "fp8_state", None) is not None:  # the history of another weight
        made.fp8_state = None
    for name, found, given in (("weight", made.weight, wide), ("bias", made.bias, wide_bias)):
        why = overflow(found, given)
        if why:
            raise SettingError(f"the folded {name} {why}", op="fold_batch_norm")
    return made


def scale_and_shift(bn: Any) -> tuple[Wide, Wide]:
    """Return s and beta - mean s of a batch norm in evaluation, which computes s x + shift.  (C,), (C,)."""
    mean, var = values(bn.running_mean), values(bn.running_var)
    gamma = np.ones_like(mean) if bn.weight is None else values(bn.weight)
    beta = np.zeros_like(mean) if bn.bias is None else values(bn.bias)
    with np.errstate(all="ignore"):  # a variance below -eps gives NaN, which is found when the fold is made
        scale = gamma / np.sqrt(var + bn.eps)
        return scale, beta - mean * scale


def values(leaf: Tensor) -> Wide:
    """Return the values of a tensor in float64, on the host."""
    return np.asarray(leaf.backend.to_host(leaf.array)).astype(np.float64)


def parameter(wide: Wide, like: Parameter) -> Parameter:
    """Return a parameter of float64 values, rounded once to the format of another and beside it."""
    form = like.format
    assert isinstance(form, Format)  # parameters are of floating formats
    array = like.backend.cast(like.backend.from_host(wide), form)
    return Parameter(Tensor(array, like.backend), requires_grad=like.requires_grad)


def overflow(found: Parameter, wide: Wide) -> str:
    """Say what is not finite in a rounded parameter; nothing if all is."""
    if not np.isfinite(wide).all():
        return "is not finite: look for a running variance below -eps, for infinities and for NaN"
    if not np.isfinite(values(found)).all():
        return f"reaches {np.abs(wide).max():.3g}, more than {found.format} holds"
    return ""
