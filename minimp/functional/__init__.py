"""torch.nn.functional's names and arguments over minimp's ops.

Index and label arguments may be NumPy integer arrays. Differences from PyTorch 2.13 are stated in the
docstring of the function they concern; where none is, there is none that we know of.
"""

from minimp.functional.activations import exp, gelu, log, relu, sigmoid, sqrt, tanh
from minimp.functional.attention import embedding, scaled_dot_product_attention
from minimp.functional.losses import cross_entropy, mse_loss, nll_loss
from minimp.functional.normalization import layer_norm, log_softmax, rms_norm, softmax, vector_norm
from minimp.functional.pooling import avg_pool2d, max_pool2d
from minimp.functional.products import conv2d, linear
from minimp.functional.shaping import cat, dropout

__all__ = [
    "avg_pool2d", "cat", "conv2d", "cross_entropy", "dropout", "embedding", "exp", "gelu", "layer_norm",
    "linear", "log", "log_softmax", "max_pool2d", "mse_loss", "nll_loss", "relu", "rms_norm",
    "scaled_dot_product_attention", "sigmoid", "softmax", "sqrt", "tanh", "vector_norm",
]  # fmt: skip
