"""Text as data: a vocabulary of characters, and windows of a text whose targets are the next characters."""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minimp.data.dataset import ArrayDataset, TrainTest, read_only
from minimp.errors import DataError, SettingError

__all__ = ["AnyDataset", "AnyParts", "TextDataset", "TextParts", "Vocabulary", "split_text"]

Codes = npt.NDArray[np.int64]
MOST_WINDOWS = 2**20
"""A training part has at most so many windows, so that an order of them stays small (8 MiB)."""
TEST_SHARE, MOST_TEST = 0.1, 2**16
"""The last tenth of a text judges, but no more than 65,536 characters: the model must read all of it."""
BLOCK = 2**18
"""Characters that are encoded at a time, so that memory stays near that of the text."""
SHOWN = 30
"""Characters of a text that a message shows."""
UTF32 = "utf-32-le"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The characters that a model knows, numbered from 0 in code point order.

    Args:
        characters: one string of distinct characters, in order.

    Raises:
        SettingError: none, one that stands twice, or not in order.
    """

    characters: str

    def __post_init__(self) -> None:
        if not self.characters or list(self.characters) != sorted(set(self.characters)):
            raise SettingError(
                f"expected distinct characters in code point order, got {self.characters[:SHOWN]!r}",
                op="Vocabulary", help="use Vocabulary.of(text)",
            )  # fmt: skip

    @classmethod
    def of(cls, text: Iterable[str]) -> Vocabulary:
        """Return the vocabulary of the characters that occur in a text."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        """Return the number of characters."""
        return len(self.characters)

    def encode(self, text: str) -> Codes:
        """Return the number of each character, int64 (len(text),).

        Raises:
            DataError: a character that is not in the vocabulary; the message gives its place.
        """
        return self.encode_as(text, np.int64)

    def encode_as(self, text: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return the numbers as :meth:`encode` does, in an integer type that holds them."""
        known, codes = _points(self.characters), np.empty(len(text), dtype)
        for start in range(0, len(text), BLOCK):
            points = _points(text[start : start + BLOCK])
            found = np.minimum(np.searchsorted(known, points), len(known) - 1)
            strange = known[found] != points
            if strange.any():
                at = start + int(np.argmax(strange))
                raise DataError(
                    f"the character {text[at]!r} at position {at} is not among the {len(self)} of the "
                    "vocabulary",
                    op="Vocabulary.encode", help="replace it, or use characters that the text has",
                )  # fmt: skip
            codes[start : start + BLOCK] = found
        return codes

    def decode(self, codes: npt.ArrayLike) -> str:
        """Return the text of numbers from 0 to len(self) - 1, read in row-major order.

        Raises:
            DataError: numbers that are no integers, or out of range.
        """
        numbers = np.asarray(codes)
        if numbers.size == 0:
            return ""
        if numbers.dtype.kind not in "iu" or numbers.min() < 0 or numbers.max() >= len(self):
            raise DataError(
                f"expected integers from 0 to {len(self) - 1}, got {numbers.dtype} from {numbers.min()} to "
                f"{numbers.max()}",
                op="Vocabulary.decode", shapes=[numbers.shape],
            )  # fmt: skip
        data: bytes = _points(self.characters)[numbers.ravel()].tobytes()
        return data.decode(UTF32, "surrogatepass")


def _points(text: str) -> npt.NDArray[np.uint32]:
    """Return the code point of each character."""
    return np.frombuffer(text.encode(UTF32, "surrogatepass"), "<u4")


