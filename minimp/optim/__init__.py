"""Optimizers over FP32 masters or low-format weights, clipping, schedules, and averages of weights."""

from minimp.optim import lr_scheduler, swa_utils
from minimp.optim.adagrad import Adagrad
from minimp.optim.adam import Adam, AdamW
from minimp.optim.clipping import (
    clip_coefficient,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from minimp.optim.lamb import LAMB
from minimp.optim.lion import Lion
from minimp.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from minimp.optim.optimizer import Optimizer
from minimp.optim.report import ParameterUpdate, UpdateReport
from minimp.optim.rmsprop import RMSprop
from minimp.optim.sgd import SGD
from minimp.optim.swa_utils import EMA, AveragedModel

__all__ = [
    "EMA", "LAMB", "SGD", "Adagrad", "Adam", "AdamW", "AveragedModel", "ChainedScheduler", "ConstantLR",
    "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "ExponentialLR", "LRScheduler", "LambdaLR",
    "LinearLR", "Lion",
    "MultiStepLR", "MultiplicativeLR", "OneCycleLR", "Optimizer", "ParameterUpdate", "PolynomialLR",
    "RMSprop", "ReduceLROnPlateau", "SequentialLR", "StepLR", "UpdateReport", "clip_coefficient",
    "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm", "lr_scheduler",
    "swa_utils",
]  # fmt: skip
