"""`with mp.trace.record() as trace:`"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from minimp.backend import get_backend
from minimp.errors import SettingError
from minimp.files import AnyPath
from minimp.modes import MODES, listen, watch
from minimp.nn import Module
from minimp.tape import Event
from minimp.trace.choosing import choose
from minimp.trace.events import TraceEvent
from minimp.trace.folders import Folder
from minimp.trace.recorder import Recorder
from minimp.trace.roundings import counting, watch_roundings
from minimp.trace.shadow import Shadow
from minimp.trace.sites import hook_modules
from minimp.trace.stores import Memory, Store
from minimp.trace.trace import Trace
from minimp.trace.values import Values, chosen

__all__ = ["record"]


class record:  # noqa: N801 - reads as a statement: `with record() as trace:`
    """Record every op, cast, gradient and stage that runs in the block; the trace can be read at any time.

    >>> import minimp as mp
    >>> from minimp.trace import record
    >>> x = mp.tensor([300.0, 2.0], dtype=mp.float16, requires_grad=True)
    >>> with record() as trace:
    ...     y = (x * x).sum()
    >>> print(trace.overflow().column("op"))
    ['mul']

    What is computed is the same bits as without. Blocks may be nested. A recording is of the thread or task
    that opened it, and of those that run in a copy of its context (`contextvars.copy_context`).

    Args:
        statistics: take statistics of every array.
        shadow: run each op again in float64 too, see :mod:`minimp.trace.shadow`.
        values: "none"; "all"; ``sampled(n)``; or ``when(condition)``.
        ops, modules, stages, steps: take statistics (and shadow and values) of these alone: names or patterns
            as of a shell ("layers.*"), numbers of steps from 1. The other events are written down without.
        keep: keep the newest events only, so many.
        keep_bytes: the same by bytes: values, and about 1500 for each array's record.
        spill: write everything to this new folder instead of keeping it; `load` reads it.
        model: a module whose paths and parameter names events are to have; without it, those of the model of
            a TrainStep, else of the outermost module that is called.

    Raises:
        SettingError: settings that contradict each other, or cannot act.
        DataError: the folder to spill to is not empty, or cannot be made.
    """

    def __init__(
        self, *, statistics: bool = True, shadow: bool = False, values: str | Values = "none",
        ops: str | Iterable[str] | None = None, modules: str | Iterable[str] | None = None,
        stages: str | Iterable[str] | None = None, steps: int | Iterable[int] | None = None,
        keep: int | None = None, keep_bytes: int | None = None, spill: AnyPath | None = None,
        model: Module | None = None,
    ) -> None:  # fmt: skip
        self.choice, self.values = choose(ops, modules, stages, steps), chosen(values)
        if model is not None and not isinstance(model, Module):
            raise SettingError(
                f"model: expected a module, got {type(model).__name__}", op=type(self).__name__
            )
        self.statistics, self.shadow, self.model = statistics, shadow, model
        if not statistics and (shadow or self.values.kind != "none" or not self.choice.everything):
            raise SettingError(
                "shadow, values, ops, modules, stages and steps cannot act without statistics",
                op="trace.record", help="leave statistics on, or leave them out",
            )  # fmt: skip
        if spill is not None and (keep is not None or keep_bytes is not None):
            raise SettingError(
                "keep and keep_bytes cannot act where everything is spilled to a folder", op="trace.record"
            )
        for name, most in (("keep", keep), ("keep_bytes", keep_bytes)):
            if most is not None and most < 1:
                raise SettingError(f"expected {name} to be at least 1, got {most}", op="trace.record")
        self.keep, self.keep_bytes, self.spill = keep, keep_bytes, spill
        self._open: ExitStack | None = None

    judge: Callable[[TraceEvent, Event | None], None] | None = None
    """See :class:`minimp.trace.recorder.Recorder`."""

    def __enter__(self) -> Trace:
        """Begin; a recording is used once."""
        if self._open is not None:
            raise SettingError(
                "this recording has been used", op="trace.record", help="make a new one: trace.record(...)"
            )
        store: Store = Memory(self.keep, self.keep_bytes) if self.spill is None else Folder(self.spill)
        shadow = Shadow() if self.shadow else None
        self._recorder = recorder = Recorder(
            store, statistics=self.statistics, choice=self.choice, values=self.values, shadow=shadow
        )
        if self.model is not None:
            recorder.names.add(self.model)
        recorder.judge = self.judge
        self._trace = Trace(store, self._settings())
        with ExitStack() as stack:
            if self.statistics:
                stack.enter_context(counting(recorder.roundings))
                watch_roundings(get_backend(MODES.get().backend))
            stack.callback(hook_modules(recorder.enter_module, recorder.leave_module))
            stack.enter_context(watch(recorder))
            stack.enter_context(listen(recorder.hear))
            self._open = stack.pop_all()
        return self._trace

    def pause(self) -> None:
        """Write nothing down until :meth:`go_on`; between training steps, not inside of one."""
        self._recorder.paused = self._recorder.roundings.paused = True

    def go_on(self, step: int | None = None) -> None:
        """Write down what comes.

        Args:
            step: the number that the next training step gets; None: one more than the last.
        """
        recorder = self._recorder
        recorder.paused = recorder.roundings.paused = False
        recorder.here().last = recorder.clock()
        if step is not None:
            recorder.steps = step - 1

    def __exit__(self, *exc: object) -> None:
        """End, also by an exception: what was recorded stays readable."""
        assert self._open is not None
        self._open.close()
        recorder = self._recorder
        notes = {} if recorder.shadow is None else recorder.shadow.notes
        self._trace.info |= {"steps": recorder.seen, "notes": dict(sorted(notes.items()))}
        if isinstance(recorder.store, Folder):
            recorder.store.finish(self._trace.info)

    def _settings(self) -> dict[str, Any]:
        settings = {
            "statistics": self.statistics, "shadow": self.shadow, "values": self.values.kind,
            "sampled": self.values.count, "keep": self.keep, "keep_bytes": self.keep_bytes,
            **self.choice.as_dict(),
        }  # fmt: skip
        return {"settings": settings, "steps": 0, "notes": {}}
