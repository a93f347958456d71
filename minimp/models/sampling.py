"""Text from a model of text: one character after the other, each drawn from what the model expects."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.data import Vocabulary
from minimp.data.order import check_seed
from minimp.errors import DataError, SettingError
from minimp.evaluation import formats_of, judging, output_of
from minimp.nn import Module
from minimp.recipe import Recipe, recipes

__all__ = ["Drawing", "sample"]

Scores = npt.NDArray[np.float64]
OP = "sample"


class Drawing:
    """How a character is drawn from scores x: with probability e^(x / temperature) over their sum.

    Args:
        temperature: below 1 likely characters become likelier still, above 1 all become alike; 0 always takes
            the likeliest (of equal ones the first).
        top_k: only the k likeliest characters, and those as likely as the k-th, can be drawn; None takes all.
        seed: chooses; an integer from 0 to 2^64 - 1.

    Raises:
        SettingError: a number is out of range.
    """

    def __init__(self, *, temperature: float = 0.8, top_k: int | None = None, seed: int = 0) -> None:
        if not (temperature >= 0.0 and math.isfinite(temperature)):
            raise SettingError(f"temperature must be a number of 0 or more, got {temperature}", op=OP)
        if top_k is not None and (type(top_k) is not int or top_k < 1):
            raise SettingError(f"top_k must be a whole number of at least 1, got {top_k!r}", op=OP)
        self.temperature, self.top_k = float(temperature), top_k
        self._random = np.random.Generator(np.random.Philox(check_seed(seed, OP)))

    def probabilities(self, scores: Scores) -> Scores:
        """Return the probability of each character, float64 (V,)."""
        if not self.temperature:
            return np.arange(len(scores)) == scores.argmax()  # type: ignore[no-any-return]  # a mask is 0 or 1
        kept = scores - scores.max()
        if self.top_k is not None and self.top_k < len(kept):
            least = np.partition(scores, -self.top_k)[-self.top_k]
            kept = np.where(scores >= least, kept, -np.inf)
        weights = np.exp(kept / self.temperature)
        return weights / weights.sum()  # type: ignore[no-any-return]  # an array

    def draw(self, scores: Scores) -> int:
        """Return the number of a character.

        Raises:
            DataError: a score is NaN, or none is finite, or one is positive infinity.
        """
        if not np.isfinite(scores.max()):
            raise DataError(
                f"the model's scores are no numbers: the largest is {scores.max()}",
                op=OP, help="the training has diverged: look at the loss, and try a smaller --lr",
            )  # fmt: skip
        ends = np.cumsum(self.probabilities(scores))
        return int(np.searchsorted(ends, self._random.random() * ends[-1], side="right"))


def sample(
    model: Module, vocabulary: Vocabulary, recipe: Recipe | str, *, length: int, context: int,
    prompt: str = "\n", drawing: Drawing | None = None,
) -> str:  # fmt: skip
    """Return `length` characters that a model of text writes after a prompt.

    The model sees the last `context` characters at most, in evaluation mode, without recording and in the
    formats of the recipe; scores are judged in float64. Neither the weights nor the engine's random generator
    change. Equal arguments give equal text.

    Args:
        model: (1, T) codes -> (1, T, V) scores, in the recipe's `param_dtype`.
        vocabulary: its V characters.
        recipe: a Recipe, or the name of one.
        length: how many characters to write.
        context: the largest T.
        prompt: what stands before; at least one character.
        drawing: how characters are drawn; None takes the defaults of `Drawing`.

    Raises:
        DataError: the prompt has a character that the vocabulary has not; the scores are no numbers.
        SettingError: an empty prompt, an unknown recipe, or a length below 0.
    """
    if not prompt:
        raise SettingError("the prompt is empty: a model of text goes on from at least one character", op=OP)
    if length < 0:
        raise SettingError(f"length must be 0 or more, got {length}", op=OP)
    chosen = recipes[recipe] if isinstance(recipe, str) else recipe
    how = Drawing() if drawing is None else drawing
    codes = vocabulary.encode(prompt).tolist()
    with judging(model), formats_of(chosen):
        for _ in range(length):
            seen: Any = np.array([codes[-context:]])  # (1, T)
            scores = output_of(model, seen, chosen).numpy()[0, -1]  # (V,)
            codes.append(how.draw(scores))
    return vocabulary.decode(codes[len(prompt) :])
