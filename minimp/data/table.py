"""Reading CSV: one row a sample, one column the class label, every other column a number."""

from __future__ import annotations

import csv
import io
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from minimp.data.checks import encode_labels
from minimp.data.dataset import ArrayDataset
from minimp.data.files import open_bytes
from minimp.errors import DataError, SettingError, unknown_name

__all__ = ["LABEL_NAMES", "read_csv"]

OP = "read_csv"
LABEL_NAMES = ("label", "target", "class", "y")
MISSING = frozenset(("", "?", "na", "n/a", "nan", "null"))
ENCODING = "utf-8-sig"  # UTF-8, with or without the mark that Excel writes in front
Row = tuple[int, list[str]]  # the line where the row ends, and its cells


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column is what; columns are counted from 0 here and from 1 in messages."""

    source: Path
    names: tuple[str, ...]
    width: int
    label: int

    def place(self, line: int, column: int) -> str:
        """Name a cell."""
        named = f" ({self.names[column]!r})" if self.names else ""
        return f"{self.source}: line {line}, column {column + 1}{named}"

    def feature(self, number: int) -> int:
        """Return the column of feature `number`."""
        return number + (number >= self.label)


@dataclass(slots=True)
class Cells:
    """What was read so far: feature values row by row, label texts, and the line of each row."""

    values: array[float] = field(default_factory=lambda: array("d"))
    labels: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


def read_csv(
    path: str | os.PathLike[str],
    *,
    label: str | int | None = None,
    header: bool | None = None,
    delimiter: str | None = None,
    num_classes: int | None = None,
) -> ArrayDataset:
    """Read a CSV file with a label column (UTF-8; plain or gzip) as an ArrayDataset, inputs (N, features).

    Features are kept as they are (read as float64, rounded once to float32). Labels that are all whole
    numbers are the class numbers, from 0; any other labels are text, numbered in sorted order. Empty lines
    are skipped.

    Args:
        path: the file.
        label: the name of the label column, or its number from 0 (negative from the end; digits in a string
            count as a number unless a column is called so). None takes the first of the columns ``label``,
            ``target``, ``class``, ``y`` (upper and lower case alike) that the header has, else the last
            column.
        header: whether the first line names the columns. None: it does when not one of its cells is a number.
        delimiter: between cells; None is a comma, or a tab for ``.tsv``.
        num_classes: labels must be below this; None counts them, 0 takes targets as values.

    Raises:
        DataError: missing or unreadable file, no rows, rows of unequal length, a cell that is no number or is
            missing, no or several columns of that name, a first line that may or may not be a header, labels
            that cannot be. The message gives line and column, both counted from 1.
        SettingError: a delimiter that is not one character, or a column name without a header.
    """
    source = Path(path)
    cut = _delimiter(delimiter, source)
    with (
        open_bytes(source, OP) as stream,
        io.TextIOWrapper(cast(IO[bytes], stream), encoding=ENCODING, newline="") as text,
    ):
        rows = _rows(text, cut, source)
        first = next(rows, None)
        if first is None:
            raise DataError(f"{source}: the file is empty", op=OP, help="give one row a sample")
        columns, mixed = _columns(first, label, header, source, cut)
        cells = Cells()
        if not columns.names:
            _add(first, columns, cells)
        for row in rows:
            _add(row, columns, cells)
    if not cells.lines:
        raise DataError(f"{source}: a header and no rows", op=OP, help="give one row a sample")
    targets, class_names = _labels(cells, columns, mixed)
    inputs = np.frombuffer(cells.values, np.float64).reshape(len(cells.lines), columns.width - 1)

    def place(index: tuple[int, ...]) -> str:
        row, *feature = index
        return columns.place(cells.lines[row], columns.feature(feature[0]) if feature else columns.label)

    return ArrayDataset(
        inputs, targets, name=_stem(source), num_classes=num_classes, class_names=class_names, place=place
    )


def _stem(source: Path) -> str:
    """Return the file's name without ``.csv`` and ``.gz``."""
    return source.name.removesuffix(".gz").rpartition(".")[0] or source.name


def _delimiter(delimiter: str | None, source: Path) -> str:
    """Return the character between cells."""
    if delimiter is None:
        return "\t" if source.name.removesuffix(".gz").lower().endswith(".tsv") else ","
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise SettingError(
            f"delimiter must be one character, not a quote or a line end, got {delimiter!r}", op=OP
        )
    return delimiter


