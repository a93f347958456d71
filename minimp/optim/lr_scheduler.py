"""Learning rates that change from epoch to epoch, with torch.optim.lr_scheduler's names and arithmetic.

A scheduler sets `lr` of each group when it is made (epoch 0) and at each :meth:`LRScheduler.step`, which
belongs after the optimizer's. Like torch's, most rules go from the present rate to the next one, so several
schedulers on one optimizer multiply; the rates are float64.

Unlike torch's, a scheduler that is stepped after each step of the optimizer does not count the steps that a
loss scaler skipped: the first ones of a run, as a rule, while the scale is still too high.
"""

from __future__ import annotations

from minimp.optim.schedules.base import LRScheduler
from minimp.optim.schedules.chains import ChainedScheduler, SequentialLR
from minimp.optim.schedules.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from minimp.optim.schedules.one_cycle import OneCycleLR
from minimp.optim.schedules.plateau import ReduceLROnPlateau
from minimp.optim.schedules.rules import (
    ConstantLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)

__all__ = [
    "ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "ExponentialLR",
    "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "MultiplicativeLR", "OneCycleLR", "PolynomialLR",
    "ReduceLROnPlateau", "SequentialLR", "StepLR",
]  # fmt: skip
