"""How each library moves its loss scale, written out by hand from its source: the oracle of the presets.

Each function takes the verdicts of a run (True: a gradient was not finite) and yields the scale after
each step. They share nothing with minimp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

F32 = np.float32
Trace = Callable[..., Iterator[float]]


def torch(bad: Iterable[bool], scale: float = 2.0**16, interval: int = 2000) -> Iterator[float]:
    """PyTorch 2.13.0: a float64 product, rounded to float32; growth to a non-finite scale is dropped."""
    tracker = 0
    for is_bad in bad:
        if is_bad:
            scale, tracker = float(F32(scale * 0.5)), 0
        else:
            tracker += 1
            if tracker == interval:
                grown = float(F32(scale * 2.0)) if scale < 2.0**127 else float("inf")
                scale, tracker = (grown if np.isfinite(grown) else scale), 0
        yield scale


def apex(bad: Iterable[bool], scale: float = 2.0**16, interval: int = 2000) -> Iterator[float]:
    """NVIDIA apex, LossScaler: a Python float, at most 2^24."""
    unskipped = 0
    for is_bad in bad:
        if is_bad:
            scale, unskipped = scale / 2.0, 0
        else:
            unskipped += 1
        if unskipped == interval:
            scale, unskipped = min(2.0**24, scale * 2.0), 0
        yield scale


def keras(bad: Iterable[bool], scale: float = 2.0**15, interval: int = 2000) -> Iterator[float]:
    """Keras 3: doubles when the counter stands at interval - 1, into infinity if need be."""
    counter, now = 0, F32(scale)
    with np.errstate(over="ignore"):
        for is_bad in bad:
            if is_bad:
                counter, now = 0, now * F32(0.5)
            elif counter == interval - 1:
                counter, now = 0, now * F32(2.0)
            else:
                counter += 1
            yield float(now)


def flax(bad: Iterable[bool], scale: float = 65536.0, interval: int = 2000) -> Iterator[float]:
    """Flax: grows when fin_steps has reached the interval before this step; bounded by float32's range."""
    info = np.finfo(F32)
    fin_steps, now = 0, F32(scale)
    with np.errstate(over="ignore"):
        for is_bad in bad:
            grow = fin_steps == interval
            if is_bad:
                now = max(now * F32(0.5), info.tiny)
            elif grow:
                now = min(now * F32(2.0), info.max)
            fin_steps = 0 if grow or is_bad else fin_steps + 1
            yield float(now)


def jmp(bad: Iterable[bool], scale: float = 2.0**15, interval: int = 2000) -> Iterator[float]:
    """Jmp's DynamicLossScale.adjust: the counter runs modulo the period; never below 1."""
    counter, now = 0, F32(scale)
    with np.errstate(over="ignore"):
        for is_bad in bad:
            if is_bad:
                now = max(F32(1.0), now / F32(2.0))
            elif counter == interval - 1:
                now = now * F32(2.0) if np.isfinite(now * F32(2.0)) else now
            counter = 0 if is_bad else (counter + 1) % interval
            yield float(now)


def paddle(
    bad: Iterable[bool], scale: float = 2.0**16, interval: int = 2000, patience: int = 1
) -> Iterator[float]:
    """Paddle's GradScaler._update: after each backoff it counts its bad steps anew."""
    good_count, bad_count, now = 0, 0, F32(scale)
    with np.errstate(over="ignore"):
        for is_bad in bad:
            good_count, bad_count = (0, bad_count + 1) if is_bad else (good_count + 1, 0)
            if is_bad and bad_count == patience:
                now, bad_count = now * F32(0.5), 0
            if not is_bad and good_count == interval:
                now, good_count = now * F32(2.0), 0
            yield float(now)


def mindspore(bad: Iterable[bool], scale: float = 2.0**16, interval: int = 2000) -> Iterator[float]:
    """MindSpore's DynamicLossScaler.adjust: jmp's rule, with the caller's settings."""
    return jmp(bad, scale, interval)


def chainer(bad: Iterable[bool], scale: float = 1.0, interval: int = 1000) -> Iterator[float]:
    """Chainer's Optimizer.update_loss_scale: a multiplier on every step, clipped to [1, 65504]."""
    ever = False
    for is_bad in bad:
        ever = ever or is_bad
        multiplier = 0.5 if is_bad else 2.0 ** (1.0 / interval) if ever else 2.0
        scale = max(1.0, min(65504.0, scale * multiplier))
        yield scale


def apex_fp16_optimizer(bad: Iterable[bool], scale: float = 2.0**32, interval: int = 1000) -> Iterator[float]:
    """NVIDIA apex, fp16_utils.DynamicLossScaler: the distance to the last bad step, modulo the window."""
    last_bad = -1
    for step, is_bad in enumerate(bad):
        if is_bad:
            scale, last_bad = max(scale / 2.0, 1.0), step
        elif (step - last_bad) % interval == 0:
            scale *= 2.0
        yield scale


def tf_keras(bad: Iterable[bool], scale: float = 2.0**15, interval: int = 2000) -> Iterator[float]:
    """tf-keras: grows when the counter and one reach the interval, if that is finite; never below 1."""
    counter, now = 0, F32(scale)
    with np.errstate(over="ignore"):
        for is_bad in bad:
            if is_bad:
                counter, now = 0, max(now / F32(2.0), F32(1.0))
            elif counter + 1 >= interval:
                counter, now = 0, (now * F32(2.0) if np.isfinite(now * F32(2.0)) else now)
            else:
                counter += 1
            yield float(now)


def paddle_ampscaler(
    bad: Iterable[bool], scale: float = 2.0**15, interval: int = 1000, patience: int = 1
) -> Iterator[float]:
    """Paddle's AmpScaler: GradScaler's rule with older defaults."""
    return paddle(bad, scale, interval, patience)


def static(bad: Iterable[bool], scale: float = 2.0**16, interval: int = 2000) -> Iterator[float]:
    """A scale that stays."""
    return (scale for _ in bad)


def hysteresis_kernel(
    bad: Iterable[bool], scale: float = 2.0**16, interval: int = 2000, hysteresis: int = 2
) -> Iterator[float]:
    """NVIDIA apex, csrc/update_scale_hysteresis.cu: a tracker counts down, and a good step refills it."""
    growth, left = 0, hysteresis
    for is_bad in bad:
        if is_bad:
            left, growth = left - 1, 0
            scale = scale if left > 0 else scale * 0.5
        else:
            growth, left = growth + 1, hysteresis
            if growth == interval:
                scale, growth = scale * 2.0, 0
        yield scale


LIBRARIES: dict[str, Trace] = {
    each.__name__.replace("_", "-"): each
    for each in (
        torch, apex, apex_fp16_optimizer, keras, tf_keras, flax, jmp, paddle, paddle_ampscaler, mindspore,
        chainer, static,
    )
}  # fmt: skip
