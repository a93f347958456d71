"""The presets of nine libraries; oracle: each library's rule written out by hand in traces.py."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.errors import SettingError
from minimp.scaler import PRESETS, GradScaler, presets_table, replay
from tests.scaler.traces import LIBRARIES, paddle

pytestmark = pytest.mark.filterwarnings("ignore::minimp.errors.ScaleWarning")  # traces go where they go

# Long runs of equal verdicts reach the floors, the ceilings and the intervals; single ones mix them.
runs = st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=12)
FROM_ONE = (1.0, 4.0, 2.0**126)
NEAR_THE_ENDS = {
    "chainer": (1.0, 1024.0, 65504.0), "apex": (2.0**-1070, 2.0**15, 2.0**24),
    "apex-fp16-optimizer": (1.0, 2.0**32, 2.0**1020), "tf-keras": FROM_ONE, "jmp": FROM_ONE,
    "mindspore": FROM_ONE,
    "flax": (2.0**-126, 2.0**-120, 2.0**15, 2.0**120),
}  # fmt: skip


def spread(pieces: list[tuple[bool, int]]) -> list[bool]:
    """Return (verdict, count) pairs as one list of verdicts."""
    return [is_bad for is_bad, count in pieces for _ in range(count)]


def follow(scaler: GradScaler, bad: list[bool]) -> list[float]:
    """Return the scale after each verdict."""
    scales = []
    for is_bad in bad:
        scaler.advance(is_bad)
        scales.append(scaler.scale_value)
    return scales


@pytest.mark.parametrize("name", list(LIBRARIES))
@given(pieces=runs, interval=st.integers(1, 20), data=st.data())
def test_a_preset_moves_as_its_library_does(
    name: str, pieces: list[tuple[bool, int]], interval: int, data: st.DataObject
) -> None:
    """Oracle: the library's own rule; scales equal bit for bit, from starts near both ends of its range."""
    init = data.draw(st.sampled_from(NEAR_THE_ENDS.get(name, (2.0**-145, 2.0**-120, 2.0**15, 2.0**120))))
    settings = {"init_scale": init} | ({} if name == "static" else {"growth_interval": interval})
    bad = spread(pieces)
    expected = LIBRARIES[name](bad, settings["init_scale"], interval)
    assert follow(GradScaler.preset(name, **settings), bad) == list(expected)


@pytest.mark.parametrize("name", list(LIBRARIES))
def test_defaults_are_the_librarys(name: str) -> None:
    """Oracle: the same rules with their own defaults, over 2,100 good steps and a few bad ones."""
    bad = [False] * 2100 + [True] * 3 + [False] * 5
    assert follow(GradScaler.preset(name), bad) == list(LIBRARIES[name](bad))


@given(pieces=runs, patience=st.integers(1, 5))
def test_paddle_waits_for_n_bad_steps(pieces: list[tuple[bool, int]], patience: int) -> None:
    """Oracle: Paddle's rule with decr_every_n_nan_or_inf = n."""
    bad = spread(pieces)
    scaler = GradScaler.preset("paddle", hysteresis=patience, growth_interval=7)
    assert follow(scaler, bad) == list(paddle(bad, interval=7, patience=patience))


def test_what_sets_the_libraries_apart() -> None:
    """Oracle: the table of the field: who grows late, who has which floor and which ceiling."""

    def end(name: str, is_bad: bool) -> float:
        settings = {} if name == "static" else {"growth_interval": 1}
        return follow(GradScaler.preset(name, **settings), [is_bad] * 1200)[-1]

    ceilings = {name: end(name, False) for name in PRESETS}
    floors = {name: end(name, True) for name in PRESETS}
    float32_max = (2 - 2.0**-23) * 2.0**127
    assert ceilings == {
        "torch": 2.0**127, "apex": 2.0**24, "apex-fp16-optimizer": math.inf, "keras": math.inf,
        "tf-keras": 2.0**127, "flax": float32_max, "jmp": 2.0**127, "paddle": math.inf,
        "paddle-ampscaler": math.inf, "mindspore": 2.0**127, "chainer": 65504.0, "static": 2.0**16,
    }  # fmt: skip
    assert floors == {
        "torch": 0.0, "apex": 0.0, "apex-fp16-optimizer": 1.0, "keras": 0.0, "tf-keras": 1.0,
        "flax": 2.0**-126, "jmp": 1.0, "paddle": 0.0, "paddle-ampscaler": 0.0, "mindspore": 1.0,
        "chainer": 1.0, "static": 2.0**16,
    }  # fmt: skip