def _rows(text: IO[str], delimiter: str, source: Path) -> Iterator[Row]:
    """Give the rows that are not blank, with their lines."""
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if len(cells) > 1 or (cells and cells[0].strip()):
                yield reader.line_num, [each.strip() for each in cells]
    except csv.Error as fault:
        raise DataError(
            f"{source}: line {reader.line_num} is not CSV: {fault}",
            op=OP,
            help="look for a quote that is not closed",
        ) from fault
    except UnicodeDecodeError as fault:
        raise DataError(
            f"{source}: not UTF-8 text after line {reader.line_num}: byte {fault.object[fault.start]:#04x}",
            op=OP,
            help="save the file as UTF-8, or check that it is CSV at all",
        ) from fault


def _columns(
    first: Row, label: str | int | None, header: bool | None, source: Path, delimiter: str
) -> tuple[Columns, bool]:
    """Decide what each column is, and tell whether a first row of numbers and words was taken for data."""
    line, cells = first
    if len(cells) == 1:
        raise DataError(
            f"{source}: line {line} has one column, expected features and a label separated by {delimiter!r}",
            op=OP,
            help="give delimiter=, for example ';' or a tab; plain text is for load_text (--model gpt)",
        )
    words = [not _is_number(each) for each in cells]
    named = all(words) if header is None else header
    names = tuple(cells) if named else ()
    if "" in names:
        raise DataError(
            f"{source}: line {line}, column {names.index('') + 1} has no name",
            op=OP,
            help="pandas writes its row numbers so: save with index=False, or drop that column",
        )
    chosen = _label_column(label, names, len(cells), source)
    return Columns(source, names, len(cells), chosen), header is None and not named and any(words)


def _label_column(label: str | int | None, names: tuple[str, ...], width: int, source: Path) -> int:
    """Return the column, counted from 0, that `label` asks for."""
    lowered = [name.lower() for name in names]
    if label is None:
        label = next((name for name in LABEL_NAMES if name in lowered), width - 1)
        names = tuple(lowered)
    if label in names:
        if names.count(str(label)) > 1:
            raise DataError(
                f"{source}: {names.count(str(label))} columns are called {label!r}",
                op=OP,
                help="give its number",
            )
        return names.index(str(label))
    try:
        number = int(label)
    except (TypeError, ValueError):
        if not names:
            raise SettingError(
                f"label={label!r} names a column, but {source} is read without a header",
                op=OP,
                help="give the column's number from 0, or header=True",
            ) from None
        raise DataError(f"{source}: {unknown_name('label column', label, names)}", op=OP) from None
    if not -width <= number < width:
        raise DataError(
            f"{source}: label={number} is not one of the {width} columns", op=OP, help="count from 0"
        )
    return number % width


def _add(row: Row, columns: Columns, cells: Cells) -> None:
    """Read one row into `cells`."""
    line, texts = row
    if len(texts) != columns.width:
        raise DataError(
            f"{columns.source}: line {line}: expected {columns.width} columns, found {len(texts)}",
            op=OP,
            help="every row needs the same number of cells; quote cells that hold the delimiter; plain text "
            "is for load_text (--model gpt)",
        )
    label = texts.pop(columns.label)
    if label.lower() in MISSING:
        raise _bad_cell(columns.place(line, columns.label), label, "a label")
    try:
        values = [float(each) for each in texts]
    except ValueError:
        values = []
    if not values or "_" in "".join(texts):  # float() takes 1_000, which no CSV writer means as a number
        bad = next(number for number, each in enumerate(texts) if not _is_number(each))
        raise _bad_cell(columns.place(line, columns.feature(bad)), texts[bad], "a number")
    cells.values.extend(values)
    cells.labels.append(label)
    cells.lines.append(line)


def _bad_cell(place: str, text: str, wanted: str) -> DataError:
    """Describe a cell that cannot be used."""
    if text.lower() in MISSING:
        return DataError(
            f"{place}: {wanted} is missing ({text!r})", op=OP, help="fill in or drop rows with missing values"
        )
    return DataError(
        f"{place}: expected {wanted}, found {text[:40]!r}",
        op=OP,
        help="give header=True if this line names the columns, or label= if this column holds the classes",
    )


def _is_number(text: str) -> bool:
    """Tell whether a cell is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _labels(cells: Cells, columns: Columns, mixed: bool) -> tuple[npt.NDArray[np.generic], tuple[str, ...]]:
    """Return the labels as numbers where they all are, else as text in sorted order."""
    if all(_is_number(each) for each in cells.labels):
        return np.array([float(each) for each in cells.labels]), ()
    if mixed and cells.labels.count(cells.labels[0]) == 1:
        raise DataError(
            f"{columns.place(cells.lines[0], columns.label)}: {cells.labels[0]!r} stands in no other "
            "row, so this line may be a header",
            op=OP,
            help="give header=True or header=False",
        )
    return encode_labels(cells.labels)
