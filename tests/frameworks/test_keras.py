"""The section on Keras; oracles: the Keras that is installed, and planted faults."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.frameworks.faults import Fault, back_off_twice, differing, grow_late, stay_finite

HAS_CHOICE = "KERAS_BACKEND" in os.environ
if not HAS_CHOICE:
    os.environ["KERAS_BACKEND"] = "jax"
pytest.importorskip("keras", reason="needs minimp[keras]")
if not HAS_CHOICE:
    del os.environ["KERAS_BACKEND"]
pytestmark = pytest.mark.filterwarnings("default")  # what the libraries warn of is theirs

from minimp.frameworks.scalers import keras_scaler  # noqa: E402 - the library is looked for first

LAST = "S from 2^125, which becomes infinite"


def test_the_section_holds() -> None:
    """Oracle: Keras; and by hand: an infinite scale skips every step, so the weight stays where it was."""
    section = keras_scaler.compare(0)
    assert section, differing(section)
    assert sum(row.figures.get("steps", 0) for row in section.rows) > 3000
    (row,) = (row for row in section.rows if row.case == LAST)
    # 2^125 and 2^126 grow after two good steps each, 2^127 after two more: six steps of a half
    assert (row.ours, row.theirs) == ("S = inf, weight -3",) * 2


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (grow_late, "few bad steps, interval 20"),
        (back_off_twice, "random, interval 3"),
        (stay_finite, "past the end of float32, then bad for good"),
        (stay_finite, LAST),
    ],
)
def test_planted_faults_are_found(monkeypatch: pytest.MonkeyPatch, fault: Fault, found: str) -> None:
    """Oracle: the fault."""
    families = tuple(each for each in keras_scaler.FAMILIES if each.name == found)
    monkeypatch.setattr(keras_scaler, "FAMILIES", families)
    fault(monkeypatch)
    assert found in {case for _, case in differing(keras_scaler.compare(0))}


CODE = """
import os
from minimp.frameworks.scalers import keras_scaler
section = keras_scaler.compare(0)
assert section, [row for row in section.rows if row.ours != row.theirs]
print(section.totals["Keras computes with"], os.environ.get("KERAS_BACKEND"))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("chosen", "expected"), [(None, "jax None"), ("numpy", "numpy numpy")])
def test_keras_computes_with_what_was_chosen(chosen: str | None, expected: str) -> None:
    """Oracle: a fresh interpreter: JAX where nothing is set, which stays unset, else what is set."""
    env = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    env |= {} if chosen is None else {"KERAS_BACKEND": chosen}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE],
        env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == expected, done.stderr


@pytest.mark.slow
def test_a_library_that_is_not_there_is_named() -> None:
    """Oracle: a fresh interpreter, and a library that nobody has; one error of ours, exit code 2."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "minimp", "check", "keras", "--quiet"],
        env={**os.environ, "KERAS_BACKEND": "nobodys"}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("minimp: error: check keras: Keras cannot be loaded"), done.stderr
    assert "set KERAS_BACKEND" in done.stderr
