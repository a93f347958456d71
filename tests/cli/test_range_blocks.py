"""`minimp range --blocks`; oracle: minimp.formats.compare_blocks and block_report, and 100 columns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from minimp import formats
from minimp.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def weights(tmp_path: Path) -> tuple[str, np.ndarray]:
    """Write four rows of numbers to a file."""
    x = np.random.default_rng(0).standard_normal((4, 96)).astype(np.float32)
    np.save(tmp_path / "w.npy", x)
    return str(tmp_path / "w.npy"), x


def test_the_table_follows(capsys: Capture, weights: tuple[str, np.ndarray]) -> None:
    """Oracle: the library's own table, as the end of what is printed."""
    path, x = weights
    assert main(["range", "fp16", "--data", path, "--blocks", "mxfp8,mxfp4:rceil,nvfp4"]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(f"\n{formats.compare_blocks(x, ['mxfp8', ('mxfp4', 'rceil'), 'nvfp4'])}\n")
    assert max(map(len, printed.splitlines())) <= 100


def test_json_and_quiet(capsys: Capture, weights: tuple[str, np.ndarray]) -> None:
    """Oracle: the library's report of each format."""
    path, x = weights
    assert main(["range", "fp16", "--data", path, "--blocks", "mxfp8,nvfp4", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["blocks"]
    for entry, name in zip(shown, ("mxfp8", "nvfp4"), strict=True):
        report = formats.block_report(x, name)
        assert (entry["format"], entry["scale_rule"]) == (report.format, report.scale_rule)
        assert (entry["sqnr_db"], entry["flushed"]) == (report.sqnr_db, report.flushed)
        assert tuple(entry["worst"]["index"]) == report.worst.index
    assert main(["range", "fp16", "--data", path, "--blocks", "mxfp4", "--quiet"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(
        f"mxfp4 floor: SQNR {formats.block_report(x, 'mxfp4').sqnr_db:.1f} dB in 4.25 bits"
    )


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ("mxpf8", "did you mean 'mxfp8'"),
        ("mxfp8:flor", "did you mean 'floor'"),
        (",", "expected the name of a block format"),
    ],
)
def test_names_that_are_none(
    blocks: str, words: str, capsys: Capture, weights: tuple[str, np.ndarray]
) -> None:
    """Oracle: by hand: the exit code, nothing on stdout, the nearest name."""
    assert main(["range", "fp16", "--data", weights[0], "--blocks", blocks]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err


def test_without_numbers_there_are_no_scales(capsys: Capture) -> None:
    """Oracle: by hand."""
    assert main(["range", "fp16", "--blocks", "mxfp8"]) == 2
    assert "without --data" in capsys.readouterr().err
