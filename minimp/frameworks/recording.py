"""Recording a PyTorch model as :class:`minimp.trace.record` records ours, so that the two can be compared."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter_ns
from types import FrameType
from typing import Any

from minimp.backend import get_backend
from minimp.errors import FormatError, SettingError
from minimp.files import AnyPath
from minimp.frameworks.torch_gradients import Arrived, hear_gradients
from minimp.interop import from_torch
from minimp.policy import format_of
from minimp.trace.events import Link, Side, TraceEvent
from minimp.trace.folders import Folder
from minimp.trace.identity import ByIdentity
from minimp.trace.sites import user_line
from minimp.trace.statistics import Stats, measure, targets_of
from minimp.trace.stores import Memory, Store
from minimp.trace.trace import Trace
from minimp.trace.values import Values, chosen

__all__ = ["NAMES", "record_torch"]

NAMES = {
    **dict.fromkeys(("view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as"), "reshape"),
    **dict.fromkeys(("transpose", "t", "swapaxes", "movedim"), "permute"),
    **dict.fromkeys(("to", "float", "half", "bfloat16", "double", "type"), "cast"),
    **dict.fromkeys(("mm", "bmm"), "matmul"), **dict.fromkeys(("truediv", "divide", "true_divide"), "div"),
    "multiply": "mul", "subtract": "sub", "negative": "neg", "absolute": "abs", "clip": "clamp",
    "concat": "cat", "concatenate": "cat", "pad": "constant_pad_nd", "logsigmoid": "log_sigmoid",
    "expand_as": "expand", "broadcast_to": "expand", "cross_entropy": "nll_loss",
}  # fmt: skip
"""A function's name -> the op that does it here, where that is called otherwise; of several, the last."""
REFLECTED = {
    "radd": "add", "rsub": "sub", "rmul": "mul", "rtruediv": "div", "rpow": "pow", "rmatmul": "matmul",
}  # fmt: skip
IN_PLACE = {"iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div", "ipow": "pow"}
SILENT = {"detach", "requires_grad", "get", "contiguous", "zero", "copy", "item", "backward", "grad"}
"""What computes nothing, or no part of a model."""

NEAR = 8
"""So many frames at most lie between a listener's helper and the scaler that called the function."""


