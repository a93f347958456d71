"""The listener that turns what the engine tells into the events of a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import frexp, isfinite
from threading import RLock, get_ident
from time import perf_counter_ns
from typing import Any

from minimp.formats import Format, bfloat16, float16, float32
from minimp.modes import MODES
from minimp.nn import Module
from minimp.policy import format_of
from minimp.quiet import hush, speak
from minimp.scaler import LayerwiseScaler
from minimp.tape import Array, Event, Node, Value
from minimp.trace.choosing import Choice
from minimp.trace.events import Link, OpError, Side, TraceEvent
from minimp.trace.identity import ByIdentity
from minimp.trace.loops import Loops, carried_scale, scale_of_loss
from minimp.trace.places import Here, OpInfo, Origin
from minimp.trace.roundings import Roundings, watch_roundings
from minimp.trace.shadow import Judged, Shadow
from minimp.trace.sites import Modules, user_line
from minimp.trace.statistics import Stats, moved, targets_of
from minimp.trace.stores import Store
from minimp.trace.tallies import stats_of, tally_ahead
from minimp.trace.updates import Updates
from minimp.trace.values import Values
from minimp.trace.wide_flushes import flushed_wide

__all__ = ["Recorder"]

NONE: tuple[Any, ...] = ()
MOST_LINKS = 64
"""So many events at most are named that added to one gradient."""


class Recorder(Loops):
    """Hears of ops, gradients, modules and stages, and writes them down.

    Args:
        store: where events go.
        statistics: whether statistics are taken at all.
        choice: of which ops.
        values: which values are kept.
        shadow: the float64 shadow, or None.

    Attributes:
        paused: whether nothing is written down for the time being.
        steps: the number of the last training step that began.
        seen: how many of them were recorded.
        judge: called with each event after it was written down, and with what the engine told of it (None of
            stages); what it raises comes out of the user's code.
    """

    def __init__(
        self, store: Store, *, statistics: bool, choice: Choice, values: Values, shadow: Shadow | None
    ) -> None:
        self.store, self.statistics, self.choice = store, statistics, choice
        self.keeping, self.shadow = values, shadow
        self.names, self.roundings = Modules(), Roundings()
        self.steps = self.seen = self._count = self._busy = 0
        self.paused = False
        self._begin = perf_counter_ns()
        self._lock = RLock()
        self._updates = Updates()
        self._here: dict[int, Here] = {}
        self._origins: ByIdentity[Origin] = ByIdentity()
        self._ops: ByIdentity[OpInfo] = ByIdentity()
        self.judge: Callable[[TraceEvent, Event | None], None] | None = None
        self._given: ByIdentity[tuple[int, ...]] = ByIdentity()

    def clock(self, now: int | None = None) -> int:
        """Return nanoseconds since the recording began, without the recorder's own work.

        Args:
            now: what `perf_counter_ns` gave when that work began, where it is being done.
        """
        return (perf_counter_ns() if now is None else now) - self._begin - self._busy

    def here(self) -> Here:
        """Return where this thread is."""
        found = self._here.get(get_ident())
        if found is None:
            found = self._here[get_ident()] = Here(len(self._here), self)
        return found

    def is_on(self) -> bool:
        """Tell whether this thread or task is recorded: hooks of modules are called in all of them."""
        return not self.paused and any(watcher is self for watcher in MODES.get().watchers)

    def enter_module(self, module: Module) -> None:
        """Take note that a module begins (a hook)."""
        if self.is_on():
            with self._lock:
                self.here().modules.push(module)

    def leave_module(self, module: Module) -> None:
        """Take note that a module has ended (a hook)."""
        if self.is_on():
            with self._lock:
                self.here().modules.pop(module)

    def maker_of(self, array: Array) -> int | None:
        """Return the number of the event that made an array, or None."""
        origin = self._origins.get(array)
        return None if origin is None else origin.number

    def info_of(self, node: Node) -> OpInfo | None:
        """Return what is known of the op that left a node."""
        return self._ops.get(node)

    def step_running(self) -> Any:
        """Return the TrainStep that runs in this thread, or None."""
        return self.here().running

    # ---- ops and gradients ------------------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        """Write one op or gradient down (a listener)."""
        if self.paused:
            return
        start = perf_counter_ns()
        token = hush()
        try:
            with self._lock:
                self._write_op(event, start)
        finally:
            speak(token)
            self._busy += perf_counter_ns() - start

    def _write_op(self, event: Event, now: int) -> None:
        here, node, number = self.here(), event.node, self._count
        end, backward = max(self.clock(now), here.last), event.phase == "backward"
        if self.statistics:
            watch_roundings(node.backend)
        info = self._ops.get(node)
        if backward and info is not None:
            module, source = info.module, info.source
        else:
            module, source = here.modules.path, user_line()
        wanted = self._wants(node, module, here)
        judged = self.shadow.see(event) if self.shadow is not None and wanted else ()
        if wanted and node.op.name != "cast":  # a cast's result may be known by what it was made of
            tally_ahead(self._origins, (*event.inputs, *event.outputs), node.backend, backward)
        inputs = tuple(self._input(event, i, wanted) for i in range(len(event.inputs)))
        clean = _finite(inputs) and (not backward or info is None or info.clean)
        outputs = self._outputs(event, inputs, judged, number, clean, wanted)
        made = TraceEvent(
            number, "recompute" if not backward and event.modes.recomputing else event.phase,
            node.op.name, module, source, here.stage, here.step, inputs, outputs,
            {name: _text(value) for name, value in node.options.items()} if node.options else {},
            node.accumulate, node.number, info.number if backward and info else None,
            here.last, end, here.thread, tuple(None if j is None else j.error for j in judged),
        )  # fmt: skip
        scale = carried_scale(node) if backward else scale_of_loss(event)
        if scale is not None:
            made.facts["loss_scale"] = scale
        if not backward and node.recording:
            self._ops.put(node, OpInfo(number, module, source, clean))
        here.last = end
        self._keep(made, event.inputs, event.outputs, node.backend)
        if self.judge is not None:
            self.judge(made, event)

    def _wants(self, node: Node, module: str, here: Here) -> bool:
        if not self.statistics or not node.backend.has_values:
            return False
        if self.choice.everything:
            return True
        return self.choice.takes(node.op.name, module, here.stage, here.step)

    def _input(self, event: Event, i: int, wanted: bool) -> Side | None:
        array, node = event.inputs[i], event.node
        if not hasattr(array, "dtype"):
            return None
        form, given, links = format_of(array.dtype), None, NONE
        maker = self.maker_of(array)
        if maker is not None:
            links = (maker,)
        if event.phase == "backward":
            links = self._given.pop(node) or links
        else:
            before = event.given[i] if i < len(event.given) else None
            given = None if before is None else before.name
            edge = node.inputs[i] if i < len(node.inputs) else None
            if isinstance(edge, Value):
                links = (self.names.leaf(edge),)
        stats = self._stats(array, form, node.backend, event.phase) if wanted else None
        return Side(_name(form, array), array.shape, stats, links, given)

    def _outputs(
        self, event: Event, inputs: Sequence[Side | None], judged: Sequence[Judged | None], number: int,
        clean: bool, wanted: bool,
    ) -> tuple[Side | None, ...]:  # fmt: skip
        node = event.node
        found: list[Side | None] = []
        for i, array in enumerate(event.outputs):
            edge = node.inputs[i] if event.phase == "backward" and i < len(node.inputs) else None
            if array is None or not hasattr(array, "dtype") or (event.phase == "backward" and edge is None):
                found.append(None)
                continue
            form = format_of(array.dtype)
            stats = self._widened(event, array, form, inputs) if wanted else None
            if wanted and stats is None:
                stats = self._stats(array, form, node.backend, event.phase)
            links: tuple[Link, ...] = ()
            if edge is not None:
                self._given.put(edge, (*(self._given.get(edge) or ())[-MOST_LINKS:], number))
                links = (self.names.leaf(edge),) if isinstance(edge, Value) else ()
            flushed, burst, reach = 0, 0, None
            if stats is not None:
                flushed, burst, reach = self._lost(event, array, stats, inputs, clean)
            if i < len(judged) and (verdict := judged[i]) is not None:
                flushed, burst = verdict.flushed, verdict.overflowed
            self._origins.put(array, Origin(number, stats))
            reach = reach if burst else None
            found.append(Side(_name(form, array), array.shape, stats, links, None, flushed, burst, reach))
        self.roundings.forget()
        return tuple(found)

    def _widened(
        self, event: Event, array: Array, form: Format | None, inputs: Sequence[Side | None]
    ) -> Stats | None:
        """Return the statistics of the result of a cast to a wider format: its input's, moved by nothing."""
        if event.node.op.name != "cast" or form is not float32 or inputs[0] is None:
            return None
        came = inputs[0].stats
        if came is None or format_of(event.inputs[0].dtype) not in (float16, bfloat16):
            return None
        return moved(came, 0, form, array.nbytes)

    def _lost(
        self, event: Event, array: Array, stats: Stats, inputs: Sequence[Side | None], clean: bool
    ) -> tuple[int, int, float | None]:
        """Return how many elements the op made 0, and infinite; and the largest magnitude before rounding."""
        came = inputs[0].stats if event.node.op.name == "cast" and inputs[0] is not None else None
        if came is not None:
            return stats.zeros - came.zeros, stats.inf - came.inf, came.amax
        rounded = self.roundings.of(array)
        if rounded is None or rounded.array.size != array.size:
            wide = array.dtype.itemsize > 2 and stats.zeros
            return flushed_wide(event, array) if wide else 0, stats.inf if clean else 0, None
        burst = stats.inf if clean else max(stats.inf - rounded.infinite, 0)
        return max(stats.zeros - rounded.zeros, 0), burst, rounded.reach

    def _stats(self, array: Array, form: Format | None, backend: Any, phase: str) -> Stats:
        origin = self._origins.get(array)
        targets = targets_of(form) if phase in ("backward", "stage backward") else ()
        if origin is not None and origin.stats is not None and (origin.stats.cuts or not targets):
            return origin.stats
        stats = stats_of(backend, array, form, targets)
        self._origins.put(array, Origin(None if origin is None else origin.number, stats))
        return stats

    def _keep(self, event: TraceEvent, inputs: Sequence[Any], outputs: Sequence[Any], backend: Any) -> None:
        """Give an event to the store, with those of its values that are to be kept."""
        kept = {}
        if self.keeping.kind != "none" and self.keeping.wanted(event) and backend.has_values:
            sides = {"in": (inputs, event.inputs), "out": (outputs, event.outputs)}
            arrays = {
                f"{kind}{i}": backend.to_host(array)
                for kind, (given, known) in sides.items()
                for i, array in enumerate(given)
                if known[i] is not None
            }
            made = {f"in{i}" for i, side in enumerate(event.inputs) if side and len(side.links) == 1
                    and isinstance(side.links[0], int)}  # fmt: skip
            kept = self.keeping.keep(event, arrays, made)
            event = replace(event, values=tuple(kept))
        self._count += 1
        self.store.add(event, kept)

    # ---- stages -----------------------------------------------------------------------------------------

    def begin_stage(self, step: Any, name: str, state: Any) -> None:  # noqa: ARG002 - a watcher's signature
        """Take note that a stage begins (a watcher)."""
        if self.paused:
            return
        with self._lock:
            here = self.here()
            if name == "cast_weights":
                self.steps, self.seen = self.steps + 1, self.seen + 1
                here.step, here.running = self.steps, step
                if self.names.path(step.model) is None:
                    self.names.add(step.model)
            if self.shadow is not None:
                self.shadow.inherits = not isinstance(step.scaler, LayerwiseScaler)
            if name == "update" and self.statistics:
                self._updates.begin(step.optimizer)
            here.stage = name
            here.enter(name, "stage")

    def end_stage(self, step: Any, name: str, state: Any, tensors: Any) -> None:
        """Write down what a stage has made (a watcher)."""
        if self.paused:
            return
        start = perf_counter_ns()
        token = hush()
        try:
            with self._lock:
                self._write_stage(self.here(), step, name, state, tensors or {}, start)
        finally:
            speak(token)
            self._busy += perf_counter_ns() - start

    def _write_stage(self, here: Here, step: Any, name: str, state: Any, tensors: Any, now: int) -> None:
        end = max(self.clock(now), here.last)
        wanted = self.statistics and self.choice.takes(name, "", name, here.step)
        wanted &= state.backend.has_values
        if wanted and not (name == "unscale" and step.micro_batches == 1):  # which moves what is known
            arrays = [tensor.array for tensor in tensors.values()]
            tally_ahead(self._origins, arrays, state.backend, name == "backward")
        sides, errors = [], []
        facts = {**stage_facts(name, step, state), **self._updates.end(step.optimizer, state, name)}
        for path, tensor in tensors.items():
            sides.append(self._made_by_stage(step, name, path, tensor, state, wanted))
            errors.append(self._leaf_error(name, path, tensor, state) if wanted else None)
        made = TraceEvent(
            self._count, "stage", name, "", user_line(), name, here.step, (), tuple(sides),
            start=end, end=end, thread=here.thread, errors=tuple(errors) if any(errors) else (),
            facts=facts,
        )  # fmt: skip
        here.leave(name, "stage", end)
        here.stage = ""
        self._keep(made, (), [tensor.array for tensor in tensors.values()], state.backend)
        if name == "update_scale":
            here.step, here.running = 0, None
        self.roundings.forget()
        if self.judge is not None:
            self.judge(made, None)

    def write_stage(self, event: TraceEvent) -> None:
        """Write down a stage without arrays."""
        self._count += 1
        self.store.add(event, {})
        if self.judge is not None:
            self.judge(event, None)

    def _made_by_stage(self, step: Any, stage: str, path: str, tensor: Any, state: Any, wanted: bool) -> Side:
        array = tensor.array
        form, origin = format_of(array.dtype), self._origins.get(array)
        links: tuple[Link, ...] = () if origin is None or origin.number is None else (origin.number,)
        if stage == "backward":
            links = self._given.pop(state.parameters[path]) or links
        stats = None
        if wanted and stage == "unscale" and step.micro_batches == 1:
            stats = self._unscaled(state, path, array)
        if wanted and stats is None:
            stats = self._stats(array, form, tensor.backend, f"stage {stage}")
        if origin is None or origin.number is None:
            self._origins.put(array, Origin(self._count, stats))
        return Side(_name(form, array), array.shape, stats, links, name=path)

    def _unscaled(self, state: Any, path: str, array: Array) -> Stats | None:
        """Return the statistics of a gradient divided by a power of two: those before, moved."""
        grad = state.parameters[path].grad
        origin = None if grad is None else self._origins.get(grad.array)
        before = None if origin is None else origin.stats
        part, power = frexp(state.scale)
        if before is None or not before.size or part != 0.5 or format_of(array.dtype) is not float32:
            return None
        return moved(replace(before, cuts={}), 1 - power, float32, array.nbytes)

    def _leaf_error(self, stage: str, path: str, tensor: Any, state: Any) -> OpError | None:
        if stage != "backward" or self.shadow is None:
            return None
        return self.shadow.leaf(state.parameters[path], tensor.array, tensor.backend)


def stage_facts(name: str, step: Any, state: Any) -> dict[str, Any]:
    """Return the plain numbers of a stage."""
    if name in ("scale_loss", "unscale"):
        return {"loss_scale": state.scale}
    if name == "check_finite":
        return {"nonfinite": list(state.nonfinite), "grad_norm": state.norm if isfinite(state.norm) else None}
    if name == "update":
        return {"skipped": state.skipped}
    return {"loss_scale": step.scaler.get_scale()} if name == "update_scale" else {}


def _finite(inputs: Sequence[Side | None]) -> bool:
    return not any(side.stats.nonfinite for side in inputs if side is not None and side.stats is not None)


def _name(form: Format | None, array: Array) -> str:
    return str(array.dtype) if form is None else form.name


def _text(value: Any) -> str:
    text = value.name if isinstance(value, Format) else str(value)
    return text if len(text) <= 100 else text[:97] + "..."
