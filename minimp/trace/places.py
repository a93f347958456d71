"""Where a thread is while it is recorded, and what the recorder knows of arrays and of ops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minimp.trace.events import Span
from minimp.trace.sites import ModuleStack
from minimp.trace.statistics import Stats

if TYPE_CHECKING:
    from minimp.trace.recorder import Recorder

__all__ = ["Here", "OpInfo", "Origin"]


@dataclass(slots=True)
class Origin:
    """What made an array, and its statistics."""

    number: int | None
    stats: Stats | None


@dataclass(slots=True)
class OpInfo:
    """What a gradient wants to know of its op's event."""

    number: int
    module: str
    source: str
    clean: bool


class Here:
    """Where one thread is: its module, its stage, and when its last event ended."""

    def __init__(self, thread: int, recorder: Recorder) -> None:
        self.thread = thread
        self.stage, self.step, self.last = "", 0, recorder.clock()
        self.running: Any = None  # the TrainStep
        self.began: list[tuple[str, str, int]] = []
        self.recorder = recorder
        self.modules = ModuleStack(recorder.names, self.enter, self.leave)

    def enter(self, name: str, kind: str = "module") -> None:
        """Take the time at which a module or stage begins."""
        self.last = max(self.recorder.clock(), self.last)
        self.began.append((kind, name, self.last))

    def leave(self, name: str, kind: str = "module", end: int | None = None) -> None:
        """Keep the time that it took, until now or until `end`."""
        self.last = max(self.recorder.clock() if end is None else end, self.last)
        while self.began:
            what, which, start = self.began.pop()
            if (what, which) == (kind, name):
                self.recorder.store.add_span(Span(kind, name, start, self.last, self.thread))
                return
