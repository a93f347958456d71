"""WordPiece: text cut into pieces of a fixed vocabulary, as BERT reads it (Devlin et al. 2019, 1810.04805).

A text becomes lower-case letters without accents, then words and single punctuation marks. A word is cut
from its left end: the longest piece that the vocabulary has, then the longest with "##" in front, and so on;
a word that leaves a rest is [UNK]. The rules are those of the package tokenizers 0.23.3 (BertNormalizer,
BertPreTokenizer, WordPiece), with the character classes of Python's Unicode, which is newer than theirs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import DataError, SettingError
from minimp.files import AnyPath, read_whole
from minimp.nn.making import whole

__all__ = ["WordPiece"]

Ids = npt.NDArray[np.int64]
PAD, UNKNOWN, BEGIN, END, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
GOES_ON = "##"
LONGEST = 100
"""A word of more characters is [UNK]."""
_SPECIAL = re.compile("(" + "|".join(map(re.escape, SPECIAL)) + ")")
IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
"""Blocks of Chinese characters, each of which is a word. The sixth begins at 2B920 in tokenizers, though the
block begins at 2B820."""


@dataclass(frozen=True, repr=False)
class WordPiece:
    """A vocabulary, and how text is cut by it.

    Attributes:
        vocabulary: piece -> its number. It has the five special pieces.

    Raises:
        DataError: a special piece is missing.
    """

    vocabulary: Mapping[str, int]

    def __post_init__(self) -> None:
        missing = [each for each in SPECIAL if each not in self.vocabulary]
        if missing:
            raise DataError(
                f"the vocabulary of {len(self.vocabulary)} pieces has no {', '.join(missing)}",
                op="WordPiece", help="give the vocab.txt of a BERT model, a piece a line",
            )  # fmt: skip

    @classmethod
    def read(cls, path: AnyPath) -> WordPiece:
        """Read a vocab.txt: a piece a line, the first is number 0.

        Raises:
            DataError: the file is missing, is not UTF-8, or lacks a special piece.
        """
        data = read_whole(path)
        try:
            lines = data.decode("utf-8").split("\n")
        except UnicodeDecodeError as fault:
            raise DataError(f"{path} is no UTF-8 text: {fault}", op="WordPiece") from None
        return cls({piece.rstrip("\r"): i for i, piece in enumerate(lines) if piece})

    def __len__(self) -> int:
        """Return the number of pieces."""
        return len(self.vocabulary)

    def __repr__(self) -> str:
        """Show the number of pieces."""
        return f"WordPiece({len(self)} pieces)"

    def pieces(self, text: str) -> list[str]:
        """Return the pieces of a text; a special piece that it spells out stays whole."""
        found: list[str] = []
        for part in _SPECIAL.split(text):
            found += [part] if part in SPECIAL else self._of_words(part)
        return found

    def encode(self, sentences: Sequence[str], longest: int = 256) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """Return the numbers of pieces, [CLS] ... [SEP], padded to the longest sentence.

        Args:
            sentences: N texts.
            longest: pieces of a sentence, with those at its ends; what goes beyond is cut off.

        Returns:
            (N, T) numbers, and (N, T) whether a piece is one of the sentence's.

        Raises:
            SettingError: `longest` is below 3, or `sentences` is a single string.
            DataError: there is no sentence, or one is no string.
        """
        if isinstance(sentences, str):
            raise SettingError("expected sentences, got a single string", op="encode", help="use [sentence]")
        most = whole("longest", longest, "encode", least=3)
        given: Any = sentences
        texts = list(given) if isinstance(given, Iterable) else []
        if not texts or not all(isinstance(each, str) for each in texts):
            raise DataError(
                f"expected one sentence or more, each a string, got {sentences!r:.60}", op="encode"
            )
        rows = [[BEGIN, *self.pieces(each)[: most - 2], END] for each in texts]
        width = max(map(len, rows))
        numbers = [[self.vocabulary[each] for each in row + [PAD] * (width - len(row))] for row in rows]
        lengths = np.array([len(row) for row in rows])
        return np.array(numbers, np.int64), np.arange(width) < lengths[:, np.newaxis]

    def _of_words(self, text: str) -> Iterator[str]:
        for word in words(text):
            yield from self._cut(word)

    def _cut(self, word: str) -> Iterable[str]:
        """Return the pieces of a word, or [UNK]."""
        found: list[str] = []
        start = 0
        while start < len(word) <= LONGEST:
            for end in range(len(word), start, -1):
                piece = (GOES_ON if start else "") + word[start:end]
                if piece in self.vocabulary:
                    break
            else:
                break
            found.append(piece)
            start = end
        return found if start == len(word) else [UNKNOWN]


def words(text: str) -> list[str]:
    """Return the words of a text in lower case and without accents; a punctuation mark is a word."""
    clean = "".join(_spaced(c) for c in text if not _is_control(c))
    bare = "".join(c for c in unicodedata.normalize("NFD", clean) if unicodedata.category(c) != "Mn")
    lowered = "".join(c.lower() for c in bare)  # by the character: no rule for a sigma at the end of a word
    return "".join(f" {c} " if _is_punctuation(c) else c for c in lowered).split()


def _spaced(c: str) -> str:
    """Return a character, an ideograph between spaces."""
    point = ord(c)
    return f" {c} " if any(first <= point <= last for first, last in IDEOGRAPHS) else c


def _is_control(c: str) -> bool:
    """Tell what is left out: control, format and private characters, but tabs and line ends."""
    return c == "\ufffd" or (unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs") and c not in "\t\n\r")


def _is_punctuation(c: str) -> bool:
    return unicodedata.category(c)[0] == "P" or c in "$+<=>^`|~"
