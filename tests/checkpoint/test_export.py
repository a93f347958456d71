"""Exports; oracle: minimp.formats.round of each number, and its flags, counted one number at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp import nn
from minimp.checkpoint import export, load, read_meta, save
from minimp.errors import CheckpointError, DataError, FormatError, SettingError
from tests.checkpoint.test_weight_files import Tied, net
from tests.trainer.runs import bits, make_trainer

TARGETS = ("float16", "bfloat16", "float32")


@pytest.mark.parametrize("dtype", TARGETS)
def test_the_numbers_are_rounded_once(path: Path, dtype: str) -> None:
    """Oracle: formats.round of the float64 weights; integers stay; the model does not change."""
    model = net().double()
    before = bits(model.state_dict())
    export(path, model, dtype)
    assert bits(model.state_dict()) == before
    found = load(path)
    for name, leaf in model.state_dict().items():
        wanted = np.asarray(leaf)
        if name != "count":
            wanted = mp.formats.round(wanted, dtype).astype(found[name].dtype)
        assert bits(found[name]) == bits(wanted)
    other = net().to(dtype)
    other.load_state_dict(path)
    assert bits(other.state_dict()) == bits(found)


def test_the_report(path: Path) -> None:
    """Oracle: a tensor made by hand: each kind of loss, with float16's smallest and largest numbers."""
    tiny, unit = 2.0**-24, 2.0**-11
    small = [-(2.0**-14), 3 * tiny / 4, tiny / 2, -tiny / 3, 0.0]
    weights = [1.0, 1.0 + unit, *small, 65519.0, math.inf, math.nan]
    state = {"w": np.array([weights]), "n": np.array([1, 2], np.int64), "b": np.array([0.5], np.float32)}
    report = export(path, state)
    w, n, b = report.tensors
    assert (w.name, w.elements, w.dtype, w.exported_dtype) == ("w", 10, "float64", "float16")
    assert (w.bytes_before, w.bytes_after, n.bytes_before, n.bytes_after) == (80, 20, 16, 16)
    assert (w.nonfinite, w.overflowed, w.flushed, w.subnormal) == (2, 0, 2, 1)
    assert (w.max_relative_error, w.largest) == (1.0, 65519.0)
    assert (b.max_relative_error, b.subnormal, n.exported_dtype) == (0.0, 0, "int64")
    assert (report.elements, report.bytes_before, report.bytes_after) == (13, 100, 38)
    assert (report.overflowed, report.flushed, report.subnormal, report.nonfinite) == (0, 2, 1, 2)
    assert (report.max_relative_error, report.dtype, report.path) == (1.0, "float16", path)
    assert report.file_bytes == path.stat().st_size
    for said in ("100 -> 38 (0.38 x)", "became zero        2", "became subnormal   1"):
        assert said in str(report)
    assert max(map(len, str(report).replace(str(path), "").splitlines())) < 100


floats = st.floats(width=32) | st.floats(-1e-4, 1e-4) | st.floats(-7e4, 7e4)


@given(st.lists(floats, max_size=30), st.sampled_from(TARGETS))
def test_the_counts(tmp_path_factory: pytest.TempPathFactory, numbers: list[float], dtype: str) -> None:
    """Oracle: the flags of formats.round, and formats.inspect of each rounded number; law: any numbers."""
    path = tmp_path_factory.mktemp("any") / "out"
    x = np.array(numbers, np.float64)
    (row,) = export(path, {"w": x}, dtype, allow_overflow=True).tensors
    flags = mp.formats.Flags()
    y = mp.formats.round(x, dtype, flags=flags)
    assert (row.overflowed, row.flushed) == (flags.overflow, flags.flushed)
    assert row.subnormal == sum(mp.formats.inspect(each, dtype).kind == "subnormal" for each in y.tolist())
    assert row.nonfinite == sum(not math.isfinite(each) for each in numbers)
    errors = [abs(b - a) / abs(a) for a, b in zip(x.tolist(), y.tolist(), strict=True)
              if a and math.isfinite(a) and math.isfinite(b)]  # fmt: skip
    assert row.max_relative_error == max(errors, default=0.0)


def test_an_overflow_is_refused_unless_asked_for(path: Path) -> None:
    """Oracle: 65520 is the first number that becomes infinite in float16; the old file stays."""
    state = {"fine": np.array([65519.99]), "large": np.array([1.0, 65520.0, -1e5]), "larger": np.array([1e9])}
    save(path, {"old": 1})
    with pytest.raises(DataError) as caught:
        export(path, state)
    assert str(caught.value) == (
        "export: large (2 of 3), larger (1 of 1): up to 1e+09, and float16 ends at 65504\n"
        '  help: export as "bfloat16", or pass allow_overflow=True to write infinities'
    )
    assert load(path) == {"old": 1}
    assert export(path, state, allow_overflow=True).overflowed == 3
    assert load(path)["large"].tolist() == [1.0, math.inf, -math.inf]
    assert export(path, state, "bfloat16").overflowed == 0
    many = {f"t{i}": np.array([1e9]) for i in range(9)}
    with pytest.raises(DataError, match="t3 \\(1 of 1\\) and 5 tensors more: "):
        export(path, many)


def test_tied_weights_are_written_once(path: Path) -> None:
    """Oracle: the metadata and the bytes; tied and untied models take the file."""
    model = Tied()
    report = export(path, model, "float32")
    assert [row.name for row in report.tensors] == ["head.bias", "body.weight"]
    assert report.bytes_after == 4 * (9 + 3)
    assert read_meta(path) == {"format": "pt", "head.weight": "body.weight"}
    for tie in (True, False):
        other = Tied(tie)
        other.load_state_dict(path)
        assert bits(other.state_dict()) == bits(model.state_dict())


def test_sources(path: Path) -> None:
    """Oracle: the module's export: its state dict, a run's state, and the files of both give the same."""
    run, weights, out = (path.with_name(name) for name in ("run", "weights", "out"))
    trainer = make_trainer("mixed-fp16", checkpoint=run)
    trainer.run(3)
    model = trainer.step.model
    save(weights, model.state_dict())
    export(path, model)
    sources: tuple[Any, ...] = (model.state_dict(), trainer.state_dict(), run, str(run), weights, load(run))
    for source in sources:
        report = export(out, source, "fp16")
        assert out.read_bytes() == path.read_bytes()
        assert report.bytes_after * 2 == report.bytes_before


def test_meta(path: Path) -> None:
    """Oracle: the metadata that safetensors reads: the caller's, and the format that others look for."""
    export(path, nn.Linear(1, 1), meta={"note": "hello", "format": "np"})
    with safetensors.safe_open(path, "np") as file:
        found = {key: text for key, text in file.metadata().items() if not key.startswith("minimp.")}
    assert found == {"format": "np", "note": "hello"}


@pytest.mark.parametrize(
    ("source", "dtype", "error", "said"),
    [
        (net(), "int8", FormatError, "expected one of float16, bfloat16, float32, got int8"),
        (net(), "float8_e4m3fn", FormatError, "expected one of"),
        (net(), "float61", FormatError, "unknown number format"),
        ({}, "float16", SettingError, "got nothing"),
        (3, "float16", SettingError, "got a int"),
        ({"a": np.ones(1), "lr": 0.1}, "float16", SettingError, "got a float under 'lr'"),
        ("no such file", "float16", CheckpointError, "there is no such file"),
    ],
)
def test_what_cannot_be_exported(path: Path, source: Any, dtype: str, error: type, said: str) -> None:
    """Oracle: the table; nothing is written."""
    with pytest.raises(error, match=said):
        export(path, source, dtype)
    assert not path.exists()
