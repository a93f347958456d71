"""The ops, one file a family; each op is its forward, its gradient, its cast class and its docstring."""

from minimp.door import OPS, Op, cast, op
from minimp.ops.activations import gelu, relu, sigmoid, tanh
from minimp.ops.adaptive import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_input,
    adaptive_max_pool2d,
    max_unpool2d,
)
from minimp.ops.arithmetic import abs_, add, div, exp, log, mul, neg, pow_, reciprocal, sqrt, sub
from minimp.ops.arranging import stack
from minimp.ops.attention import scaled_dot_product_attention
from minimp.ops.batch_norm import batch_norm
from minimp.ops.comparison import argmax, eq, ge, gt, isfinite, le, lt, ne
from minimp.ops.contractions import addmm, baddbmm
from minimp.ops.convolution import conv1d, conv2d_input, conv2d_weight, conv_transpose1d, conv_transpose2d
from minimp.ops.embedding import embedding
from minimp.ops.group_norm import group_norm
from minimp.ops.indexing import gather, index_add, index_copy, index_put, index_select, scatter, scatter_add
from minimp.ops.losses import mse_loss, nll_loss
from minimp.ops.margin_losses import hinge_embedding_loss, margin_ranking_loss, soft_margin_loss
from minimp.ops.noise import dropout
from minimp.ops.normalization import layer_norm, linalg_vector_norm, rms_norm
from minimp.ops.ordering import argsort
from minimp.ops.padding import constant_pad_nd
from minimp.ops.piecewise import elu, leaky_relu
from minimp.ops.pooling import avg_pool2d, avg_pool2d_input, max_pool2d, max_pool2d_input
from minimp.ops.probability_losses import binary_cross_entropy, binary_cross_entropy_with_logits, kl_div
from minimp.ops.products import conv2d, linear, matmul
from minimp.ops.reductions import amax, log_softmax, mean, softmax, sum_
from minimp.ops.regression_losses import huber_loss, l1_loss, poisson_nll_loss, smooth_l1_loss
from minimp.ops.resampling import resample, resample_input
from minimp.ops.selection import clamp, masked_fill, maximum, minimum, where
from minimp.ops.shaping import cat, clone, expand, getitem, permute, reshape, unindex
from minimp.ops.smooth import silu, softplus
from minimp.ops.statistics import logsumexp, std, var

from minimp.ops import composites  # noqa: F401 - it declares, and exports nothing

__all__ = [
    "OPS", "Op", "abs_", "adaptive_avg_pool2d", "adaptive_avg_pool2d_input", "adaptive_max_pool2d",
    "add", "addmm", "amax", "argmax", "argsort", "avg_pool2d", "avg_pool2d_input", "baddbmm",
    "batch_norm", "binary_cross_entropy", "binary_cross_entropy_with_logits", "cast", "cat", "clamp",
    "clone", "constant_pad_nd", "conv1d", "conv2d", "conv2d_input", "conv2d_weight", "conv_transpose1d",
    "conv_transpose2d", "div", "dropout", "elu", "embedding", "eq", "exp", "expand", "gather", "ge",
    "gelu", "getitem", "group_norm", "gt", "hinge_embedding_loss", "huber_loss", "index_add",
    "index_copy", "index_put", "index_select", "isfinite", "kl_div", "l1_loss", "layer_norm", "le",
    "leaky_relu", "linalg_vector_norm", "linear", "log", "log_softmax", "logsumexp", "lt",
    "margin_ranking_loss", "masked_fill", "matmul", "max_pool2d", "max_pool2d_input", "max_unpool2d",
    "maximum", "mean", "minimum", "mse_loss", "mul", "ne", "neg", "nll_loss", "op", "permute",
    "poisson_nll_loss", "pow_", "reciprocal", "relu", "resample", "resample_input", "reshape",
    "rms_norm", "scaled_dot_product_attention", "scatter", "scatter_add", "sigmoid", "silu",
    "smooth_l1_loss", "soft_margin_loss", "softmax", "softplus", "sqrt", "stack", "std", "sub", "sum_",
    "tanh", "unindex", "var", "where",
]  # fmt: skip
