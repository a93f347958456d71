"""How the largest magnitude of a tensor gives the scale that brings it into the range of an FP8 format.

Pure functions on plain numbers and arrays. A tensor x is held as q = round_fp8(x s), and read as q r with
r = 1 / s rounded to float32. All of it is float32 arithmetic, as on the device.

Source: Transformer Engine 2.x, ``common/recipe/delayed_scaling.cu`` and ``common/recipe/recipe_common.cuh``.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["HISTORY", "current_scale", "delayed_scale", "inverse_of", "next_history", "resized", "staged"]

History = npt.NDArray[np.float32]
HISTORY = np.dtype(np.float32)
_LARGEST = np.finfo(np.float32).max


def inverse_of(scale: float) -> float:
    """Return r = 1 / s, rounded to float32: what a code's value is multiplied by."""
    with np.errstate(over="ignore"):
        return float(np.float32(1) / np.float32(scale))


def current_scale(amax: float, fp8_max: float, *, power_of_2: bool = False) -> float:
    """Return s = fp8_max / amax.

    An amax of 0, an infinity or NaN gives 1. A quotient beyond float32 gives float32's largest number. With
    `power_of_2` the mantissa is cut off: s becomes the power of two below it.

    Args:
        amax: the largest magnitude of the tensor.
        fp8_max: the largest value of the format.
        power_of_2: whether s is to be a power of two.
    """
    if not (math.isfinite(amax) and amax > 0):
        return 1.0
    scale = _quotient(fp8_max, amax)
    return 2.0 ** (math.frexp(scale)[1] - 1) if power_of_2 else scale


def delayed_scale(
    history: History, scale: float, fp8_max: float, *, margin: int = 0, algorithm: str = "max"
) -> float:
    """Return s = (fp8_max / amax) / 2^margin of the amaxes that were seen, before the history is rotated.

    An amax of 0, an infinity or NaN, and a step in which nothing was staged, leave the scale as it was. A
    quotient beyond float32 gives float32's largest number.

    Args:
        history: amax of the steps; slot 0 holds the present one, 0 if nothing was staged.
        scale: the scale as it was.
        fp8_max: the largest value of the format.
        margin: powers of two that are left free above amax.
        algorithm: ``"max"`` takes the largest of the history (NaN does not count), ``"most_recent"`` slot 0.
    """
    if history[0] == 0:
        return scale
    amax = float(np.fmax.reduce(history) if algorithm == "max" else history[0])
    if not (math.isfinite(amax) and amax > 0):
        return scale
    return _quotient(float(np.float32(fp8_max) * np.float32(2.0) ** np.float32(-margin)), amax)


def next_history(history: History) -> History:
    """Return the history one step on: slot 0 moves to the end, all others to the front, slot 0 becomes 0.

    If nothing was staged, the history stays: the tensor took no part in the step.
    """
    if history[0] == 0:
        return history
    moved: History = np.roll(history, -1)
    moved[0] = 0
    return moved


def staged(history: History, amax: float) -> History:
    """Return the history with `amax` noted in slot 0: the largest of a step counts, NaN does not."""
    noted = history.copy()
    noted[0] = np.fmax(history[0], np.float32(amax)) if not math.isnan(amax) else history[0]
    return noted


def resized(history: History, length: int) -> History:
    """Return the history cut, or filled up with zeros at its end, to `length` slots."""
    made: History = np.zeros(length, HISTORY)
    made[: min(length, history.size)] = history[:length]
    return made


def _quotient(top: float, amax: float) -> float:
    with np.errstate(over="ignore", divide="ignore"):
        found = np.float32(top) / np.float32(amax)
    return float(_LARGEST if np.isinf(found) else found)
