"""Files written whole or not at all; oracles: the bytes on the disk, and the names left in the folder."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from minimp.errors import CheckpointError, DataError
from minimp.files import check_writable, read_whole, whole, write_whole

OLD, NEW = b"the old content", b"the new content, which is longer"


def names(folder: Path) -> list[str]:
    """Return the sorted names of all files of a folder, hidden ones too."""
    return sorted(each.name for each in folder.iterdir())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the path of a file that holds OLD, alone in its folder."""
    path = tmp_path / "result.json"
    path.write_bytes(OLD)
    return path


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (NEW, NEW),
        ("Straße", "Straße".encode()),
        ([b"ab", memoryview(b"cd"), b"", b"e"], b"abcde"),
        (b"", b""),
        ([], b""),
    ],
)
def test_writes_what_it_is_given(tmp_path: Path, data: object, expected: bytes) -> None:
    """Oracle: the bytes read back, by Python and by read_whole; no other file is left."""
    path = tmp_path / "a file"
    write_whole(path, data)  # type: ignore[arg-type]  # one row per kind of data
    assert path.read_bytes() == expected == read_whole(path)
    assert names(tmp_path) == ["a file"]


def test_replaces_an_old_file_and_keeps_its_permissions(target: Path) -> None:
    """Oracle: the bytes and the mode on the disk; a new file gets what the umask leaves."""
    target.chmod(0o640)
    write_whole(str(target), NEW)
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (NEW, 0o640)
    before = os.umask(0o027)
    try:
        write_whole(target.with_name("fresh"), NEW)
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.with_name("fresh").stat().st_mode) == 0o640


def test_follows_a_link(target: Path) -> None:
    """Oracle: the link is still a link, and the file that it names has the new bytes."""
    link = target.with_name("link")
    link.symlink_to(target.name)
    write_whole(link, NEW)
    assert link.is_symlink()
    assert target.read_bytes() == NEW


