"""`minimp explain`; oracle: minimp.formats.explain, and 100 columns."""

from __future__ import annotations

import pytest

from minimp import formats
from minimp.cli import main


def test_without_a_name_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the table of accumulations: each name begins a line."""
    assert main(["explain"]) == 0
    printed = capsys.readouterr().out
    assert printed == formats.explain() + "\n"
    starts = {line.split()[0] for line in printed.splitlines() if line}
    assert starts.issuperset(formats.ACCUMULATES)


@pytest.mark.parametrize("name", ["kahan", "chunked:16", "splitk:3", "exact", "tensorcore:volta"])
def test_a_page_fits_the_screen(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the page itself, printed whole and unwrapped."""
    assert main(["explain", name]) == 0
    printed = capsys.readouterr().out
    assert printed == formats.explain(name) + "\n"
    assert max(map(len, printed.splitlines())) <= 100


def test_an_unknown_name_is_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: by hand: the exit code, and the nearest name offered."""
    assert main(["explain", "kahn"]) == 2
    assert "kahan" in capsys.readouterr().err
