"""torch.nn.functional's names and arguments over minimp's ops.

Index and label arguments may be NumPy integer arrays. Differences from PyTorch 2.13 are stated in the
docstring of the function they concern; where none is, there is none that we know of.
"""

from minimp.functional.activations import exp, gelu, log, relu, sigmoid, sqrt, tanh
from minimp.functional.arranging import chunk, flatten, split, squeeze, stack, transpose, unbind, unsqueeze
from minimp.functional.attention import embedding, scaled_dot_product_attention
from minimp.functional.borders import pad
from minimp.functional.contractions import (
    addmm,
    baddbmm,
    bilinear,
    bmm,
    dot,
    inner,
    mm,
    mv,
    outer,
    tensordot,
    vecdot,
)  # fmt: skip
from minimp.functional.convolution import conv1d, conv2d, conv_transpose1d, conv_transpose2d
from minimp.functional.distance_losses import cosine_embedding_loss, triplet_margin_loss
from minimp.functional.einsum import einsum
from minimp.functional.indexing import (
    gather,
    index_add,
    index_copy,
    index_put,
    index_select,
    masked_select,
    one_hot,
    scatter,
    scatter_add,
    take_along_dim,
)  # fmt: skip
from minimp.functional.interpolation import interpolate
from minimp.functional.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    kl_div,
    nll_loss,
)  # fmt: skip
from minimp.functional.margin_losses import hinge_embedding_loss, margin_ranking_loss, soft_margin_loss
from minimp.functional.more_activations import celu, elu, leaky_relu, selu, silu, softplus
from minimp.functional.normalization import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
    log_softmax,
    rms_norm,
    softmax,
    vector_norm,
)
from minimp.functional.pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    avg_pool1d,
    avg_pool2d,
    max_pool1d,
    max_pool2d,
    max_unpool2d,
)
from minimp.functional.products import linear
from minimp.functional.regression_losses import (
    gaussian_nll_loss,
    huber_loss,
    l1_loss,
    mse_loss,
    poisson_nll_loss,
    smooth_l1_loss,
)  # fmt: skip
from minimp.functional.selection import argsort, clamp, clip, masked_fill, maximum, minimum, sort, topk, where
from minimp.functional.shaping import cat, dropout
from minimp.functional.statistics import logsumexp, std, std_mean, var, var_mean

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "addmm",
    "argsort", "avg_pool1d", "avg_pool2d", "baddbmm", "batch_norm", "bilinear", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "bmm", "cat", "celu", "chunk", "clamp", "clip", "conv1d",
    "conv2d", "conv_transpose1d", "conv_transpose2d", "cosine_embedding_loss", "cross_entropy", "dot",
    "dropout", "einsum", "elu", "embedding", "exp", "flatten", "gather", "gaussian_nll_loss", "gelu",
    "group_norm", "hinge_embedding_loss", "huber_loss", "index_add", "index_copy", "index_put",
    "index_select", "inner", "instance_norm", "interpolate", "kl_div", "l1_loss", "layer_norm",
    "leaky_relu", "linear", "local_response_norm", "log", "log_softmax", "logsumexp",
    "margin_ranking_loss", "masked_fill", "masked_select", "max_pool1d", "max_pool2d", "max_unpool2d",
    "maximum", "minimum", "mm", "mse_loss", "mv", "nll_loss", "one_hot", "outer", "pad",
    "poisson_nll_loss", "relu", "rms_norm", "scaled_dot_product_attention", "scatter", "scatter_add",
    "selu", "sigmoid", "silu", "smooth_l1_loss", "soft_margin_loss", "softmax", "softplus", "sort",
    "split", "sqrt", "squeeze", "stack", "std", "std_mean", "take_along_dim", "tanh", "tensordot",
    "topk", "transpose", "triplet_margin_loss", "unbind", "unsqueeze", "var", "var_mean", "vecdot",
    "vector_norm", "where",
]  # fmt: skip