@pytest.mark.parametrize("length", [200, 255])
def test_long_names(tmp_path: Path, length: int) -> None:
    """Oracle: a name of as many bytes as file systems allow (255), in characters of one and of four."""
    for name in ("n" * length, "𝛑" * (length // 4)):
        write_whole(tmp_path / name, NEW)
        assert (tmp_path / name).read_bytes() == NEW


# ---- faults of the system: an error that names the path, the old bytes, nothing beside them ----------------


class Refusing:
    """Stands in for one function of `os`: does its work `after` times, then raises."""

    def __init__(self, name: str, fault: BaseException, after: int = 0) -> None:
        self.real, self.fault, self.left = getattr(os, name), fault, after

    def __call__(self, *given: object, **named: object) -> object:
        """Do the work, or raise."""
        if self.left == 0:
            raise self.fault
        self.left -= 1
        return self.real(*given, **named)


@pytest.mark.parametrize(
    ("function", "code", "said"),
    [
        ("write", errno.ENOSPC, "the disk is full"),
        ("write", errno.EDQUOT, "your disk quota is used up"),
        ("write", errno.EIO, "Input/output error"),
        ("fsync", errno.ENOSPC, "the disk is full"),
        ("replace", errno.EACCES, "permission denied"),
        ("open", errno.EROFS, "the file system is read-only"),
    ],
)
@pytest.mark.parametrize("after", [0, 1])
def test_a_refusal_leaves_the_old_file(
    target: Path, monkeypatch: pytest.MonkeyPatch, function: str, code: int, said: str, after: int
) -> None:
    """Oracle: a fault planted in each call to the system, at once or after one piece was written."""
    after = after if function == "write" else 0
    monkeypatch.setattr(whole.os, function, Refusing(function, OSError(code, os.strerror(code)), after))
    with pytest.raises(CheckpointError) as caught:
        write_whole(target, [NEW, NEW], error=CheckpointError, op="save")
    monkeypatch.undo()
    assert str(caught.value).startswith(f"save: cannot write {target}: {said}")
    assert (target.read_bytes(), names(target.parent)) == (OLD, [target.name])


@pytest.mark.parametrize("function", ["write", "fsync", "replace"])
def test_ctrl_c_leaves_the_old_file(target: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """Oracle: KeyboardInterrupt planted at each step comes through, and leaves the folder as it was."""
    monkeypatch.setattr(whole.os, function, Refusing(function, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write_whole(target, NEW)
    monkeypatch.undo()
    assert (target.read_bytes(), names(target.parent)) == (OLD, [target.name])


def test_a_folder_that_cannot_be_synced_is_no_fault(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the second fsync, which is the folder's, refused as by a file system that has no such thing."""
    monkeypatch.setattr(whole.os, "fsync", Refusing("fsync", OSError(errno.EINVAL, "no"), after=1))
    write_whole(target, NEW)
    assert target.read_bytes() == NEW


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_folder_whose_sync_fails_is_one(target: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Oracle: the message, which does not say that the old file is untouched; the new one has its name."""
    fault = OSError(code, os.strerror(code))
    monkeypatch.setattr(whole.os, "fsync", Refusing("fsync", fault, after=1))
    with pytest.raises(DataError, match="what was written has its name, and may lose it in") as caught:
        write_whole(target, NEW)
    assert "untouched" not in str(caught.value)
    assert (target.read_bytes(), names(target.parent)) == (NEW, [target.name])


def test_a_folder_that_cannot_be_opened_is_synced_with_all(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: os.sync is called: the folder may be written to, but not be read (mode 0300)."""
    synced: list[bool] = []
    fault = PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(whole.os, "open", Refusing("open", fault, after=1))
    monkeypatch.setattr(whole.os, "sync", lambda: synced.append(True))
    write_whole(target, NEW)
    assert synced
    assert target.read_bytes() == NEW


def test_the_order_of_the_steps(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: POSIX: the bytes are safe before the name is given, and the name after its folder is synced."""
    steps: list[str] = []
    sync, replace = os.fsync, os.replace

    def recorded_sync(handle: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        sync(handle)

    def recorded_replace(source: Path, destination: Path) -> None:
        steps.append("name")
        replace(source, destination)

    monkeypatch.setattr(whole.os, "fsync", recorded_sync)
    monkeypatch.setattr(whole.os, "replace", recorded_replace)
    write_whole(target, NEW)
    monkeypatch.undo()
    assert steps == ["file", "name", "folder"]


LIMITED = """
import resource, sys
sys.path[:0] = sys.argv[2:]
from minimp.errors import DataError
from minimp.files import write_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_whole(sys.argv[1], b"x" * 5000)
except DataError as fault:
    print(fault)
"""


def run_python(script: str, *arguments: object) -> str:
    """Run a script in a Python of its own, with this Python's path; return what it prints."""
    command = [sys.executable, "-c", script, *map(str, arguments), *sys.path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_write_that_the_system_cuts_short(target: Path) -> None:
    """Oracle: a real limit on the size of files, which stops the write after 1000 of 5000 bytes."""
    said = run_python(LIMITED, target)
    assert said.startswith(f"cannot write {target}: the file would grow larger than is allowed here\n")
    assert (target.read_bytes(), names(target.parent)) == (OLD, [target.name])


@pytest.mark.parametrize("write", [lambda path: write_whole(path, NEW), check_writable, read_whole])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "it is a folder"),
        ("result.json/file", "a part of the path is not a folder"),
        ("n" * 256, "the name is too long"),
        ("pipe", "it is a device, pipe or socket"),
        ("zero\0byte", "its name holds a zero byte"),
    ],
)
def test_paths_that_are_no_files(target: Path, write: object, name: str, said: str) -> None:
    """Oracle: the table of what each path is; a pipe without a reader must not hang."""
    os.mkfifo(target.with_name("pipe"))
    with pytest.raises(DataError) as caught:
        write(os.path.join(target.parent, name))  # type: ignore[operator]  # one row per function
    assert said in str(caught.value)
    assert names(target.parent) == ["pipe", target.name]


def test_missing_files_and_folders(tmp_path: Path) -> None:
    """Oracle: what is missing: to write, the folder; to read, the file."""
    path = tmp_path / "none" / "file"
    for write in (lambda: write_whole(path, NEW), lambda: check_writable(path)):
        with pytest.raises(DataError, match="its folder does not exist\n  help: make the folder first"):
            write()
    with pytest.raises(DataError, match="there is no such file"):
        read_whole(path)
    assert names(tmp_path) == []


def test_a_device_is_never_replaced() -> None:
    """Oracle: /dev/null stays a device (a rename over it would succeed for an administrator)."""
    with pytest.raises(DataError, match="it is a device, pipe or socket"):
        write_whole("/dev/null", NEW)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_read_only_file_is_not_replaced(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: os.access, which is what the system says (an administrator may write anything)."""
    target.chmod(0o400)
    monkeypatch.setattr(whole.os, "access", lambda path, mode: not (Path(path) == target and mode == os.W_OK))
    for write in (lambda: write_whole(target, NEW), lambda: check_writable(target)):
        with pytest.raises(DataError, match="permission denied"):
            write()
    assert (target.read_bytes(), names(target.parent)) == (OLD, [target.name])


def test_check_writable_touches_nothing(target: Path) -> None:
    """Oracle: bytes, times and names are as before, for an old file and for a new one."""
    before = target.stat()
    check_writable(target)
    check_writable(target.with_name("new"))
    assert target.stat() == before
    assert names(target.parent) == [target.name]


# ---- crashes, leftovers, and several at once ---------------------------------------------------------------

KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[2:]
from minimp import files
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
files.write_whole(sys.argv[1], b"half " * 1000)
"""


def kill_a_writer(target: Path) -> Path:
    """Write to `target` in a process that is killed before the rename; return the file that it leaves."""
    with pytest.raises(subprocess.CalledProcessError):
        run_python(KILLED, target)
    (leftover,) = (each for each in target.parent.iterdir() if each != target)
    return leftover


def test_a_crash_before_the_rename(target: Path) -> None:
    """Oracle: SIGKILL. The old bytes stay; the leftover is hidden, and goes with the next write."""
    leftover = kill_a_writer(target)
    assert target.read_bytes() == OLD
    assert leftover.name.startswith(".")
    write_whole(target, NEW)
    assert (target.read_bytes(), names(target.parent)) == (NEW, [target.name])


def test_an_empty_leftover_goes_when_it_is_old(target: Path) -> None:
    """Oracle: its age. A young one may be of a writer that is about to lock it."""
    leftover = target.with_name(f".{target.name}.0123456789ab.minimp-tmp")
    leftover.touch()
    write_whole(target, NEW)
    assert leftover.exists()
    os.utime(leftover, (0, time.time() - 2 * whole._SURELY_LOCKED))
    write_whole(target, NEW)
    assert names(target.parent) == [target.name]


@pytest.mark.parametrize("before", ["open", "flock", "write", "fsync", "replace"])
def test_a_writer_between_the_steps_of_another(
    target: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """Oracle: a second writer comes before each step of the first; both finish, and nothing is left."""
    owner = fcntl if before == "flock" else os
    real = getattr(owner, before)

    def interrupted(*given: object, **named: object) -> object:
        monkeypatch.setattr(owner, before, real)
        write_whole(target, b"from the second")
        return real(*given, **named)

    monkeypatch.setattr(owner, before, interrupted)
    write_whole(target, NEW)
    assert (target.read_bytes(), names(target.parent)) == (NEW, [target.name])


def test_only_leftovers_are_removed(target: Path) -> None:
    """Oracle: an old file of a living writer (it has its lock), one of another target, one of the user's."""
    mine = target.with_name(f".{target.name}.notes.tmp")
    other = target.with_name(".other.json.0123456789ab.minimp-tmp")
    alive = target.with_name(f".{target.name}.0123456789ab.minimp-tmp")
    for each in (mine, other, alive):
        each.write_bytes(OLD)
        os.utime(each, (0, 0))
    with alive.open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        write_whole(target, NEW)
    assert names(target.parent) == sorted(each.name for each in (mine, other, alive, target))


def test_a_slow_writer_is_not_robbed(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a second writer comes while the first has long not moved; both finish, the first one last."""
    real = os.write

    def write(handle: int, data: memoryview) -> int:
        monkeypatch.setattr(whole.os, "write", real)
        os.utime(handle, (0, 0))
        write_whole(target, b"from the second")
        return real(handle, data)

    monkeypatch.setattr(whole.os, "write", write)
    write_whole(target, NEW)
    assert (target.read_bytes(), names(target.parent)) == (NEW, [target.name])


def test_readers_find_the_old_file_or_the_new_one(target: Path) -> None:
    """Oracle: four readers while two writers replace the file: each read is one writer's whole content."""
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    write_whole(target, contents[0])
    stop, seen, faults = threading.Event(), set(), []

    def write(content: bytes) -> None:
        for _ in range(25):
            write_whole(target, content)

    def read() -> None:
        while not stop.is_set():
            found = read_whole(target)
            if found in contents:
                seen.add(found[:1])
            else:
                faults.append(found)

    readers = [threading.Thread(target=read) for _ in range(4)]
    writers = [threading.Thread(target=write, args=(each,)) for each in contents]
    for each in (*readers, *writers):
        each.start()
    for each in writers:
        each.join()
    stop.set()
    for each in readers:
        each.join()
    assert not faults
    assert seen
    assert names(target.parent) == [target.name]
