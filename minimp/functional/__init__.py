"""torch.nn.functional's names and arguments over minimp's ops.

Index and label arguments may be NumPy integer arrays. Differences from PyTorch 2.13 are stated in the
docstring of the function they concern; where none is, there is none that we know of.
"""

from minimp.functional.activations import exp, gelu, log, relu, sigmoid, sqrt, tanh
from minimp.functional.arranging import chunk, flatten, split, squeeze, stack, transpose, unbind, unsqueeze
from minimp.functional.attention import embedding, scaled_dot_product_attention
from minimp.functional.losses import cross_entropy, mse_loss, nll_loss
from minimp.functional.more_activations import celu, elu, leaky_relu, selu, silu, softplus
from minimp.functional.normalization import layer_norm, log_softmax, rms_norm, softmax, vector_norm
from minimp.functional.pooling import avg_pool2d, max_pool2d
from minimp.functional.products import conv2d, linear
from minimp.functional.selection import argsort, clamp, clip, masked_fill, maximum, minimum, sort, topk, where
from minimp.functional.shaping import cat, dropout
from minimp.functional.statistics import logsumexp, std, std_mean, var, var_mean

__all__ = [
    "argsort", "avg_pool2d", "cat", "celu", "chunk", "clamp", "clip", "conv2d", "cross_entropy", "dropout",
    "elu", "embedding", "exp", "flatten", "gelu", "layer_norm", "leaky_relu", "linear", "log",
    "log_softmax", "logsumexp", "masked_fill", "max_pool2d", "maximum", "minimum", "mse_loss", "nll_loss",
    "relu", "rms_norm", "scaled_dot_product_attention", "selu", "sigmoid", "silu", "softmax", "softplus",
    "sort", "split", "sqrt", "squeeze", "stack", "std", "std_mean", "tanh", "topk", "transpose", "unbind",
    "unsqueeze", "var", "var_mean", "vector_norm", "where",
]  # fmt: skip
