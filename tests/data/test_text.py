"""Text in windows; oracles: slices of the text itself, Python's own codecs, the run without a break."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.data import (
    DataLoader,
    TextDataset,
    Vocabulary,
    load,
    load_text,
    read_text,
    split_text,
    stdlib,
    stdlib_source,
)
from minimp.data.corpus import PRINTABLE
from minimp.errors import CheckpointError, DataError, SettingError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)


# ---- the vocabulary -------------------------------------------------------------------------------------


@given(TEXTS)
def test_text_comes_back_from_its_numbers(text: str) -> None:
    """Oracle: the text, and list.index for each number."""
    known = Vocabulary.of(text)
    codes = known.encode(text)
    assert codes.dtype == np.int64
    assert codes.tolist() == [sorted(set(text)).index(each) for each in text]
    assert known.decode(codes) == text
    assert known.decode(codes.reshape(1, -1)) == text


@given(TEXTS, st.characters(exclude_categories=["Cs"]))
def test_a_strange_character_is_named_with_its_place(text: str, strange: str) -> None:
    """Oracle: str.index."""
    known = Vocabulary.of(set(text) - {strange} or {"a" if strange != "a" else "b"})
    mixed = text + strange
    with pytest.raises(DataError) as caught:
        known.encode(mixed)
    first = min(mixed.index(each) for each in set(mixed) - set(known.characters))
    assert f"{mixed[first]!r} at position {first}" in str(caught.value)


def test_a_long_text_is_encoded_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the text; places are counted from its beginning."""
    monkeypatch.setattr("minimp.data.text.BLOCK", 7)
    text = "".join(chr(97 + n % 23) for n in range(50))
    known = Vocabulary.of(text)
    assert known.decode(known.encode(text)) == text
    with pytest.raises(DataError, match="'!' at position 31"):
        known.encode(text[:31] + "!" + text[31:])


def test_vocabularies_that_cannot_be() -> None:
    """Oracle: the rule: distinct, in order, at least one; numbers within it."""
    for bad in ("", "ba", "aab"):
        with pytest.raises(SettingError, match="distinct characters"):
            Vocabulary(bad)
    assert len(PRINTABLE) == 96
    assert PRINTABLE.decode([]) == ""
    for bad_codes in ([96], [-1], [0.5]):
        with pytest.raises(DataError, match="integers from 0 to 95"):
            PRINTABLE.decode(bad_codes)


# ---- windows --------------------------------------------------------------------------------------------


@given(text=TEXTS, context=st.integers(1, 30), stride=st.integers(1, 40))
def test_windows_are_slices_of_the_text(text: str, context: int, stride: int) -> None:
    """Oracle: slices; every window that fits, the next characters as targets."""
    text += "x" * context
    data = TextDataset(text, context=context, stride=stride)
    starts = [p for p in range(0, len(text), stride) if p + context + 1 <= len(text)]
    assert len(data) == len(starts)
    inputs, targets = data[:]
    assert inputs.dtype == targets.dtype == np.int64
    assert inputs.shape == targets.shape == (len(starts), context)
    decode = data.vocabulary.decode
    assert [decode(row) for row in inputs] == [text[p : p + context] for p in starts]
    assert [decode(row) for row in targets] == [text[p + 1 : p + context + 1] for p in starts]
    assert decode(data[-1][0]) == text[starts[-1] : starts[-1] + context]
    assert data.text == text


@given(text=TEXTS, context=st.integers(1, 20), data=st.data())
def test_the_parts_share_no_character(text: str, context: int, data: st.DataObject) -> None:
    """Oracle: position: the parts, joined, are the text; the test part's windows do not overlap."""
    text += "".join(map(chr, range(40, 40 + 2 * context + 2)))
    least = context + 1
    train = data.draw(st.one_of(st.none(), st.integers(least, len(text) - least)))
    parts = split_text(text, context=context, train=train, name="a")
    assert parts.train.text + parts.test.text == text
    assert parts.train.vocabulary == parts.test.vocabulary == Vocabulary.of(text)
    assert parts.test.stride == context
    read = "".join(parts.test.vocabulary.decode(row) for row in parts.test[:][1])
    assert parts.test.text[1:].startswith(read)
    assert len(parts.test.text) - 1 - len(read) < context
    if train is None:
        assert len(parts.test.codes) == max(round(len(text) / 10), least)


