"""torch.nn.functional's names and arguments over minimp's ops.

Index and label arguments may be NumPy integer arrays. Differences from PyTorch 2.13 are stated in the
docstring of the function they concern; where none is, there is none that we know of.
"""

from minimp.functional.activations import exp, gelu, log, relu, sigmoid, sqrt, tanh
from minimp.functional.arranging import (
    chunk,
    diag,
    diagonal,
    flatten,
    flip,
    movedim,
    repeat_interleave,
    roll,
    split,
    squeeze,
    stack,
    tile,
    transpose,
    tril,
    triu,
    unbind,
    unflatten,
    unsqueeze,
)
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
from minimp.functional.distances import cosine_similarity, norm, normalize, pairwise_distance
from minimp.functional.einsum import einsum
from minimp.functional.elementary import (
    acos,
    addcdiv,
    addcmul,
    asin,
    atan,
    atan2,
    ceil,
    cos,
    cosh,
    erf,
    expm1,
    floor,
    isfinite,
    isinf,
    isnan,
    lerp,
    log1p,
    log2,
    log10,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    remainder,
    round,  # noqa: A004 - torch's name
    rsqrt,
    sign,
    sin,
    sinh,
    square,
    tan,
    trunc,
)
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
from minimp.functional.more_activations import (
    celu,
    elu,
    glu,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    logsigmoid,
    mish,
    prelu,
    relu6,
    selu,
    silu,
    softmin,
    softplus,
    softsign,
)
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
from minimp.functional.pixels import channel_shuffle, fold, pixel_shuffle, pixel_unshuffle, unfold
from minimp.functional.pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    avg_pool1d,
    avg_pool2d,
    lp_pool1d,
    lp_pool2d,
    max_pool1d,
    max_pool2d,
    max_unpool2d,
)
from minimp.functional.products import linear
from minimp.functional.quantization import fake_quantize_per_channel_affine, fake_quantize_per_tensor_affine
from minimp.functional.regression_losses import (
    gaussian_nll_loss,
    huber_loss,
    l1_loss,
    mse_loss,
    poisson_nll_loss,
    smooth_l1_loss,
)  # fmt: skip
from minimp.functional.selection import (
    amax,
    amin,
    argmax,
    argmin,
    argsort,
    clamp,
    clip,
    masked_fill,
    maximum,
    minimum,
    sort,
    topk,
    where,
)
from minimp.functional.shaping import cat, dropout
from minimp.functional.statistics import cumprod, cumsum, logsumexp, prod, std, std_mean, var, var_mean
from minimp.operators.naming import naming_itself

__all__ = [
    "acos", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "addcdiv", "addcmul", "addmm", "amax", "amin", "argmax", "argmin", "argsort", "asin", "atan",
    "atan2", "avg_pool1d", "avg_pool2d", "baddbmm", "batch_norm", "bilinear", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "bmm", "cat", "ceil", "celu", "channel_shuffle", "chunk",
    "clamp", "clip", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "cos", "cosh",
    "cosine_embedding_loss", "cosine_similarity", "cross_entropy", "cumprod", "cumsum", "diag",
    "diagonal", "dot", "dropout", "einsum", "elu", "embedding", "erf", "exp", "expm1",
    "fake_quantize_per_channel_affine", "fake_quantize_per_tensor_affine", "flatten",
    "flip", "floor", "fold", "gather", "gaussian_nll_loss", "gelu", "glu", "group_norm", "hardsigmoid",
    "hardswish", "hardtanh", "hinge_embedding_loss", "huber_loss", "index_add", "index_copy",
    "index_put", "index_select", "inner", "instance_norm", "interpolate", "isfinite", "isinf", "isnan",
    "kl_div", "l1_loss", "layer_norm", "leaky_relu", "lerp", "linear", "local_response_norm", "log",
    "log1p", "log2", "log10", "log_softmax", "logical_and", "logical_not", "logical_or", "logical_xor",
    "logsigmoid", "logsumexp", "lp_pool1d", "lp_pool2d", "margin_ranking_loss", "masked_fill",
    "masked_select", "max_pool1d", "max_pool2d", "max_unpool2d", "maximum", "minimum", "mish", "mm",
    "movedim", "mse_loss", "mv", "nll_loss", "norm", "normalize", "one_hot", "outer", "pad",
    "pairwise_distance", "pixel_shuffle", "pixel_unshuffle", "poisson_nll_loss", "prelu", "prod",
    "relu", "relu6", "remainder", "repeat_interleave", "rms_norm", "roll", "round", "rsqrt",
    "scaled_dot_product_attention", "scatter", "scatter_add", "selu", "sigmoid", "sign", "silu", "sin",
    "sinh", "smooth_l1_loss", "soft_margin_loss", "softmax", "softmin", "softplus", "softsign", "sort",
    "split", "sqrt", "square", "squeeze", "stack", "std", "std_mean", "take_along_dim", "tan", "tanh",
    "tensordot", "tile", "topk", "transpose", "tril", "triplet_margin_loss", "triu", "trunc", "unbind",
    "unflatten", "unfold", "unsqueeze", "var", "var_mean", "vecdot", "vector_norm", "where",
]  # fmt: skip

globals().update({_name: naming_itself(globals()[_name]) for _name in __all__})
