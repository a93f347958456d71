"""A trace on the disk: everything comes back, or nothing does and the reason is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import trace
from minimp.errors import DataError
from tests.trace.cases import batch, grown, make_step


@pytest.fixture(scope="module")
def made() -> trace.Trace:
    """Two steps with everything: shadow, values, infinities, a name that JSON must escape."""
    step = make_step(scale=2.0**24)
    x = mp.tensor([1e-3, 2.0], dtype=mp.bfloat16)
    with trace.record(shadow=True, values="all") as found:
        step(*batch())
        step(*batch(1))
        (x * x).sum()
    return found


def test_a_saved_trace_comes_back_whole(made: trace.Trace, tmp_path: Path) -> None:
    """Oracle: equality of everything, values by their bytes, and the answers to the questions."""
    back = trace.load(made.save(tmp_path / "t"))
    assert back == made
    assert back.events == made.events
    assert [repr(event) for event in back.events] == [repr(event) for event in made.events]
    assert str(back.first_nonfinite()) == str(made.first_nonfinite())
    assert str(back.gradients_at_scales(source="shadow")) == str(made.gradients_at_scales(source="shadow"))
    assert back.values(made.events[-1])["out0"].dtype == made.values(made.events[-1])["out0"].dtype
    again = trace.load(back.save(tmp_path / "u"))
    assert again == made
    for name in ("events.jsonl", "spans.jsonl", "meta.json"):
        assert (tmp_path / "t" / name).read_bytes() == (tmp_path / "u" / name).read_bytes()


def test_values_read_in_order_read_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the number of files, which hold many events each."""
    from minimp.trace import folders

    monkeypatch.setattr(folders, "CHUNK", 4096)
    with trace.record(values="all", spill=tmp_path / "t") as spilled:
        make_step()(*batch())
    files, read = list((tmp_path / "t").glob("*.safetensors")), []
    reading = folders.read_arrays
    monkeypatch.setattr(folders, "read_arrays", lambda path, op: read.append(path) or reading(path, op))
    kept = [event for event in spilled.events if spilled.values(event)]
    assert 2 <= len(files) < len(kept)
    assert sorted(read) == sorted(files)


def test_spilling_writes_what_memory_would_hold(tmp_path: Path) -> None:
    """Oracle: a second recording of the same block, in memory."""
    step = make_step(change=grown(2, 1.5e5))
    with trace.record(values="all", spill=tmp_path / "t") as spilled, trace.record(values="all") as held:
        step(*batch())
        assert len(spilled.events) == len(held.events) > 10  # also while it runs
        assert spilled.values(0)["out0"].tobytes() == held.values(0)["out0"].tobytes()
    back = trace.load(tmp_path / "t")
    assert back == spilled
    assert back.diff(held).same
    assert str(spilled.overflow()) == str(held.overflow())
    assert spilled.save(tmp_path / "t") == tmp_path / "t"
    assert trace.load(spilled.save(tmp_path / "u")) == back


def flip(path: Path) -> None:
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    """Take the end away."""
    path.write_bytes(path.read_bytes()[:-20])


def remade(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Return what changes the JSON of a file."""

    def spoil(path: Path) -> None:
        meta = json.loads(path.read_text())
        change(meta)
        path.write_text(json.dumps(meta))

    return spoil


SPOILT = {
    "a byte of the events": ("events.jsonl", flip, "does not have the bytes"),
    "events cut short": ("events.jsonl", cut, "does not have the bytes"),
    "a byte of the values": ("values-0.safetensors", flip, "does not have the bytes"),
    "no values": ("values-0.safetensors", Path.unlink, "is missing"),
    "no spans": ("spans.jsonl", Path.unlink, "is missing"),
    "meta cut short": ("meta.json", cut, "cannot be read"),
    "no meta": ("meta.json", Path.unlink, "was not finished"),
    "a number in meta": ("meta.json", remade(lambda m: m.update(dropped=3)), "does not say what was written"),
    "another kind": ("meta.json", remade(lambda m: m.update(kind="x")), "no trace"),
    "a newer schema": ("meta.json", remade(lambda m: m.update(schema=2)), "reads schema 1"),
    "no kind": ("meta.json", remade(lambda m: m.pop("kind")), "cannot be read"),
    "a list": ("meta.json", lambda path: path.write_text("[]"), "cannot be read"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_what_was_spoilt_is_refused(made: trace.Trace, tmp_path: Path, fault: str) -> None:
    """Oracle: the fault that was planted, by the words of the message."""
    name, spoil, told = SPOILT[fault]
    folder = made.save(tmp_path / "t")
    spoil(folder / name)
    with pytest.raises(DataError, match=told):
        trace.load(folder)


def test_what_is_no_trace_and_what_is_in_the_way_is_refused(made: trace.Trace, tmp_path: Path) -> None:
    """Oracle: the docstrings of `load`, `save` and `record`."""
    with pytest.raises(DataError, match="no such folder"):
        trace.load(tmp_path / "missing")
    with pytest.raises(DataError, match="it is no trace"):
        trace.load(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    with pytest.raises(DataError, match="exists already"):
        made.save(tmp_path / "full")
    with pytest.raises(DataError, match="there is something"), trace.record(spill=tmp_path / "full"):
        pass
    with pytest.raises(DataError), trace.record(spill=tmp_path / "no" / "t"):
        pass
    with pytest.raises(DataError):
        made.save(tmp_path / "no" / "t")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert mp.modes.MODES.get().listeners == ()


def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the folder, after a fault in the middle of writing."""
    with trace.record(values="all") as made:
        mp.tensor(np.ones(3)) + 1.0

    def fault(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("minimp.trace.folders.write_sealed", fault)
    with pytest.raises(OSError, match="no space"):
        made.save(tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("part", "found"),
    [("files", None), ("files", [1]), ("files", {}), ("info", None), ("info", "x"), ("dropped", "x")],
)
def test_a_sealed_folder_of_another_shape_is_refused(
    made: trace.Trace, tmp_path: Path, part: str, found: object
) -> None:
    """Oracle: the layout in the docstring of `folders`; the seal is right, as another program's would be."""
    from minimp.trace.folders import _seal

    path = made.save(tmp_path / "t") / "meta.json"
    meta = {**json.loads(path.read_text()), part: found}
    del meta["seal"]
    path.write_text(json.dumps({**meta, "seal": _seal(meta)}))
    with pytest.raises(DataError, match=f"lacks some of .*{part}"):
        trace.load(tmp_path / "t")


def test_values_that_an_event_names_and_no_file_holds(made: trace.Trace, tmp_path: Path) -> None:
    """Oracle: the name that was written by hand."""
    from minimp.trace.folders import _facts, _seal

    folder = made.save(tmp_path / "t")
    events = folder / "events.jsonl"
    events.write_text(events.read_text().replace('"values":["', '"values":["out9","', 1))
    meta = json.loads((folder / "meta.json").read_text())
    del meta["seal"]
    meta["files"]["events.jsonl"] = _facts(events)
    (folder / "meta.json").write_text(json.dumps({**meta, "seal": _seal(meta)}))
    with pytest.raises(DataError, match="do not belong together"):
        trace.load(folder)
