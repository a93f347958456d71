"""The disk cache of compiled kernels: whole entries or none, and no failure of the disk is one of ours."""

from __future__ import annotations

import copy
import hashlib
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from minimp_backends.kernels import cache, sources
from minimp_backends.kernels.nvrtc import Compiler

KEY = hashlib.sha256(b"one").hexdigest()
OTHER = hashlib.sha256(b"two").hexdigest()
DATA = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    return tmp_path / "kernels"


def never() -> bytes:
    """Compile what should have been found."""
    pytest.fail("compiled again")


def test_an_entry_is_made_once(place: Path) -> None:
    """Oracle: the bytes, and a second call that may not compile; another key is another entry."""
    first = cache.fetch(KEY, lambda: DATA)
    assert first.data == DATA
    assert first.path is not None
    assert first.path.read_bytes() == DATA
    assert cache.fetch(KEY, never) == first
    assert cache.fetch(OTHER, lambda: b"other").data == b"other"
    assert [path.suffix for path in place.iterdir()] == [".bin", ".bin"]


@pytest.mark.parametrize("damage", [b"", DATA[:-1], DATA + b"\0", b"\0" + DATA[1:]])
def test_a_damaged_entry_is_made_again(place: Path, damage: bytes) -> None:
    """Oracle: the bytes of the second compilation; the damaged file is gone or whole."""
    (path,) = [cache.fetch(KEY, lambda: DATA).path]
    assert path is not None
    path.write_bytes(damage)
    assert cache.fetch(KEY, lambda: DATA).data == DATA
    assert cache.fetch(KEY, never).data == DATA
    path.rename(path.with_stem(path.stem[:-1] + "0"))  # an entry under another hash
    assert cache.fetch(KEY, lambda: DATA[::-1]).data == DATA[::-1]
    assert len(list(place.iterdir())) == 1


def test_a_failure_to_compile_leaves_nothing(place: Path) -> None:
    """Oracle: an empty folder, and the error itself."""

    def fails() -> bytes:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cache.fetch(KEY, fails)
    assert not place.exists() or not list(place.iterdir())


@pytest.mark.parametrize("when", ["mkdir", "write", "replace"])
def test_a_full_disk_is_no_failure_but_is_told(
    monkeypatch: pytest.MonkeyPatch, place: Path, when: str
) -> None:
    """Oracle: ENOSPC at each step of writing: the bytes come back, the warning names folder and reason."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    target = {"mkdir": (Path, "mkdir"), "write": (os, "fdopen"), "replace": (Path, "replace")}[when]
    monkeypatch.setattr(*target, full)
    with pytest.warns(UserWarning, match=rf"could not be kept in {place} \(No space left.*{cache.VARIABLE}"):
        kept = cache.fetch(KEY, lambda: DATA)
    assert kept == cache.Kept(DATA, None)
    assert not place.exists() or not list(place.iterdir())


def test_a_cache_that_is_a_file_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Oracle: MINIMP_CACHE names a file."""
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="could not be kept"):
        assert cache.fetch(KEY, lambda: DATA).path is None


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: pathlib's own error where $HOME is not set and nobody has this user's number."""
    for name in (cache.VARIABLE, "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(RuntimeError, match="home"):
        Path.home()
    with pytest.warns(UserWarning, match=rf"the user's cache \(.*home.*{cache.VARIABLE}"):
        assert cache.fetch(KEY, lambda: DATA) == cache.Kept(DATA, None)


def test_what_another_process_made_stays(place: Path) -> None:
    """Oracle: two processes that miss at once and compile to different bytes: both files are there."""
    made = []

    def late() -> bytes:
        made.append(cache.fetch(KEY, lambda: DATA))
        return DATA[::-1]

    made.append(cache.fetch(KEY, late))
    assert [each.path.read_bytes() for each in made if each.path] == [DATA, DATA[::-1]]
    assert len(list(place.iterdir())) == 2
    assert cache.fetch(KEY, never).data in (DATA, DATA[::-1])


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Oracle: the XDG base directory specification, under MINIMP_CACHE."""
    assert cache.folder() == tmp_path / "kernels"
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.folder() == Path("/somewhere/minimp/kernels")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache.folder() == Path("/home/somebody/.cache/minimp/kernels")


def test_writers_at_once_leave_one_whole_entry(place: Path) -> None:
    """Oracle: eight threads that compile the same; each gets the bytes, and one file is left."""
    gate = threading.Barrier(8)
    got: list[bytes] = []

    def write() -> None:
        gate.wait()
        got.append(cache.fetch(KEY, lambda: DATA).data)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [DATA] * 8
    assert len(list(place.iterdir())) == 1


def test_the_key_holds_what_the_bytes_depend_on(compiler: Compiler, tmp_path: Path) -> None:
    """Oracle: each input changed alone changes the key; the same inputs keep it."""
    source = sources.read("checking.cu")
    headers = dict(source.headers)
    headers["many.cuh"] += "\n"
    (tmp_path / "libnvrtc.so.12").write_bytes(b"another release")
    later = copy.copy(compiler)
    later.toolkit = replace(compiler.toolkit, library=tmp_path / "libnvrtc.so.12")
    keys = [
        compiler.key(source, 90, "cubin"),
        compiler.key(source, 90, "ptx"),
        compiler.key(source, 80, "cubin"),
        compiler.key(replace(source, text=source.text + "\n"), 90, "cubin"),
        compiler.key(replace(source, headers=headers), 90, "cubin"),
        compiler.key(source, 90, "cubin", ("--ftz=true",)),
        later.key(source, 90, "cubin"),
    ]
    assert len(set(keys)) == len(keys)
    assert compiler.key(sources.read("checking.cu"), 90, "cubin") == keys[0]
