"""Text cut into pieces; oracles: the package tokenizers, and by hand."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.errors import DataError, MinimpError, SettingError
from minimp.models.minilm import _installed
from minimp.models.wordpiece import SPECIAL, WordPiece
from tests.models.bert import PIECES, SENTENCES, needs_weights

SMALL = WordPiece({piece: i for i, piece in enumerate(PIECES)})
ODD = [
    "", " ", "\t\n\r\x0b\x0c\x85\u00a0\u2003 a", "caf\u00e9 CAFÉ cafe\u0301", "İstanbul ΑΣ ΟΔΟΣ ẞ ß ǅ",
    "你好世界abc中", "a\u200bb\u00adc\ufeffd", "\u0000a\ufffdb\x7f", "don't—stop…“quoted”",
    "$5+3=8 <b> ^_^ `x` |y| ~z", "#hash_tag@mail.com", "[CLS] a [SEP][MASK] [mask] [ PAD ]",
    "日本語 한국어 ไทย हिन्दी", "😀 e😀e 👩\u200d👩\u200d👧", "ﬁ ① ² ½ Ⅷ", "a" * 100 + " " + "a" * 101,
    "ᾳ ΐ ŉ ǰ", "a\U00020000b a\U0002b820b a\U0002b920b \uf900", "x\u0335y \u1e9b\u0323",
    "¿qué? ¡no! «si» \u2039a\u203a \u2010 \u2011 \u2012 \u2013 \u2014 \u2015",
]  # fmt: skip


def old(point: int) -> bool:
    """Tell whether a character's class is what it was in Unicode 3.2, which tokenizers' tables have, too."""
    c = chr(point)
    before = unicodedata.ucd_3_2_0.category(c)
    return before not in ("Cn", "Cs") and before == unicodedata.category(c)


CHARACTERS = [chr(point) for point in range(0x30000) if old(point)]
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(CHARACTERS), st.sampled_from("abcdefghij,.! é你"), st.sampled_from(SPECIAL),
        st.sampled_from(["cab", "CABBED", "e\u0301"]),
    ),
    max_size=30,
).map("".join)  # fmt: skip


@pytest.fixture(scope="module")
def theirs() -> Any:
    """Return the small vocabulary in the package."""
    kit = pytest.importorskip("tokenizers")
    made = kit.Tokenizer(kit.models.WordPiece(dict(SMALL.vocabulary), unk_token="[UNK]"))
    made.normalizer = kit.normalizers.BertNormalizer()
    made.pre_tokenizer = kit.pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(list(SPECIAL))
    return made


@given(text=TEXTS)
def test_pieces_are_those_of_the_package(theirs: Any, text: str) -> None:
    """Oracle: tokenizers 0.23.3, on text of any characters that both know."""
    assert SMALL.pieces(text) == theirs.encode(text, add_special_tokens=False).tokens


def test_every_character_is_of_its_class(theirs: Any) -> None:
    """Oracle: tokenizers 0.23.3, a character alone and within a word, for all of Unicode 3.2."""
    for start in range(0, len(CHARACTERS), 4096):
        text = " ".join(f"{c} a{c}b" for c in CHARACTERS[start : start + 4096])
        assert SMALL.pieces(text) == theirs.encode(text, add_special_tokens=False).tokens


def test_pieces_by_hand() -> None:
    """Oracle: by hand: the longest piece first; a rest makes the word [UNK], and so do 101 characters."""
    assert SMALL.pieces("Cabbed, cab!") == ["cab", "##bed", ",", "cab", "!"]
    assert SMALL.pieces("cabz") == ["[UNK]"]
    assert SMALL.pieces("你é") == ["你", "e"]
    assert SMALL.pieces("a" * 100) == ["a", *["##a"] * 99]
    assert SMALL.pieces("a" * 101) == ["[UNK]"]
    assert SMALL.pieces("") == []


def test_sentences_are_padded() -> None:
    """Oracle: by hand: [CLS] pieces [SEP], [PAD] up to the longest; what is too long loses its end."""
    numbers, there = SMALL.encode(["a b", "", "abcdef"], longest=6)
    where = SMALL.vocabulary
    rows = [["[CLS]", "a", "b", "[SEP]", "[PAD]", "[PAD]"], ["[CLS]", "[SEP]", *["[PAD]"] * 4],
            ["[CLS]", "a", "##b", "##c", "##d", "[SEP]"]]  # fmt: skip
    assert numbers.tolist() == [[where[each] for each in row] for row in rows]
    assert there.tolist() == [[each != "[PAD]" for each in row] for row in rows]
    assert numbers.dtype == np.int64
    assert repr(SMALL) == f"WordPiece({len(PIECES)} pieces)"


def test_a_vocabulary_is_read(tmp_path: Path) -> None:
    """Oracle: by hand: a piece a line; line ends of either kind."""
    file = tmp_path / "vocab.txt"
    file.write_bytes("\r\n".join(PIECES).encode() + b"\r\n")
    assert WordPiece.read(file) == SMALL


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: WordPiece({"a": 0}), DataError, "of 1 pieces has no [PAD], [UNK]"),
        (lambda: SMALL.encode("a b"), SettingError, "got a single string"),
        (lambda: SMALL.encode([]), DataError, "one sentence or more"),
        (lambda: SMALL.encode(iter(())), DataError, "one sentence or more"),  # type: ignore[arg-type]  # as above
        (lambda: SMALL.encode(3), DataError, "one sentence or more"),  # type: ignore[arg-type]  # as above
        (lambda: SMALL.encode(["a", 3]), DataError, "each a string"),  # type: ignore[list-item]  # what is refused
        (lambda: SMALL.encode(["a"], longest=2), SettingError, "longest"),
    ],
)
def test_what_cannot_be_cut(call: Any, error: type[MinimpError], says: str) -> None:
    """Oracle: one clear error each."""
    with pytest.raises(error, match=re.escape(says)):
        call()


def test_a_vocabulary_of_other_bytes(tmp_path: Path) -> None:
    """Oracle: one clear error that names the file."""
    file = tmp_path / "vocab.txt"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"vocab\.txt is no UTF-8 text"):
        WordPiece.read(file)


@pytest.mark.slow
@needs_weights
def test_pieces_of_the_trained_vocabulary() -> None:
    """Oracle: tokenizers 0.23.3 with the model's own tokenizer.json."""
    kit = pytest.importorskip("tokenizers")
    reader = kit.Tokenizer.from_file(str(_installed() / "tokenizer.json"))
    reader.no_padding()
    reader.no_truncation()
    ours = WordPiece.read(_installed() / "vocab.txt")
    for text in [*ODD, *SENTENCES]:
        seen = reader.encode(text)
        assert ["[CLS]", *ours.pieces(text), "[SEP]"] == seen.tokens
        numbers, there = ours.encode([text], longest=512)
        assert numbers.tolist() == [seen.ids]
        assert there.all()
