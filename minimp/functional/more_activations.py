"""Activation functions with parameters: rectifiers, gates and their smooth relatives."""

from __future__ import annotations

from typing import Any

from minimp import ops
from minimp.errors import SettingError
from minimp.functional.common import format_or_none, tensor_of
from minimp.ops.selection import as_operand
from minimp.tensors import Tensor

__all__ = [
    "celu", "elu", "glu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid", "mish", "prelu",
    "relu6", "selu", "silu", "softmin", "softplus", "softsign",
]  # fmt: skip

SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
"""Klambauer et al. 2017 (arXiv 1706.02515), equation 14."""


def silu(input: Any) -> Tensor:
    """x / (1 + e^-x)."""
    return ops.silu(input)


def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """ln(1 + e^(beta x)) / beta, and x itself where beta x > threshold."""
    return ops.softplus(input, beta=beta, threshold=threshold)


def leaky_relu(input: Any, negative_slope: float = 0.01) -> Tensor:
    """x for x > 0, else negative_slope x."""
    return ops.leaky_relu(input, negative_slope=negative_slope)


def elu(input: Any, alpha: float = 1.0) -> Tensor:
    """x for x > 0, else alpha (e^x - 1)."""
    return ops.elu(input, alpha=alpha)


def celu(input: Any, alpha: float = 1.0) -> Tensor:
    """x for x > 0, else alpha (e^(x / alpha) - 1) (Barron 2017, arXiv 1704.07483).

    Raises:
        SettingError: alpha is 0 (torch refuses it too).
    """
    if alpha == 0:
        raise SettingError(f"celu: expected a number other than 0 as alpha, got {alpha!r}")
    return ops.elu(input, alpha=alpha, scale=1.0, input_scale=1 / alpha)


def selu(input: Any) -> Tensor:
    """s x for x > 0, else s a (e^x - 1), a = 1.6733 and s = 1.0507 keeping mean 0 and variance 1."""
    return ops.elu(input, alpha=SELU_ALPHA, scale=SELU_SCALE)


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """x between the two limits, the nearer limit beyond; the gradient is 0 at a limit.

    The limits are rounded to the format of x first.
    """
    if not min_val <= max_val:
        raise SettingError(f"hardtanh: expected min_val <= max_val, got {min_val} and {max_val}")
    x = tensor_of(input)
    low, high = (float(as_operand(float(limit), x).array) for limit in (min_val, max_val))
    return ops.hardtanh(x, min_val=low, max_val=high)


def relu6(input: Any) -> Tensor:
    """min(max(x, 0), 6)."""
    return ops.hardtanh(input, min_val=0.0, max_val=6.0)


def hardsigmoid(input: Any) -> Tensor:
    """min(max(x + 3, 0), 6) / 6."""
    return ops.hardsigmoid(input)


def hardswish(input: Any) -> Tensor:
    """x min(max(x + 3, 0), 6) / 6."""
    return ops.hardswish(input)


def prelu(input: Any, weight: Any) -> Tensor:
    """x for x > 0, else a x, with one slope a, (1,), or one for each channel of (N, C, ...), (C,)."""
    return ops.prelu(input, weight)


def mish(input: Any) -> Tensor:
    """x tanh(ln(1 + e^x))."""
    return ops.mish(input)


def logsigmoid(input: Any) -> Tensor:
    """-ln(1 + e^-x)."""
    return ops.log_sigmoid(input)


def softsign(input: Any) -> Tensor:
    """x / (1 + |x|), as three ops, each rounded (as in torch)."""
    x = tensor_of(input)
    return x / (x.abs() + 1)


def glu(input: Any, dim: int = -1) -> Tensor:
    """a / (1 + e^-b), a and b the halves of x along `dim`."""
    return ops.glu(input, dim=dim)


def softmin(input: Any, dim: int = -1, dtype: Any = None) -> Tensor:
    """softmax(-x) over `dim` (torch's `dim=None` guesses; here the default is the last axis)."""
    return ops.softmax(-tensor_of(input), dim=dim, dtype=format_or_none(dtype))
