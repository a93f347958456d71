"""The training step as named stages, each with its equation and a check that proves it.

Running a step is running its stages to the end: one code path trains, teaches and debugs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from minimp.checks import stages as proofs
from minimp.control import CONTROLS, StepReport, StepState, control_of, with_causes
from minimp.displays.steps import stage_html
from minimp.door import cast_in_region
from minimp.errors import DataError, OutOfMemoryError, SettingError, unknown_name
from minimp.formats import Format
from minimp.fp8 import DelayedScaling, advance, linears
from minimp.fp8.region import region_of
from minimp.fp8.states import Filter, drop_staged, scales_of
from minimp.modes import MODES, listen, setting
from minimp.optim import Optimizer
from minimp.policy import Region, policies
from minimp.quiet import hush, speak
from minimp.recipe import Recipe, recipes
from minimp.refusals import Doubt, postponed
from minimp.scaler import GradScaler, LayerwiseScaler
from minimp.tape import Event
from minimp.tensors import Tensor

if TYPE_CHECKING:
    from minimp.checks import Findings
    from minimp.nn import Linear, Module

__all__ = ["STAGES", "Stage", "StepReport", "StepState", "TrainStep"]

STAGES = {
    "cast_weights": "w16 = round16(w32)",
    "forward": "y = f(x16, w16)",
    "loss": "L = loss(y) / n in FP32",
    "scale_loss": "L' = S L",
    "backward": "g16 = dL'/dw16",
    "unscale": "g32 = n g16 / S",
    "check_finite": "found_inf = any non-finite",
    "clip": "g32 <- g32 min(1, c / |g|)",
    "update": "w32 <- w32 - lr u(g32), or skip",
    "update_scale": "S <- 2 S, S / 2 or S",
}
"""The stages in order: name -> equation (Micikevicius et al. 2018, arXiv 1710.03740, section 3)."""


@dataclass(frozen=True)
class Stage:
    """One stage that has just run.

    Attributes:
        name: its name, a key of :data:`STAGES`.
        equation: what it computed.
        tensors: its results by name (parameters' names, ``"input"``, ``"output"``, ``"loss"``, ...); of an
            output in several parts ``"output.0"``, or with the key of a dict.
        facts: numbers that are no tensors (the scale, the norm, what was skipped).
        events: the ops and gradients it ran, if the step is being recorded.
    """

    name: str
    equation: str
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    events: tuple[Event, ...]
    proof: Callable[[Stage], Findings] = field(repr=False)

    def check(self) -> Findings:
        """Prove the stage; the result is true if nothing is wrong, and says what is."""
        return self.proof(self)

    def _repr_html_(self) -> str:
        return stage_html(self)

    def __str__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self.facts.items())
        return f"{self.name:13} {self.equation:32} {facts}".rstrip()


class TrainStep:
    """One training step of a model by a recipe, run whole or stage by stage.

    >>> step = TrainStep(model, mp.functional.cross_entropy, mp.optim.SGD(model.parameters(), lr=0.1),
    ...                  mp.recipes["mixed-fp16"])  # doctest: +SKIP
    >>> report = step(inputs, targets)  # doctest: +SKIP
    >>> for stage in step.stages(inputs, targets):  # doctest: +SKIP
    ...     print(stage.name, stage.check())

    Args:
        model: a module; its parameters are converted to the recipe's `param_dtype`. Running statistics
            (batch normalisation) stay in float32 where that is a 16-bit format.
        loss_fn: `loss_fn(model(inputs), targets)` gives a tensor of one element.
        optimizer: over the model's parameters; takes the recipe's `master_weights` and `update`.
        recipe: a Recipe, or the name of one.
        scaler: a GradScaler or LayerwiseScaler to use in place of the recipe's own.
        max_norm: clip the norm of all gradients to this.
        micro_batches: n: the loss is divided by n, as for a batch that is accumulated over n equal
            micro-batches. One is computed and stands for all: its unscaled gradient is multiplied by n.
        fp8_filter_fn: `fp8_filter_fn(module, path)` tells which `nn.Linear` layers compute in FP8, where the
            recipe has it (torchao's `module_filter_fn`; :func:`minimp.fp8.aligned` is one); None: all.
        control: who decides whether to skip (:mod:`minimp.control`): ``"host"``, or ``"device"``, which never
            makes the host wait. None leaves it to the backend: the device where there is one and nothing
            needs the host. Stages, traces and the debugger always go by the host.

    Attributes:
        fp8_layers: path -> layer of those that compute in FP8.

    Raises:
        SettingError: a setting that cannot act with this recipe.
        DeviceError: a format that the device cannot multiply; model and optimizer are as they were.
    """

    def __init__(
        self,
        model: Module,
        loss_fn: Callable[[Any, Any], Tensor],
        optimizer: Optimizer,
        recipe: Recipe | str,
        *,
        scaler: GradScaler | LayerwiseScaler | None = None,
        max_norm: float | None = None,
        micro_batches: int = 1,
        fp8_filter_fn: Filter | None = None,
        control: str | None = None,
    ) -> None:
        # the model first: a deep copy goes in this order, and a scaler names what was copied before it
        self.model, self.loss_fn, self.optimizer = model, loss_fn, optimizer
        self.recipe = recipes[recipe] if isinstance(recipe, str) else recipe
        self.scaler = _make_scaler(self.recipe, scaler)
        if max_norm is not None and not max_norm > 0:
            raise SettingError(f"max_norm must be greater than 0, got {max_norm}")
        if micro_batches < 1:
            raise SettingError(f"micro_batches must be at least 1, got {micro_batches}")
        self.fp8_layers = _fp8_layers(model, self.recipe, fp8_filter_fn)
        _require_formats(model, self.recipe)
        optimizer.configure(master_weights=self.recipe.master_weights, update=self.recipe.update)
        low = Recipe.low(self.recipe.param_dtype)
        model.to(self.recipe.param_dtype, keep_statistics=low)
        self.scaler.name_parameters(model)
        self.max_norm, self.micro_batches = max_norm, micro_batches
        if control is not None and control not in CONTROLS:
            raise SettingError(unknown_name("control", control, CONTROLS), op="TrainStep")
        self.control = control
        self.doubts: list[Doubt] = []

    def __call__(self, inputs: Any, targets: Any) -> StepReport:
        """Run the whole step.

        Args:
            inputs: what the model takes: a tensor or array (N, ...).
            targets: what the loss takes: a tensor or array (N, ...). Without a policy, inputs and targets
                that are no integers are cast to the recipe's `compute_dtype`.

        Raises:
            DataError: inputs and targets of different lengths, or none.
            OutOfMemoryError: the device has no room; it says what the step holds, by cause.
        """
        state = self._start(inputs, targets)
        try:
            for _ in self._unrecorded(state):
                pass
        except OutOfMemoryError as fault:
            raise with_causes(fault, self) from fault
        return state.control.report(state)

    def walk(self, inputs: Any, targets: Any) -> Iterator[tuple[str, StepState]]:
        """Run the step stage by stage, unrecorded: yield each stage's name, and what the stages hand on.

        Nothing is held but what the step itself holds (:mod:`minimp.memory` counts it). A walk that is
        dropped half way leaves the weights as they were, up to stage `update`.
        """
        state = self._start(inputs, targets)
        for name in self._unrecorded(state):
            yield name, state

    def _unrecorded(self, state: StepState) -> Iterator[str]:
        for name in STAGES:
            self._run(name, state)
            yield name

    def stages(self, inputs: Any, targets: Any) -> Iterator[Stage]:
        """Run the step stage by stage: each is yielded after it ran, recorded so that it can be checked.

        What a stage's `tensors` show is what the next stage works on. A generator that is dropped half
        way leaves the weights as they were, up to stage `update`.
        """
        return self._recorded(self._start(inputs, targets, watched=True))

    def _start(self, inputs: Any, targets: Any, *, watched: bool = False) -> StepState:
        x = inputs if isinstance(inputs, Tensor) else Tensor.lift(inputs, None)
        count = len(targets) if hasattr(targets, "__len__") else None
        if not x.ndim or x.shape[0] == 0 or (count is not None and count != x.shape[0]):
            raise DataError(
                f"expected as many targets as inputs, at least one; got inputs {x.shape} and {count} targets",
                op="TrainStep", help="the first axis of both is the batch",
            )  # fmt: skip
        recipe = self.recipe
        policy = policies[recipe.policy] if isinstance(recipe.policy, str) else recipe.policy
        region = None if policy is None else Region(policy, recipe.compute_dtype)
        if region is None:  # everything in one format, targets that are values too
            x, targets = (_in_format(each, recipe.compute_dtype) for each in (x, targets))
        parameters = dict(self.model.named_parameters())
        backend = next(iter(parameters.values())).backend
        drop_staged(self.fp8_layers.values())  # by a step that was dropped half way
        fp8 = None if recipe.fp8 is None else region_of(recipe.fp8, self.fp8_layers.values())
        control = control_of(self, backend, watched=watched or bool(MODES.get().watchers))
        return StepState(parameters, backend, x, targets, control, control.scale, region, fp8)

    def _recorded(self, state: StepState) -> Iterator[Stage]:
        for name, equation in STAGES.items():
            before = proofs.remember(self, state, name)
            events: list[Event] = []
            with listen(events.append):
                tensors, facts = self._run(name, state)
            state.events += events
            proof = proofs.proof_of(name, self, state, before)
            yield Stage(name, equation, tensors, facts, tuple(events), proof)

    def _run(self, name: str, state: StepState) -> _Result:
        """Run one stage by the recipe, and tell those who watch."""
        watchers = MODES.get().watchers
        if not watchers:
            return self._carry_out(name, state)
        for watcher in watchers:
            watcher.begin_stage(self, name, state)
        tensors: Mapping[str, Tensor] | None = None
        try:
            tensors, facts = self._carry_out(name, state)
            return tensors, facts
        finally:
            for watcher in reversed(watchers):
                watcher.end_stage(self, name, state, tensors)

    def _carry_out(self, name: str, state: StepState) -> _Result:
        """Run one stage: in the recipe's autocast region where the model runs, silently elsewhere."""
        stage: Callable[[StepState], _Result] = getattr(self, f"_{name}")
        region, fp8 = (state.region, state.fp8) if name in _IN_REGION else (None, None)
        with setting(autocast=region, fp8=fp8, accumulate=self.recipe.accumulate):
            if name in _IN_REGION:  # the model is the user's, and may speak
                doubts = state.control.doubts
                if doubts is None:
                    return stage(state)
                with postponed(doubts):
                    return stage(state)
            token = hush()
            try:
                return stage(state)
            finally:
                speak(token)

    # ---- the stages ---------------------------------------------------------------------------------------

    def _cast_weights(self, state: StepState) -> _Result:
        """Cast every FP32 parameter once; the region's cache hands the same node to every op.

        Layers in FP8 quantise their weights themselves, from FP32.
        """
        self.optimizer.zero_grad()
        region = state.region
        if region is None:
            return {name: p.detach() for name, p in state.parameters.items()}, {}
        low = region.format
        in_fp8 = {id(p) for layer in self.fp8_layers.values() for p in layer.parameters()}
        wanted = {name: p for name, p in state.parameters.items() if id(p) not in in_fp8}
        return {name: cast_in_region(p, low, region) for name, p in wanted.items()}, {}

    def _forward(self, state: StepState) -> _Result:
        state.output = self.model(state.inputs)
        return {"input": state.inputs, **_named("output", state.output)}, {}

    def _loss(self, state: StepState) -> _Result:
        loss = self.loss_fn(state.output, state.targets)
        if loss.size != 1:
            raise DataError(f"expected a loss of one element, got shape {loss.shape}", op="TrainStep")
        state.loss = loss if self.micro_batches == 1 else loss / float(self.micro_batches)
        return {"loss": state.loss}, {"micro_batches": self.micro_batches}

    def _scale_loss(self, state: StepState) -> _Result:
        assert state.loss is not None
        state.scaled = state.control.scaled(state.loss)
        return {"scaled_loss": state.scaled}, {"loss_scale": state.scale}

    def _backward(self, state: StepState) -> _Result:
        assert state.scaled is not None
        state.scaled.backward()
        return {name: p.grad for name, p in state.parameters.items() if p.grad is not None}, {}

    def _unscale(self, state: StepState) -> _Result:
        state.control.unscale(state)
        return self._unscaled(state), {"loss_scale": state.scale}

    def _check_finite(self, state: StepState) -> _Result:
        facts = state.control.check_finite(state)
        return self._unscaled(state), facts

    def _clip(self, state: StepState) -> _Result:
        if self.max_norm is not None:
            state.control.clip(state, self.max_norm)
        return self._unscaled(state), {"grad_norm": state.norm, "max_norm": self.max_norm}

    def _update(self, state: StepState) -> _Result:
        gradients = {state.parameters[name]: g for name, g in state.gradients.items()}
        state.control.update(state, gradients)
        return {name: p.detach() for name, p in state.parameters.items()}, {"skipped": state.skipped}

    def _update_scale(self, state: StepState) -> _Result:
        facts = state.control.update_scale(state)
        if isinstance(self.recipe.fp8, DelayedScaling):
            advance(self.fp8_layers.values(), self.recipe.fp8)
            facts["fp8_scales"] = scales_of(self.fp8_layers)
        return {}, facts

    def _unscaled(self, state: StepState) -> dict[str, Tensor]:
        return {name: Tensor(g, state.backend) for name, g in state.gradients.items()}


_Result = tuple[dict[str, Tensor], dict[str, Any]]
_IN_REGION = ("cast_weights", "forward", "loss")


def _named(name: str, value: Any) -> dict[str, Tensor]:
    """Return the tensors of a model's output by name: itself, or those in tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return {name: value}
    known = value.items() if isinstance(value, Mapping) else ()
    parts = enumerate(value) if isinstance(value, tuple | list) else known
    return {path: part for key, each in parts for path, part in _named(f"{name}.{key}", each).items()}


def _in_format(value: Any, form: Format) -> Any:
    """Return floating data as a tensor of `form`; labels and other integers as they are."""
    if not isinstance(value, Tensor):
        dtype = getattr(value, "dtype", None)  # a device's array shows it without becoming a host array
        if (np.asarray(value).dtype if dtype is None else dtype).kind in "iub":
            return value
    made = value if isinstance(value, Tensor) else Tensor.lift(value, None)
    return value if made.format is None else made.detach().to(form)


def _fp8_layers(model: Module, recipe: Recipe, filter_fn: Filter | None) -> dict[str, Linear]:
    """Return the layers that compute in FP8."""
    if recipe.fp8 is None:
        if filter_fn is not None:
            raise SettingError(f"recipe {recipe.name!r} has no FP8: fp8_filter_fn cannot act")
        return {}
    found = linears(model, filter_fn)
    if not found:
        raise SettingError(
            f"recipe {recipe.name!r} computes nn.Linear layers in FP8, and there is none to compute so",
            op="TrainStep", help="let fp8_filter_fn take a layer, or choose another recipe",
        )  # fmt: skip
    return found


def _require_formats(model: Module, recipe: Recipe) -> None:
    """Refuse a recipe in whose formats the model's device cannot multiply, before anything changes."""
    for parameter in islice(model.parameters(), 1):
        for form in (recipe.param_dtype, recipe.compute_dtype):
            parameter.backend.require(form)


def _make_scaler(recipe: Recipe, given: GradScaler | LayerwiseScaler | None) -> GradScaler | LayerwiseScaler:
    """Return the scaler of a recipe: dynamic, by layer, static, or one that does nothing."""
    if given is not None:
        if recipe.loss_scale is None and given.is_enabled():
            raise SettingError(f"recipe {recipe.name!r} does not scale the loss; a scaler cannot act in it")
        return given
    if recipe.loss_scale is None:
        return GradScaler(enabled=False)
    if recipe.loss_scale == "dynamic":
        return GradScaler()
    if recipe.loss_scale == "layerwise":
        return LayerwiseScaler()
    return GradScaler.preset("static", init_scale=float(recipe.loss_scale))
