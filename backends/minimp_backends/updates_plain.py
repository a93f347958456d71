r"""The update rules over whole arrays, to be read; :mod:`minimp_backends.updates` does the same in blocks.

The order of operations is that of PyTorch 2.13's single-tensor optimizers, so that float32 results agree to a
few units in the last place (PyTorch fuses some multiplications with the addition that follows).

All arrays of one call have one floating dtype, float32 or float64, in which everything is computed. Numbers
that do not depend on the element (1 - beta, the bias corrections) are computed in float64 first. Every rule
returns the new weight and the change first, then what it keeps.
"""

from __future__ import annotations

from typing import Any

from minimp import formats

__all__ = [
    "plain_adagrad", "plain_adam", "plain_kahan", "plain_lamb", "plain_lion", "plain_rmsprop", "plain_sgd",
    "plain_stochastic_bfloat16", "trust_ratio",
]  # fmt: skip

Array = Any
TERMS = 64 * 1024
"""Squares that a norm adds up in one sum; the sums are then added one after another."""


def plain_sgd(
    weight: Array, grad: Array, buffer: Array | None, *, lr: float, momentum: float, dampening: float,
    weight_decay: float, nesterov: bool, maximize: bool, first: bool,
) -> tuple[Array, Array, Array | None]:  # fmt: skip
    r"""Return (new weight, change, new buffer) of one step of gradient descent.

    g <- g + weight_decay w;  b <- momentum b + (1 - dampening) g, or g at the first step;
    d = g + momentum b (Nesterov), or b, or g without momentum;  w <- w - lr d.

    Source: torch.optim.SGD 2.13 (Sutskever et al. 2013, but for where lr stands).
    """
    grad = -grad if maximize else grad
    if weight_decay:
        grad = grad + weight * weight_decay
    if momentum:
        buffer = grad.copy() if first or buffer is None else buffer * momentum + grad * (1 - dampening)
        grad = grad + buffer * momentum if nesterov else buffer
    change = grad * -lr
    return weight + change, change, buffer


def plain_adam(
    xp: Any, weight: Array, grad: Array, mean: Array, square: Array, peak: Array | None, *, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool, maximize: bool, step: int,
) -> tuple[Array, Array, Array, Array, Array | None]:  # fmt: skip
    r"""Return (new weight, change, new mean, new square, new peak) of one step of Adam.

    m <- m + (1 - beta1) (g - m);  v <- beta2 v + (1 - beta2) g^2;  p <- max(p, v), used for v by AMSGrad;
    w <- w (1 - lr weight_decay) - lr / (1 - beta1^t) m / (sqrt v / sqrt(1 - beta2^t) + eps).

    If the decay is not decoupled, weight_decay w is added to g, and w is not shrunk.

    Source: Kingma and Ba 2015; Loshchilov and Hutter 2019 (decoupled); Reddi et al. 2018 (AMSGrad); order of
    operations of torch.optim.Adam 2.13. For beta1 <= 1/2 the mean is g - beta1 (g - m), as torch.lerp does.
    """
    grad = -grad if maximize else grad
    if weight_decay and not decoupled:
        grad = grad + weight * weight_decay
    mean = _lerp(mean, grad, beta1)
    square = square * beta2 + grad * (1 - beta2) * grad
    peak = None if peak is None else xp.maximum(peak, square)
    root = xp.sqrt(square if peak is None else peak)
    change = mean * (-lr / (1 - beta1**step)) / (root / (1 - beta2**step) ** 0.5 + eps)
    shrink = lr * weight_decay if decoupled else 0.0
    if not shrink:
        return weight + change, change, mean, square, peak
    return weight * (1 - shrink) + change, change - weight * shrink, mean, square, peak


def plain_rmsprop(
    xp: Any, weight: Array, grad: Array, square: Array, buffer: Array | None, mean: Array | None, *,
    lr: float, alpha: float, eps: float, weight_decay: float, momentum: float, maximize: bool,
) -> tuple[Array, Array, Array, Array | None, Array | None]:  # fmt: skip
    r"""Return (new weight, change, new square, new buffer, new mean) of one step of RMSprop.

    g <- g + weight_decay w;  v <- alpha v + (1 - alpha) g^2;  with a mean (centered) m <- m + (1 - alpha)
    (g - m) and v - m^2 stands in the place of v;  d = g / (sqrt v + eps);  with momentum b <- momentum b + d
    and d = b;  w <- w - lr d.

    Source: Tieleman and Hinton 2012, lecture 6.5; Graves 2013 (arXiv 1308.0850, centered); order of
    operations of torch.optim.RMSprop 2.13.
    """
    grad = -grad if maximize else grad
    if weight_decay:
        grad = grad + weight * weight_decay
    square = square * alpha + grad * (1 - alpha) * grad
    mean = None if mean is None else _lerp(mean, grad, alpha)
    root = xp.sqrt(square if mean is None else square - mean * mean) + eps
    if buffer is not None:
        buffer = buffer * momentum + grad / root
        change = buffer * -lr
    else:
        change = grad * -lr / root
    return weight + change, change, square, buffer, mean


