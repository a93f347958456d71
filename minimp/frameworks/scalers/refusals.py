"""Kinds of refusal: what a GradScaler of each library says when it is called wrongly."""

from __future__ import annotations

from dataclasses import dataclass

from minimp.errors import MinimpError, ScalerError, SettingError

__all__ = ["REFUSALS", "Refusal", "kind_of_refusal"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One kind.

    Attributes:
        kind: what is wrong, in a few words.
        theirs: the name of PyTorch's exception, and words of its message.
        ours: minimp's exception, and words of its message.
    """

    kind: str
    theirs: tuple[str, str]
    ours: tuple[type[MinimpError], str]


REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        "growth not above 1", ("AssertionError", "growth factor must be > 1"),
        (SettingError, "growth_factor: expected a number above 1"),
    ),
    Refusal(
        "backoff not below 1", ("AssertionError", "backoff factor must be < 1"),
        (SettingError, "backoff_factor: expected a number below 1"),
    ),
    Refusal(
        "nothing was scaled", ("AssertionError", "_scale is None"),
        (ScalerError, "was called before scale()"),
    ),
    Refusal(
        "unscaled before", ("RuntimeError", "unscale_() has already been called"),
        (ScalerError, "unscale_() has been called"),
    ),
    Refusal(
        "unscaled after its step", ("RuntimeError", "unscale_() is being called after step()"),
        (ScalerError, "GradScaler.unscale_: step() has been called"),
    ),
    Refusal(
        "stepped before", ("RuntimeError", "step() has already been called"),
        (ScalerError, "GradScaler.step: step() has been called"),
    ),
    Refusal(
        "no gradients to check", ("AssertionError", "No inf checks were recorded for"),
        (ScalerError, "no inf checks were recorded: none of"),
    ),
    Refusal(
        "nothing was checked", ("AssertionError", "No inf checks were recorded prior"),
        (ScalerError, "no inf checks were recorded prior"),
    ),
    Refusal(
        "float16 gradients", ("ValueError", "Attempting to unscale FP16"),
        (ScalerError, "cannot unscale float16 gradients"),
    ),
    Refusal("a closure", ("RuntimeError", "Closure use is not"), (ScalerError, "a closure cannot be used")),
    Refusal(
        "an empty state", ("RuntimeError", "source state dict is empty"), (ScalerError, "state dict is empty")
    ),
    Refusal("an entry is missing", ("KeyError", ""), (SettingError, "the state dict lacks")),
    Refusal(
        "amid an iteration", ("AssertionError", "may only be pickled"),
        (ScalerError, "copied between iterations only"),
    ),
    Refusal(
        "no tensor", ("ValueError", "outputs must be a Tensor"),
        (SettingError, "expected a tensor, or an iterable"),
    ),
    Refusal(
        "not one float", ("AttributeError", "has no attribute 'device'"),
        (SettingError, "new_scale: expected a float"),
    ),
    Refusal(
        "not one float", ("RuntimeError", "doesn't match the broadcast shape"),
        (SettingError, "new_scale: expected a float"),
    ),
    Refusal(
        "not one float", ("AssertionError", "new_scale should be a float"),
        (SettingError, "new_scale: expected a float"),
    ),
    Refusal("beyond float32", ("RuntimeError", "without overflow"), (SettingError, "is infinite in float32")),
    Refusal(
        "a disabled scaler has none", ("AttributeError", "has no attribute '_"),
        (ScalerError, "a disabled scaler neither grows"),
    ),
)  # fmt: skip
"""Every kind; PyTorch has two exceptions, or more, where minimp has one."""


def kind_of_refusal(fault: Exception) -> str:
    """Return the kind that an exception of either library is of, or what it says itself."""
    name, words = type(fault).__name__, str(fault)
    for row in REFUSALS:
        ours = type(fault) is row.ours[0] and row.ours[1] in words
        if ours or (name == row.theirs[0] and row.theirs[1] in words):
            return row.kind
    return f"{name}: {words}".splitlines()[0]