def test_a_long_text_has_windows_at_every_so_many_characters() -> None:
    """Oracle: arithmetic: at most 2^20 windows; the test part at most 2^16 characters of the end."""
    text = "abcdefgh" * (3 * 2**17)
    parts = split_text(text, context=64)
    assert (len(parts.test.codes), parts.train.stride) == (2**16, 3)
    assert len(parts.train) <= 2**20 < 3 * len(parts.train)
    assert (parts.train[-1][0] + 97).tolist() == [
        ord(each) for each in text[(len(parts.train) - 1) * 3 :][:64]
    ]


@given(seed=st.integers(0, 2**64 - 1), steps=st.integers(0, 9))
def test_a_loader_draws_positions_and_resumes(seed: int, steps: int) -> None:
    """Oracle: the run without a break, bit for bit; each window once an epoch."""
    data = split_text("".join(map(chr, range(60, 90))), context=4, train=20).train

    def loader() -> DataLoader:
        return DataLoader(data, 5, shuffle=True, seed=seed)

    def bits(batches: Any) -> list[bytes]:
        return [inputs.tobytes() + targets.tobytes() for inputs, targets in batches]

    going = loader()
    wanted = bits(itertools.islice(going.cycle(), steps + 6))
    first = loader()
    list(itertools.islice(first.cycle(), steps))
    second = loader()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert bits(itertools.islice(second.cycle(), 6)) == wanted[steps:]
    starts = np.concatenate([inputs[:, 0] for inputs, _ in loader()])
    assert sorted(starts.tolist()) == list(range(len(data)))


def test_what_must_differ_for_a_state_to_be_refused() -> None:
    """Oracle: the text, the vocabulary and the length of a window; not the name."""
    state = DataLoader(TextDataset("abcabcab", context=3), 2).state_dict()
    DataLoader(TextDataset("abcabcab", context=3, name="b"), 2).load_state_dict(state)
    others = [
        TextDataset("abcabcac", context=3),
        TextDataset("abcabcab", context=3, vocabulary=Vocabulary("abcd")),
        TextDataset("bcdbcdbc", context=3, vocabulary=Vocabulary("bcd")),
        TextDataset("abcabcabc", context=4),
    ]
    for other in others:
        assert len(other) == 5
        with pytest.raises(CheckpointError, match="fingerprint"):
            DataLoader(other, 2).load_state_dict(state)


def test_batches_are_fresh_and_the_text_is_not_theirs() -> None:
    """Oracle: the text after a batch was written into; types for few and for many characters."""
    data = TextDataset("hello there", context=4)
    inputs, targets = data.take(np.array([0, 1]))
    inputs[:], targets[:] = 0, 0
    assert data.text == "hello there"
    assert (data.codes.dtype, data.codes.flags.writeable) == (np.uint8, False)
    many = TextDataset("".join(map(chr, range(300, 700))), context=2)
    assert many.codes.dtype == np.uint16
    assert many.vocabulary.decode(many[399 - 2][1]) == chr(698) + chr(699)
    with pytest.raises(IndexError, match="asked for"):
        data.take(np.array([len(data)]))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: TextDataset("abc", context=3), DataError, "3 characters is too short for a context of 3"),
        (lambda: TextDataset("", context=1), DataError, "too short"),
        (lambda: TextDataset("abc", context=0), SettingError, "context must be a whole number"),
        (lambda: TextDataset("abc", context=True), SettingError, "context must be a whole number"),
        (lambda: TextDataset("abc", context=1, stride=0), SettingError, "stride must be a whole number"),
        (lambda: split_text("abcdefg", context=3), DataError, "at least 4 characters each"),
        (lambda: split_text("abcdefgh", context=3, train=5), SettingError, "leaves parts of 5 and 3"),
        (lambda: split_text("abcdefgh", context=3, train=0.99), SettingError, "leaves parts of 8 and 0"),
        (lambda: split_text("abcdefgh", context=3, train=1.5), SettingError, "train must be a whole"),
        (lambda: split_text("abcdefgh", context="x"), SettingError, "context must be"),  # type: ignore[arg-type]  # the fault under test
    ],
)
def test_what_cannot_be_is_refused(make: Any, error: type[Exception], words: str) -> None:
    """Oracle: the kind of error, and what its message must name."""
    with pytest.raises(error, match=words):
        make()


# ---- the standard library -------------------------------------------------------------------------------


