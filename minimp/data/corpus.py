"""Texts to read: the standard library's own source, which every Python has at hand, and UTF-8 files."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from minimp.data.files import CHUNK, open_bytes, read_at_most, unreadable
from minimp.data.text import TextParts, Vocabulary, split_text
from minimp.errors import DataError

__all__ = ["PRINTABLE", "STDLIB", "Corpus", "read_text", "stdlib", "stdlib_source"]

STDLIB = "stdlib"
CHARACTERS = 2**20
CONTEXT = 64
PRINTABLE = Vocabulary("\n" + "".join(map(chr, range(0x20, 0x7F))))
"""The newline and the 95 printable characters of ASCII: what Python source is written in."""
LEFT_OUT = frozenset({
    "antigravity", "this",  # speak, or open a browser, when they are looked at too closely
    "encodings", "pydoc_data",  # tables and manual pages
    # what not every installation has, or not every release
    "distutils", "ensurepip", "idlelib", "lib2to3", "tkinter", "turtle", "turtledemo", "venv",
})  # fmt: skip
"""Modules of the standard library that the corpus leaves out."""
TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})
LARGEST = 2**30
"""Bytes of a text file, which is read as a whole."""


class Corpus(NamedTuple):
    """A text made from many files."""

    text: str
    files: int
    left_out: int


def stdlib_source(characters: int = CHARACTERS) -> Corpus:
    """Return the beginning of the source of the running Python's standard library, as one text.

    The modules that `sys.stdlib_module_names` lists are read as ``.py`` files, packages with all below
    them but for tests, in the order of the SHA-256 of their paths: a fixed shuffle, so that every part of
    the text holds modules of many kinds. A file with a character beside newline and printable ASCII (a tab,
    an umlaut) is left out whole; there are few. The files are joined as they are until there are enough
    characters; the last is cut.

    The text is a function of the Python release: another one gives another text.

    Args:
        characters: how many.

    Returns:
        The text, the number of files it is made from, and that of files left out for their characters.

    Raises:
        DataError: this Python comes without its source, or with less of it.
    """
    parts: list[str] = []
    count = refused = 0
    known = set(PRINTABLE.characters)
    for path in _modules(Path(os.__file__).parent):
        if count >= characters:
            break
        with unreadable(path, STDLIB):
            text = path.read_bytes().decode("utf-8", "replace")
        if set(text) <= known:
            parts.append(text)
            count += len(text)
        else:
            refused += 1
    if count < characters:
        raise DataError(
            f"the source of the standard library has {count:,} characters here, expected {characters:,}",
            op=STDLIB, help="this Python comes without its .py files: give a text file of your own",
        )  # fmt: skip
    return Corpus("".join(parts)[:characters], len(parts), refused)


def _modules(root: Path) -> Iterator[Path]:
    """Give the modules of the standard library in the order of the corpus."""
    found: dict[str, Path] = {}
    for name in sorted(sys.stdlib_module_names - LEFT_OUT):
        for path in (root / f"{name}.py", *(root / name).rglob("*.py")):
            relative = path.relative_to(root)
            if path.is_file() and not TEST_FOLDERS.intersection(relative.parts):
                found[relative.as_posix()] = path
    for name in sorted(found, key=lambda each: hashlib.sha256(each.encode()).digest()):
        yield found[name]


def stdlib(*, context: int = CONTEXT, train: float | None = None) -> TextParts:
    """Give 2^20 characters of the standard library's source in windows: see `stdlib_source`, `split_text`.

    The vocabulary has 96 characters (`PRINTABLE`), whichever of them occur.

    Raises:
        DataError: this Python comes without its source.
        SettingError: `context` or `train` is out of range.
    """
    made = stdlib_source()
    about = f"{made.files} modules of the standard library of Python {platform.python_version()}"
    name = f"{STDLIB}-{platform.python_version()}"
    return split_text(made.text, context=context, train=train, vocabulary=PRINTABLE, name=name, about=about)


def read_text(
    path: str | os.PathLike[str], *, context: int = CONTEXT, train: float | None = None
) -> TextParts:
    """Read a UTF-8 text file, plain or gzip, in windows of characters; see `split_text`.

    A byte order mark is left out, and the line ends of other systems become newlines. The vocabulary is
    made of the characters that occur. Memory: 1, 2 or 4 bytes a character to hold (for up to 255, 65,535
    or more distinct ones); about 5 while ASCII is read, and up to 16 with characters beyond it.

    Args:
        path: the file.
        context: the characters of a window.
        train: the share or number of characters to train on; None leaves the last tenth, at most 65,536.

    Raises:
        DataError: a missing or unreadable file, one that is empty, too large (over 1 GiB) or too short for
            the context, or not UTF-8; the message gives the line and the byte.
        SettingError: `context` or `train` is out of range.
    """
    source = Path(path)
    with open_bytes(source, "read_text") as stream:
        data = read_at_most(stream, LARGEST)
        if stream.read(CHUNK):
            raise DataError(
                f"{source} has more than {LARGEST:,} bytes", op="read_text", help="give a part of it"
            )
    if not data:
        raise DataError(f"{source} is empty (0 bytes)", op="read_text", help="give a text file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        raise DataError(
            f"{source} is not UTF-8 text: byte {data[fault.start]:#04x} at offset {fault.start}, line {line}",
            op="read_text",
            help="save it as UTF-8 (iconv -f LATIN1 -t UTF-8), or check that it is text at all",
        ) from fault
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return split_text(text, context=context, train=train, name=_stem(source), about=str(source))


def _stem(source: Path) -> str:
    """Return the file's name without ``.txt`` and ``.gz``."""
    name = source.name.removesuffix(".gz")
    return name.rpartition(".")[0] or name
