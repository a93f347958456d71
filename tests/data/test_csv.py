"""CSV; oracle: text typed out here, and Python's own `csv.writer` and `float`."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.data import read_csv
from minimp.errors import DataError, SettingError


def write(path: Path, text: str | bytes) -> Path:
    """Write a file as it stands."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# text: options, inputs, labels, class names
GOOD = {
    "header, label named": ("a,label,b\n1,0,2\n3,1,4\n", {}, [[1, 2], [3, 4]], [0, 1], ()),
    "label wins over y": ("x,y,label\n1,2,0\n3,4,1\n", {}, [[1, 2], [3, 4]], [0, 1], ()),
    "target, any case": ("Target,b\n1,2\n0,4\n", {}, [[2], [4]], [1, 0], ()),
    "class": ("b,CLASS,c\n1,1,2\n", {}, [[1, 2]], [1], ()),
    "y": ("y,x\n1,5\n", {}, [[5]], [1], ()),
    "last column": ("a,b,kind\n1,2,0\n", {}, [[1, 2]], [0], ()),
    "no header": ("1,2,0\n3,4,1\n", {}, [[1, 2], [3, 4]], [0, 1], ()),
    "no header, text labels": ("1,2,b\n3,4,a\n5,6,b\n", {}, [[1, 2], [3, 4], [5, 6]], [1, 0, 1], ("a", "b")),
    "sorted by code point": (
        "v,label\n1,b\n2,B\n3,10\n4,9\n",
        {},
        [[1], [2], [3], [4]],
        [3, 2, 0, 1],
        ("10", "9", "B", "b"),
    ),
    "label by name": ("a,b,c\n1,2,3\n", {"label": "b"}, [[1, 3]], [2], ()),
    "label by number": ("a,b,c\n1,2,3\n", {"label": 0}, [[2, 3]], [1], ()),
    "label from the end": ("a,b,c\n1,2,3\n", {"label": -2}, [[1, 3]], [2], ()),
    "label by digits": ("1,2,3\n", {"label": "0"}, [[2, 3]], [1], ()),
    "digits that are a name": ("2,1,0\n7,8,9\n", {"label": "2", "header": True}, [[8, 9]], [7], ()),
    "numbers as header": ("0,1,label\n7,8,1\n", {"header": True}, [[7, 8]], [1], ()),
    "words as data": ("v,w\n", {"header": False, "label": 0, "expect": "error"}, [], [], ()),
    "semicolons": ("a;label\n1.5;1\n", {"delimiter": ";"}, [[1.5]], [1], ()),
    "blank lines and spaces": ("\n a , label \n\n 1 , 0 \n  \n2,1\n\n", {}, [[1], [2]], [0, 1], ()),
    "quotes": ('"a","label"\n"1","x,y"\n2,"p""q"\n', {}, [[1], [2]], [1, 0], ('p"q', "x,y")),
    "byte order mark": (b"\xef\xbb\xbflabel,a\n1,2\n", {}, [[2]], [1], ()),
    "carriage returns": ("a,label\r\n1,0\r\n2,1\r\n", {}, [[1], [2]], [0, 1], ()),
    "no last line end": ("a,label\n1,0\n2,1", {}, [[1], [2]], [0, 1], ()),
    "floats": ("a,label\n-1e-3,1.0\n.5,0.0\n+7.,1\n", {}, [[np.float32(-1e-3)], [0.5], [7]], [1, 0, 1], ()),
    "gzip": (gzip.compress(b"a,label\n1,0\n"), {}, [[1]], [0], ()),
}
del GOOD["words as data"]


@pytest.mark.parametrize("case", GOOD)
def test_what_is_read(case: str, tmp_path: Path) -> None:
    """Oracle: the table above, written by hand."""
    text, options, inputs, labels, names = GOOD[case]
    data = read_csv(write(tmp_path / "flowers.csv", text), **options)
    assert data.inputs.tolist() == inputs
    assert (data.targets.tolist(), data.class_names, data.name) == (labels, names, "flowers")


def test_tabs_for_tsv(tmp_path: Path) -> None:
    """Oracle: the ending .tsv means tab-separated values (IANA media type), also under gzip."""
    assert read_csv(write(tmp_path / "a.tsv", "a\tlabel\n1\t2\n")).targets.tolist() == [2]
    packed = read_csv(write(tmp_path / "b.tsv.gz", gzip.compress(b"a\tlabel\n1\t2\n")))
    assert (packed.targets.tolist(), packed.name) == ([2], "b")


