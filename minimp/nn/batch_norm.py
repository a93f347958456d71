"""Normalisation over a batch, over groups of channels, and over each image.

The running statistics are buffers: they are in the format of the parameters when they are made, in float32 by
default, and conversions of the module convert them too, as in torch: ``model.half()`` rounds them to float16,
where small updates get lost. Under autocast, which leaves modules alone, they stay in float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp import functional
from minimp.errors import SettingError, ShapeError
from minimp.modes import MODES
from minimp.nn import init
from minimp.nn.convolution import batched
from minimp.nn.making import lifted, optional, whole, zeros
from minimp.nn.module import Module
from minimp.nn.parameter import Parameter
from minimp.tensors import Tensor, tensor

__all__ = [
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d",
    "InstanceNorm3d", "LocalResponseNorm",
]  # fmt: skip


class _Affine(Module):
    """What all share: a factor w and a term b for each channel, 1 and 0 at first."""

    weight: Parameter | None
    bias: Parameter | None

    def _make(self, channels: int, affine: bool, bias: bool, dtype: Any, backend: str | None) -> None:
        self.affine = affine
        self.register_parameter("weight", optional(affine, (channels,), dtype, backend))
        self.register_parameter("bias", optional(affine and bias, (channels,), dtype, backend))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set w to 1 and b to 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class GroupNorm(_Affine):
    """y = (x - mean) / sqrt(var + eps) w + b, statistics of each group of channels (Wu and He 2018).

    (N, num_channels, ...) -> the same shape; the variance is that of all elements of a group.

    Args:
        num_groups: how many groups; a divisor of num_channels.
        num_channels: the length of axis 1.
        eps: added to the variance.
        affine: whether there are w and b, one of each for a channel.
        bias: whether there is a b, if there is a w.
        dtype: the format of the parameters; None is float32.
        backend: the name of a backend; None takes the one in force.

    Raises:
        SettingError: numbers out of range, or groups that do not divide the channels.
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, *,
        bias: bool = True, dtype: Any = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_groups = whole("num_groups", num_groups, "GroupNorm")
        self.num_channels = whole("num_channels", num_channels, "GroupNorm")
        if num_channels % num_groups:
            raise SettingError(
                f"expected num_channels to be a multiple of {num_groups}, got {num_channels}", op="GroupNorm"
            )
        self.eps = eps
        self._make(num_channels, affine, bias, dtype, backend)

    def forward(self, input: Any) -> Tensor:
        """Return the normalised input."""
        return functional.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Show the settings."""
        counts = f"{self.num_groups}, {self.num_channels}"
        return f"{counts}, eps={self.eps}, affine={self.affine}, bias={self.bias is not None}"


class _Running(_Affine):
    """What layers share that may keep running statistics; `ranks` is what axes an input may have."""

    ranks: tuple[int, ...] = (4,)
    statistics = ("running_mean", "running_var")
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool,
        bias: bool, dtype: Any, backend: str | None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_features = whole("num_features", num_features, self._name())
        self.eps, self.momentum, self.track_running_stats = eps, momentum, track_running_stats
        for name in ("running_mean", "running_var"):
            self.register_buffer(
                name, zeros((num_features,), dtype, backend) if track_running_stats else None
            )
        count = tensor(np.zeros((), np.int64), backend=backend) if track_running_stats else None
        self.register_buffer("num_batches_tracked", count)
        self._make(num_features, affine, bias, dtype, backend)

    def reset_running_stats(self) -> None:
        """Forget what was seen: mean 0, variance 1, no batches."""
        for buffer, value in ((self.running_mean, 0), (self.running_var, 1), (self.num_batches_tracked, 0)):
            if buffer is not None:
                buffer.array = buffer.backend.xp.full_like(buffer.array, value)

    def reset_parameters(self) -> None:
        """Set w to 1 and b to 0, and forget what was seen."""
        self.reset_running_stats()
        super().reset_parameters()

    def _check(self, x: Tensor) -> None:
        if x.ndim not in self.ranks:
            axes = " or ".join(map(str, self.ranks))
            raise ShapeError(
                f"expected an input of {axes} axes, got {x.shape}", op=self._name(), shapes=[x.shape]
            )

    def extra_repr(self) -> str:
        """Show the settings."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_Running):
    """What the three below share."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, *, bias: bool = True, dtype: Any = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias, dtype, backend)

    def forward(self, input: Any) -> Tensor:
        """Return the normalised input; in training the running statistics move."""
        x = lifted(input)
        self._check(x)
        share = 0.0 if self.momentum is None else self.momentum
        seen = self.num_batches_tracked
        if not (self.training and self.track_running_stats):
            seen = None
        if seen is not None and self.momentum is None:
            share = 1 / (int(seen.array) + 1)
        by_batch = self.training or (self.running_mean is None and self.running_var is None)
        known = not self.training or self.track_running_stats
        mean, var = (self.running_mean, self.running_var) if known else (None, None)
        y = functional.batch_norm(x, mean, var, self.weight, self.bias, by_batch, share, self.eps)
        if seen is not None and not MODES.get().recomputing:
            seen.array = seen.array + 1
        return y


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L). Arguments and errors as :class:`BatchNorm2d`."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """y = (x - mean) / sqrt(var + eps) w + b, over each channel of a batch (Ioffe and Szegedy 2015).

    (N, num_features, H, W) -> the same shape. In training the statistics are the batch's, and
    ``running = (1 - momentum) running + momentum batch`` (the variance with N - 1) keeps them for evaluation.

    Args:
        num_features: the length of axis 1.
        eps: added to the variance.
        momentum: the share of a new batch; None takes the plain mean of all batches.
        affine: whether there are w and b.
        track_running_stats: whether statistics are kept; else those of the batch serve in evaluation too.
        bias: whether there is a b, if there is a w.
        dtype: the format of parameters and statistics; None is float32.
        backend: the name of a backend; None takes the one in force.

    Raises:
        SettingError: no channels.
        ShapeError: on call, an input that does not fit, or a single value per channel in training.
    """


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of (N, C, D, H, W). Arguments and errors as :class:`BatchNorm2d`."""

    ranks = (5,)