def test_each_row_names_its_source() -> None:
    """Oracle: the rules of the table itself: each row has a source, a place in it, a check and a note."""
    assert list(PRESETS) == list(LIBRARIES)
    for row in PRESETS.values():
        assert any(character.isdigit() for character in row.source) or row.name == "apex"
        assert row.seen in ("ran", "ran in part", "read")
        assert len(row.source.split()) >= 3, row
        assert row.note


def test_unknown_names_and_settings_are_refused_with_the_nearest() -> None:
    """Oracle: the contract of preset()."""
    with pytest.raises(SettingError, match="unknown preset 'pytorch'; did you mean 'torch'"):
        GradScaler.preset("pytorch")
    with pytest.raises(
        SettingError, match=r"setting of a loss scale 'grow_interval'; did you mean 'growth_int"
    ):
        GradScaler.preset("jmp", grow_interval=3)
    with pytest.raises(SettingError, match="a static scale never moves, so growth_interval cannot act"):
        GradScaler.preset("static", growth_interval=5)
    with pytest.raises(SettingError, match=r"init_scale: expected a scale from 1\.0"):
        GradScaler.preset("jmp", init_scale=0.5)


@given(pieces=runs, interval=st.integers(1, 20))
def test_a_replay_is_each_preset_by_itself(pieces: list[tuple[bool, int]], interval: int) -> None:
    """Oracle: each library's rule in traces.py, from one S and one interval."""
    bad = spread(pieces)
    names = [name for name in LIBRARIES if name != "static"]
    made = replay(bad, names, init_scale=64.0, growth_interval=interval)
    assert made == {name: tuple(LIBRARIES[name](bad, 64.0, interval)) for name in names}


def test_a_replay_tells_where_libraries_part() -> None:
    """Oracle: by hand: three bad steps from 2 pass 1, where five libraries have their floor."""
    ends = {name: scales[-1] for name, scales in replay(iter([True] * 3), init_scale=2.0).items()}
    floored = {"apex-fp16-optimizer", "tf-keras", "jmp", "mindspore", "chainer"}
    assert {name for name, end in ends.items() if end == 1.0} == floored
    assert {end for name, end in ends.items() if name not in floored} == {0.25, 2.0}
    assert replay([], ["torch"]) == {"torch": ()}
    assert replay([True] * 9, ["torch"], max_consecutive_skips=1)["torch"][-1] == 2.0**7
    with pytest.raises(SettingError, match="unknown preset 'jpm'; did you mean 'jmp'"):
        replay([True], ["jpm"])
    with pytest.raises(SettingError, match="a static scale never moves, so growth_interval cannot act"):
        replay([True], growth_interval=5)


def number(cell: str) -> float | None:
    """Read a cell: "2^16", "65504" or "none"."""
    base, _, exponent = cell.partition("^")
    return None if cell == "none" else float(base) ** int(exponent or 1)


def test_the_table_holds_every_rule() -> None:
    """Oracle: the rows themselves, read back from their cells; 100 columns."""
    lines = presets_table().splitlines()
    assert max(map(len, lines)) <= 100
    rows = {line.split()[0]: line for line in lines[1:] if not line.startswith(" ")}
    assert list(rows) == list(PRESETS)
    cells = {name: [cell.strip() for cell in re.split(r" {2,}", line)][1:] for name, line in rows.items()}
    assert cells["flax"] == ["2^16", "x 2", "2000 + 1", "x 0.5", "1", "2^-126", "3.40282e+38"]
    assert cells["paddle-ampscaler"] == ["2^15", "x 2", "1000", "x 0.5", "1, anew", "none", "none"]
    assert cells["static"] == ["2^16", "x 1", "never", "x 1", "-", "none", "finite"]
    for name, preset in PRESETS.items():
        assert number(cells[name][0]) == preset.rule.init_scale
        assert number(cells[name][5]) == preset.rule.min_scale
        assert " ".join(preset.note.split()) in " ".join(presets_table().split())
