"""The ops, one file a family; each op is its forward, its gradient, its cast class and its docstring."""

from minimp.door import OPS, Op, cast, op
from minimp.ops import composites  # noqa: F401 - it declares, and exports nothing
from minimp.ops.activations import gelu, relu, sigmoid, tanh
from minimp.ops.adaptive import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_input,
    adaptive_max_pool2d,
    max_unpool2d,
)
from minimp.ops.arithmetic import abs_, add, div, exp, log, mul, neg, pow_, reciprocal, sqrt, sub
from minimp.ops.arranging import stack, tril, triu
from minimp.ops.attention import scaled_dot_product_attention
from minimp.ops.batch_norm import batch_norm
from minimp.ops.blends import addcdiv, addcmul, lerp
from minimp.ops.comparison import argmax, eq, ge, gt, isfinite, le, lt, ne
from minimp.ops.contractions import addmm, baddbmm
from minimp.ops.convolution import conv1d, conv2d_input, conv2d_weight, conv_transpose1d, conv_transpose2d
from minimp.ops.eight_bits import linear_fp8
from minimp.ops.elementary import (
    acos,
    asin,
    atan,
    atan2,
    cos,
    cosh,
    erf,
    expm1,
    log1p,
    log2,
    log10,
    rsqrt,
    sin,
    sinh,
    tan,
)
from minimp.ops.embedding import embedding
from minimp.ops.fake_quantization import fake_quantize_per_channel_affine, fake_quantize_per_tensor_affine
from minimp.ops.group_norm import group_norm
from minimp.ops.indexing import gather, index_add, index_copy, index_put, index_select, scatter, scatter_add
from minimp.ops.logic import (
    all_,
    any_,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    count_nonzero,
    isinf,
    isnan,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
)
from minimp.ops.losses import mse_loss, nll_loss
from minimp.ops.margin_losses import hinge_embedding_loss, margin_ranking_loss, soft_margin_loss
from minimp.ops.noise import dropout
from minimp.ops.normalization import layer_norm, linalg_vector_norm, rms_norm
from minimp.ops.ordering import amin, argmin, argsort
from minimp.ops.padding import constant_pad_nd
from minimp.ops.piecewise import elu, hardsigmoid, hardswish, hardtanh, leaky_relu, prelu
from minimp.ops.pooling import avg_pool2d, avg_pool2d_input, max_pool2d, max_pool2d_input
from minimp.ops.probability_losses import binary_cross_entropy, binary_cross_entropy_with_logits, kl_div
from minimp.ops.products import conv2d, linear, matmul
from minimp.ops.recurrent import gru, lstm, rnn_relu, rnn_tanh
from minimp.ops.reductions import amax, log_softmax, mean, softmax, sum_
from minimp.ops.regression_losses import huber_loss, l1_loss, poisson_nll_loss, smooth_l1_loss
from minimp.ops.resampling import resample, resample_input
from minimp.ops.scans import cumprod, cumsum, prod
from minimp.ops.selection import clamp, masked_fill, maximum, minimum, where
from minimp.ops.shaping import cat, clone, expand, getitem, permute, reshape, unindex
from minimp.ops.smooth import glu, log_sigmoid, mish, silu, softplus
from minimp.ops.statistics import logsumexp, std, var
from minimp.ops.steps import ceil, floor, remainder, round_, sign, trunc

__all__ = [
    "OPS", "Op", "abs_", "acos", "adaptive_avg_pool2d", "adaptive_avg_pool2d_input", "adaptive_max_pool2d",
    "add", "addcdiv", "addcmul", "addmm", "all_", "amax", "amin", "any_", "argmax", "argmin", "argsort",
    "asin", "atan", "atan2", "avg_pool2d", "avg_pool2d_input", "baddbmm", "batch_norm",
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "bitwise_and", "bitwise_not", "bitwise_or",
    "bitwise_xor", "cast", "cat", "ceil", "clamp", "clone", "constant_pad_nd", "conv1d", "conv2d",
    "conv2d_input", "conv2d_weight", "conv_transpose1d", "conv_transpose2d", "cos", "cosh", "count_nonzero",
    "cumprod", "cumsum", "div", "dropout", "elu", "embedding", "eq", "erf", "exp", "expand", "expm1",
    "fake_quantize_per_channel_affine", "fake_quantize_per_tensor_affine",
    "floor", "gather", "ge", "gelu", "getitem", "glu", "group_norm", "gru", "gt", "hardsigmoid", "hardswish",
    "hardtanh", "hinge_embedding_loss", "huber_loss", "index_add", "index_copy", "index_put", "index_select",
    "isfinite", "isinf", "isnan", "kl_div", "l1_loss", "layer_norm", "le", "leaky_relu", "lerp",
    "linalg_vector_norm", "linear", "linear_fp8", "log", "log1p", "log2", "log10", "log_sigmoid",
    "log_softmax", "logical_and", "logical_not", "logical_or", "logical_xor", "logsumexp", "lstm", "lt",
    "margin_ranking_loss", "masked_fill", "matmul", "max_pool2d", "max_pool2d_input", "max_unpool2d",
    "maximum", "mean", "minimum", "mish", "mse_loss", "mul", "ne", "neg", "nll_loss", "op", "permute",
    "poisson_nll_loss", "pow_", "prelu", "prod", "reciprocal", "relu", "remainder", "resample",
    "resample_input", "reshape", "rms_norm", "rnn_relu", "rnn_tanh", "round_", "rsqrt",
    "scaled_dot_product_attention", "scatter", "scatter_add", "sigmoid", "sign", "silu", "sin", "sinh",
    "smooth_l1_loss", "soft_margin_loss", "softmax", "softplus", "sqrt", "stack", "std", "sub", "sum_",
    "tan", "tanh", "tril", "triu", "trunc", "unindex", "var", "where",
]  # fmt: skip
