r"""Initial values, with torch.nn.init's names.

Every function draws from :func:`minimp.rng.generator` (or from `generator`) in float64, rounds once to the
tensor's format, gives the leaf a new array and returns it. fan_in is the number of inputs that one output
sums over (axis 1 and what follows), fan_out the number of outputs that one input reaches (axis 0 and axes
from 2 on).
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from minimp import rng
from minimp.errors import FormatError, GradientError, SettingError, ShapeError, unknown_name
from minimp.tensors import Tensor

__all__ = [
    "calculate_gain", "constant_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_", "uniform_",
    "xavier_normal_", "xavier_uniform_", "zeros_",
]  # fmt: skip

Leaf = TypeVar("Leaf", bound=Tensor)
Generator = np.random.Generator

_CONVOLUTIONS = [f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)]
GAINS: dict[str, float] = {
    **dict.fromkeys(["linear", "sigmoid", *_CONVOLUTIONS], 1.0),
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "selu": 0.75,
}
"""Nonlinearity -> the factor that keeps the scale of activations (torch.nn.init.calculate_gain, 2.13)."""


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor by which weights must exceed 1/sqrt(fan) before this nonlinearity.

    Args:
        nonlinearity: a name in `GAINS`, or ``"leaky_relu"``: sqrt(2 / (1 + slope^2)).
        param: the slope of leaky_relu; None is 0.01.

    Raises:
        SettingError: an unknown name, or a slope that is no number.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, int | float):
            raise SettingError(f"expected a slope that is a number, got {slope!r}", op="calculate_gain")
        return math.sqrt(2.0 / (1.0 + slope**2))
    if nonlinearity not in GAINS:
        raise SettingError(unknown_name("nonlinearity", nonlinearity, [*GAINS, "leaky_relu"]))
    return GAINS[nonlinearity]


def uniform_(tensor: Leaf, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Leaf:
    """Draw from U(a, b). Rounding may give b itself."""
    if not a <= b:
        raise SettingError(f"expected a <= b, got {a} and {b}", op="uniform_")
    return _fill(tensor, _source(generator).uniform(a, b, tensor.shape), "uniform_")


def normal_(tensor: Leaf, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Leaf:
    """Draw from N(mean, std^2)."""
    if not std >= 0.0:
        raise SettingError(f"expected std of at least 0, got {std}", op="normal_")
    return _fill(tensor, _source(generator).normal(mean, std, tensor.shape), "normal_")


def constant_(tensor: Leaf, val: float) -> Leaf:
    """Set every element to `val`, rounded once."""
    return _fill(tensor, np.broadcast_to(np.float64(val), tensor.shape), "constant_")


def zeros_(tensor: Leaf) -> Leaf:
    """Set every element to 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: Leaf) -> Leaf:
    """Set every element to 1."""
    return constant_(tensor, 1.0)


def kaiming_uniform_(
    tensor: Leaf, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Leaf:  # fmt: skip
    """Draw from U(-c, c), c = gain sqrt(3 / fan) (He et al. 2015).

    Args:
        tensor: (out, in, ...).
        a: the slope of leaky_relu.
        mode: ``"fan_in"`` keeps the variance in the forward, ``"fan_out"`` in the backward pass.
        nonlinearity: a name of :func:`calculate_gain`.
        generator: None takes minimp's.

    Raises:
        ShapeError: fewer than two axes.
        SettingError: an unknown mode or nonlinearity.
    """
    std = _kaiming(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -math.sqrt(3.0) * std, math.sqrt(3.0) * std, generator)


def kaiming_normal_(
    tensor: Leaf, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Leaf:  # fmt: skip
    """Draw from N(0, gain^2 / fan) (He et al. 2015). Arguments and errors as :func:`kaiming_uniform_`."""
    return normal_(tensor, 0.0, _kaiming(tensor, a, mode, nonlinearity), generator)


def xavier_uniform_(tensor: Leaf, gain: float = 1.0, generator: Generator | None = None) -> Leaf:
    """Draw from U(-c, c), c = gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010).

    Raises:
        ShapeError: fewer than two axes.
    """
    bound = gain * math.sqrt(6.0 / max(sum(_fans(tensor)), 1))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Leaf, gain: float = 1.0, generator: Generator | None = None) -> Leaf:
    """Draw from N(0, 2 gain^2 / (fan_in + fan_out)) (Glorot and Bengio 2010).

    Raises:
        ShapeError: fewer than two axes.
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / max(sum(_fans(tensor)), 1)), generator)


def _fans(tensor: Tensor) -> tuple[int, int]:
    """Return (fan_in, fan_out) of (out, in, ...)."""
    if tensor.ndim < 2:
        raise ShapeError(
            f"expected a tensor of at least two axes (out, in, ...), got {tensor.shape}",
            op="init",
            shapes=[tensor.shape],
            help="use uniform_ or normal_ for a bias",
        )
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _kaiming(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    """Return gain / sqrt(fan); 0 for a tensor without elements."""
    modes = ("fan_in", "fan_out")
    if mode not in modes:
        raise SettingError(unknown_name("mode", mode, modes))
    gain = calculate_gain(nonlinearity, a)
    fan = _fans(tensor)[modes.index(mode)]
    return gain / math.sqrt(fan) if fan else 0.0


def _source(generator: Generator | None) -> Generator:
    return rng.generator() if generator is None else generator


def _fill(tensor: Leaf, values: Any, op: str) -> Leaf:
    """Give a leaf new values, rounded once from float64."""
    if tensor.node is not None:
        raise GradientError("only a leaf can be given values", op=op, help="use .detach() first")
    if tensor.format is None:
        raise FormatError(f"expected a tensor of floats, got {tensor.dtype}", op=op)
    tensor.array = tensor.backend.cast(tensor.backend.from_host(values), tensor.format)
    return tensor
