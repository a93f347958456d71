"""What a layer's inputs are on average, read off the batch norm before it: means of clipped normals.

What a batch norm gives is about normal, channel by channel, with mean beta and standard deviation |gamma|.
With phi and Phi the density and the distribution of the standard normal, a ReLU makes of N(m, s^2) the mean

    r(m, s) = m Phi(m / s) + s phi(m / s),

and ReLU6 r(m, s) - r(m - 6, s) (Nagel et al. 2019, arXiv 1906.04721, section 4.2 and appendix C). Means pass
through reshaping and averaging, not through the largest of a window.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.nn import BatchNorm1d, BatchNorm2d, BatchNorm3d
from minimp.nn.module import Module
from minimp.quant.fusion.flow import Flow, Step
from minimp.quant.fusion.folding import values

__all__ = ["clipped_mean", "expected_input"]

Wide = npt.NDArray[np.float64]
NORMS = (BatchNorm1d, BatchNorm2d, BatchNorm3d)
FAR = 30.0
"""So many standard deviations away Phi is 0 or 1 to the bit."""
AVERAGES = ("avg_pool2d", "adaptive_avg_pool2d")


def clipped_mean(mean: Wide, spread: Wide, top: float = math.inf) -> Wide:
    """Return the mean of a normal variable cut off below 0 and above `top`.  (C,), (C,) -> (C,)."""
    made = _rectified(mean, np.abs(spread))
    return made if math.isinf(top) else made - _rectified(mean - top, np.abs(spread))


def _rectified(mean: Wide, spread: Wide) -> Wide:
    alive = spread > 0
    with np.errstate(over="ignore", under="ignore"):
        u = np.clip(np.divide(mean, spread, where=alive, out=np.zeros_like(mean)), -FAR, FAR)
        below = 0.5 * (1 + np.array([math.erf(each / math.sqrt(2)) for each in u]))
        normal = mean * below + spread * np.exp(-(u**2) / 2) / math.sqrt(2 * math.pi)
    return np.where(alive, normal, np.maximum(mean, 0.0))


def expected_input(flow: Flow, layer: Module) -> tuple[Wide | None, str]:
    """Return the mean of what goes into a layer, (1, C, ...), or None and why it is not known.

    Args:
        flow: the record of a model whose batch norms stand where they stood in training.
        layer: one of its modules.
    """
    calls = flow.calls_of(layer)
    if len(calls) != 1 or len(calls[0].inputs) != 1:
        return None, "it does not run once, on one input"
    array: Any = calls[0].inputs[0].array
    after: list[Step] = []
    while True:
        step = flow.maker(array)
        if step is None:
            return None, "its input is the model's"
        if step.name == "batch_norm":
            return _pushed(step, after)
        if (step.name not in ("reshape", *AVERAGES) and _top(step) is None) or _padded(step):
            return None, f"its input comes through {flow.spelled(step)}, whose mean is not known"
        after.append(step)
        array = step.event.inputs[0]


def _pushed(step: Step, after: list[Step]) -> tuple[Wide | None, str]:
    """Return the mean behind a batch norm and the steps that follow it, the last first."""
    norm: Any = step.inside[-1].module if step.inside else None
    if not isinstance(norm, NORMS):
        return None, "it comes from a batch norm that is no module"
    (made,) = step.event.outputs
    assert made is not None  # forward events have results
    mean = np.zeros(made.shape[1]) if norm.bias is None else values(norm.bias)
    spread = np.ones(made.shape[1]) if norm.weight is None else values(norm.weight)
    tops = [top for each in after if (top := _top(each)) is not None]
    if len(tops) > 1:
        return None, "it comes through two functions that bend"
    if tops:
        mean = clipped_mean(mean, spread, tops[0])
    image = np.broadcast_to(mean.reshape(1, -1, *(1,) * (made.ndim - 2)), (1, *made.shape[1:]))
    for each in reversed(after):
        (output,) = each.event.outputs
        assert output is not None
        if each.name == "reshape":
            if output.shape[0] != each.event.inputs[0].shape[0]:
                return None, "its rows are mixed on the way"
            image = image.reshape(1, *output.shape[1:])
        elif each.name in AVERAGES:
            image = np.broadcast_to(image[:, :, :1, :1], (1, *output.shape[1:]))
    return np.ascontiguousarray(image), ""


def _top(step: Step) -> float | None:
    """Return where a ReLU, or one that ends like ReLU6, cuts off from above; None of other ops."""
    options = step.event.node.options
    if step.name == "hardtanh" and float(options["min_val"]) == 0:
        return float(options["max_val"])
    return math.inf if step.name == "relu" else None


def _padded(step: Step) -> bool:
    return bool(np.any(np.asarray(step.event.node.options.get("padding", 0))))
