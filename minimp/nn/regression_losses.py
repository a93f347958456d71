"""Losses of numbers as modules; the maths is in :mod:`minimp.functional.regression_losses`."""

from __future__ import annotations

from typing import Any

from minimp import functional
from minimp.nn.losses import Loss
from minimp.tensors import Tensor

__all__ = ["GaussianNLLLoss", "HuberLoss", "L1Loss", "MSELoss", "PoissonNLLLoss", "SmoothL1Loss"]


class MSELoss(Loss):
    """mean (x - t)^2 over all elements.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        SettingError: another reduction.
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Any, target: Any) -> Tensor:
        """Return the loss of two tensors of one shape."""
        return functional.mse_loss(input, target, reduction=self.reduction)


class L1Loss(Loss):
    """mean |x - t| over all elements.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        SettingError: another reduction.
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Any, target: Any) -> Tensor:
        """Return the loss of two tensors of one shape."""
        return functional.l1_loss(input, target, self.reduction)


class SmoothL1Loss(Loss):
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, with d = x - t.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        beta: at least 0.

    Raises:
        SettingError: another reduction; from a call, beta below 0.
    """

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta

    def forward(self, input: Any, target: Any) -> Tensor:
        """Return the loss of two tensors of one shape."""
        return functional.smooth_l1_loss(input, target, self.reduction, self.beta)


class HuberLoss(Loss):
    """d^2 / 2 where |d| < delta, else delta (|d| - delta / 2), with d = x - t.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        delta: above 0.

    Raises:
        SettingError: another reduction; from a call, delta not above 0.
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta

    def forward(self, input: Any, target: Any) -> Tensor:
        """Return the loss of two tensors of one shape."""
        return functional.huber_loss(input, target, self.reduction, self.delta)


class GaussianNLLLoss(Loss):
    """(ln v + (x - t)^2 / v) / 2, v = max(var, eps); see :func:`minimp.functional.gaussian_nll_loss`.

    Args:
        full: add ln(2 pi) / 2.
        eps: above 0.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        SettingError: another reduction; from a call, eps not above 0.
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.full = full
        self.eps = eps

    def forward(self, input: Any, target: Any, var: Any) -> Tensor:
        """Return the loss of means, targets and variances."""
        return functional.gaussian_nll_loss(input, target, var, self.full, self.eps, self.reduction)


class PoissonNLLLoss(Loss):
    """e^x - t x, or x - t ln(x + eps); see :func:`minimp.functional.poisson_nll_loss`.

    Args:
        log_input: whether inputs are logarithms of rates.
        full: add Stirling's approximation of ln t! where t > 1.
        eps: keeps the logarithm of a rate of 0 finite.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        SettingError: another reduction.
    """

    def __init__(
        self, log_input: bool = True, full: bool = False, *, eps: float = 1e-8, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        self.log_input = log_input
        self.full = full
        self.eps = eps

    def forward(self, input: Any, target: Any) -> Tensor:
        """Return the loss of rates, or their logarithms, and counts."""
        return functional.poisson_nll_loss(input, target, self.log_input, self.full, self.eps, self.reduction)
