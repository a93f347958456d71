"""Modules with torch.nn's names: layers, activations, losses, containers, and initial values."""

from minimp.nn import init
from minimp.nn.activations import GELU, LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from minimp.nn.containers import ModuleDict, ModuleList, Sequential
from minimp.nn.layers import AvgPool2d, Conv2d, Dropout, Flatten, Identity, Linear, MaxPool2d
from minimp.nn.losses import CrossEntropyLoss, MSELoss, NLLLoss
from minimp.nn.module import Module, count_parameters
from minimp.nn.normalization import LayerNorm, RMSNorm
from minimp.nn.parameter import Parameter

__all__ = [
    "GELU", "AvgPool2d", "Conv2d", "CrossEntropyLoss", "Dropout", "Flatten", "Identity",
    "LayerNorm", "Linear", "LogSoftmax", "MSELoss", "MaxPool2d", "Module", "ModuleDict", "ModuleList",
    "NLLLoss", "Parameter", "RMSNorm", "ReLU", "Sequential", "Sigmoid", "Softmax", "Tanh",
    "count_parameters", "init",
]  # fmt: skip