def test_the_standard_library_is_at_hand() -> None:
    """Oracle: Python's compiler takes each file, whose text stands in the corpus; printable ASCII alone."""
    made = stdlib_source()
    assert len(made.text) == 2**20
    assert set(made.text) <= set(PRINTABLE.characters)
    assert made.files > 20
    assert stdlib_source(1000).text == made.text[:1000]
    assert all(each in made.text for each in ("import ", "    return ", "def __init__(self"))
    train, test = stdlib(context=64)
    assert train.text + test.text == made.text
    assert (len(test.codes), train.num_classes, train.input_shape) == (2**16, 96, (64,))
    assert f"{made.files} modules" in train.about


def test_a_python_without_its_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Oracle: an empty folder in the place of the library; then one with a file that is left out."""
    monkeypatch.setattr("minimp.data.corpus.os.__file__", str(tmp_path / "os.py"))
    with pytest.raises(DataError, match="has 0 characters here"):
        stdlib_source()
    (tmp_path / "abc.py").write_text("a = 1\n" * 10)
    (tmp_path / "ast.py").write_text("\ta = 1\n" * 10)
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "tests").mkdir()
    (tmp_path / "json" / "tests" / "one.py").write_text("b = 1\n" * 10)
    (tmp_path / "json" / "decoder.py").write_text("c = 1\n" * 10)
    (tmp_path / "mine.py").write_text("d = 1\n" * 10)
    made = stdlib_source(120)
    assert sorted(set(made.text)) == sorted(set("ac = 1\n"))
    with pytest.raises(DataError, match="has 120 characters here, expected 121"):
        stdlib_source(121)


# ---- files ----------------------------------------------------------------------------------------------


def test_files_are_read_as_utf8(tmp_path: Path) -> None:
    """Oracle: the text that was written; a byte order mark, foreign line ends and gzip are seen through."""
    text = "Käse & 干酪\nzwei\n" * 9
    for name, data in {
        "plain.txt": text.encode(),
        "mark.txt": text.encode("utf-8-sig"),
        "ends.md": text.replace("\n", "\r\n").encode(),
        "old.txt": text.replace("\n", "\r").encode(),
        "packed.txt.gz": gzip.compress(text.encode()),
    }.items():
        (tmp_path / name).write_bytes(data)
        parts = load_text(tmp_path / name, context=5)
        assert parts.train.text + parts.test.text == text
        assert parts.train.name == name.split(".")[0] + "/train"
        assert (
            parts.train.fingerprint
            == read_text(tmp_path / "plain.txt", context=5, train=None).train.fingerprint
        )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"abc\nd\xe9f" * 9, "byte 0xe9 at offset 5, line 2"),
        ("abc".encode("utf-16"), "byte 0xff at offset 0, line 1"),
        (b"abcdefghijklm", "13 characters is too short for a context of 20"),
        (b"\xef\xbb\xbf", "0 characters is too short"),
        (b"\x93NUMPY\x01\x00" + bytes(70), "is a NumPy array, and text is wanted"),
        (b"PK\x03\x04" + bytes(70), "is a zip archive"),
        (b"\0\0\x08\x01" + bytes(70), "is an IDX file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "is not UTF-8 text: byte 0x89"),
        (b"\x1f\x8b" + bytes(30), "gzip"),
    ],
)
def test_files_that_are_no_text(content: bytes, words: str, tmp_path: Path) -> None:
    """Oracle: the message names the file and what is wrong with it."""
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        load_text(path, context=20)
    assert "text" in str(caught.value)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """Oracle: the message says what it is; the other door says that text is text."""
    for source, words in (
        (tmp_path, "is a folder"),
        ("digits", "is the built-in digits, and text is wanted"),
        (tmp_path / "none.txt", "there is no such file"),
    ):
        with pytest.raises(DataError, match=words):
            load_text(source)
    with pytest.raises(DataError, match="'stdlib' is text"):
        load("stdlib")
    prose = tmp_path / "prose.txt"
    prose.write_text("It was a dark night.\nNothing moved, or so it seemed, for long.\n")
    with pytest.raises(DataError, match="load_text"):
        load(prose)


@given(st.binary(max_size=300))
def test_any_bytes_are_text_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Oracle: Python's decoder; nothing but a DataError comes out."""
    path = tmp_path_factory.mktemp("any") / "x.txt"
    path.write_bytes(data)
    try:
        parts = read_text(path, context=3)
    except DataError:
        return
    assert parts.train.text + parts.test.text == data.decode("utf-8-sig").replace("\r\n", "\n").replace(
        "\r", "\n"
    )