@dataclass(frozen=True, eq=False, repr=False, init=False)
class TextDataset:
    """Windows of a text: inputs are `context` characters, targets the characters one place further on.

    Window i begins at character i * stride: inputs text[p : p + T], targets text[p + 1 : p + T + 1], for
    p = i * stride and T = context. So there are floor((L - T - 1) / stride) + 1 windows of a text of L
    characters, and position t of a window is judged on what follows characters 0 .. t of it. Drawn by a
    shuffling `DataLoader`, windows begin at random positions, each once before any comes twice; in order and
    with stride = T they cover the text without overlap (a rest of fewer than T characters is left out).

    Args:
        text: at least context + 1 characters.
        context: T, the characters of a window.
        vocabulary: the characters that there are; None takes those of the text.
        stride: characters from one window's beginning to the next.
        name: what the text is called in messages and tables.
        about: where it comes from, in a few words.

    Attributes:
        codes: the text in numbers of the vocabulary, (L,), read-only, in the smallest unsigned type.
        vocabulary, context, stride, name, about: as above.

    Raises:
        DataError: the text is too short for one window, or has a character that the vocabulary has not.
        SettingError: `context` or `stride` is no whole number of at least 1.
    """

    codes: npt.NDArray[Any]
    vocabulary: Vocabulary
    context: int
    stride: int
    name: str
    about: str

    def __init__(
        self, text: str, *, context: int, vocabulary: Vocabulary | None = None, stride: int = 1,
        name: str = "text", about: str = "",
    ) -> None:  # fmt: skip
        length = whole("context", context, name)
        if len(text) <= length:
            raise DataError(
                f"a text of {len(text):,} characters is too short for a context of {length:,}",
                op=name, help="give a longer text, or a smaller context",
            )  # fmt: skip
        known = Vocabulary.of(text) if vocabulary is None else vocabulary
        smallest = next(each for each in (np.uint8, np.uint16, np.uint32) if len(known) <= np.iinfo(each).max)
        held = {
            "codes": read_only(known.encode_as(text, smallest)), "vocabulary": known, "context": length,
            "stride": whole("stride", stride, name), "name": name, "about": about,
        }  # fmt: skip
        for field, value in held.items():
            object.__setattr__(self, field, value)

    def __len__(self) -> int:
        """Return the number of windows."""
        return (len(self.codes) - self.context - 1) // self.stride + 1

    def __getitem__(self, index: Any) -> tuple[Codes, Codes]:
        """Return inputs and targets, int64: (T,) of one window, (B, T) of a slice or an array of numbers."""
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        if np.ndim(index):
            return self.take(np.asarray(index))
        inputs, targets = self.take(np.array([operator.index(index)]))
        return inputs[0], targets[0]

    def take(self, indices: npt.NDArray[Any]) -> tuple[Codes, Codes]:
        """Return fresh batches ``(inputs, targets)``, int64 (B, T) each, of the windows numbered `indices`.

        Raises:
            IndexError: there is no such window.
        """
        chosen = np.where(indices < 0, indices + len(self), indices)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise IndexError(f"{self.name} has {len(self)} windows, asked for {indices[:SHOWN].tolist()}")
        starts = chosen.astype(np.int64)[:, np.newaxis] * self.stride  # (B, 1)
        windows = self.codes[starts + np.arange(self.context + 1)].astype(np.int64)  # (B, T + 1)
        return windows[:, :-1].copy(), windows[:, 1:].copy()

    def __repr__(self) -> str:
        """Show the name and the sizes."""
        return (
            f"TextDataset({self.name!r}: {len(self.codes):,} characters of {len(self.vocabulary)}, "
            f"{len(self):,} windows of {self.context})"
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input, (context,)."""
        return (self.context,)

    @property
    def num_classes(self) -> int:
        """The number of characters in the vocabulary."""
        return len(self.vocabulary)

    @property
    def unit(self) -> str:
        """What is counted by `len`, in a word."""
        return "windows"

    @property
    def size_text(self) -> str:
        """The size in words: the number of characters."""
        return f"{len(self.codes):,} characters"

    @property
    def text(self) -> str:
        """The text itself."""
        return self.vocabulary.decode(self.codes)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over text, vocabulary, context and stride: equal where every window is equal."""
        digest = hashlib.sha256(f"{self.context} {self.stride} {len(self.vocabulary)}\n".encode())
        for array in (_points(self.vocabulary.characters), self.codes.astype("<u4")):
            digest.update(array.tobytes())
        return digest.hexdigest()


class TextParts(NamedTuple):
    """The two parts of a text: the one before, to train on, and the end, to judge with."""

    train: TextDataset
    test: TextDataset


AnyDataset = ArrayDataset | TextDataset
"""What a model can be trained on and judged by."""
AnyParts = TrainTest | TextParts
"""The two parts of any data set."""


def split_text(
    text: str, *, context: int, train: float | None = None, vocabulary: Vocabulary | None = None,
    name: str = "text", about: str = "",
) -> TextParts:  # fmt: skip
    """Cut a text in two by position: nothing of the test part is ever in a training window.

    Training windows begin at every character, or at every so many that there are at most 2^20 of them;
    those of the test part follow each other without overlap.

    Args:
        text: the whole.
        context: T, the characters of a window.
        train: the share, or number, of characters that the training part has; None leaves the last tenth, at
            most 65,536 characters, for the test part.
        vocabulary: of both parts; None takes the characters of the whole text.
        name, about: of the text, see `TextDataset`.

    Raises:
        DataError: one of the parts would be too short for a window.
        SettingError: `context` or `train` is out of range.
    """
    length = whole("context", context, name)
    cut = _cut(len(text), length, train, name)
    known = Vocabulary.of(text) if vocabulary is None else vocabulary
    stride = max(1, math.ceil((cut - length) / MOST_WINDOWS))
    window = partial(TextDataset, context=length, vocabulary=known, about=about)
    return TextParts(
        window(text[:cut], stride=stride, name=f"{name}/train"),
        window(text[cut:], stride=length, name=f"{name}/test"),
    )


def _cut(count: int, context: int, train: float | None, name: str) -> int:
    """Return where the test part begins, so that both parts have a window."""
    least = context + 1
    if count < 2 * least:
        raise DataError(
            f"a text of {count:,} characters is too short for a context of {context:,}: training and test "
            f"part need at least {least:,} characters each",
            op=name, help="give a longer text, or a smaller context",
        )  # fmt: skip
    if train is None:
        kept = min(max(round(count * TEST_SHARE), least), max(MOST_TEST, least))
        return count - kept
    cut = round(count * train) if 0.0 < train < 1.0 else whole("train", train, name)
    if not least <= cut <= count - least:
        raise SettingError(
            f"train={train!r} leaves parts of {cut:,} and {count - cut:,} characters, and a context of "
            f"{context:,} needs at least {least:,} in each",
            op=name, help=f"a number of characters from {least} to {count - least}, or a share",
        )  # fmt: skip
    return cut


def whole(name: str, value: object, op: str) -> int:
    """Return a whole number of at least 1."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]  # what is no integer raises TypeError here
    except TypeError:
        number = 0
    if number < 1:
        raise SettingError(f"{name} must be a whole number of at least 1, got {value!r}", op=op)
    return number
