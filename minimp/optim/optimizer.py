"""The base of every optimizer: groups, settings, the step, and what it keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from minimp.errors import SettingError, unknown_name
from minimp.modes import enable_grad
from minimp.optim.groups import Group, as_groups, make_group
from minimp.optim.measuring import update_measured
from minimp.optim.onepass import update_all
from minimp.optim.predicated import settle, update_all_unless
from minimp.optim.report import ParameterUpdate, UpdateReport
from minimp.optim.states import pack_state, unpack_state
from minimp.optim.storage import UPDATES
from minimp.optim.telling import telling_of
from minimp.optim.torch_states import to_torch
from minimp.optim.work import Job, State, drop_idle, jobs_of, torn_if_full
from minimp.quiet import hush, speak
from minimp.scaler.marks import known_name, refuse_scaled
from minimp.scaler.naming import Names, named_parameters
from minimp.tape import Array, Value

if TYPE_CHECKING:
    from minimp_backends.updates import Room

__all__ = ["Optimizer", "State"]


class Optimizer(ABC):
    """Changes parameters by their gradients (torch.optim.Optimizer).

    All arithmetic and all state is in FP32 (float64 for float64 parameters), whatever the format of the
    parameters. :mod:`minimp.optim.storage` says how a 16-bit parameter takes an FP32 update.

    Gradients add up in `.grad` until :meth:`zero_grad`, so a batch that does not fit in memory is taken in n
    parts whose losses, means over equally many rows, are divided by n; with a scaler it is unscaled once::

        for x, y in parts:
            scaler.scale(loss_fn(model(x), y) / n).backward()
        scaler.unscale_(optimizer)  # where clipping needs it; step() does it otherwise
        scaler.step(optimizer)
        scaler.update()  # never between the parts: all of them must carry one scale
        optimizer.zero_grad()

    Args:
        params: an iterable of tensors or of (name, tensor) pairs, or a list of dicts, each with `params` and
            options that differ from the defaults for that group.
        defaults: the options of every group.
        master_weights: whether 16-bit parameters get an FP32 master. None leaves it to :meth:`configure`,
            and is False without it. float32 parameters are their own masters either way.
        update: how a 16-bit parameter without master takes an update: ``"fp32"``, ``"stochastic"`` or
            ``"kahan"``. None leaves it to :meth:`configure`, and is ``"fp32"`` without it.

    Attributes:
        param_groups: the groups, each a dict of `params` and options; options may be changed between steps.
        state: parameter -> what is kept for it, arrays and numbers by torch's names.
        measure_updates: whether the next steps count swallowed updates.
        steps_taken, steps_skipped: how often :meth:`step` and :meth:`skip_step` were called; not saved.
        last_update: the :class:`UpdateReport` of the last step, if it was measured, else None.

    Raises:
        SettingError: parameters or options that cannot be used.
    """

    rule: ClassVar[str]
    """The update rule's name: that of the class in lower case, a key of :data:`minimp.checks.UPDATES`."""
    state_names: ClassVar[frozenset[str]]
    """What the rule may keep for a parameter."""
    together: ClassVar[bool] = True
    """Whether small parameters may share a kernel call: not where the rule needs the norm of each."""

    def __init__(
        self, params: Any, defaults: Mapping[str, Any], *, master_weights: bool | None, update: str | None
    ) -> None:
        self.defaults = dict(defaults)
        self.param_groups: list[Group] = []
        self.state: dict[Value, State] = {}
        self.measure_updates = False
        self.steps_taken = self.steps_skipped = 0
        self.unsettled = False  # whether numbers of the state are on a device
        self.last_update: UpdateReport | None = None
        self.written: dict[Value, Array] = {}
        self._explicit = self._checked(master_weights, update)
        self._chosen = dict(self._explicit)
        for group in as_groups(self._name(), params):
            self.add_param_group(group)

    def _name(self) -> str:
        return self.__class__.__name__

    # ---- settings ---------------------------------------------------------------------------------------

    @property
    def master_weights(self) -> bool:
        """Whether 16-bit parameters have an FP32 master."""
        return bool(self._chosen["master_weights"])

    @property
    def update(self) -> str:
        """How 16-bit parameters without master take an update."""
        return str(self._chosen["update"] or "fp32")

    @property
    def settings(self) -> dict[str, Any]:
        """What `master_weights` and `update` were told to be so far; None where that was left open."""
        return dict(self._chosen)

    def configure(self, *, master_weights: bool | None = None, update: str | None = None) -> None:
        """Choose what the constructor left open; None leaves a setting as it is.

        Raises:
            SettingError: an unknown name; or it contradicts what the constructor was told; or it would
                change a setting after the first step; or it cannot act (`update` beside masters).
        """
        op = f"{self._name()}.configure"
        wanted = self._checked(master_weights, update)
        self.refuse_contradiction(op, wanted)
        for name, value in wanted.items():
            now = getattr(self, name)
            if value is not None and self.state and value != now:
                raise SettingError(
                    f"{name} cannot become {value!r} after the first step, which used {now!r}",
                    op=op,
                    help="configure before the first step, or make a new optimizer",
                )
        chosen = {name: now if wanted[name] is None else wanted[name] for name, now in self._chosen.items()}
        self._refuse_idle_update(chosen)
        self._chosen = chosen

    def refuse_contradiction(self, op: str, wanted: Mapping[str, Any], *, configured: bool = False) -> None:
        """Refuse settings other than those that the constructor was told; None contradicts nothing.

        Args:
            op: who asks, for the message.
            wanted: `master_weights` and `update`.
            configured: hold them to what :meth:`configure` was told, too.

        Raises:
            SettingError: naming both.
        """
        for name, value in wanted.items():
            told = (self._chosen if configured else self._explicit)[name]
            if value is not None and told is not None and value != told:
                raise SettingError(
                    f"{name}={value!r} contradicts the optimizer's own {name}={told!r}",
                    op=op,
                    help="make the optimizer without it, or choose a recipe that says the same",
                )

    def _checked(self, master_weights: bool | None, update: str | None) -> dict[str, Any]:
        if master_weights not in (None, True, False):
            raise SettingError(
                f"expected master_weights to be True, False or None, got {master_weights!r}", op=self._name()
            )
        if update is not None and update not in UPDATES:
            raise SettingError(unknown_name("update", update, UPDATES), op=self._name())
        chosen = {"master_weights": master_weights, "update": update}
        self._refuse_idle_update(chosen)
        return chosen

    def _refuse_idle_update(self, chosen: Mapping[str, Any]) -> None:
        if chosen["master_weights"] and chosen["update"] not in (None, "fp32"):
            raise SettingError(
                f"update={chosen['update']!r} cannot act beside master weights, which take every update",
                op=self._name(),
                help="leave one of the two out",
            )

    # ---- parameters -------------------------------------------------------------------------------------

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a group: `params`, and options that differ from the defaults.

        Raises:
            SettingError: an unknown option, a value out of range, or a parameter that comes twice.
        """
        if not isinstance(param_group, Mapping):
            raise SettingError(f"expected a dict, got {type(param_group).__name__}", op=self._name())
        taken = {id(param) for _, param in self._pairs()}
        group = make_group(self._name(), param_group, self.defaults, taken)
        self.check_group(group)
        named = {"param_names" in each for each in (*self.param_groups, group)}
        if len(named) > 1:
            raise SettingError("some groups have names and some have none", op=self._name())
        self.param_groups.append(group)

    def _pairs(self) -> Iterator[tuple[Group, Value]]:
        """Yield (group, parameter) for every parameter, in order."""
        for group in self.param_groups:
            for param in group["params"]:
                yield group, param

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or set those that exist to zero."""
        for _, param in self._pairs():
            if param.grad is not None:
                zeros = None if set_to_none else param.backend.xp.zeros_like(param.grad.array)
                param.grad = None if zeros is None else Value.make(zeros, param.backend)

    # ---- the rule ---------------------------------------------------------------------------------------

    @abstractmethod
    def check_group(self, group: Group) -> None:
        """Hold the options of a group to their ranges.

        Raises:
            SettingError: one is out of its range.
        """

    @abstractmethod
    def lacking(self, state: State) -> list[str]:
        """Return the names without which a loaded state of a parameter is not whole."""

    @abstractmethod
    def begin(self, group: Group, state: State, backend: Any, weight: Array) -> None:
        """Make what a state lacks, of the shape and dtype of `weight`, as it is before the first step."""

    @abstractmethod
    def advance(
        self, group: Group, state: State, backend: Any, room: Room, weight: Array, grad: Array
    ) -> None:
        """Carry the state one step on and fill `room` with the new weights.

        Args:
            group: the options.
            state: the parameter's state, or that of several end to end; what is missing is made.
            backend: whose kernels do it.
            room: for the results.
            weight, grad: wide, of one dtype and shape; left as they are.
        """

    # ---- the step ---------------------------------------------------------------------------------------

    def step(
        self, closure: Callable[[], Any] | None = None, *, gradients: Mapping[Any, Any] | None = None,
        allow_scaled: bool = False, found_inf: Array | None = None,
    ) -> Any:  # fmt: skip
        """Update every parameter that has a gradient; others stay as they are, their state too.

        Everything is checked before the first parameter changes. Non-finite gradients are not looked for:
        that is the scaler's part.

        Args:
            closure: computes the loss anew, with gradients; called first.
            gradients: parameter -> array or tensor to use in the place of every `.grad`: unscaled, float32
                (float64 for float64 parameters); 16-bit ones are widened exactly.
            allow_scaled: take gradients as they are, whatever loss scale they carry.
            found_inf: an array without axes on the device: where it is true, nothing changes, and the host
                does not learn of it (:mod:`minimp.optim.predicated`). None: always update.

        Returns:
            What the closure returned, or None.

        Raises:
            SettingError: `update` cannot act on these parameters; a gradient for an unknown parameter; a
                master that no longer belongs to its parameter; or `measure_updates` beside `found_inf`.
            ShapeError, FormatError, DeviceError: a gradient that does not fit its parameter.
            DeviceError: a parameter that was moved to another backend after a step.
            ScalerError: a gradient still carries a loss scale, was unscaled twice, or was added up under
                several scales (not where the optimizer unscales by itself: `_step_supports_amp_scaling`).
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        if not (allow_scaled or getattr(self, "_step_supports_amp_scaling", False)):
            self._refuse_scaled(gradients)
        self._settle_unless(found_inf)
        jobs = jobs_of(self, gradients)
        with telling_of(self), torn_if_full(f"{self._name()}.step"):
            token = hush()
            try:
                rows = self._carry_out(jobs, found_inf)
            finally:
                speak(token)
            self.last_update = UpdateReport(tuple(rows)) if self.measure_updates else None
            self.steps_taken += 1
        return loss

    def _refuse_scaled(self, gradients: Mapping[Any, Any] | None) -> None:
        """Refuse gradients that carry a loss scale, before anything changes."""
        params = [p for _, p in self._pairs()]
        own = cache(lambda: [name for name, _ in named_parameters(self, Names())])
        refuse_scaled(
            f"{self._name()}.step", [p.grad if gradients is None else gradients.get(p) for p in params],
            lambda i: known_name(params[i]) or own()[i],
            "and the update would be by {} times the gradient",
            "call scaler.step(optimizer) in the place of optimizer.step(), or scaler.unscale_(optimizer) "
            "before; where scaled gradients are meant, pass allow_scaled=True",
        )  # fmt: skip

    def _settle_unless(self, found_inf: Array | None) -> None:
        """Bring back what steps on the device left there, before one that the host decides on."""
        if found_inf is None:
            settle(self)
        elif self.measure_updates:
            raise SettingError(
                "measure_updates counts on the host, which does not learn whether this step was skipped",
                op=f"{self._name()}.step", help="let the host decide: TrainStep(..., control='host')",
            )  # fmt: skip

    def skip_step(self) -> None:
        """Take note that a step was left out, its gradients not being finite; schedulers ask for it."""
        self.steps_skipped += 1

    def _carry_out(self, jobs: list[Job], found_inf: Array | None) -> list[ParameterUpdate]:
        """Update the parameters; return what became of their updates, if that is measured."""
        for job in jobs:
            drop_idle(job)
            self.state[job.param] = job.state
        rows = []
        if self.measure_updates:
            rows = [update_measured(self, job) for job in jobs]
        elif found_inf is None:
            update_all(self, jobs)
        else:
            update_all_unless(self, jobs, found_inf)
        for job in jobs:
            self.written[job.param] = job.param.array
        return rows

    # ---- what is kept -----------------------------------------------------------------------------------

    def master_of(self, param: Value) -> Array | None:
        """Return the FP32 master of a parameter, an array not to be written to, or None."""
        return self.state.get(param, {}).get("master")

    def reset_masters(self) -> None:
        """Forget all masters; the next step makes them anew from the parameters as they are then."""
        for state in self.state.values():
            state.pop("master", None)

    def nbytes(self) -> dict[str, int]:
        """Return the bytes kept: ``"master"`` weights, and other ``"state"``, compensations among it.

        On a device parameters of one age share the array that counts their steps: it counts once.
        """
        sizes = {"master": 0, "state": 0}
        kept = {id(value): (name, value) for state in self.state.values() for name, value in state.items()}
        for name, value in kept.values():
            sizes["master" if name == "master" else "state"] += int(getattr(value, "nbytes", 0))
        return sizes

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a later run needs to go on, as plain data that shares no memory.

        ``"rule"``: the rule's name. ``"settings"``: master_weights and update. ``"param_groups"``: the
        options, with `params` as numbers counted over all groups. ``"state"``: flat names ``"3.exp_avg"``
        (parameter 3) -> NumPy array or number.
        """
        return pack_state(self)

    def torch_state_dict(self, convert: Callable[[Any], Any]) -> dict[str, Any]:
        """Return the state as torch's optimizer of the same name takes it.

        >>> theirs.load_state_dict(ours.torch_state_dict(torch.as_tensor))  # doctest: +SKIP

        Masters are left out: with them, torch's parameters are to be float32, and :meth:`master_of` has their
        values.

        Args:
            convert: makes a tensor of torch from a NumPy array.

        Raises:
            SettingError: a compensation (update="kahan") is kept, for which torch has no place.
        """
        return to_torch(self, convert)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict`, or that of torch's optimizer of this name, returned; or nothing.

        Load the model's weights too: the next step refuses a master that does not round to its parameter.
        torch's state has no masters: they are made of the parameters at the next step.

        Raises:
            SettingError: a state of another rule, of other groups or settings, or that is not whole.
            ShapeError: an array that does not have its parameter's shape.
            FormatError: an array of another dtype than is kept.
        """
        unpack_state(self, state_dict)

    def adopt(self, settings: Mapping[str, Any], state: dict[Value, State]) -> None:
        """Take over settings and state that have been checked."""
        self._chosen = dict(settings)
        self.state = state
        self.written = {}
        self.last_update = None

    def __repr__(self) -> str:
        """Show the options of each group as torch does."""
        lines = [f"{self._name()} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])
