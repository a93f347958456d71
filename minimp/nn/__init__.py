"""Modules with torch.nn's names: layers, activations, losses, containers, and initial values."""

from minimp.nn import init
from minimp.nn.activations import GELU, LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from minimp.nn.attention import MultiheadAttention
from minimp.nn.cells import GRUCell, LSTMCell, RNNCell
from minimp.nn.containers import ModuleDict, ModuleList, Sequential
from minimp.nn.dropout import AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d
from minimp.nn.embedding import Embedding
from minimp.nn.layers import AvgPool2d, Conv2d, Flatten, MaxPool2d
from minimp.nn.linear import Bilinear, Identity, Linear
from minimp.nn.losses import CrossEntropyLoss, MSELoss, NLLLoss
from minimp.nn.module import Module, count_parameters
from minimp.nn.normalization import LayerNorm, RMSNorm
from minimp.nn.parameter import Parameter
from minimp.nn.recurrent import GRU, LSTM, RNN
from minimp.nn.transformer import (
    Transformer,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)

__all__ = [
    "GELU", "GRU", "LSTM", "RNN", "AlphaDropout", "AvgPool2d", "Bilinear", "Conv2d", "CrossEntropyLoss",
    "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "Embedding", "Flatten", "GRUCell", "Identity",
    "LSTMCell", "LayerNorm", "Linear", "LogSoftmax", "MSELoss", "MaxPool2d", "Module", "ModuleDict",
    "ModuleList", "MultiheadAttention", "NLLLoss", "Parameter", "RMSNorm", "RNNCell", "ReLU", "Sequential",
    "Sigmoid", "Softmax", "Tanh", "Transformer", "TransformerDecoder", "TransformerDecoderLayer",
    "TransformerEncoder", "TransformerEncoderLayer", "count_parameters", "init",
]  # fmt: skip
