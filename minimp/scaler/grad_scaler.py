"""GradScaler: loss scaling around an optimizer, with PyTorch's calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NoReturn, Self

from minimp.errors import ScalerError, SettingError
from minimp.scaler.gradients import find_nonfinite, nothing_to_check, skip, unscale_gradients
from minimp.scaler.machine import ScaleRule
from minimp.scaler.marks import marks_unscaled
from minimp.scaler.moving import MovingScale, warn
from minimp.scaler.naming import Names, WithNames, named_parameters
from minimp.scaler.outputs import one_number, times_scale
from minimp.scaler.penalties import unscaled
from minimp.scaler.presets import preset_rule
from minimp.scaler.records import REPORTS_KEPT, Record, ScalerStep, Stage, WithReports
from minimp.tensors import Tensor

__all__ = ["GradScaler"]


class GradScaler(MovingScale, WithNames, WithReports):
    """Scale the loss so that small FP16 gradients are not flushed to zero (torch.amp.GradScaler 2.13.0).

    An iteration calls ``scaler.scale(loss).backward()``, ``scaler.step(optimizer)``, ``scaler.update()``.
    `scale` multiplies the loss by S; backward carries S into every gradient; `step` divides it out in
    FP32, looks for infinities and NaN, and runs the optimizer only if there are none; `update` moves S by
    :func:`minimp.scaler.next_state`. See Micikevicius et al. 2018, arXiv 1710.03740, section 3.2.

    A scale that skipping does not help says so: a :class:`minimp.errors.ScaleWarning`, once an episode, when
    S stays at its floor, falls below 1 without one, is 0 or infinite, or 25 steps in a row are bad
    (:mod:`minimp.scaler.health` has the thresholds and their reasons; :attr:`health` is the word for it).

    Differences from PyTorch: `step` returns a :class:`minimp.scaler.ScalerStep`, whose field `returned` is
    what PyTorch returns; `unscale_` puts new tensors in `.grad`, where PyTorch writes into the old ones;
    strings, mappings and NumPy arrays are refused by `scale` at once, where PyTorch fails when the result is
    used; there are no sparse gradients; errors are :class:`ScalerError` and
    :class:`SettingError`, and a state dict that is refused changes nothing.

    Args:
        init_scale, growth_factor, backoff_factor, growth_interval: as in :class:`minimp.scaler.ScaleRule`.
        enabled: False makes every method do nothing: `step` just runs the optimizer.
        min_scale: the floor of backing off, or None.
        max_scale: the ceiling of growing, or None.
        hysteresis: back off on this many bad steps in a row, and on each further one.
        max_consecutive_skips: raise an error rather than skip more than so many steps in a row; None: go on.

    Raises:
        SettingError: growth_factor is not above 1, backoff_factor not below 1, or a setting cannot act
            (nothing of this is looked at when not enabled).
    """

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Return an object whose methods do nothing where scaling is disabled."""
        enabled = args[4] if len(args) > 4 else options.get("enabled", True)
        made: Any = super().__new__(cls if enabled else _NoScaling)
        if not enabled:
            made._begin(ScaleRule(init_scale=1.0))
        return made  # type: ignore[no-any-return]  # a _NoScaling is a GradScaler

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,  # noqa: ARG002 - __new__ has read it
        *,
        min_scale: float | None = None,
        max_scale: float | None = None,
        hysteresis: int = 1,
        max_consecutive_skips: int | None = None,
    ) -> None:
        device: Any = init_scale
        if isinstance(device, str):
            raise SettingError(
                f"init_scale: expected a number, got {device!r}",
                op="GradScaler", help="PyTorch's first argument, the device, is not taken here: leave it out",
            )  # fmt: skip
        rule = ScaleRule(
            init_scale, growth_factor, backoff_factor, growth_interval, min_scale, max_scale, hysteresis,
            max_consecutive_skips=max_consecutive_skips,
        )  # fmt: skip
        for name, side, fits in [
            ("growth_factor", "above", rule.growth_factor > 1),
            ("backoff_factor", "below", rule.backoff_factor < 1),
        ]:
            if not fits:
                raise SettingError(
                    f"{name}: expected a number {side} 1, got {getattr(rule, name)!r}",
                    op="GradScaler", help="for a scale that stays: GradScaler.preset('static')",
                )  # fmt: skip
        if max_scale is not None and rule.growth_interval < 1:
            raise SettingError(
                f"max_scale: {max_scale!r} cannot act on a scale that never grows (growth_interval="
                f"{rule.growth_interval})",
                op="GradScaler", help="leave max_scale out, or let the scale grow",
            )  # fmt: skip
        self._begin(rule)

    def _begin(self, rule: ScaleRule, label: str = "GradScaler") -> None:
        super()._begin(rule, label)
        self._forget_steps()
        self._names = Names()

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """Return a scaler that moves its scale as another library does.

        Args:
            name: "torch", "apex", "apex-fp16-optimizer", "keras", "tf-keras", "flax", "jmp", "paddle",
                "paddle-ampscaler", "mindspore", "chainer" or "static" (:func:`minimp.scaler.presets_table`
                prints the rules, their sources and notes; they are :data:`minimp.scaler.PRESETS`).
            overrides: fields of :class:`minimp.scaler.ScaleRule`.

        Raises:
            SettingError: an unknown preset or field, or a setting that cannot act.
        """
        return cls.from_rule(preset_rule(name, overrides))

    @classmethod
    def from_rule(cls, rule: ScaleRule) -> Self:
        """Return a scaler that follows `rule`."""
        made = cls()
        made._begin(rule)
        return made

    # ---- a training step ----------------------------------------------------------------------------------

    def scale(self, outputs: Any, *, allow_scaled: bool = False) -> Any:
        """Return S * outputs: of a tensor, or of each tensor in a list or tuple, however nested.

        A list or tuple comes back as the same type; another iterable as a generator. A float16 tensor
        with dimensions stays float16, and may overflow; one without becomes float32, as bfloat16 and
        integers do. What backward makes of the result is marked: it carries S.

        Args:
            outputs: what to scale.
            allow_scaled: take outputs that depend on gradients which still carry a scale.

        Raises:
            SettingError: neither a tensor nor an iterable of tensors.
            ScalerError: a penalty in the outputs was built from gradients that still carry a scale.
        """
        return times_scale(outputs, self._start, self, allow_scaled=allow_scaled)

    def unscaled(self, gradients: Any) -> Any:
        """Return gradients of a scaled loss divided by the scale they carry, to build a penalty from.

        >>> scaled = mp.grad(scaler.scale(loss), params, create_graph=True)  # doctest: +SKIP
        >>> penalty = sum((g**2).sum() for g in scaler.unscaled(scaled)) ** 0.5  # doctest: +SKIP
        >>> scaler.scale(loss + penalty).backward()  # doctest: +SKIP

        A list or tuple comes back as the same type, None as None; 16-bit gradients become float32 first, so
        that dividing flushes nothing. Infinities stay: look for them after backward, as ever.

        Raises:
            ScalerError: a tensor carries no scale, or is a sum under several.
            SettingError: something that is no tensor.
        """
        return unscaled(gradients, self)

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of the optimizer's parameters by S, once, before clipping for example.

        A parameter that two optimizers share is unscaled by each of them.

        Raises:
            ScalerError: nothing was scaled yet, the optimizer was unscaled or stepped already, a
                gradient is in float16, was scaled by another scale than S, or added up under several.
        """
        self._require_scale("unscale_")
        record = self._record(optimizer)
        if record.stage is not Stage.READY:
            called = "unscale_" if record.stage is Stage.UNSCALED else "step"
            raise ScalerError(
                f"{called}() has been called on this optimizer since the last update()",
                op="GradScaler.unscale_", help="call update() at the end of each iteration",
            )  # fmt: skip
        named = list(named_parameters(optimizer, self._names))
        record.nonfinite = unscale_gradients(named, self._state.scale)
        record.checked = sum(p.grad is not None for _, p in named)
        record.stage = Stage.UNSCALED

    def step(self, optimizer: Any, *args: Any, **options: Any) -> ScalerStep:
        """Unscale if that was not done, then run `optimizer.step(*args, **options)` or skip it.

        It is skipped if a gradient is infinite or NaN. An optimizer with `_step_supports_amp_scaling`
        unscales and skips by itself: it is always run, with its attributes `grad_scale` (None if unscaled
        already) and `found_inf` set meanwhile.

        Returns:
            What happened; kept as :attr:`last_step`, in :attr:`reports`, and for :meth:`report_of`. Its field
            `returned` is what `optimizer.step` returned, None if it was skipped.

        Raises:
            ScalerError: nothing was scaled yet, step() was called since the last update(), no parameter has
                a gradient, a closure was given (it would be run with unscaled gradients only once), or the
                step is bad and max_consecutive_skips were skipped before it (its gradients are unscaled by
                then; nothing else has changed).
        """
        if "closure" in options:
            raise ScalerError(
                "a closure cannot be used with loss scaling", op="GradScaler.step",
                help="run forward and backward once before, then step(optimizer)",
            )  # fmt: skip
        self._require_scale("step")
        record = self._record(optimizer)
        if record.stage is Stage.STEPPED:
            raise ScalerError(
                "step() has been called on this optimizer since the last update()",
                op="GradScaler.step", help="call update() at the end of each iteration",
            )  # fmt: skip
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            result = self._step_fused(record, args, options)
        else:
            if record.stage is Stage.READY:
                self.unscale_(optimizer)
            if not record.checked:
                raise nothing_to_check(list(named_parameters(optimizer, self._names)))
            if record.nonfinite:
                self._require_patience(record.nonfinite)
            result = skip(optimizer) if record.nonfinite else optimizer.step(*args, **options)
        record.stage = Stage.STEPPED
        return self._report(record, self._state.scale, self._state.skips, result)

    def _step_fused(self, record: Record, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        optimizer = record.optimizer
        own = getattr(optimizer, "grad_scale", None)
        scale = own
        if record.stage is Stage.READY:
            named = list(named_parameters(optimizer, self._names))
            marks_unscaled([(name, p, p.grad) for name, p in named if p.grad is not None], self._state.scale)
            record.nonfinite = find_nonfinite(named)
            record.checked = sum(p.grad is not None for _, p in named)
            scale = self._state.scale * (1.0 if own is None else own)
        if record.nonfinite:
            self._require_patience(record.nonfinite)
        optimizer.grad_scale, optimizer.found_inf = scale, float(bool(record.nonfinite))
        try:
            return optimizer.step(*args, **options)
        finally:
            del optimizer.grad_scale, optimizer.found_inf

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Move S at the end of an iteration, by what the checks since the last update found.

        Args:
            new_scale: set S to this instead: a float, or a float tensor without axes. The growth tracker
                stays as it is, and no check is needed.

        Raises:
            ScalerError: nothing was scaled yet, no gradients were checked, or the step is bad and
                max_consecutive_skips were skipped before it; nothing is changed.
            SettingError: `new_scale` is something else, or out of the rule's range.
        """
        self._require_scale("update")
        if new_scale is None:
            if not any(record.checked for record in self._records.values()):
                raise ScalerError(
                    "no inf checks were recorded prior to update()",
                    op="GradScaler.update", help="call step(optimizer), or unscale_(optimizer), first",
                )  # fmt: skip
            names = [name for record in self._records.values() for name in record.nonfinite]
            self._finish(bool(names), names)
            return
        scale = self.rule.check_scale(one_number(new_scale), "new_scale", "GradScaler.update")
        self._state = replace(self._state, scale=self.rule.rounded(scale))
        self._records = {}

    def advance(self, found_inf: bool, nonfinite: Iterable[str] = ()) -> None:
        """Move S by a verdict reached elsewhere: what :meth:`update` does with its own.

        Args:
            found_inf: whether any gradient was infinite or NaN.
            nonfinite: the parameters whose gradients were, for messages.

        Raises:
            ScalerError: it was, and max_consecutive_skips were skipped before it; nothing is changed.
        """
        self._finish(bool(found_inf), nonfinite)

    def _finish(self, found_inf: bool, nonfinite: Iterable[str]) -> None:
        told = self._move(found_inf, tuple(dict.fromkeys(nonfinite)))
        self._records = {}
        warn(told, stacklevel=3)

    # ---- what it knows ------------------------------------------------------------------------------------

    def is_enabled(self) -> bool:
        """Tell whether scaling is enabled."""
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Copy between iterations only (copy.deepcopy); the copy rounds its scale anew, as PyTorch's."""
        if self._records:
            raise ScalerError(
                "a scaler can be copied between iterations only", op="GradScaler", help="call update() first"
            )
        last = self.last_step and replace(self.last_step, returned=None)
        return super().__getstate__() | {"last_step": last}

    # ---- inside -------------------------------------------------------------------------------------------

    def _require_scale(self, call: str) -> None:
        if not self._started:
            raise ScalerError(
                f"{call}() was called before scale()",
                op=f"GradScaler.{call}", help="call scaler.scale(loss).backward() earlier in the iteration",
            )  # fmt: skip


