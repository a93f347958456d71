"""The section on jmp and Flax; oracles: the libraries that are installed, and planted faults."""

from __future__ import annotations

import pytest

from minimp.frameworks.documented.scalers import SCALER_DIFFERENCES
from minimp.frameworks.results import Section, Verdict
from tests.frameworks.faults import Fault, back_off_twice, differing, forget_floors, grow_late

pytest.importorskip("jax", reason="needs minimp[jax]")
pytest.importorskip("jmp", reason="needs minimp[jax]")
pytest.importorskip("flax", reason="needs minimp[jax]")
pytestmark = pytest.mark.filterwarnings("default")  # what the libraries warn of is theirs

from minimp.frameworks.scalers import jax_scalers  # noqa: E402 - the libraries are looked for first


@pytest.fixture(scope="module")
def whole() -> Section:
    """Return the section of the seed 0."""
    return jax_scalers.compare(0)


def test_the_section_holds(whole: Section) -> None:
    """Oracle: jmp and Flax: over 10,000 verdicts, to both ends of float32."""
    assert whole, differing(whole)
    assert sum(row.figures.get("steps", 0) for row in whole.rows) > 10_000
    scales = {row.case: row.ours for row in whole.rows if row.subject == "flax DynamicScale"}
    assert "3.40282347e+38" in scales["up to the end"]
    known = {each.name for each in SCALER_DIFFERENCES if each.framework == "jax"}
    by_the_compiler = {"unscaled-by-division"}
    met = {row.known for row in whole.of(Verdict.DOCUMENTED)}
    assert known - by_the_compiler <= met <= known


def test_defects_of_jmp_are_seen(whole: Section) -> None:
    """Oracle: by hand: half of 2^-4, and the floor of 1 that comes back; float16 against float32."""
    rows = {row.case: row for row in whole.of(Verdict.DOCUMENTED)}
    lost = rows["a floor of 2^-20 through jax.jit"]
    assert (lost.ours, lost.theirs) == ("S = 0.03125", "S = 1")
    half = rows["a scale given in float16, a bad step"]
    assert half.ours == "S = 16384"
    assert half.theirs.startswith("TypeError")


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (grow_late, "few bad steps, interval 20"),
        (back_off_twice, "random, interval 3"),
        (forget_floors, "down to the floor"),
    ],
)
def test_planted_faults_are_found(monkeypatch: pytest.MonkeyPatch, fault: Fault, found: str) -> None:
    """Oracle: the fault, in both libraries; scales that do not move know nothing of it."""
    for table in ("JMP", "FLAX"):
        families = getattr(jax_scalers, table)
        monkeypatch.setattr(jax_scalers, table, tuple(each for each in families if each.name == found))
    fault(monkeypatch)
    differ = differing(jax_scalers.compare(0))
    assert {("jmp.DynamicLossScale", found), ("flax DynamicScale", found)} <= set(differ)
    assert ("jmp.StaticLossScale", "good and bad steps") not in differ
