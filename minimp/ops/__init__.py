"""The ops, one file a family; each op is its forward, its gradient, its cast class and its docstring."""

from minimp.door import OPS, Op, cast, op
from minimp.ops.activations import gelu, relu, sigmoid, tanh
from minimp.ops.arithmetic import abs_, add, div, exp, log, mul, neg, pow_, reciprocal, sqrt, sub
from minimp.ops.attention import scaled_dot_product_attention
from minimp.ops.comparison import argmax, eq, ge, gt, isfinite, le, lt, ne
from minimp.ops.convolution import conv2d_input, conv2d_weight
from minimp.ops.embedding import embedding
from minimp.ops.losses import mse_loss, nll_loss
from minimp.ops.noise import dropout
from minimp.ops.normalization import layer_norm, linalg_vector_norm, rms_norm
from minimp.ops.pooling import avg_pool2d, avg_pool2d_input, max_pool2d, max_pool2d_input
from minimp.ops.products import conv2d, linear, matmul
from minimp.ops.reductions import amax, log_softmax, mean, softmax, sum_
from minimp.ops.shaping import cat, clone, expand, getitem, permute, reshape, unindex

__all__ = [
    "OPS", "Op", "abs_", "add", "amax", "argmax", "avg_pool2d", "avg_pool2d_input", "cast", "cat",
    "clone", "conv2d", "conv2d_input", "conv2d_weight", "div", "dropout", "embedding", "eq", "exp",
    "expand", "ge", "gelu", "getitem", "gt", "isfinite", "layer_norm", "le", "linalg_vector_norm",
    "linear", "log", "log_softmax", "lt", "matmul", "max_pool2d", "max_pool2d_input", "mean",
    "mse_loss", "mul", "ne", "neg", "nll_loss", "op", "permute", "pow_", "reciprocal", "relu",
    "reshape", "rms_norm", "scaled_dot_product_attention", "sigmoid", "softmax", "sqrt", "sub", "sum_",
    "tanh", "unindex",
]  # fmt: skip
