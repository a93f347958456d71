"""What goes into what: one forward of a model, written down op by op and module by module.

Arrays are told apart by identity: the engine never changes one in place, and all of them are kept for as long
as the record lives. So "the output of this module is used by that one alone" can be read off, whatever the
code of `forward` looks like. What is not seen: values that code takes out of the engine (`tensor.numpy()`,
`tensor.array`), and tensors that a module puts aside for later.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minimp.errors import SettingError
from minimp.modes import listen, no_grad
from minimp.nn import Identity
from minimp.nn.hooks import register_module_forward_hook, register_module_forward_pre_hook
from minimp.nn.module import Module
from minimp.rng import drawing_from
from minimp.tape import Array, Event
from minimp.tensors import Tensor

__all__ = ["Call", "Flow", "Next", "Step", "apart", "follow", "hooked", "listed", "tensors_in"]


@dataclass(eq=False)
class Call:
    """One call of a module.

    Attributes:
        module: the module.
        inside: the calls that it was made in, the outermost first.
        inputs, outputs: the tensors among its arguments, and among its results.
    """

    module: Module
    inside: tuple[Call, ...]
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Step:
    """One op that ran: its event, and the calls that it ran in, the outermost first."""

    event: Event
    inside: tuple[Call, ...]

    @property
    def name(self) -> str:
        """The op's name."""
        return self.event.node.op.name


@dataclass(frozen=True)
class Next:
    """The module that alone takes what another gives, or why there is none."""

    module: Module | None
    why: str = ""


class Flow:
    """The record of one forward; made by :func:`follow`.

    Attributes:
        model: the model that ran.
        calls: the calls of modules, in the order in which they began.
        steps: the ops, in order.
        outputs: the tensors among the model's results.
    """

    def __init__(self, model: Module) -> None:
        self.model = model
        self.calls: list[Call] = []
        self.steps: list[Step] = []
        self.outputs: list[Tensor] = []
        self.paths: dict[int, list[str]] = defaultdict(list)
        for path, module in model.named_modules(remove_duplicate=False):
            self.paths[id(module)].append(path)
        self._open: list[Call] = []
        self._by_module: dict[int, list[Call]] = defaultdict(list)
        self._readers: dict[int, list[Step]] = defaultdict(list)
        self._takers: dict[int, list[Call]] = defaultdict(list)
        self._givers: dict[int, list[Call]] = defaultdict(list)
        self._makers: dict[int, Step] = {}

    # ---- writing ----------------------------------------------------------------------------------------

    def begin(self, module: Module, _: Any) -> None:
        """Note that a module is called."""
        if id(module) in self.paths:
            self._open.append(Call(module, tuple(self._open)))
            self.calls.append(self._open[-1])

    def end(self, module: Module, args: Any, options: Any, result: Any) -> None:
        """Note what a call took and gave."""
        if id(module) not in self.paths:
            return
        call = self._open.pop()
        call.inputs, call.outputs = list(tensors_in((args, options))), list(tensors_in(result))
        self._by_module[id(module)].append(call)
        for key in {id(each.array) for each in call.inputs}:
            self._takers[key].append(call)
        for key in {id(each.array) for each in call.outputs}:
            self._givers[key].append(call)

    def hear(self, event: Event) -> None:
        """Note an op."""
        if event.phase != "forward":
            return
        step = Step(event, tuple(self._open))
        self.steps.append(step)
        for key in {id(each) for each in event.inputs if _is_array(each)}:
            self._readers[key].append(step)
        for each in event.outputs:
            self._makers.setdefault(id(each), step)

    # ---- reading ----------------------------------------------------------------------------------------

    def name(self, module: Module) -> str:
        """Return a module's path in quotes, or "the model"."""
        path = self.paths[id(module)][0]
        return f"'{path}'" if path else "the model"

    def calls_of(self, module: Module) -> list[Call]:
        """Return the calls of a module that ended, in order."""
        return self._by_module[id(module)]

    def readers(self, array: Array) -> list[Step]:
        """Return the ops that read an array."""
        return self._readers[id(array)]

    def maker(self, array: Array) -> Step | None:
        """Return the op that made an array; None of an input or a parameter."""
        return self._makers.get(id(array))

    def takers(self, array: Array) -> list[Call]:
        """Return the calls that took an array; not those that only handed it down to others of them.

        An Identity, which gives on what it takes, does not count.
        """
        found = [each for each in self._takers[id(array)] if type(each.module) is not Identity]
        handed = {id(outer) for each in found for outer in each.inside}
        return [each for each in found if id(each) not in handed]

    def watched(self, array: Array) -> str:
        """Name a module with hooks that took or gave an array: what they see would be another value."""
        for call in [*self._takers[id(array)], *self._givers[id(array)]]:
            why = hooked(call.module)
            if why:
                return f"{self.name(call.module)}: {why}"
        return ""

    def uses(self, array: Array) -> list[str]:
        """Name everything that uses an array: modules, ops outside of them, the model's results."""
        takers = self.takers(array)
        ops = [each for each in self.readers(array) if not any(one in each.inside for one in takers)]
        named = [*(self.name(each.module) for each in takers), *map(self.spelled, ops)]
        given_out = any(each.array is array for each in self.outputs)
        return [*named, *(["the model's result"] if given_out else [])]

    def origin(self, module: Module) -> tuple[Module | None, str]:
        """Return the one module whose output goes into another, or None, and what goes in, in words."""
        givers: dict[str, Module | None] = {}
        for call in self.calls_of(module):
            key = id(call.inputs[0].array) if call.inputs else 0
            gave = [
                each for each in self._givers[key]
                if type(each.module) is not Identity and call not in each.inside
            ]  # fmt: skip
            step = self._makers.get(key)
            if gave:
                inner = max(gave, key=lambda each: len(each.inside)).module
                givers[self.name(inner)] = inner
            else:
                givers[self.spelled(step) if step else "the model's input"] = None
        words = listed(givers)
        return (next(iter(givers.values())), words) if len(givers) == 1 else (None, words)

    def next_of(self, module: Module) -> Next:
        """Return the module that takes all outputs of another, and nothing but these."""
        calls = self.calls_of(module)
        if not calls:
            return Next(None, f"{self.name(module)} does not run on the example")
        found: dict[int, Module] = {}
        for call in calls:
            after, why = self._taker_of(call)
            if after is None:
                return Next(None, why)
            found[id(after)] = after
        if len(found) > 1:
            named = listed(map(self.name, found.values()))
            return Next(None, f"the outputs of {self.name(module)} go to {named}")
        (after,) = found.values()
        if len(self.calls_of(after)) != len(calls):
            times = f"runs {len(self.calls_of(after))} times, {self.name(module)} {len(calls)}"
            return Next(None, f"{self.name(after)} {times}")
        return Next(after)

    def _taker_of(self, call: Call) -> tuple[Module | None, str]:
        """Return the module that alone takes the output of a call, or None and why there is none."""
        if len(call.outputs) != 1:
            return None, f"{self.name(call.module)} returns {len(call.outputs)} tensors"
        output = call.outputs[0].array
        uses, takers = self.uses(output), self.takers(output)
        if len(uses) != 1 or not takers:
            return None, f"the output of {self.name(call.module)} goes to {listed(uses) or 'nothing'}"
        watched = self.watched(output)
        return (None, watched) if watched else (takers[0].module, "")

    def read_outside(self, module: Module) -> str:
        """Name an op outside of a module that reads a parameter or buffer of it; "" if none does."""
        for path, leaf in [*module.named_parameters(), *module.named_buffers()]:
            for step in self.readers(leaf.array):
                if not any(call.module is module for call in step.inside):
                    return f"its {path} is read by {self.spelled(step)} too"
        return ""

    def spelled(self, step: Step) -> str:
        """Name an op and the module whose forward it runs in."""
        place = self.name(step.inside[-1].module) if step.inside else "the model"
        return f"the op {step.name} in {place}"


