"""What every op keeps for backward, to the byte; oracle: a closed form, read off its derivative."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minimp.checks.tables import GRADIENTS
from minimp.modes import listen
from minimp.tape import Event, Node
from tests.ops.samples import DIFFERENTIABLE, Sample, leaves

NOTHING = ""
CLOSED_FORMS: dict[str, str] = {
    # the derivative is a constant, or the indices are options
    **dict.fromkeys(
        [
            "add", "sub", "neg", "cast", "sum", "mean", "clone", "reshape", "permute", "expand", "getitem",
            "unindex", "cat", "stack", "tril", "triu", "cumsum", "avg_pool2d", "avg_pool2d_input",
            "adaptive_avg_pool2d", "adaptive_avg_pool2d_input", "constant_pad_nd", "_pad_circular",
            "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
            "replication_pad2d", "replication_pad3d", "upsample_nearest1d", "upsample_nearest2d",
            "upsample_nearest3d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d",
            "_upsample_nearest_exact3d", "upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d",
            "upsample_trilinear3d", "resample", "resample_input", "sign", "floor", "ceil", "round", "trunc",
            "index_put",
        ],
        NOTHING,
    ),
    # a function of the input
    **dict.fromkeys(
        [
            "abs", "log", "log1p", "log2", "log10", "erf", "sin", "cos", "sinh", "cosh", "asin", "acos",
            "atan", "gelu", "silu", "softplus", "elu", "hardswish", "mish", "log_sigmoid", "glu", "prod",
            "cumprod", "var",
        ],
        "x0",
    ),
    # a function of the result
    **dict.fromkeys(
        ["exp", "sqrt", "rsqrt", "reciprocal", "expm1", "tan", "tanh", "sigmoid", "relu", "softmax",
         "log_softmax"],
        "y",
    ),
    # of both: which element was the largest, a share of the whole
    **dict.fromkeys(["amax", "amin", "logsumexp", "std", "linalg_vector_norm"], "x0 y"),
    # a byte an element: which side of a corner it lies on, which of a window, whether it was kept
    **dict.fromkeys(["leaky_relu", "hardtanh", "hardsigmoid", "dropout", "maximum", "minimum"], "byte"),
    **dict.fromkeys(["fake_quantize_per_channel_affine", "fake_quantize_per_tensor_affine"], "byte"),
    **dict.fromkeys(["max_pool2d", "adaptive_max_pool2d"], "byte"),
    "clamp": "byte/0 byte/1 byte/2",
    # each factor for the gradient of the other
    **dict.fromkeys(
        ["mul", "matmul", "linear", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d",
         "conv2d_input", "conv2d_weight"],
        "x0/1 x1/0",
    ),
    **dict.fromkeys(["addmm", "baddbmm"], "x1/2 x2/1"),
    # places, which are integers or masks
    **dict.fromkeys(
        ["embedding", "gather", "index_select", "scatter", "scatter_add", "index_copy", "index_add",
         "masked_fill", "max_unpool2d", "max_pool2d_input"],
        "x1",
    ),
    "where": "x0",
    # losses: what their terms are made of; weights where there are some
    **dict.fromkeys(
        ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "poisson_nll_loss", "kl_div",
         "soft_margin_loss", "hinge_embedding_loss"],
        "x0 x1",
    ),
    "nll_loss": "x1 x2",
    "margin_ranking_loss": "x0 x1 x2",
    "binary_cross_entropy": "x0 x1 x2",
    "binary_cross_entropy_with_logits": "x0 x1 x2 x3",
    # other functions of several inputs
    "div": "x0/1 x1",
    "pow": "x0 x1 y/1",
    "prelu": "x0 x1",
    "atan2": "x0 x1",
    "remainder": "x0/1 x1/1",
    "lerp": "x0/2 x1/2 x2/01",
    "addcmul": "x1/2 x2/1",
    "addcdiv": "x1/2 x2",
    # statistics in the wide format: mean and 1 / deviation of each row, channel or group
    "layer_norm": "x0 x1 row row",
    "rms_norm": "x0 x1 row",
    "batch_norm": "x0 x1 x2 channel channel",
    "group_norm": "x0 x1 x2 group group",
    # all inputs, for second derivatives; the states; the gates, and what a GRU adds to one of them
    "lstm": "x0 x1 x2 x3 x4 x5 x6 y gates",
    "gru": "x0 x1 x2 x3 x4 x5 y gates state",
    **dict.fromkeys(["rnn_tanh", "rnn_relu"], "x0 x1 x2 x3 x4 x5 y"),
    "linear_fp8": "x8/1 w8/0",  # FP8 copies, each for the gradient of the other
    "scaled_dot_product_attention": "x0 x1 x2 x3 x4 query",  # ln sum e^score of each query
}  # fmt: skip
"""Op -> what is kept: `x0`, `x1`: the inputs, themselves; `y`: the result, itself; `byte`: a byte for each of
its elements; names of STATISTICS and COPIES. `/12`: only if the gradient of input 1 or 2 is asked for."""


def _stored(node: Node, count: int) -> int:
    """Return how many numbers of the wide format take the bytes of `count` in the working format."""
    assert node.format is not None
    return count * node.format.dtype.itemsize // (8 if node.format.name == "float64" else 4)


STATISTICS: dict[str, Callable[[Node, list[Any], Any], int]] = {
    "row": lambda node, x, _: x[0].size // max(math.prod(node.options["normalized_shape"]), 1),
    "channel": lambda _, x, __: x[0].shape[1],
    "group": lambda node, x, _: x[0].shape[0] * node.options["num_groups"],
    "gates": lambda node, _, y: _stored(node, {"lstm": 2, "gru": 3}[node.op.name] * y.size),
    "state": lambda node, _, y: _stored(node, y.size),
    "query": lambda _, x, y: math.prod(y.shape[:-1]),
}
"""How many numbers of the wide format each is."""


def _eight_bits(node: Node, x: Any, whole: tuple[int, int]) -> int:
    """Return a byte for each element, and those of the scales of blocks that lie along the rows."""
    recipe, rows = node.options["recipe"], math.prod(x.shape[:-1])
    if type(recipe).__name__ not in ("MXFP8BlockScaling", "Float8BlockScaling"):
        return int(x.size)
    mx = type(recipe).__name__ == "MXFP8BlockScaling"
    down, across = (32, 1) if mx else whole
    return int(x.size + -(-rows // down) * -(-x.shape[-1] // across) * (1 if mx else 4))


COPIES: dict[str, Callable[[Node, list[Any]], int]] = {
    "x8": lambda node, x: _eight_bits(node, x[0], (128, 1)),
    "w8": lambda node, x: _eight_bits(node, x[1], (128, 128)),
}
"""How many bytes an FP8 copy takes."""


def _expected(node: Node, inputs: list[Any], y: Any) -> tuple[list[Any], int]:
    """Return the arrays that must be kept themselves, and the bytes of what is kept beside them."""
    same, beside = [], 0
    wide = 8 if node.format is not None and node.format.name == "float64" else 4
    for token in CLOSED_FORMS[node.op.name].split():
        what, _, asked = token.partition("/")
        if asked and not any(int(i) < len(inputs) and node.inputs[int(i)] is not None for i in asked):
            continue
        if what == "y":
            same.append(y)
        elif what == "byte":
            beside += y.size
        elif what in COPIES:
            beside += COPIES[what](node, inputs)
        elif what in STATISTICS:
            beside += wide * STATISTICS[what](node, inputs, y)
        else:
            index = int(what[1:])
            if index < len(inputs) and hasattr(inputs[index], "nbytes"):
                same.append(inputs[index])
    return same, beside


def _check(event: Event) -> None:
    node, inputs, (y,) = event.node, list(event.inputs), event.outputs
    same, beside = _expected(node, inputs, y)
    kept = {id(a): a for a in node.saved if hasattr(a, "nbytes")}
    for array in same:
        assert any(a is array for a in kept.values()), (
            f"{node.op.name} was to keep {array.shape} {array.dtype}"
        )
    extra = sum(a.nbytes for key, a in kept.items() if key not in {id(a) for a in same})
    assert extra == beside, f"{node.op.name} keeps {extra} bytes beside inputs and result, not {beside}"


def _events(sample: Sample, fmt: str, wanted: tuple[int, ...]) -> list[Event]:
    inputs = leaves(sample, fmt, "positive", np.random.default_rng(0), requires_grad=False)
    for i in wanted:
        inputs[i].requires_grad_()
    events: list[Event] = []
    with listen(events.append):
        sample.call(*inputs)
    return [event for event in events if event.node.recording and event.phase == "forward"]


def test_every_op_has_a_closed_form() -> None:
    """Oracle: the list of ops with gradients; nothing may be left out, or be there for no op."""
    assert set(CLOSED_FORMS) == set(GRADIENTS)


@pytest.mark.parametrize("fmt", ["float64", "float32", "float16"])
@pytest.mark.parametrize("sample", DIFFERENTIABLE, ids=str)
def test_what_is_kept_has_its_closed_form(sample: Sample, fmt: str) -> None:
    """Oracle: the row: inputs and result themselves, the bytes of all else; all gradients, and each alone."""
    count = len(sample.shapes)
    for wanted in [tuple(range(count)), *((i,) for i in range(count) if count > 1)]:
        events = _events(sample, fmt, wanted)
        assert wanted != tuple(range(count)) or sample.op in {event.node.op.name for event in events}
        for event in events:
            _check(event)
