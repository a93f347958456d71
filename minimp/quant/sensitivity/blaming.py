"""Why codes lose what they lose: a table of causes, each with its sign and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minimp.quant.sensitivity.facts import ActivationFacts, WeightFacts

__all__ = ["ACTIVATION_CAUSES", "UNKNOWN", "WEIGHT_CAUSES", "Blame", "Cause", "cause_of"]

FEW_CODES = 32
"""So many codes, 5 bits, count as few."""
UNEVEN = 8.0
"""Where a quarter of the channels are narrower than the widest by this, they lose 3 bits under one scale."""
NARROW = 1 / 32
"""The middle half of normal numbers spans a sixth of the codes over +-4 sigma, and a fifth of the half above
0; below this share of the codes, a few large values have set the range."""
HALF = 0.5
"""Below this share of the codes a bit is lost."""
CLIPPED, REACH = 0.005, 1.5
"""So large a share of values, or one so far out, is beyond the range for another reason than its choice."""


@dataclass(frozen=True)
class Cause:
    """One cause.

    Attributes:
        name: a word for it.
        sign: facts -> what is seen, in words, where this is the cause; else "".
        step: what to do about it.
    """

    name: str
    sign: Callable[[Any], str]
    step: str


@dataclass(frozen=True)
class Blame:
    """One place that hurts.

    Attributes:
        path: of the module, or ``"input 0"``.
        part: ``"weights"`` or ``"activations"``, which are what the module gives.
        share: of the noise that all places make in the model's output, each alone.
        sqnr_db: of the model's output with this part alone on codes.
        cause: the name of the cause.
        words: what is seen there.
        step: what to do next.
    """

    path: str
    part: str
    share: float
    sqnr_db: float
    cause: str
    words: str
    step: str

    def __str__(self) -> str:
        """Say all of it in a sentence."""
        return (
            f"'{self.path}', {self.part}: {self.share:.0%} of the noise ({self.sqnr_db:.1f} dB alone): "
            f"{self.words}. {self.step}."
        )


def _few(facts: Any) -> str:
    if facts.codes > FEW_CODES:
        return ""
    return f"it has {facts.codes} codes ({math.log2(facts.codes):.3g} bits)"


def _bias(facts: WeightFacts) -> str:
    if facts.bias_channel < 0:
        return ""
    return f"the bias of channel {facts.bias_channel} is so large that the weight's scale had to follow it"


def _output_ranges(facts: WeightFacts) -> str:
    if facts.per_channel or facts.unevenness < UNEVEN:
        return ""
    return f"channel ranges differ by {facts.channel_ratio:.3g}x, and one scale serves them all"


def _input_ranges(facts: WeightFacts) -> str:
    if not facts.input_unevenness >= UNEVEN:
        return ""
    return f"the ranges of input channels differ by {facts.input_ratio:.3g}x, and no scale can follow them"


def _narrow_weights(facts: WeightFacts) -> str:
    if facts.middle >= NARROW * facts.codes:
        return ""
    return f"a few weights set the range: the middle half spans {facts.middle:.3g} of {facts.codes} codes"


def _clipped(facts: ActivationFacts) -> str:
    if facts.clipped < CLIPPED and facts.reach < REACH:
        return ""
    return f"{facts.clipped:.2%} of the values are cut off, and reach {facts.reach:.3g} times the range"


def _loud_channel(facts: ActivationFacts) -> str:
    if not facts.channel_ratio >= UNEVEN or facts.middle >= 2 * NARROW * facts.codes:
        return ""
    return (
        f"channel {facts.channel} reaches {facts.peak:.3g}, {facts.channel_ratio:.3g}x what channels usually "
        f"do: the middle half of the values spans {facts.middle:.3g} of {facts.codes} codes"
    )


def _outliers(facts: ActivationFacts) -> str:
    if facts.middle >= NARROW * facts.codes:
        return ""
    return (
        f"outliers of up to {facts.peak:.3g} set the range: the middle half of the values that are not 0 "
        f"spans {facts.middle:.3g} of {facts.codes} codes"
    )


def _borrowed(facts: ActivationFacts) -> str:
    if not facts.borrowed or facts.filled >= HALF:
        return ""
    return f"it has the scale of what comes in, and fills {facts.filled:.0%} of that range"


def _uneven(facts: ActivationFacts) -> str:
    if not facts.unevenness >= UNEVEN:
        return ""
    return (
        f"a quarter of the channels stay below 1/{facts.unevenness:.3g} of the range, which channel "
        f"{facts.channel} sets with {facts.peak:.3g}"
    )


WEIGHT_CAUSES = (
    Cause("few codes", _few, "Give it 8 bits, or train with the codes it has (QAT)"),
    Cause("large bias", _bias, "Look at this bias, or keep the layer in floats: keep_float"),
    Cause(
        "channel ranges", _output_ranges,
        "Take a scale for each channel (PerChannelMinMaxObserver), or mp.quant.equalize(model, x) first",
    ),
    Cause("input ranges", _input_ranges, "Move scale into the layer before: mp.quant.equalize(model, x)"),
    Cause("outlier weights", _narrow_weights, "Cut the range: a PercentileObserver for weights"),
)  # fmt: skip
"""What to look for in weights, in this order."""

ACTIVATION_CAUSES = (
    Cause("few codes", _few, "Give it 8 bits, or train with the codes it has (QAT)"),
    Cause("clipped", _clipped, "Calibrate on data like these, or with an observer of the whole range"),
    Cause(
        "outlier channel", _loud_channel,
        "Move its scale into the next layer's weights (mp.quant.equalize), or end the codes here",
    ),
    Cause(
        "borrowed scale", _borrowed,
        "End the codes before it and begin new ones behind it (DeQuantStub, QuantStub)",
    ),
    Cause("uneven channels", _uneven, "Move scale between layers first: mp.quant.equalize(model, x)"),
    Cause("outliers", _outliers, "Cut the range (PercentileObserver), or end the codes here"),
)  # fmt: skip
"""What to look for in results."""

UNKNOWN = Cause(
    "sensitive", lambda _: "its codes are spread well; the model is sensitive here",
    "Keep it in floats (keep_float, or end the codes before it), or train with codes (QAT)",
)  # fmt: skip
"""Where no sign is seen."""


def cause_of(facts: WeightFacts | ActivationFacts) -> tuple[Cause, str]:
    """Return the first cause whose sign is seen, and the sign in words."""
    causes = WEIGHT_CAUSES if isinstance(facts, WeightFacts) else ACTIVATION_CAUSES
    for cause in causes:
        words = cause.sign(facts)
        if words:
            return cause, words
    return UNKNOWN, UNKNOWN.sign(facts)