def plain_adagrad(
    xp: Any, weight: Array, grad: Array, total: Array, *, lr: float, lr_decay: float, eps: float,
    weight_decay: float, maximize: bool, step: int,
) -> tuple[Array, Array, Array]:  # fmt: skip
    r"""Return (new weight, change, new total) of one step of Adagrad.

    g <- g + weight_decay w;  s <- s + g^2;  w <- w - lr / (1 + (t - 1) lr_decay) g / (sqrt s + eps).

    Source: Duchi, Hazan and Singer 2011; order of operations of torch.optim.Adagrad 2.13.
    """
    grad = -grad if maximize else grad
    if weight_decay:
        grad = grad + weight * weight_decay
    total = total + grad * grad
    change = grad * (-lr / (1 + (step - 1) * lr_decay)) / (xp.sqrt(total) + eps)
    return weight + change, change, total


def plain_lion(
    xp: Any, weight: Array, grad: Array, mean: Array, *, lr: float, beta1: float, beta2: float,
    weight_decay: float, maximize: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    r"""Return (new weight, change, new mean) of one step of Lion.

    w <- w (1 - lr weight_decay) - lr sign(beta1 m + (1 - beta1) g);  m <- beta2 m + (1 - beta2) g.

    Source: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2 (arXiv 2302.06675).
    """
    grad = -grad if maximize else grad
    change = xp.sign(mean * beta1 + grad * (1 - beta1)) * -lr
    mean = mean * beta2 + grad * (1 - beta2)
    shrink = lr * weight_decay
    if not shrink:
        return weight + change, change, mean
    return weight * (1 - shrink) + change, change - weight * shrink, mean


def plain_lamb(
    xp: Any, weight: Array, grad: Array, mean: Array, square: Array, *, lr: float, beta1: float,
    beta2: float, eps: float, weight_decay: float, maximize: bool, step: int,
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    r"""Return (new weight, change, new mean, new square) of one step of LAMB on one tensor.

    m and v as in Adam;  u = m^ / (sqrt v^ + eps) + weight_decay w;  w <- w - lr r u, where the trust ratio
    r = |w| / |u| is of the norms of the whole tensors, and 1 if either of them is 0.

    Source: You et al. 2020, algorithm 2 with phi(z) = z, the bias of both means corrected (arXiv 1904.00962).
    """
    grad = -grad if maximize else grad
    mean = _lerp(mean, grad, beta1)
    square = square * beta2 + grad * (1 - beta2) * grad
    aim = mean * (1 / (1 - beta1**step)) / (xp.sqrt(square) / (1 - beta2**step) ** 0.5 + eps)
    if weight_decay:
        aim = aim + weight * weight_decay
    change = aim * (-lr * trust_ratio(xp, weight, aim)).astype(aim.dtype)
    return weight + change, change, mean, square


def trust_ratio(xp: Any, weight: Array, aim: Array) -> Array:
    """Return |w| / |u| in float64, an array without axes, or 1 if one of the norms is 0."""
    size, length = _norm(xp, weight), _norm(xp, aim)
    return xp.where((size != 0) & (length != 0), size / xp.where(length == 0, 1.0, length), 1.0)


def plain_kahan(
    weight: Array, change: Array, compensation: Array, wide: Any, narrow: Any
) -> tuple[Array, Array]:
    """Return (new low weight, new compensation): what rounding cut off is kept, and given back later.

    y = delta - c;  s = round(w + y);  c <- round((s - w) - y);  w <- s.

    Args:
        weight, change: wide; the values of the low weight, and what is to be added to them.
        compensation: c, in the low format.
        wide: from the low format to the wide one, exact.
        narrow: from the wide format to the low one, rounding once.

    Source: Zamirai et al. 2020, algorithm 3 (arXiv 2010.06192).
    """
    due = change - wide(compensation)
    low = narrow(weight + due)
    return low, narrow((wide(low) - weight) - due)


def plain_stochastic_bfloat16(xp: Any, wide: Array, dice: Array) -> Array:
    """Round float32 to bfloat16, up in magnitude with probability (what is cut off) / ulp.

    A bfloat16 is the upper half of a float32. Adding a uniform 16-bit number to the bits carries into that
    half with probability (lower half) / 2^16, exactly; then the lower half is cut. So the rounding is
    unbiased, and what is representable stays. What rounds past the largest value becomes infinite.

    Args:
        xp: the array namespace.
        wide: float32, any shape.
        dice: uint16 of that shape, uniform.

    Source: Zamirai et al. 2020, "Revisiting BFloat16 Training", section 3 (arXiv 2010.06192).
    """
    bits, nan = wide.view(xp.uint32), xp.isnan(wide)
    moved = ((bits + dice) >> 16).astype(xp.uint16)
    if bool(nan.any()):  # a NaN stays one; a carry could turn it into -0
        moved = xp.where(nan, ((bits >> 16) | 0x40).astype(xp.uint16), moved)
    return moved.view(formats.bfloat16.dtype)


def _lerp(mean: Array, grad: Array, beta: float) -> Array:
    """Return the running mean beta m + (1 - beta) g, in the order of torch.lerp."""
    gap = grad - mean
    return mean + gap * (1 - beta) if beta > 0.5 else grad - gap * beta


def _norm(xp: Any, array: Array) -> Array:
    """Return the square root of the sum of squares, in float64; the order of the sum is the same always."""
    flat = array.reshape(-1)
    parts = (flat[start : start + TERMS] for start in range(0, flat.size, TERMS))
    zero = xp.zeros((), xp.float64)
    return xp.sqrt(sum((xp.sum(xp.square(part, dtype=xp.float64)) for part in parts), zero))