def follow(model: Module, example: tuple[Any, ...], op: str) -> Flow:
    """Run a copy of a model on an example, unrecorded, and return what went into what.

    The model stays as it is, also in training mode; random numbers come from a generator of their own, from
    one seed.

    Raises:
        SettingError: there is no example.
        MinimpError: as the model's forward.
    """
    if not example:
        raise SettingError(
            "an example input is needed: it shows which module's output goes into which", op=op,
            help=f"{op}(model, x), x as the model takes it, a few rows long",
        )  # fmt: skip
    flow = Flow(copy.deepcopy(model))
    hooks = [
        register_module_forward_pre_hook(flow.begin),
        register_module_forward_hook(flow.end, with_kwargs=True),
    ]
    try:
        with no_grad(), listen(flow.hear), drawing_from(np.random.Generator(np.random.Philox(0))):
            flow.outputs = list(tensors_in(flow.model(*apart(example))))
    finally:
        for hook in hooks:
            hook.remove()
    return flow


def apart(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return values, a copy for each that came before: an array that is given twice stands for two inputs."""
    seen: set[int] = set()
    made: list[Any] = []
    for each in values:
        keys = {id(one.array) for one in tensors_in(each)} or {id(each)}
        made.append(copy.deepcopy(each) if keys & seen else each)
        seen |= keys
    return tuple(made)


def hooked(module: Module) -> str:
    """Say that a module has hooks; "" if it has none."""
    hooks = module.__dict__.get("_hooks")
    there = hooks is not None and any(vars(hooks).values())
    return "it has hooks, which would see and change other values; remove them first" if there else ""


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists and dicts, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors_in(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from tensors_in(each)


def listed(words: Iterable[str]) -> str:
    """Return words as "a", "a and b", "a, b and c"; several times the same as "2 x a"."""
    counted = [f"{count} x {word}" if count > 1 else word for word, count in Counter(list(words)).items()]
    return " and ".join([", ".join(counted[:-1]), counted[-1]] if len(counted) > 1 else counted)


def _is_array(x: Any) -> bool:
    return hasattr(x, "dtype") and hasattr(x, "shape")