class _NoScaling(GradScaler):
    """A disabled scaler: S = 1, and nothing is checked or skipped."""

    def __init__(self, *settings: Any, **options: Any) -> None:
        """Ignore the settings: __new__ has made the object."""

    def scale(self, outputs: Any, *, allow_scaled: bool = False) -> Any:  # noqa: ARG002 - as everywhere
        """Return `outputs` itself."""
        return outputs

    def unscale_(self, optimizer: Any) -> None:
        """Do nothing."""

    def step(self, optimizer: Any, *args: Any, **options: Any) -> ScalerStep:
        """Run the optimizer, and report it."""
        return self._report(self._record(optimizer), 1.0, 0, optimizer.step(*args, **options))

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Do nothing but begin a new iteration."""
        del new_scale
        self._records = {}

    def advance(self, found_inf: bool, nonfinite: Iterable[str] = ()) -> None:
        """Do nothing but begin a new iteration."""
        del found_inf, nonfinite
        self._records = {}

    def __getstate__(self) -> dict[str, Any]:
        """Copy at any time."""
        return self.__dict__ | {"last_step": None, "_reports": deque(maxlen=REPORTS_KEPT), "_records": {}}

    def is_enabled(self) -> bool:
        """Tell that scaling is disabled."""
        return False

    def __repr__(self) -> str:
        """Say that it does nothing."""
        return "GradScaler(enabled=False)"

    def _refuse(self) -> NoReturn:
        raise ScalerError(
            "a disabled scaler neither grows nor backs off", op="GradScaler", help="ask is_enabled() first"
        )

    get_growth_factor = get_backoff_factor = get_growth_interval = _refuse

    def set_growth_factor(self, new_factor: float) -> None:
        """Do nothing."""

    def set_backoff_factor(self, new_factor: float) -> None:
        """Do nothing."""

    def set_growth_interval(self, new_interval: int) -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return no entries."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Do nothing."""
