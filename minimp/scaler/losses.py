"""LossScalers: several losses, each with a scale of its own, over the same optimizers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, Self

from minimp.errors import ScalerError, SettingError
from minimp.scaler.grad_scaler import GradScaler
from minimp.scaler.gradients import skip, unscale_each
from minimp.scaler.health import ScaleHealth
from minimp.scaler.machine import ScaleRule
from minimp.scaler.marks import called, refuse_scaled
from minimp.scaler.moving import MovingScale, warn
from minimp.scaler.naming import Names, WithNames, listing, named_parameters
from minimp.scaler.outputs import times_scale
from minimp.scaler.presets import preset_rule
from minimp.scaler.records import Record, ScalerStep, Stage, WithReports
from minimp.tape import Value

__all__ = ["LossScalers"]

_Chosen = tuple[Any, list[tuple[str, Value]]]
"""An optimizer and its named parameters."""


class LossScalers(WithNames, WithReports):
    """Scale each of several losses by its own S_i: one S may be too high for this one, too low for that one.

    ::

        scalers = LossScalers(2)
        for x, y in data:
            optimizer.zero_grad()
            with scalers.scale_loss(near(x, y), optimizer, loss_id=0) as scaled:
                scaled.backward()
            with scalers.scale_loss(far(x, y), optimizer, loss_id=1) as scaled:
                scaled.backward()
            scalers.step(optimizer)
            scalers.update()

    A block multiplies its loss by S_i. At its end the gradients g_i of this loss alone are looked through for
    infinities and NaN, divided by S_i, and added to what was there, in float32 (float64 for float64), rounded
    once to the parameter's format::

        .grad <- round(.grad + g_i float32(1 / S_i))

    So gradients are unscaled between blocks, and can be clipped as they are. `step` leaves an optimizer out
    if any loss overflowed in one of its gradients; `update` moves each S_i by what its own loss did, and
    leaves alone those that were not used since the last update.

    Source: NVIDIA apex (amp, last before its removal), `amp.initialize(num_losses=)` and
    `amp.scale_loss(loss_id=)`: apex/amp/handle.py and scaler.py (unscale_with_stashed).
    Differences: apex moves S_i at the end of the block, here `update` does, so that a loss can be accumulated
    over several blocks at one scale; apex skips every optimizer of a block in which one overflowed, here one
    is skipped for its own gradients, as by PyTorch's GradScaler; the rule of S_i is PyTorch's unless a preset
    is asked for (:meth:`preset` with "apex" has apex's).

    Args:
        num_losses: how many scales; `scalers[i]` is the i-th (:class:`minimp.scaler.moving.MovingScale`).
        settings: of every scale, as :class:`minimp.GradScaler` takes them, but for `enabled`.

    Raises:
        SettingError: no losses, or a setting that cannot act.
    """

    def __init__(self, num_losses: int, **settings: Any) -> None:
        if "enabled" in settings:
            raise SettingError(
                "enabled cannot act: without scaling there is nothing to tell losses apart by",
                op="LossScalers", help="add the losses up and use GradScaler(enabled=False)",
            )  # fmt: skip
        count = _count(num_losses)
        self._begin([GradScaler(**settings).rule] * count)

    @classmethod
    def from_rules(cls, rules: Iterable[ScaleRule]) -> Self:
        """Return scalers of one rule each, which may differ.

        Raises:
            SettingError: there are no rules.
        """
        found = list(rules)
        made = cls(_count(len(found)))
        made._begin(found)
        return made

    @classmethod
    def preset(cls, name: str, num_losses: int, **overrides: Any) -> Self:
        """Return scalers that move as another library's do (:data:`minimp.scaler.PRESETS`).

        Raises:
            SettingError: an unknown preset or field, or a setting that cannot act.
        """
        return cls.from_rules([preset_rule(name, overrides)] * _count(num_losses))

    def _begin(self, rules: Sequence[ScaleRule]) -> None:
        self._scales = [MovingScale(rule, f"LossScalers[{i}]") for i, rule in enumerate(rules)]
        self._names = Names()
        self._found: dict[int, list[str]] = {}  # by loss: what was not finite since the last update
        self._losses: dict[int, set[int]] = {}  # by id of an optimizer: the losses that gave it gradients
        self._open: int | None = None
        self._forget_steps()

    # ---- a training step ----------------------------------------------------------------------------------

    @contextmanager
    def scale_loss(self, loss: Any, optimizers: Any, loss_id: int = 0) -> Iterator[Any]:
        """Give S_i times the loss to a block that runs backward; then unscale and add its gradients.

        Args:
            loss: a tensor, or a list or tuple of tensors.
            optimizers: the optimizer, or a list of those, whose parameters the loss reaches. A parameter that
                two of them share is unscaled once.
            loss_id: which loss this is, from 0.

        Raises:
            SettingError: no such loss, or something that is no optimizer.
            ScalerError: blocks within each other, an optimizer that has stepped since the last update,
                gradients that still carry another scale, float16 gradients, or a block without backward. The
                gradients are then what they were before the block, as after any exception in it.
        """
        scale = self[loss_id]
        self._require_closed(f"scale_loss(loss_id={loss_id})")
        chosen = self._chosen(optimizers)
        params = list({id(p): p for _, named in chosen for _, p in named}.values())
        held = [p.grad for p in params]
        refuse_scaled(
            "LossScalers.scale_loss", held, called(params), "and unscaled ones would be added to them",
            "call unscale_(optimizer) of the scaler that scaled them, or zero them, first",
        )  # fmt: skip
        scaled = times_scale(loss, scale._start, self)
        self._open, done = loss_id, False
        for p in params:
            p.grad = None
        try:
            yield scaled
            self._take(loss_id, chosen, params, held)
            done = True
        finally:
            self._open = None
            if not done:
                for p, grad in zip(params, held, strict=True):
                    p.grad = grad

    def _take(self, loss_id: int, chosen: list[_Chosen], params: list[Value], held: list[Any]) -> None:
        """Unscale the new gradients, note what is not finite, and add them to those that were held."""
        scale = self[loss_id].get_scale()
        if all(p.grad is None for p in params):
            asked = listing(name for _, named in chosen for name, _ in named)
            raise ScalerError(
                f"loss {loss_id} gave no gradient to any of {len(params)} parameters ({asked})",
                op="LossScalers.scale_loss",
                help="call scaled.backward() in the block; the loss must depend on these parameters",
            )
        new = {id(p) for p in params if p.grad is not None}
        names = {id(p): name for _, named in reversed(chosen) for name, p in named}
        bad = unscale_each([(names[id(p)], p) for p in params], scale, held)
        nonfinite = {id(p) for p, is_bad in zip(params, bad, strict=True) if is_bad}
        for optimizer, named in chosen:
            record = self._record(optimizer)
            record.checked += sum(id(p) in new for _, p in named)
            record.nonfinite += tuple(f"{name} (loss {loss_id})" for name, p in named if id(p) in nonfinite)
            self._losses.setdefault(id(optimizer), set()).add(loss_id)
        self._found.setdefault(loss_id, []).extend(names[each] for each in names if each in nonfinite)

    def step(self, optimizer: Any, *args: Any, **options: Any) -> ScalerStep:
        """Run `optimizer.step(*args, **options)`, or skip it if any loss overflowed in its gradients.

        Returns:
            What happened, as :meth:`minimp.GradScaler.step`: `nonfinite` names the loss with each parameter,
            `scale` is the lowest of those that gave this optimizer gradients.

        Raises:
            ScalerError: no block with this optimizer since the last update, a second step, a step within a
                block, a closure, or one bad step more than max_consecutive_skips of an overflowing loss.
        """
        if "closure" in options:
            raise ScalerError(
                "a closure cannot be used with loss scaling", op="LossScalers.step",
                help="run each loss once in its block before, then step(optimizer)",
            )  # fmt: skip
        self._require_closed("step()")
        record = self._record_to_step(optimizer)
        used = [self._scales[i] for i in sorted(self._losses[id(optimizer)])]
        overflowed = [each for i, each in enumerate(self._scales) if self._found.get(i) and each in used]
        if record.nonfinite:
            for each in overflowed:
                each._require_patience(record.nonfinite)
        returned = skip(optimizer) if record.nonfinite else optimizer.step(*args, **options)
        record.stage = Stage.STEPPED
        skips = max((each.state.skips for each in overflowed), default=0)
        return self._report(record, min(each.get_scale() for each in used), skips, returned)

    def _record_to_step(self, optimizer: Any) -> Record:
        record = self._records.get(id(optimizer))
        if record is None:
            raise ScalerError(
                "no inf checks were recorded for this optimizer since the last update()",
                op="LossScalers.step",
                help="run backward in `with scalers.scale_loss(loss, optimizer, loss_id=i) as scaled:` first",
            )  # fmt: skip
        self._require_not_stepped(record, "step")
        return record

    def update(self) -> None:
        """Move each scale whose loss was used since the last update, by what was found in its gradients.

        Raises:
            ScalerError: no loss was used, a block is open, or a loss is bad once more than
                max_consecutive_skips; nothing is changed.
        """
        self._require_closed("update()")
        if not self._found:
            raise ScalerError(
                "no inf checks were recorded prior to update()", op="LossScalers.update",
                help="run backward in `with scalers.scale_loss(loss, optimizer, loss_id=i) as scaled:` first",
            )  # fmt: skip
        found = {self._scales[i]: tuple(dict.fromkeys(names)) for i, names in sorted(self._found.items())}
        for scale, names in found.items():
            if names:
                scale._require_patience(names)
        told = [scale._move(bool(names), names) for scale, names in found.items()]
        self._found, self._losses, self._records = {}, {}, {}
        for each in told:
            warn(each, stacklevel=2)

    # ---- what it knows ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return how many losses there are."""
        return len(self._scales)

    def __getitem__(self, loss_id: int) -> MovingScale:
        """Return the scale of one loss.

        Raises:
            SettingError: there is no such loss.
        """
        if not _is_whole(loss_id) or not 0 <= loss_id < len(self._scales):
            raise SettingError(
                f"loss_id: expected a whole number from 0 to {len(self._scales) - 1}, got {loss_id!r}",
                op="LossScalers", help="LossScalers(n) has room for n losses",
            )  # fmt: skip
        return self._scales[loss_id]

    def get_scale(self, loss_id: int = 0) -> float:
        """Return the S of one loss."""
        return self[loss_id].get_scale()

    @property
    def health(self) -> tuple[ScaleHealth, ...]:
        """How each scale fares."""
        return tuple(each.health for each in self._scales)

    def __repr__(self) -> str:
        """Show each scale and how it fares."""
        return f"LossScalers({', '.join(f'{s.get_scale():g} {s.health.word}' for s in self._scales)})"

    # ---- saving -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return {"losses": a state dict of each}, as :meth:`minimp.GradScaler.state_dict`."""
        return {"losses": [each.state_dict() for each in self._scales]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a state that :meth:`state_dict` returned.

        Raises:
            ScalerError, SettingError: another number of losses, or one that cannot be used, as
                :meth:`minimp.GradScaler.load_state_dict`. Nothing is changed.
        """
        given: Any = state_dict
        states = given.get("losses") if isinstance(given, Mapping) else None
        if not isinstance(states, Sequence) or len(states) != len(self._scales):
            got = len(states) if isinstance(states, Sequence) else "none"
            raise SettingError(
                f"expected the states of {len(self._scales)} losses, got {got}",
                op="LossScalers.load_state_dict", help='expected {"losses": [a state dict of each loss]}',
            )  # fmt: skip
        loaded = copy.copy(self._scales)
        for i, state in enumerate(states):
            loaded[i] = copy.copy(self._scales[i])
            loaded[i].load_state_dict(state)
        self._scales = loaded

    def __getstate__(self) -> dict[str, Any]:
        """Copy between iterations only (copy.deepcopy)."""
        if self._records or self._open is not None:
            raise ScalerError(
                "a scaler can be copied between iterations only", op="LossScalers", help="call update() first"
            )
        return self.__dict__ | {"last_step": None}

    # ---- inside -------------------------------------------------------------------------------------------

    def _chosen(self, optimizers: Any) -> list[_Chosen]:
        """Return (optimizer, its named parameters) for one optimizer or several."""
        given = list(optimizers) if isinstance(optimizers, list | tuple) else [optimizers]
        if not given:
            raise SettingError("expected an optimizer, or several, got none", op="LossScalers.scale_loss")
        for each in given:
            record = self._records.get(id(each))
            if record is not None:
                self._require_not_stepped(record, "scale_loss")
        return [(each, list(named_parameters(each, self._names))) for each in given]

    @staticmethod
    def _require_not_stepped(record: Record, call: str) -> None:
        if record.stage is Stage.STEPPED:
            raise ScalerError(
                "step() has been called on this optimizer since the last update()",
                op=f"LossScalers.{call}", help="call update() at the end of each iteration",
            )  # fmt: skip

    def _require_closed(self, call: str) -> None:
        if self._open is not None:
            raise ScalerError(
                f"{call} was called within the block of scale_loss(loss_id={self._open})",
                op="LossScalers", help="end the block first: its end unscales the gradients of its loss",
            )  # fmt: skip


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _count(num_losses: Any) -> int:
    if not _is_whole(num_losses) or num_losses < 1:
        raise SettingError(f"num_losses: expected a whole number, at least 1, got {num_losses!r}")
    return int(num_losses)