class record_torch:  # noqa: N801 - reads as a statement: `with record_torch(model) as trace:`
    """Record what runs in the block of a PyTorch model: each call of a torch function, and its gradient.

    The trace has the events, the folder and the questions of :class:`minimp.trace.record`, by the names that
    ops have here: `ours.diff(theirs)` tells the first one whose results part, in ULPs. What differs:

    - an event is a call of a function (torch 2.13.0, `torch.overrides.TorchFunctionMode`): what autocast
      casts inside of it is no event, and the inputs are as they were given;
    - what an op flushed is not known, nor what one in place was given, and there is no shadow;
    - gradients are recorded where autograd's node of the call hands on one for each input; those of
      parameters, as they are after `loss.backward()`, are the stage "backward", under their names;
    - what optimizers and scalers compute is left out, but for the loss that is scaled. A step ends with
      its `backward`.

    ::

        with record_torch(network) as theirs:
            torch.nn.functional.cross_entropy(network(x), y).backward()
        with mp.trace.record(values="all", model=model) as ours:
            mp.functional.cross_entropy(model(x), y).backward()
        print(ours.diff(theirs, ulps=16))

    Args:
        model: a torch.nn.Module, which gives modules and parameters their names.
        scaler: the torch.amp.GradScaler of the loop, which tells the loss scale; None: there is none.
        values: which values are kept, as of `record`; here "all" if not said otherwise.
        spill: write everything to this new folder; `mp.trace.load` reads it.

    Raises:
        SettingError: `model` is no torch module, torch is not installed, or the recording has been used.
        DataError: the folder to spill to is not empty, or cannot be made.
    """

    def __init__(
        self, model: Any, *, scaler: Any = None, values: str | Values = "all", spill: AnyPath | None = None
    ) -> None:
        try:
            import torch
        except ImportError as fault:
            raise SettingError(
                "torch is not installed", op="record_torch", help="pip install torch"
            ) from fault
        if not isinstance(model, torch.nn.Module):
            raise SettingError(
                f"expected a torch.nn.Module, got {type(model).__name__}", op="record_torch",
                help="models of minimp are recorded by mp.trace.record",
            )  # fmt: skip
        self.model, self.scaler, self.values, self.spill = model, scaler, chosen(values), spill
        self._leaves = {id(leaf): name for name, leaf in model.named_parameters()}
        self._made: ByIdentity[int] = ByIdentity()
        self._running: list[str] = []
        self._open: ExitStack | None = None
        self._count = self._busy = self._last = self._deaf = 0
        self._step = 1

    def __enter__(self) -> Trace:
        """Begin; a recording is used once."""
        if self._open is not None:
            raise SettingError(
                "this recording has been used", op="record_torch", help="make a new one: record_torch(model)"
            )
        import torch

        self._store: Store = Memory() if self.spill is None else Folder(self.spill)
        settings = {"framework": f"torch {torch.__version__}", "values": self.values.kind}
        self._trace = Trace(self._store, {"settings": settings, "steps": 0, "notes": {}})
        self._torch, self._inside = str(Path(torch.__file__).parent), True
        self._began = perf_counter_ns()
        with ExitStack() as stack:
            for path, module in self.model.named_modules():
                self._hook(stack, module, path or f"({type(module).__name__})")
            _watch_optimizers(stack, self._pause)
            stack.enter_context(_listening(self._begin_backward, self._hear))
            self._open = stack.pop_all()
        return self._trace

    def __exit__(self, *exc: object) -> None:
        """End, also by an exception: what was recorded stays readable."""
        assert self._open is not None
        self._open.close()
        self._inside = False
        self._trace.info["steps"] = self._step - 1
        if isinstance(self._store, Folder):
            self._store.finish(self._trace.info)

    # ---- hearing ----------------------------------------------------------------------------------------

    def _hook(self, stack: ExitStack, module: Any, path: str) -> None:
        def enter(*_: Any) -> None:
            self._running.append(path)

        def leave(*_: Any) -> None:
            if self._running:
                self._running.pop()

        stack.callback(module.register_forward_pre_hook(enter).remove)
        stack.callback(module.register_forward_hook(leave, always_call=True).remove)

    def _pause(self, change: int) -> None:
        self._deaf += change

    def _begin_backward(self, function: Any, args: tuple[Any, ...]) -> None:
        """Write the loss down that is scaled, before its gradients."""
        if self.scaler is None or self._deaf or getattr(function, "__name__", "") != "backward":
            return
        now = perf_counter_ns()
        self._deaf += 1
        try:
            self._keep(self._stage("scale_loss", {"scaled_loss": args[0]}, now), [], [args[0]])
        finally:
            self._deaf -= 1
            self._busy += perf_counter_ns() - now

    def _hear(self, function: Any, args: tuple[Any, ...], options: dict[str, Any], result: Any) -> None:
        if self._deaf or not self._inside:
            return
        start, name = perf_counter_ns(), str(getattr(function, "__name__", ""))
        self._deaf += 1
        try:
            if name == "backward":
                self._write_backward(start)
            else:
                self._write_call(name, args, options, result, start)
        finally:
            self._deaf -= 1
            self._busy += perf_counter_ns() - start

    def _write_call(
        self, called: str, args: tuple[Any, ...], options: dict[str, Any], result: Any, now: int
    ) -> None:
        name, turned = _op_of(called)
        inputs = list(_tensors((*args, *options.values())))
        outputs = [x for x in _tensors(result if isinstance(result, tuple) else (result,)) if x is not None]
        known = [x for x in inputs if x is not None]
        if name in SILENT or name.startswith("_") or not known or not outputs:
            return
        in_place = any(outputs[0] is x for x in known)
        if in_place and not (called.endswith("_") or options.get("inplace")):
            return  # a cast to the format that it has
        if _is_unscaling() or (in_place and not outputs[0].is_floating_point()):  # a counter of batches
            return
        if turned:
            inputs.reverse()
        if in_place:  # what came in is no longer there
            inputs = [None if x is outputs[0] else x for x in inputs]
        came = [self._side(x, self._links(x)) for x in inputs]
        clean = not any(side.stats.nonfinite for side in came if side and side.stats)
        made = [self._side(x, (), clean=clean) for x in outputs]
        if not any(made):
            return
        event = self._event("forward", name, tuple(came), tuple(made), now)
        if self.scaler is not None and any(x is getattr(self.scaler, "_scale", None) for x in known):
            event.facts["loss_scale"] = float(self.scaler.get_scale())
        self._keep(event, inputs, outputs)
        for x in outputs:
            self._made.put(x, event.number)
        hear_gradients(outputs[0], inputs, lambda found: self._write_gradient(event, found))

    def _write_gradient(self, forward: TraceEvent, found: Arrived) -> None:
        """Write down the gradient of a call (a hook of autograd's node)."""
        if not self._inside:
            return
        start = perf_counter_ns()
        self._deaf += 1
        try:
            came = self._side(found.came, (), gradient=True)
            made = [None if x is None else self._side(x, (), gradient=True) for x in found.parts]
            event = self._event("backward", forward.op, (came,), tuple(made), start, forward)
            if self.scaler is not None and self.scaler.get_scale() != 1.0:
                event.facts["loss_scale"] = float(self.scaler.get_scale())
            self._keep(event, [found.came], found.parts)
        finally:
            self._deaf -= 1
            self._busy += perf_counter_ns() - start

    def _write_backward(self, now: int) -> None:
        grads = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        self._keep(self._stage("backward", grads, now), [], list(grads.values()))
        self._step += 1

    # ---- writing ----------------------------------------------------------------------------------------

    def _event(
        self, phase: str, op: str, inputs: tuple[Side | None, ...], outputs: tuple[Side | None, ...],
        now: int, forward: TraceEvent | None = None,
    ) -> TraceEvent:  # fmt: skip
        end, start = max(now - self._began - self._busy, self._last), self._last
        self._last = end
        module = forward.module if forward else (self._running[-1] if self._running else "")
        source = forward.source if forward else user_line((self._torch,))
        return TraceEvent(
            self._count, phase, op, module, source, "", self._step, inputs, outputs,
            forward=None if forward is None else forward.number, start=start, end=end,
        )  # fmt: skip

    def _stage(self, name: str, tensors: dict[str, Any], now: int) -> TraceEvent:
        sides = tuple(
            self._side(x, self._links(x), name=path, gradient=name == "backward")
            for path, x in tensors.items()
        )
        facts = {} if self.scaler is None else {"loss_scale": float(self.scaler.get_scale())}
        end = max(now - self._began - self._busy, self._last)
        return TraceEvent(
            self._count, "stage", name, "", user_line((self._torch,)), name, self._step, (), sides,
            start=end, end=end, facts=facts,
        )  # fmt: skip

    def _links(self, x: Any) -> tuple[Link, ...]:
        if x is None:
            return ()
        number = self._made.get(x)
        leaf = self._leaves.get(id(x))
        return (number,) if number is not None else () if leaf is None else (leaf,)

    def _side(
        self, x: Any, links: tuple[Link, ...], *, clean: bool = False, name: str = "", gradient: bool = False
    ) -> Side | None:
        array = _array(x)
        if array is None:
            return None
        form = format_of(array.dtype)
        targets = targets_of(form) if gradient else ()
        wide = array if form is None else get_backend("numpy").wide(array)
        stats: Stats = measure(array, form, wide, targets)
        label = str(array.dtype) if form is None else form.name
        return Side(
            label, array.shape, stats, links, overflowed=stats.inf if clean else 0, name=name
        )  # fmt: skip

    def _keep(self, event: TraceEvent, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        kept = {}
        if self.values.wanted(event):
            sides = {"in": (inputs, event.inputs), "out": (outputs, event.outputs)}
            arrays = {f"{kind}{i}": _array(x) for kind, (given, known) in sides.items()
                      for i, x in enumerate(given) if known[i] is not None}  # fmt: skip
            before = {f"in{i}" for i, side in enumerate(event.inputs)
                      if side and side.links and isinstance(side.links[0], int)}  # fmt: skip
            kept = self.values.keep(event, arrays, before)
            object.__setattr__(event, "values", tuple(kept))
        self._count += 1
        self._store.add(event, kept)


def _is_unscaling() -> bool:
    """Tell whether a GradScaler is calling, for something else than to scale a loss."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(NEAR):
        if frame is None:
            return False
        code = frame.f_code
        if code.co_filename.endswith("grad_scaler.py"):
            return code.co_name not in ("scale", "apply_scale")
        frame = frame.f_back
    return False


def _op_of(called: str) -> tuple[str, bool]:
    """Return the op of a function's name, and whether its operands stand the other way round."""
    name = called.strip("_")
    if name in REFLECTED:
        return REFLECTED[name], True
    return NAMES.get(name, IN_PLACE.get(name, f"_{name}" if _is_private(called) else name)), False


def _is_private(called: str) -> bool:
    return called.startswith("_") and not called.startswith("__")


def _tensors(values: Iterable[Any]) -> Iterator[Any]:
    """Yield tensors, those in lists too, and None in the place of numbers."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from (x for x in _tensors(value) if x is not None)
        elif hasattr(value, "grad_fn") and hasattr(value, "detach"):
            yield value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield None


def _array(tensor: Any) -> Any:
    """Return a copy of a tensor's values; None of a format that has no counterpart."""
    if tensor is None:
        return None
    try:
        return from_torch(tensor.detach(), backend="numpy").array
    except FormatError:
        return None


def _listening(
    before: Callable[[Any, tuple[Any, ...]], None],
    after: Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None],
) -> Any:
    """Return a block in which every call of a torch function is told of, before and after it."""
    from torch.overrides import TorchFunctionMode

    class Listening(TorchFunctionMode):  # type: ignore[misc]  # torch is not checked
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            del types
            before(func, args)
            result = func(*args, **(kwargs or {}))
            after(func, args, kwargs or {}, result)
            return result

    return Listening()


def _watch_optimizers(stack: ExitStack, pause: Callable[[int], None]) -> None:
    """Hear nothing while an optimizer steps."""
    from torch.optim import optimizer

    stack.callback(optimizer.register_optimizer_step_pre_hook(lambda *_: pause(1)).remove)
    stack.callback(optimizer.register_optimizer_step_post_hook(lambda *_: pause(-1)).remove)
