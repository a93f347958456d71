"""Several at one checkpoint, and unusual paths; oracle: whole states, and nothing left over."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from minimp.checkpoint import load, save
from minimp.errors import CheckpointError, MinimpError
from tests.checkpoint.states import environment


def test_readers_find_the_old_state_or_the_new_one(path: Path) -> None:
    """Oracle: readers while a writer saves again and again: each load is one whole state, none older."""
    save(path, {"step": 0, "w": np.zeros(20_000)})
    stop, faults = threading.Event(), []

    def read() -> None:
        last = 0
        while not stop.is_set():
            try:
                found = load(path, require_checksum=True)
            except MinimpError as fault:
                faults.append(str(fault))
                return
            if not (found["w"] == found["step"]).all() or found["step"] < last:
                faults.append(f"step {found['step']} after {last}")
            last = found["step"]

    readers = [threading.Thread(target=read) for _ in range(3)]
    for each in readers:
        each.start()
    for step in range(1, 30):
        save(path, {"step": step, "w": np.full(20_000, float(step))})
    stop.set()
    for each in readers:
        each.join()
    assert faults == []


WRITER = """
import sys
import numpy as np
from minimp.checkpoint import save
path, number = sys.argv[1], int(sys.argv[2])
for step in range(40):
    save(path, {"writer": number, "step": step, "w": np.full(5000, number * 1000 + step)})
"""


def test_two_processes_save_to_one_path(path: Path) -> None:
    """Oracle: every state that is read meanwhile is one writer's whole; the last one is somebody's last."""
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, str(number)], env=environment()) for number in (1, 2)]
    seen = set()
    while any(each.poll() is None for each in writers):
        if path.exists():
            found = load(path, require_checksum=True)
            assert (found["w"] == found["writer"] * 1000 + found["step"]).all()
            seen.add((found["writer"], found["step"]))
    assert [each.returncode for each in writers] == [0, 0]
    assert len(seen) > 1
    assert load(path)["step"] == 39
    assert [each.name for each in path.parent.iterdir()] == [path.name]


# ---- paths -------------------------------------------------------------------------------------------------


NAMES = ("Größe π 模型.safetensors", "🧪", "a b'c\"d$e.safetensors", "\udcff", ".hidden")


@pytest.mark.parametrize("name", NAMES, ids=["letters", "emoji", "quotes", "no UTF-8", "hidden"])
def test_names_of_all_kinds(tmp_path: Path, name: str) -> None:
    """Oracle: the state, under names with letters of all alphabets and one that is no UTF-8 at all."""
    for step in (1, 2):
        save(tmp_path / name, {"step": step})
        assert load(str(tmp_path / name)) == {"step": step}
    assert os.listdir(tmp_path) == [name]


def test_links(path: Path) -> None:
    """Oracle: a link stays one, to a file that is there or not there yet; a circle of links is named."""
    for number, name in enumerate(("real", "new")):
        link = path.with_name(f"link-{number}")
        link.symlink_to(name)
        save(link, {"step": number})
        assert link.is_symlink()
        assert load(path.with_name(name)) == {"step": number}
    circle = path.with_name("circle")
    circle.symlink_to("circle")
    for attempt in (lambda: save(circle, {}), lambda: load(circle)):
        with pytest.raises(CheckpointError, match="its symbolic links lead back to each other"):
            attempt()
    assert circle.is_symlink()


def test_a_folder_in_the_place_of_the_file(path: Path) -> None:
    """Oracle: it is named, and stays as it was."""
    (path / "inside").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="it is a folder"):
        save(path, {})
    assert os.listdir(path) == ["inside"]
    assert os.listdir(path.parent) == [path.name]


AS_ANYBODY = """
import os, sys
from minimp.checkpoint import load, save
from minimp.errors import CheckpointError
if os.geteuid() == 0:  # an administrator may write anywhere
    os.setgid(65534)
    os.setuid(65534)
try:
    save(sys.argv[1], {"step": 2})
except CheckpointError as fault:
    print(fault)
print(load(sys.argv[1]))
"""


def test_a_read_only_folder() -> None:
    """Oracle: the system refuses the new file; the old one can be read, and is alone."""
    with tempfile.TemporaryDirectory() as folder:  # where anybody may look
        path = Path(folder) / "run.safetensors"
        save(path, {"step": 1})
        path.chmod(0o666)
        Path(folder).chmod(0o555)
        command = [sys.executable, "-c", AS_ANYBODY, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
        assert os.listdir(folder) == [path.name]
        Path(folder).chmod(0o755)
    said, advice, state = done.stdout.splitlines()
    assert said == f"cannot write {path}: permission denied"
    assert advice == "  help: name a file in a folder that you may write to"
    assert state == "{'step': 1}"
