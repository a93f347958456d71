"""The listener and watcher that writes the lines."""

from __future__ import annotations

from contextlib import ExitStack
from threading import local
from typing import Any
from weakref import WeakKeyDictionary

from minimp.backend import get_backend
from minimp.ladder import steps
from minimp.ladder.lines import cast_line, flow, nonfinite, op_line, shape_flow, values_line, write
from minimp.modes import MODES
from minimp.nn import Module
from minimp.policy import format_of
from minimp.quiet import hush, speak
from minimp.scaler import ScaleState
from minimp.tape import Array, Event, Node, Value
from minimp.trace.roundings import Roundings, counting, watch_roundings
from minimp.trace.sites import Modules, ModuleStack, hook_modules, user_line
from minimp.trace.statistics import Stats
from minimp.trace.tallies import stats_of

__all__ = ["Ladder", "Memory"]

PHASES = {"forward": "fwd", "backward": "bwd"}
STEPS: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""TrainStep or scaler -> how many of its steps ladders have seen."""


class Memory:
    """What a ladder remembers: names, and where each recorded op was called."""

    def __init__(self) -> None:
        self.names = Modules()
        self.calls: WeakKeyDictionary[Node, tuple[str, str]] = WeakKeyDictionary()


class Ladder:
    """Writes what it hears of, one line an event.

    Args:
        level: how much, a key of :data:`minimp.ladder.LEVELS`.
        memory: what an earlier ladder of the same block remembered.
    """

    def __init__(self, level: int, memory: Memory | None = None) -> None:
        self.level, self.memory = level, memory or Memory()
        self._here = local()

    def attach(self, stack: ExitStack) -> None:
        """Hear of modules and of roundings too, as far as the level needs them, until `stack` is closed."""
        if self.level >= 2:
            stack.callback(hook_modules(self._enter_module, self._leave_module))
        if self.level >= 3:
            stack.enter_context(counting(self._roundings))
            watch_roundings(get_backend(MODES.get().backend))

    @property
    def _modules(self) -> ModuleStack:
        """The modules that run in this thread."""
        if not hasattr(self._here, "modules"):
            self._here.modules = ModuleStack(self.memory.names, _nothing, _nothing)
        found: ModuleStack = self._here.modules
        return found

    @property
    def _roundings(self) -> Roundings:
        """What was rounded in this thread since the last event."""
        if not hasattr(self._here, "roundings"):
            self._here.roundings = Roundings()
        found: Roundings = self._here.roundings
        return found

    def _enter_module(self, module: Module) -> None:
        self._modules.push(module)

    def _leave_module(self, module: Module) -> None:
        self._modules.pop(module)

    # ---- ops and gradients ------------------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        """Write an op or a gradient (a listener)."""
        if not event.node.backend.has_values:  # a forecast: there are no numbers
            return
        token = hush()
        try:
            self._write(event)
        finally:
            self._roundings.forget()  # each holds an array
            speak(token)

    def _write(self, event: Event) -> None:
        node, cast = event.node, event.node.op.name == "cast"
        backward = event.phase == "backward"
        module, source = self.memory.calls.get(node, ("", "")) if backward else self._called(node)
        if not cast and self.level < 3:
            return
        place = f"in {module}" if module else ""
        phase = "re " if not backward and event.modes.recomputing else PHASES[event.phase]
        came = [each for each in event.inputs if hasattr(each, "dtype")]
        made = [
            each
            for i, each in enumerate(event.outputs)
            if each is not None and not (backward and i < len(node.inputs) and node.inputs[i] is None)
        ]
        formats = flow([_name(each) for each in came], [_name(each) for each in made])
        shapes = shape_flow([each.shape for each in came], [each.shape for each in made])
        known = [_stats(each, node.backend) for each in made]
        amax = max((each.amax for each in known if each.amax is not None), default=None)
        if cast:
            where = self._leaf(node) or place
            write(cast_line(phase, formats, shapes, amax, _made(came, known, node.backend), where))
        else:
            notes = self._notes(made, known, node.backend)
            write(op_line(phase, node.op.name, formats, shapes, amax, notes, place))
        if self.level >= 4:
            for i, each in enumerate(made):
                host = node.backend.to_host(node.backend.wide(each) if format_of(each.dtype) else each)
                label = f"{i + 1} of {len(made)} " if len(made) > 1 else ""
                write(values_line(phase, node.op.name, label, host, source))

    def _called(self, node: Node) -> tuple[str, str]:
        """Return the module and the line of code that called an op, and remember them for its gradient."""
        found = (self._modules.path, user_line() if self.level >= 4 else "")
        if node.recording:
            self.memory.calls[node] = found
        return found

    def _leaf(self, node: Node) -> str | None:
        """Return the name of the parameter that is cast, or None."""
        edge = node.inputs[0]
        return self.memory.names.leaf(edge) if isinstance(edge, Value) else None

    def _notes(self, made: list[Array], known: list[Stats], backend: Any) -> list[str]:
        """Return what an op's rounding made, and what is not finite in its results."""
        watch_roundings(backend)
        flushed = burst = 0
        for array, stats in zip(made, known, strict=True):
            rounded = self._roundings.of(array)
            if rounded is not None and rounded.array.size == stats.size:
                flushed += max(stats.zeros - rounded.zeros, 0)
                burst += max(stats.inf - rounded.infinite, 0)
        infinite, nan = sum(each.inf for each in known), sum(each.nan for each in known)
        bad = nonfinite(infinite, nan) if nan or infinite > burst else ""
        counts = f"made {flushed:,} zeros {burst:,} infs" if flushed or burst else ""
        return [counts, f"holds {bad}" if bad else ""]

    # ---- steps and loss scales --------------------------------------------------------------------------

    def begin_stage(self, step: Any, name: str, state: Any) -> None:
        """Write that a stage begins (a watcher)."""
        if not state.backend.has_values:
            return
        if name == "cast_weights" and self.memory.names.path(step.model) is None:
            self.memory.names.add(step.model)
        if self.level >= 3:
            write(f"minimp 3 stage {name}")

    def end_stage(self, step: Any, name: str, state: Any, tensors: Any) -> None:
        """Write what became of a step (a watcher)."""
        if not state.backend.has_values:
            return
        if tensors is None:
            write(f"minimp 1 step  {_count(step):<5} ended by an error in stage {name}")
        elif name == "update":
            token = hush()
            try:
                for line in steps.of_train_step(_count(step), step, state):
                    write(line)
            finally:
                speak(token)
        elif name == "update_scale":
            for line in steps.of_layers(step.scaler):
                write(line)

    def scaler_stepped(self, scaler: Any, optimizer: Any, report: Any) -> None:
        """Write what a scaler did with an optimizer in a loop of the user's own (a watcher)."""
        token = hush()
        try:
            for line in steps.of_scaler(_count(scaler), scaler, optimizer, report):
                write(line)
        finally:
            speak(token)

    def scale_moved(self, scale: Any, before: ScaleState, after: ScaleState) -> None:
        """Write where a loss scale went, if it went anywhere (a watcher)."""
        for line in steps.of_scale(scale, before, after):
            write(line)


def _count(what: Any) -> int:
    """Return the number of this step of a TrainStep or scaler, from 1."""
    STEPS[what] = STEPS.get(what, 0) + 1
    return STEPS[what]


def _nothing(_: str) -> None:
    """Take no note."""


def _name(array: Array) -> str:
    form = format_of(array.dtype)
    return str(array.dtype) if form is None else form.name


def _stats(array: Array, backend: Any) -> Stats:
    return stats_of(backend, array, format_of(array.dtype))


def _made(came: list[Array], known: list[Stats], backend: Any) -> tuple[int, int, int]:
    """Return the zeros, infinities and NaNs that a cast made."""
    before = [_stats(each, backend) for each in came[: len(known)]]
    pairs = list(zip(before, known, strict=False))
    return (
        sum(after.zeros - was.zeros for was, after in pairs),
        sum(after.inf - was.inf for was, after in pairs),
        sum(after.nan - was.nan for was, after in pairs),
    )
