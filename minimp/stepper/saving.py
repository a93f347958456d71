"""What a session found, as a script that shows it again, or as a test."""

from __future__ import annotations

import os
import pprint
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minimp.errors import DataError, SettingError
from minimp.files import AnyPath, write_whole
from minimp.stepper.goals import goal_named

if TYPE_CHECKING:
    from minimp.stepper.session import Session
    from minimp.trace.events import TraceEvent

__all__ = ["facts_of", "save_finding"]

SCRIPT = '''"""{title}: {what}.

Run it to see it again.
"""

{imports}from minimp import stepper

with {source} as session:
{edits}    {move}
    prompt = stepper.Prompt(session)
{shows}'''

GONE = '''"""{title}: {what}.

The test fails while this is so, and passes once it is mended.
"""

{imports}from minimp import stepper


def test_{name}() -> None:
    """Nothing meets the condition in {steps}: {asked}."""
    with {source} as session:
{edits}        found = session.search({condition!r}, steps={count})
        assert found is None, str(found)
'''

KEPT = '''"""{title}: {what}.

The test passes while this is so.
"""

{imports}from minimp import stepper

SEEN = {seen}


def test_{name}() -> None:
    """What the session saw is there again: names, formats, shapes and counts."""
    with {source} as session:
{edits}        {move}
        assert session.moment is not None
        assert stepper.facts_of(session.moment.event) == SEEN
'''


ESCAPES = {'"': '\\"', "\\": "\\\\"}


def facts_of(event: TraceEvent) -> dict[str, Any]:
    """Return what a saved test holds an event to: names, formats, shapes, and counts of what was lost.

    No sums are among it: their last bits differ from machine to machine.
    """
    sides = [side for side in event.outputs if side is not None]
    return {
        "op": event.op, "phase": event.phase, "module": event.module, "stage": event.stage,
        "formats": [side.format for side in sides], "shapes": [list(side.shape) for side in sides],
        "flushed": event.flushed, "overflowed": event.overflowed, "nonfinite": event.nonfinite,
    }  # fmt: skip


def save_finding(session: Session, path: AnyPath, *, as_seen: bool = False) -> Path:
    """Write what the session found: a test where the file's name begins with `test_`, else a script.

    A test fails while the condition of the last `run` is met, and passes once it no longer is. With `as_seen`
    it is the other way round: it passes while the op, gradient or stage is as the session sees it now.

    Args:
        session: it must know how it was made (`Session.source`).
        path: a new file, ending in .py.
        as_seen: as above.

    Raises:
        SettingError: the session cannot be made again; there is nothing to save; a test without a condition,
            or of one that is a function.
        DataError: the file exists, or cannot be written.
    """
    file = Path(path)
    if not session.source:
        raise SettingError(
            "this session does not know how it was made, so that no file could make it again",
            op="save", help="make it with source='...', the code that does",
        )  # fmt: skip
    if session.moment is None:
        raise SettingError("no stage has run: there is nothing to save", op="save")
    if file.suffix != ".py":
        raise SettingError(f"expected a file that ends in .py, got {file.name!r}", op="save")
    if file.exists():
        raise DataError(f"{file}: it exists already", op="save", help="name a new file")
    is_test = file.name.startswith("test_")
    if as_seen and not is_test:
        raise SettingError("as-seen makes a test: let the file's name begin with test_", op="save")
    if is_test and not as_seen and session.finding is None:
        raise SettingError(
            "a test asks that a condition be met no more, and the last command found none",
            op="save", help="run to a condition first, or save as-seen",
        )  # fmt: skip
    if is_test and not as_seen and session.finding is not None:
        _require_text(session.finding.condition)
    write_whole(file, _text(session, file, is_test=is_test, as_seen=as_seen), op="save")
    return file


def _require_text(condition: str) -> None:
    """Refuse a condition that a file could not ask again.

    Raises:
        SettingError: it was a function.
    """
    try:
        goal_named(condition)
    except SettingError as fault:
        raise SettingError(
            f"the condition {condition} is a function, which no file can hold",
            op="save", help="write it as text, or save as-seen",
        ) from fault  # fmt: skip


def _text(session: Session, file: Path, *, is_test: bool, as_seen: bool) -> str:
    moment, run, found = session.moment, session.run, session.finding
    assert moment is not None
    assert run is not None
    event = moment.event if as_seen or found is None else found.event
    indent = " " * (8 if is_test else 4)
    edits = "".join(f"{indent}{line}\n" for each in session.edits for line in _edit_lines(each))
    imports, inside = _where(session.folder, file)
    parts = {
        "imports": imports,
        "title": _quoted(session.title), "source": inside + session.source, "edits": edits,
        "what": _quoted(f"step {event.step}, stage {event.stage}, {event.title}"
                        + (f" in {event.module}" if event.module else "")),
        "name": "".join(c if f"_{c}".isidentifier() else "_" for c in file.stem.removeprefix("test_"))
        or "finding",
        "move": f"session.go_to({session.number}, {run.done}, {session.cursor})",
    }  # fmt: skip
    if not is_test:
        asked = ["where", "show", *(["why"] if session.why() is not None else [])]
        return SCRIPT.format(**parts, shows="".join(f"    print(prompt.do({each!r}))\n" for each in asked))
    if as_seen:
        seen = pprint.pformat(facts_of(event), sort_dicts=False, width=96)
        return KEPT.format(**parts, seen=seen)
    assert found is not None
    count = found.event.step
    asked_for = {"condition": found.condition, "asked": _quoted(found.condition)}
    return GONE.format(**parts, **asked_for, count=count, steps="1 step" if count == 1 else f"{count} steps")


def _where(folder: Path | None, file: Path) -> tuple[str, str]:
    """Return imports and the beginning of a `with`, by which a file goes to the folder of the session."""
    if folder is None:
        return "", ""
    imports = "from contextlib import chdir\nfrom pathlib import Path\n\n"
    try:
        way = os.path.relpath(folder, file.resolve().parent)
    except ValueError:  # another drive
        return imports, f"chdir({str(folder)!r}), "
    here = "Path(__file__).resolve().parent"
    return imports, f"chdir({here if way == '.' else f'{here} / {Path(way).as_posix()!r}'}), "


def _quoted(text: str) -> str:
    """Return a text as it stands inside a docstring: no quote ends it, and no backslash means more."""
    return "".join(
        c if c.isprintable() and c not in '"\\' else ESCAPES.get(c) or ascii(c)[1:-1] for c in text
    )


def _edit_lines(edit: Any) -> list[str]:
    given = f"{edit.kind!r}, {edit.words!r}, step={edit.step}, stages={edit.stages}"
    return [f"session.edits.append(stepper.Edit({given}))"]