# text: options, what the message must say
BAD = {
    "empty": ("", {}, "the file is empty"),
    "blank": ("\n\n  \n", {}, "the file is empty"),
    "header alone": ("a,label\n", {}, "a header and no rows"),
    "one column": ("label\n1\n", {}, r"line 1 has one column, expected .* separated by ','(?s:.*)delimiter="),
    "wrong delimiter": ("a;b;label\n1;2;0\n", {}, "line 1 has one column"),
    "short row": ("a,b,label\n1,2,0\n3,1\n", {}, "line 3: expected 3 columns, found 2"),
    "long row": ("a,b,label\n1,2,0,\n", {}, "line 2: expected 3 columns, found 4"),
    "word": (
        "a,petal,label\n1,2,0\n\n3,wide,1\n",
        {},
        r"line 4, column 2 \('petal'\): expected a number, found 'wide'",
    ),
    "word after the label": ("label,a,b\n1,2,x\n", {}, r"line 2, column 3 \('b'\): expected a number"),
    "word beside the label": ("label,a,b\n1,x,2\n", {}, r"line 2, column 2 \('a'\): expected a number"),
    "label from the end": ("a,b,c\nx,2,1\n", {"label": -2}, r"line 2, column 1 \('a'\): expected a number"),
    "underscore": ("a,label\n1_000,0\n", {}, "line 2, column 1 .*expected a number, found '1_000'"),
    "hex": ("a,label\n0x10,0\n", {}, "found '0x10'"),
    "missing": ("a,b,label\n1,,0\n", {}, r"line 2, column 2 \('b'\): a number is missing \(''\)"),
    "missing NA": ("a,b,label\nNA,1,0\n", {}, r"column 1 .*: a number is missing \('NA'\)"),
    "missing label": ("a,label\n1,0\n2,\n", {}, r"line 3, column 2 \('label'\): a label is missing"),
    "missing label ?": ("a,label\n1,x\n2,?\n", {}, "line 3, column 2 .*a label is missing"),
    "nan": ("a,label\n1,0\nnan,1\n", {}, r"line 3, column 1 \('a'\) holds nan"),
    "inf": ("label,a,b\n1,0,2\n1,1,-inf\n", {}, r"line 3, column 3 \('b'\) holds -inf"),
    "beyond float32": (
        "a,label\n1e60,0\n",
        {},
        r"line 2, column 1 .* holds 1e\+60, beyond the largest float32",
    ),
    "half label": ("a,label\n1,0\n2,1.5\n", {}, r"line 3, column 2 \('label'\) has 1\.5"),
    "negative label": ("a,label\n1,0\n2,-1\n", {}, "line 3, column 2 .*has label -1"),
    "label too large": (
        "a,label\n1,0\n2,3\n",
        {"num_classes": 3},
        r"0\.\.2 for 3 classes, .*line 3, column 2",
    ),
    "infinite label": ("a,label\n1,0\n2,inf\n", {}, "line 3, column 2 .*has inf"),
    "two labels": ("label,a,label\n1,2,3\n", {}, "2 columns are called 'label'"),
    "no such column": ("a,kind\n1,2\n", {"label": "knid"}, "did you mean 'kind'"),
    "no such number": ("a,b\n1,2\n", {"label": 2}, "label=2 is not one of the 2 columns"),
    "row numbers of pandas": (",a,label\n0,1,2\n", {}, "line 1, column 1 has no name(?s:.*)index=False"),
    "header of numbers": (
        "0,1,label\n7,8,1\n3,4,0\n",
        {},
        "'label' stands in no other row, so this line may be a header",
    ),
    "open quote": ('a,label\n1,"0\n2,1\n', {}, "is not CSV: unexpected end of data"),
    "text after a quote": ('a,label\n"1"x,0\n', {}, "line 2 is not CSV"),
    "latin-1": (b"a,label\n1,caf\xe9\n", {}, "not UTF-8 text after line .*byte 0xe9"),
    "utf-16": ("a,label\n1,2\n".encode("utf-16"), {}, "not UTF-8 text after line 0: byte 0xff"),
    "damaged gzip": (gzip.compress(b"a,y\n" + b"1,0\n" * 99)[:-6], {}, "its compressed data ends too early"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(case: str, tmp_path: Path) -> None:
    """Oracle: the table above; lines and columns counted from 1 by hand."""
    text, options, match = BAD[case]
    with pytest.raises(DataError, match=match) as caught:
        read_csv(write(tmp_path / "bad.csv", text), **options)
    assert "bad.csv" in str(caught.value)


def test_settings_that_cannot_act(tmp_path: Path) -> None:
    """Oracle: the documented arguments."""
    path = write(tmp_path / "a.csv", "1,2,0\n")
    with pytest.raises(
        SettingError, match=r"label='kind' names a column, but .*a\.csv is read without a header"
    ):
        read_csv(path, label="kind")
    for bad in ("", ";;", '"', "\n"):
        with pytest.raises(SettingError, match="delimiter must be one character"):
            read_csv(path, delimiter=bad)


def test_values_as_targets(tmp_path: Path) -> None:
    """Oracle: with num_classes=0 the label column holds measured values."""
    data = read_csv(write(tmp_path / "a.csv", "a,y\n1,0.5\n2,-3\n"), num_classes=0)
    assert (data.targets.tolist(), data.targets.dtype) == ([0.5, -3], np.float32)


CELLS = st.floats(allow_nan=False, allow_infinity=False, width=32)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Z")), min_size=1).filter(
    lambda word: word.strip() == word and word.lower() not in {"?", "na", "n/a", "nan", "null"}
)


@given(
    rows=st.lists(st.tuples(CELLS, CELLS, st.sampled_from("abc")), min_size=1, max_size=20),
    names=st.lists(WORDS, min_size=3, max_size=3, unique=True),
    column=st.integers(0, 2),
)
def test_what_csv_writes_is_read_back(
    rows: list[tuple[float, float, str]],
    names: list[str],
    column: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Oracle: csv.writer's quoting and repr's shortest float text, which round-trips every float32."""
    words = {"a": names[0], "b": names[1], "c": names[2]}
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["p", "q", "r"])
    for first, second, word in rows:
        cells = [repr(first), repr(second)]
        writer.writerow([*cells[:column], "#" + words[word], *cells[column:]])
    path = write(tmp_path_factory.getbasetemp() / "written.csv", text.getvalue())
    data = read_csv(path, label="pqr"[column])
    assert data.inputs.tolist() == [[first, second] for first, second, _ in rows]
    assert [data.class_names[label] for label in data.targets] == ["#" + words[word] for _, _, word in rows]
    assert list(data.class_names) == sorted(data.class_names)
