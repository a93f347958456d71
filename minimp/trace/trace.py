"""Trace: what was recorded, and the questions that it answers."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minimp.displays.elements import counted
from minimp.displays.tables import trace_html
from minimp.errors import DataError
from minimp.files import AnyPath, write_whole
from minimp.formats import Format
from minimp.trace.choosing import choose
from minimp.trace.chrome import chrome_json
from minimp.trace.events import Span, TraceEvent
from minimp.trace.folders import Folder, read_folder
from minimp.trace.questions.chains import NonFinite, first_nonfinite, overflowed_by_scale
from minimp.trace.questions.counting import counts_table, swallowed_table
from minimp.trace.questions.diffs import Divergence, divergence
from minimp.trace.questions.errors import amplifiers_table, errors_table
from minimp.trace.questions.gradient_scales import GradientScales, gradients_at_scales
from minimp.trace.questions.ranges import overflow_table, underflow_table
from minimp.trace.questions.tables import Table
from minimp.trace.reporting import has_statistics, report_html
from minimp.trace.stores import Kept, Store
from minimp.trace.tensorboard import write_tensorboard

__all__ = ["Trace", "load"]

UNTOLD = "what ops flushed to 0 is not known: another framework's"
NOTHING = "no operation ran in the block; layers that work on codes are none, and leave no events"


class Trace:
    """Events in the order in which they happened; made by :class:`minimp.trace.record` and :func:`load`.

    Attributes:
        info: `settings` (of `record`), `steps` (training steps seen), `notes` (op -> why it has no shadow).
    """

    def __init__(self, store: Store, info: Mapping[str, Any] | None = None) -> None:
        self._store = store
        self.info: dict[str, Any] = dict(info or {})

    # ---- what is there ----------------------------------------------------------------------------------

    @property
    def events(self) -> list[TraceEvent]:
        """The events that are there, oldest first; a ring has let go of older ones."""
        return self._store.events()

    @property
    def spans(self) -> list[Span]:
        """The times of modules and stages, in the order in which they ended."""
        return self._store.spans()

    @property
    def dropped(self) -> int:
        """How many events are no longer there (record(keep=...))."""
        return self._store.dropped

    def values(self, event: TraceEvent | int) -> Kept:
        """Return the values kept of an event: "in0", "out0", ... -> array; of sampled ones, what was taken.

        An input that another event made is kept there, as its output.
        """
        return self._store.values(event if isinstance(event, int) else event.number)

    def select(
        self, *, phase: str | None = None, op: str | None = None, module: str | None = None,
        stage: str | None = None, step: int | None = None,
        condition: Callable[[TraceEvent], Any] | None = None,
    ) -> list[TraceEvent]:  # fmt: skip
        """Return the events of one phase, op, module or stage (patterns as of a shell), or step."""
        choice = choose(op, module, stage, step)
        return [
            event
            for event in self.events
            if choice.takes(event.op, event.module, event.stage, event.step)
            and (phase is None or event.phase == phase)
            and (condition is None or condition(event))
        ]

    @property
    def _is_foreign(self) -> bool:
        """Whether another framework computed: only results of ops were seen."""
        return "framework" in self.info.get("settings", {})

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[TraceEvent]:
        return iter(self.events)

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        """Whether everything is the same: events, times, values to the bit."""
        if not isinstance(other, Trace):
            return NotImplemented
        ours, theirs = self.events, other.events
        return (
            (self.info, self.dropped, ours, self.spans) == (other.info, other.dropped, theirs, other.spans)
            and all(_same(self.values(event), other.values(event)) for event in ours)
        )  # fmt: skip

    __hash__ = None  # type: ignore[assignment]  # it grows while it is recorded

    def _repr_html_(self) -> str:
        return trace_html(self)

    def __str__(self) -> str:
        events = self.events
        counts = {phase: sum(event.phase == phase for event in events)
                  for phase in ("forward", "recompute", "backward", "stage")}  # fmt: skip
        told = ", ".join(f"{count:,} {phase}" for phase, count in counts.items() if count)
        steps = counted(self.info.get("steps", 0), "step")
        lines = [f"trace of {counted(len(events), 'event')} ({told or 'none'}), {steps}"]
        if self.dropped:
            lines.append(f"  {counted(self.dropped, 'older event')} let go")
        if has_statistics(events):
            flushed = sum(event.flushed for event in events)
            burst = sum(event.overflowed for event in events)
            told = UNTOLD if self._is_foreign else f"{counted(flushed, 'result')} flushed to 0"
            lines.append(f"  {told}, {burst:,} overflowed")
            first = first_nonfinite(events)
            looked = [side.stats is not None for e in events for side in e.outputs if side is not None]
            seen = "" if all(looked) else " that were looked at"
            lines.append(
                f"  all values{seen} are finite" if first is None else f"  {str(first).splitlines()[0]}"
            )
        elif events:
            lines.append("  no statistics were taken: whether anything went wrong is not known")
        else:
            lines.append(f"  {NOTHING}")
        return "\n".join(line if len(line) <= 100 else line[:97] + "..." for line in lines)

    # ---- questions --------------------------------------------------------------------------------------

    def first_nonfinite(self) -> NonFinite | None:
        """Return the first value that is infinite or NaN, with its cause and what led to it; None if none is.

        Ops whose statistics were not taken are passed over.
        """
        return first_nonfinite(self.events)

    def underflow(self, by: str = "op") -> Table:
        """Return where non-zero results became 0, and subnormal: by "op", "module", "stage", "step", "place".

        Without a shadow, what an op computed (in float32) is compared with what it stored; ops on wider
        formats are looked into where their inputs tell an honest zero (mul, div, exp, sigmoid). With one,
        float64 is what counts.

        Raises:
            SettingError: an unknown grouping.
        """
        found = underflow_table(self.events, by)
        return replace(found, notes=(*found.notes, UNTOLD)) if self._is_foreign else found

    def overflow(self, by: str = "op") -> Table:
        """Return where finite inputs became infinite; groups and errors as :meth:`underflow`."""
        return overflow_table(self.events, by)

    def gradients_at_scales(
        self, *, by: str = "place", into: Format | str | None = None, source: str = "recorded"
    ) -> GradientScales:
        """Return what each gradient would lose at every power-of-two loss scale, and the range without loss.

        Args:
            by: "place": each gradient that an op made, of activations and weights; "parameter": the
                parameters' gradients as a training step found them after backward.
            into: the format that they must fit. None: each its own, of those in 16 bits; float16 where all
                are wider.
            source: "recorded": the numbers that were there, after their rounding; "shadow": as they would be
                in float64, what was lost on the way included.

        Raises:
            SettingError: there are none, or their histograms were not made for that format; or a step used a
                scale that is no power of two.
        """
        return gradients_at_scales(self.events, by=by, into=into, source=source)

    def finite_at_one(self) -> list[TraceEvent]:
        """Return the gradients that overflowed at the loss scale of their step, and would not at 1."""
        return overflowed_by_scale(self.events)

    def swallowed(self) -> Table:
        """Return, of each parameter, the updates that left its stored weight as it was (w + delta == w)."""
        return swallowed_table(self.events)

    def errors(self, by: str = "op") -> Table:
        """Return the errors against float64, made and inherited; groups as :meth:`underflow`.

        Raises:
            SettingError: the trace has no shadow.
        """
        return errors_table(self.events, by, self.info.get("notes", ()))

    def amplifiers(self) -> Table:
        """Return the events by what they multiplied the relative error of their inputs with, most first.

        Raises:
            SettingError: the trace has no shadow.
        """
        return amplifiers_table(self.events, self.info.get("notes", ()))

    def counts(self) -> Table:
        """Return how many events there are of each op in each format."""
        return counts_table(self.events)

    def diff(self, other: Trace, *, ulps: float = 0.0, at: str = "element") -> Divergence:
        """Put another trace of the same program beside this one; `.first` is where they part.

        Events are paired by op, module, shape and order. Where both traces kept values, all elements are
        compared; else extremes and counts, which is less.

        Args:
            other: another recipe, backend, version or framework (:class:`minimp.frameworks.record_torch`).
            ulps: so far apart results may be and count as the same.
            at: "element": an ulp is that of each element, so that what is left of a cancellation counts in
                full; "largest": that of the array's largest element, which other orders of summation move by
                few.

        Raises:
            SettingError: `at` is neither.
        """
        return divergence(self.events, other.events, self.values, other.values, ulps, at)

    # ---- files ------------------------------------------------------------------------------------------

    def save(self, path: AnyPath) -> Path:
        """Write the trace to a new folder, whole or not at all; :mod:`minimp.trace.folders` has the layout.

        A trace that was spilled to a folder is there already: saving it elsewhere copies it.

        Raises:
            DataError: the folder exists, or cannot be written.
        """
        target = Path(path)
        if isinstance(self._store, Folder) and target.resolve() == self._store.path.resolve():
            return target
        if target.exists():
            raise DataError(f"{target}: it exists already", op="trace.save", help="name a new folder")
        try:
            made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        except OSError as fault:
            raise DataError(
                f"{target}: {fault.strerror}", op="trace.save", help="name one in a folder that exists"
            ) from fault
        folder = Folder(made)
        try:
            folder.dropped = self.dropped
            for event in self.events:
                folder.add(event, self.values(event))
            for span in self.spans:
                folder.add_span(span)
            folder.finish(self.info)
            made.chmod(0o755)
            os.rename(made, target)
        except BaseException:
            folder.close()
            shutil.rmtree(made, ignore_errors=True)
            raise
        return target

    def chrome(self, path: AnyPath) -> Path:
        """Write the trace for ui.perfetto.dev and chrome://tracing: stages, modules and ops over time.

        The recorder's own work is not in the times; an op's includes what Python did since the one before.

        Raises:
            DataError: the file cannot be written.
        """
        write_whole(path, chrome_json(self.events, self.spans), op="trace.chrome")
        return Path(path)

    def tensorboard(self, logdir: AnyPath) -> Path:
        """Write scalars and histograms for TensorBoard; :mod:`minimp.trace.tensorboard` lists the tags.

        Raises:
            SettingError: tensorboardX is not installed.
            DataError: the folder cannot be written to.
        """
        write_tensorboard(self.events, logdir)
        return Path(logdir)

    def report(
        self, path: AnyPath, *, title: str = "Recording", notes: str = "", memory: Any = None,
        checks: Mapping[str, Any] | None = None,
    ) -> Path:  # fmt: skip
        """Write the trace as one HTML page that works offline, smaller than 3 MB, whole or not at all.

        Args:
            path: the file to write.
            title: the heading of the page.
            notes: paragraphs of yours below it, one a line.
            memory: what `minimp.memory.ledger` returned, or cause -> bytes; None leaves that part out.
            checks: stage -> what its check found:
                ``{stage.name: stage.check() for stage in step.stages(x, y)}``.

        Raises:
            SettingError: Jinja2 is not installed.
            DataError: the file cannot be written.
        """
        html = report_html(self, title=title, notes=notes, memory=memory, checks=checks)
        write_whole(path, html, op="trace.report")
        return Path(path)


def load(path: AnyPath) -> Trace:
    """Read a trace that was saved or spilled, all of it; nothing in it is ever executed.

    Raises:
        DataError: it is no trace, is not whole, was changed, or a newer minimp wrote it.
    """
    return Trace(*read_folder(path))


def _same(ours: Kept, theirs: Kept) -> bool:
    return ours.keys() == theirs.keys() and all(
        array.dtype == theirs[name].dtype
        and array.shape == theirs[name].shape
        and np.ascontiguousarray(array).tobytes() == np.ascontiguousarray(theirs[name]).tobytes()
        for name, array in ours.items()
    )
