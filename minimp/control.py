"""Who decides in a training step: the host, which reads what was found, or the device, which is not asked.

Both do the same arithmetic and come to the same bits. The host's way can be stopped anywhere and looked at:
stages, traces and the debugger go by it. The device's way is for speed on a GPU: scale, growth counter and
found_inf stay in arrays there, a skipped step is a choice between old and new arrays, and nothing waits until
somebody looks at the report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from minimp import ops
from minimp.displays.steps import report_html
from minimp.errors import OutOfMemoryError, SettingError, plain
from minimp.fp8 import Fp8Region
from minimp.policy import FLOATING, Region
from minimp.refusals import Doubt, raise_first
from minimp.scaler import GradScaler
from minimp.tape import Array, Event
from minimp.tensors import Tensor

if TYPE_CHECKING:
    from minimp.nn import Parameter
    from minimp.step import TrainStep
    from minimp_backends.array_backend import ArrayBackend as Backend

__all__ = [
    "CONTROLS", "DeviceControl", "HostControl", "StepReport", "StepState", "control_of", "with_causes",
]  # fmt: skip

CONTROLS = ("host", "device")
MOST_DOUBTS = 256
"""Questions that a loop which never reads a report may leave open; then they are asked after all."""


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Attributes:
        loss: the loss, unscaled and of the whole batch.
        loss_scale: the scale S that the step used.
        skipped: whether the update was skipped.
        nonfinite: names of the parameters whose gradient was not finite.
        grad_norm: the norm of all unscaled gradients, before clipping.

    After a step that the device decided on, the first look at any of them waits for it and reads them all.
    """

    loss: float
    loss_scale: float
    skipped: bool
    nonfinite: tuple[str, ...]
    grad_norm: float

    @classmethod
    def later(cls, read: Callable[[], Mapping[str, Any]]) -> StepReport:
        """Return a report that calls `read` for its attributes when the first of them is looked at."""
        made = object.__new__(cls)
        made.__dict__["_read"] = read
        return made

    def __getattr__(self, name: str) -> Any:
        """Read what has not been read yet."""
        read = self.__dict__.pop("_read", None)
        if read is not None:
            self.__dict__.update(read())
        if name not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self.__dict__[name]

    def __getstate__(self) -> dict[str, Any]:
        """Copy what it says."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def _repr_html_(self) -> str:
        return report_html(self)


@dataclass
class StepState:
    """What the stages of one step hand on to each other.

    Where the device decides, `scale`, `norm` and `skipped` are arrays without axes, and `nonfinite` is an
    array with an element for each of `gradients`.
    """

    parameters: dict[str, Parameter]
    backend: Backend
    inputs: Tensor
    targets: Any
    control: HostControl | DeviceControl
    scale: Any
    region: Region | None
    fp8: Fp8Region | None = None
    output: Any = None
    loss: Tensor | None = None
    scaled: Tensor | None = None
    gradients: dict[str, Array] = field(default_factory=dict)
    nonfinite: Any = ()
    norm: Any = 0.0
    skipped: Any = False
    events: list[Event] = field(default_factory=list)


def control_of(step: TrainStep, backend: Backend, *, watched: bool) -> HostControl | DeviceControl:
    """Return who decides in the next step.

    Args:
        step: its `control` is the wish: None leaves it to the backend.
        backend: the parameters'.
        watched: whether somebody looks at every stage, which only the host can show.
    """
    if step.control == "host" or watched:
        return HostControl(step)
    if step.control == "device":
        reason = _why_not(step)
        if reason is not None:
            raise SettingError(
                f"control='device' cannot act: {reason}",
                op="TrainStep", help="leave control out, or pass control='host'",
            )  # fmt: skip
        return DeviceControl(step, backend)
    wanted = backend.decides_on_device and _why_not(step) is None
    return DeviceControl(step, backend) if wanted else HostControl(step)


def with_causes(fault: OutOfMemoryError, step: TrainStep) -> OutOfMemoryError:
    """Return the error of a device without room with what the step holds by cause; nothing is run for it."""
    kept, parameters = step.optimizer.nbytes(), list(step.model.parameters())
    held = {
        "parameters": sum(int(p.array.nbytes) for p in parameters),
        "masters": kept["master"],
        "optimizer": kept["state"],
        "gradients": sum(int(p.grad.array.nbytes) for p in parameters if p.grad is not None),
    }
    rest = fault.used - sum(held.values())
    if rest > 0:  # otherwise it was not the pool that was full
        held["activations and workspaces"] = rest
    words = ", ".join(f"{cause} {count / 2**20:,.1f} MiB" for cause, count in held.items())
    return OutOfMemoryError(
        f"{plain(fault)}; the step holds {words}", op=fault.op, asked=fault.asked, used=fault.used,
        total=fault.total, limit=fault.limit, held=held, help=fault.help,
    )  # fmt: skip


def _why_not(step: TrainStep) -> str | None:
    """Say what in a step needs numbers on the host; None if nothing does."""
    if step.recipe.fp8 is not None:
        return f"recipe {step.recipe.name!r} computes in FP8, whose scales are set by the host"
    if not isinstance(step.scaler, GradScaler):
        return f"the host moves the scales of a {type(step.scaler).__name__}"
    if step.optimizer.measure_updates:
        return "the optimizer's measure_updates counts on the host"
    if step.scaler.is_enabled() and step.scaler.rule.max_consecutive_skips is not None:
        return "the scaler's max_consecutive_skips is counted on the host"
    return None


class HostControl:
    """The host reads what was found in the gradients, and updates or skips."""

    doubts = None
    """Nothing is postponed."""

    def __init__(self, step: TrainStep) -> None:
        self.step = step
        self.scale = step.scaler.get_scale()

    def scaled(self, loss: Tensor) -> Tensor:
        """Return S L, marked as such."""
        made: Tensor = self.step.scaler.scale(loss)
        return made

    def unscale(self, state: StepState) -> None:
        """g32 = n g16 / S."""
        # by a scale that has backed off to zero: every gradient becomes NaN, and every step is skipped
        factor = self.step.micro_batches / state.scale if state.scale else math.inf
        for name, p in state.parameters.items():
            if p.grad is not None:
                state.gradients[name] = p.backend.times(p.grad.array, factor)

    def check_finite(self, state: StepState) -> dict[str, Any]:
        """Name the parameters whose gradients are not finite, and take the norm of all."""
        sums = state.backend.square_sums(list(state.gradients.values()))
        squares = dict(zip(state.gradients, sums, strict=True))
        state.nonfinite = tuple(name for name, total in squares.items() if total is None)
        state.norm = float("nan") if state.nonfinite else float(sum(s for s in squares.values() if s)) ** 0.5
        return {"found_inf": bool(state.nonfinite), "nonfinite": state.nonfinite}

    def clip(self, state: StepState, max_norm: float) -> None:
        """g32 <- g32 min(1, c / |g|)."""
        if state.norm > max_norm:  # never true of a NaN norm
            factor = max_norm / (state.norm + 1e-6)  # as torch.nn.utils.clip_grad_norm_ 2.13
            state.gradients = {name: state.backend.times(g, factor) for name, g in state.gradients.items()}

    def update(self, state: StepState, gradients: Mapping[Any, Array]) -> None:
        """Update the weights, or skip."""
        state.skipped = bool(state.nonfinite) and self.step.scaler.is_enabled()
        if state.skipped:
            self.step.optimizer.skip_step()
        else:
            self.step.optimizer.step(gradients=gradients)

    def update_scale(self, state: StepState) -> dict[str, Any]:
        """Move S."""
        self.step.scaler.advance(bool(state.nonfinite), state.nonfinite)
        return {"loss_scale": self.step.scaler.get_scale()}

    def report(self, state: StepState) -> StepReport:
        """Say what the step did."""
        assert state.loss is not None
        loss = state.loss.item() * self.step.micro_batches
        return StepReport(loss, state.scale, state.skipped, state.nonfinite, state.norm)


class DeviceControl:
    """The device chooses between the updated weights and the old ones; the host reads nothing."""

    def __init__(self, step: TrainStep, backend: Backend) -> None:
        self.step, self.backend = step, backend
        scaler = step.scaler
        assert isinstance(scaler, GradScaler)  # `_why_not` has seen to it
        self.doubts: list[Doubt] = []
        self._moving = scaler.on_device(backend) if scaler.is_enabled() else None
        self.scale = backend.from_host(np.asarray(1.0)) if self._moving is None else self._moving.scale

    def scaled(self, loss: Tensor) -> Tensor:
        """Return S L; a loss without axes becomes float32, as :meth:`GradScaler.scale` has it."""
        if self._moving is None:
            return loss
        low = loss.ndim == 0 and loss.format in FLOATING and loss.array.dtype.itemsize == 2
        factor = Tensor(self.scale.astype(np.float32), self.backend)
        return ops.mul(loss.float() if low else loss, factor)

    def unscale(self, state: StepState) -> None:
        """g32 = n g16 / S; what the parameters keep is unscaled, too, for nobody knows S who could ask."""
        with_grad = {name: p.grad.array for name, p in state.parameters.items() if p.grad is not None}
        factor = self.step.micro_batches / self.scale
        arrays, state.nonfinite = self.backend.unscale_all(list(with_grad.values()), factor)
        state.gradients = dict(zip(with_grad, arrays, strict=True))
        for name, array in state.gradients.items():
            param = state.parameters[name]
            param.grad = Tensor(self.backend.narrow(array.copy(), param.format), self.backend)

    def check_finite(self, state: StepState) -> dict[str, Any]:
        """Take the norm of all gradients; which are not finite was found on the way."""
        xp = self.backend.xp
        totals = [self.backend.square_total(g) for g in state.gradients.values()]
        total = xp.stack(totals).sum() if totals else self.scale * 0
        self.found_inf = state.nonfinite.any()
        state.norm = xp.where(self.found_inf, math.nan, xp.sqrt(total))
        return {"found_inf": self.found_inf, "nonfinite": state.nonfinite}

    def clip(self, state: StepState, max_norm: float) -> None:
        """g32 <- g32 min(1, c / |g|)."""
        factor = self.backend.xp.where(state.norm > max_norm, max_norm / (state.norm + 1e-6), 1.0)
        state.gradients = {
            name: self.backend.times_on_device(g, factor) for name, g in state.gradients.items()
        }

    def update(self, state: StepState, gradients: Mapping[Any, Array]) -> None:
        """Compute the new weights; the old ones stay where a gradient was not finite, or data was refused."""
        unless = None if self._moving is None else self.found_inf
        for wrong, _ in self.doubts:
            unless = wrong if unless is None else unless | wrong
        if self._moving is not None:
            state.skipped = self.found_inf
        self.step.optimizer.step(gradients=gradients, found_inf=unless)

    def update_scale(self, state: StepState) -> dict[str, Any]:
        """Move S."""
        del state
        if self._moving is None:
            return {"loss_scale": self.scale}
        self._moving.advance(self.found_inf)
        return {"loss_scale": self._moving.scale}

    def report(self, state: StepState) -> StepReport:
        """Say what the step did when somebody asks; only numbers are kept until then."""
        assert state.loss is not None
        xp, names = self.backend.xp, tuple(state.gradients)
        numbers = (state.loss.array, self.scale, state.skipped, state.norm)
        flags, n, doubts = state.nonfinite, self.step.micro_batches, self.step.doubts
        doubts += self.doubts
        if len(doubts) > MOST_DOUBTS:
            raise_first(doubts)

        def read() -> dict[str, Any]:
            raise_first(doubts)
            parts = [xp.asarray(each).astype(np.float64).reshape(1) for each in numbers]
            read = self.backend.to_host(xp.concatenate([*parts, flags.astype(np.float64)])).tolist()
            loss, scale, skipped, norm, *bad = read
            nonfinite = tuple(name for name, each in zip(names, bad, strict=True) if each)
            return {
                "loss": loss * n, "loss_scale": scale, "skipped": bool(skipped), "nonfinite": nonfinite,
                "grad_norm": norm,
            }  # fmt: skip

        return StepReport.later(read)
