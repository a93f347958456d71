"""Anomalies: infinities and NaN that are faults, told from those that a loss scale explains."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import frexp, inf
from types import TracebackType
from typing import Any

import numpy as np

from minimp import formats
from minimp.errors import AnomalyError, SettingError
from minimp.formats import Format, float64
from minimp.nn import Module
from minimp.policy import format_of
from minimp.scaler import LayerwiseScaler
from minimp.tape import Event, Node
from minimp.tape.scales import Mark, mark_shown, shown
from minimp.trace.breaking import described, headline
from minimp.trace.events import Side, TraceEvent
from minimp.trace.loops import factor_of, mark_of_running, scaler_scaling
from minimp.trace.questions.chains import came_in, cause_of, counted, met
from minimp.trace.recording import record
from minimp.trace.shadow import in_float64, wide64

__all__ = ["detect_anomaly"]

KEPT = 4096
"""So many events are kept, to say what came before."""
MOST_EXPLAINED = 2**16
"""So many events with infinities of each kind are remembered: loops without a TrainStep never forget."""


@dataclass
class _Explained:
    """The events whose infinities have an explanation, by their numbers.

    Attributes:
        scaled: gradients that overflowed by the loss scale alone, and what came of them.
        meant: infinities that somebody asked for (a mask of -inf), and what came of them; with their signs.
    """

    scaled: dict[int, None] = field(default_factory=dict)
    meant: dict[int, frozenset[int]] = field(default_factory=dict)

    def mean(self, number: int, signs: Iterable[int]) -> None:
        """Take an event in whose infinities were meant; the oldest goes where there are too many."""
        self.meant[number] = frozenset(signs)
        if len(self.meant) > MOST_EXPLAINED:
            del self.meant[next(iter(self.meant))]

    def blame_scale(self, number: int) -> None:
        """Take an event in that the loss scale explains; the oldest goes where there are too many."""
        self.scaled[number] = None
        if len(self.scaled) > MOST_EXPLAINED:
            del self.scaled[next(iter(self.scaled))]


class detect_anomaly(record):  # noqa: N801 - torch's name
    """Raise at the op or gradient that makes the first infinity or NaN, forward or backward.

    torch.autograd.detect_anomaly (2.13.0) looks at backward alone, and for NaN alone. This one looks at both
    ways and at infinities too, and knows a loss scaler. No anomalies are:

    - gradients that overflowed because they carry a loss scale S: divided by S they would fit their format
      (the gradient is computed again, in float64, from what came in divided by S), and an enabled scaler
      skips the step. What becomes of them is none either, in the rest of that backward and in ops on them.
      Ops that a gradient is made of (`create_graph`, a Function, a hook) are judged alike. Of a
      LayerwiseScaler, whose scales differ from place to place, gradients that are finite in float64 as they
      are.
    - a loss that overflows when it is multiplied by S;
    - infinities that were asked for: an infinite number in an op's arguments, or -inf in an array from
      outside that is no parameter (a mask), as long as they keep their sign. A NaN that they lead to is an
      anomaly.

    The error names the op, the module, the line that called it (of gradients, that of the forward too), and
    the state of its inputs. Ops take two to four times as long meanwhile.

    >>> import minimp as mp
    >>> x = mp.tensor([0.0, 1.0], requires_grad=True)
    >>> try:
    ...     with mp.detect_anomaly():
    ...         x.sqrt().sum().backward()
    ... except mp.errors.AnomalyError as fault:
    ...     print(fault.event.title)
    sqrt backward

    Args:
        check_nan: look at values. Without, only the line of the forward is added to errors that come out of
            a gradient.
        model: a module whose paths and parameter names messages are to have, as of :class:`record`.

    Raises:
        SettingError: a setting that cannot be.
        AnomalyError: in the block.
    """

    def __init__(self, check_nan: bool = True, *, model: Module | None = None) -> None:
        if not isinstance(check_nan, bool):
            raise SettingError(f"expected check_nan to be a bool, got {check_nan!r}", op="detect_anomaly")
        self.check_nan = check_nan
        self._explained = _Explained()
        super().__init__(statistics=check_nan, keep=KEPT, model=model)

    def __exit__(self, *exc: object) -> None:
        """End; an error that comes out of a gradient is told the line of its forward."""
        fault = exc[1]
        if isinstance(fault, BaseException) and not isinstance(fault, AnomalyError):
            self._add_forward(fault, fault.__traceback__)
        super().__exit__(*exc)

    def _add_forward(self, fault: BaseException, where: TracebackType | None) -> None:
        while where is not None:
            frame, where = where.tb_frame, where.tb_next
            node = frame.f_locals.get("node") if frame.f_code.co_name == "differentiate" else None
            if isinstance(node, Node) and (info := self._recorder.info_of(node)) is not None:
                place = f" in {info.module}" if info.module else ""
                fault.add_note(f"the forward of this gradient, {node.op.name}{place}, ran at {info.source}")
                return

    # ---- judging ----------------------------------------------------------------------------------------

    def judge(self, event: TraceEvent, heard: Event | None) -> None:
        """Raise if an event has an infinity or NaN without an explanation."""
        if not self.check_nan:
            return
        if event.phase == "stage":
            if event.op == "update_scale":
                self._explained = _Explained()
            if event.op == "update" and event.nonfinite and not event.facts.get("skipped"):
                raise self._anomaly(event, "the update has left weights that are not finite")
            return
        if heard is None or not (event.nonfinite or came_in(event)):
            return
        if event.phase == "backward":
            why = self._backward(event, heard)
        else:
            mark = None if heard.modes.recomputing else mark_of_running()
            why = None if self._of_a_gradient(event, mark) else self._forward(event, heard)
        if why:
            raise self._anomaly(event, why)

    def _of_a_gradient(self, event: TraceEvent, mark: Mark | None) -> bool:
        """Tell whether a loss scale explains what an op has made of gradients, or as part of one.

        Args:
            event: the op.
            mark: what the gradient carries that it is a part of, or None.
        """
        known, step = self._explained.scaled, self._recorder.step_running()
        explained = bool(_linked(event) & known.keys())
        if not explained and mark is not None and self._scaler_skips(mark):
            by_layer = step is not None and isinstance(step.scaler, LayerwiseScaler)
            scale = factor_of(mark) or 1.0
            explained = (by_layer or scale != 1.0) and all(
                side.reach is not None
                and _finite_in(np.float64(side.reach / scale), None if by_layer else formats.get(side.format))
                for side in event.outputs
                if side is not None and side.stats is not None and side.stats.nonfinite
            )
        if explained:
            self._explained.blame_scale(event.number)
        return explained

    def _forward(self, event: TraceEvent, heard: Event) -> str | None:
        known = self._explained.meant
        signs = set().union(*(known.get(link, frozenset()) for link in _linked(event)))
        if asks_for_infinity(heard):
            signs |= {-1, 1}
        masked = mask_came_in(event, heard)
        signs |= {-1} if masked else set()
        made = infinities(event, heard)
        if made is not None and made <= signs and (masked or came_in(event) is None):
            self._explained.mean(event.number, made)
            return None
        if came_in(event) is None and _skips(scaler_scaling()):
            self._explained.mean(event.number, (-1, 1))
            return None
        if signs:
            return f"{counted(event)} made of infinities that were asked for"
        return came_in(event) or cause_of(event)

    def _backward(self, event: TraceEvent, heard: Event) -> str | None:
        known, forward = self._explained.scaled, self._recorder.info_of(heard.node)
        if not event.nonfinite:
            return None if _linked(event) & known.keys() else came_in(event)
        hooked = self._recorder.maker_of(heard.inputs[0]) in known
        if hooked or _linked(event) & known.keys() or (forward is not None and forward.number in known):
            self._explained.blame_scale(event.number)
            return None
        scale = event.facts.get("loss_scale", 1.0)
        fits, skips = self._fits_without(event, heard, scale), self._scaler_skips(mark_shown(heard.node))
        if fits and skips:
            self._explained.blame_scale(event.number)
            return None
        return came_in(event) or cause_of(event) + _at_scale(scale, fits)

    def _scaler_skips(self, mark: Mark) -> bool:
        """Tell whether an enabled scaler will look at these gradients."""
        step = self._recorder.step_running()
        return _skips(mark.scaler()) or (step is not None and _skips(step.scaler))

    def _fits_without(self, event: TraceEvent, heard: Event, scale: float) -> bool | None:
        """Tell whether a gradient would be finite without the loss scale that it carries; None: no scale."""
        step = self._recorder.step_running()
        by_layer = step is not None and isinstance(step.scaler, LayerwiseScaler)
        if scale == 1.0 and not by_layer:
            return None
        grad = event.inputs[0]
        if by_layer and grad is not None and grad.stats is not None and grad.stats.nonfinite:
            return came_in(event) is None  # it was finite before the layer's own factor
        if grad is not None and met(event):
            return self._sum_fits(grad, scale)
        found = gradients_in_float64(heard, 1.0 if by_layer else scale)
        if found is None:
            return False
        pairs = zip(event.outputs, heard.outputs, found, strict=False)
        return all(
            part is None or exact is None or _finite_in(exact, None if by_layer else format_of(part.dtype))
            for side, part, exact in pairs
            if side is not None and side.stats is not None and side.stats.nonfinite
        )

    def _sum_fits(self, grad: Side, scale: float) -> bool:
        """Tell whether gradients that met would fit their format, added up without their scale."""
        amax = {e.number: max((s.stats.amax or 0.0 for s in e.outputs if s and s.stats), default=0.0)
                for e in self._trace.events if e.number in grad.links and not e.nonfinite}  # fmt: skip
        total = sum(amax.values())
        return len(amax) == len(grad.links) and _finite_in(
            np.float64(total / scale), formats.get(grad.format)
        )

    def _anomaly(self, event: TraceEvent, why: str) -> AnomalyError:
        fault = AnomalyError(
            "\n".join([f"{headline(event)}: {why}", *described(event)]), op="detect_anomaly",
            formats=[side.format for side in event.outputs if side is not None],
            help="fault.trace.first_nonfinite() tells what led to it" if event.nonfinite else None,
        )  # fmt: skip
        fault.event, fault.trace = event, self._trace
        return fault


def _skips(scaler: Any) -> bool:
    return scaler is not None and bool(scaler.is_enabled())


def _at_scale(scale: float, fits: bool | None) -> str:
    if fits is None or scale == 1.0:
        return ""
    if fits:
        said = f"; without the loss scale of {shown(scale)} it would be finite"
        return f"{said}, but no enabled scaler looks at it"
    return f"; at a loss scale of 1, in the place of {shown(scale)}, it would not be finite either"


def _linked(event: TraceEvent) -> set[int]:
    """Return the events that made those inputs which are not finite."""
    return {
        link
        for side in event.inputs
        if side is not None and side.stats is not None and side.stats.nonfinite
        for link in side.links
        if isinstance(link, int)
    }


def asks_for_infinity(heard: Event) -> bool:
    """Tell whether an argument of an op is an infinite number."""
    given = (*heard.inputs, *heard.node.options.values())
    return any(isinstance(value, float) and abs(value) == inf for value in given)


def infinities(event: TraceEvent, heard: Event) -> set[int] | None:
    """Return the signs of the infinities that an event made; None if it made a NaN."""
    return _signs(zip(event.outputs, heard.outputs, strict=False), heard.node.backend)


def mask_came_in(event: TraceEvent, heard: Event) -> bool:
    """Tell whether all that came in from outside and is not finite is -inf, in no parameter."""
    pairs = list(zip(event.inputs, heard.inputs, strict=False))
    outside = [(side, array) for side, array in pairs if side is not None and not side.links]
    return came_in(event) is not None and not any(
        side is not None and side.stats is not None and side.stats.nonfinite
        and any(isinstance(link, str) for link in side.links)
        for side, _ in pairs
    ) and _signs(outside, heard.node.backend) == {-1}  # fmt: skip


def _signs(pairs: Iterable[tuple[Side | None, Any]], backend: Any) -> set[int] | None:
    found: set[int] = set()
    for side, array in pairs:
        if side is None or side.stats is None or not side.stats.nonfinite:
            continue
        if side.stats.nan:
            return None
        wide = np.asarray(backend.to_host(backend.wide(array)))
        found |= {sign for sign in (-1, 1) if (wide == sign * inf).any()}
    return found


def _finite_in(exact: Any, form: Format | None) -> bool:
    """Tell whether float64 numbers stay finite when they are rounded to a format; None: as they are."""
    largest = float(np.abs(exact).max(initial=0.0))
    if form is None or form is float64:
        return largest < inf
    top = form.max
    half_an_ulp = 2.0 ** (frexp(top)[1] - 2 - form.mantissa_bits)
    return largest < top + half_an_ulp  # NaN is not


def gradients_in_float64(heard: Event, scale: float) -> tuple[Any, ...] | None:
    """Return a gradient computed in float64 from what came in divided by a scale; None if it cannot be.

    What the forward saved is taken as it is.
    """
    node, (grad,) = heard.node, heard.inputs
    twin = Node(node.op, node.inputs, in_float64(node.options), node.backend, float64, "float64", True)
    twin.saved = tuple(wide64(each, node.backend) for each in node.saved)
    twin.shape = node.shape
    for name in ("memo", "ids"):  # a Function finds its saved tensors by them
        if hasattr(node, name):
            setattr(twin, name, getattr(node, name))
    try:
        return tuple(node.op.differentiate(twin, wide64(grad, node.backend) / scale))
    except Exception:  # noqa: BLE001 - the backward of a Function may raise anything in another format
        return None