class _InstanceNorm(_Running):
    """What the three below share."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
        track_running_stats: bool = False, *, bias: bool = True, dtype: Any = None,
        backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias, dtype, backend)

    def forward(self, input: Any) -> Tensor:
        """Return the normalised input; (C, ...) is a batch of one."""
        x = lifted(input)
        self._check(x)
        axes = self.ranks[1] - 2
        channels = x.shape[-axes - 1]
        if channels != self.num_features:
            raise ShapeError(
                f"expected {self.num_features} channels, got {channels}", op=self._name(), shapes=[x.shape]
            )
        own = self.training or not self.track_running_stats
        kept = (self.running_mean, self.running_var, self.weight, self.bias)
        share = self.momentum or 0.0
        y: Tensor = batched(x, axes, lambda x: functional.instance_norm(x, *kept, own, share, self.eps))
        return y


class InstanceNorm1d(_InstanceNorm):
    """Normalisation of each channel of each signal, (N, C, L) or (C, L); see :class:`InstanceNorm2d`."""

    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """y = (x - mean) / sqrt(var + eps) w + b, statistics of each channel of each image (Ulyanov et al. 2016).

    (N, num_features, H, W) or (num_features, H, W) -> the same shape.

    Args:
        num_features: the number of channels; torch warns where another number comes, here it is an error.
        eps: added to the variance.
        momentum: the share of a new batch in running statistics.
        affine: whether there are w and b.
        track_running_stats: whether statistics are kept, and used in evaluation.
        bias: whether there is a b, if there is a w.
        dtype: the format of parameters and statistics; None is float32.
        backend: the name of a backend; None takes the one in force.

    Raises:
        SettingError: no channels.
        ShapeError: on call, an input that does not fit.
    """

    ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Normalisation of each channel of each volume, (N, C, D, H, W); see :class:`InstanceNorm2d`."""

    ranks = (4, 5)


class LocalResponseNorm(Module):
    """x / (k + alpha mean x^2)^beta, the mean over neighbouring channels (Krizhevsky et al. 2012).

    Args:
        size: how many neighbours, the channel itself among them.
        alpha, beta, k: as in the formula.

    Raises:
        SettingError: no neighbours.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = whole("size", size, "LocalResponseNorm"), alpha, beta, k

    def forward(self, input: Any) -> Tensor:
        """Return the normalised input."""
        return functional.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
