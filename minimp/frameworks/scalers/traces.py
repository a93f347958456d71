"""Random traces of calls of a GradScaler, and of verdicts for its state machine, in families."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minimp.frameworks.scalers.twins import OPTIMIZERS, PARAMETERS, Twins

__all__ = ["CALLS", "VERDICTS", "CallFamily", "VerdictFamily", "settings_from", "verdicts"]

INF, NAN = float("inf"), float("nan")
SCALES = (2.0**16, 8.0, 1.0, 3.7, 0.1, 2.0**127, 2.0**-149, 0.0, -2.0, INF)
SETTINGS: Mapping[str, tuple[float, ...]] = {
    "init_scale": SCALES,
    "growth_factor": (2.0, 4.0, 1.7),
    "backoff_factor": (0.5, 0.25, 0.3, -0.5),
    "growth_interval": (1, 2, 3, 0),
}
GRADIENTS = (None, [1.0], [8.0, -0.0], [INF], [1.0, NAN], [-INF, 2.0], [3e-40, 6e4], [0.0])
CLEAN = ([1.0], [8.0, -0.0], [0.5, -3.0], [6e4], [1e-30])
FAULTS = ([INF], [1.0, NAN], [-INF, 2.0])
STATES: tuple[dict[str, Any], ...] = (
    {},
    {"scale": 4.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2, "_growth_tracker": 1},
    {"scale": 3.3, "growth_factor": 1.5, "backoff_factor": 0.7, "growth_interval": 5, "_growth_tracker": 0},
    {"scale": INF, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2, "_growth_tracker": 7},
)
FORMATS = ("float16", "bfloat16", "float32", "float64", "int64")
UNSCALABLE = len(PARAMETERS) - 1

Draw = Callable[[Any], Any]
Action = Callable[[Twins, Draw], None]


def _iteration(twins: Twins, one_of: Draw, optimizers: tuple[int, ...] = (0, 1)) -> None:
    """Scale, make gradients, one of four times with a fault, unscale some, step all, update."""
    twins.call("scale", 1.0, "float32", ())
    used = sorted({index for each in optimizers for index in OPTIMIZERS[each] if index != UNSCALABLE})
    for index in used:
        twins.call("gradients", index, one_of(CLEAN))
    if one_of((True, False, False, False)):
        twins.call("gradients", one_of(used), one_of(FAULTS))
    for index in optimizers:
        if one_of((True, False)):
            twins.call("unscale_", index)
        twins.call("step", index)
    twins.call("update")


def _shared(twins: Twins, one_of: Draw) -> None:
    """Iterate with both optimizers that have parameter 1; parameter 4 of the second has no gradient."""
    twins.call("gradients", UNSCALABLE, None)
    _iteration(twins, one_of, (0, 2))


def _set(twins: Twins, one_of: Draw) -> None:
    name = one_of(("growth_factor", "backoff_factor", "growth_interval"))
    twins.call("set", name, one_of(SETTINGS[name]))


ACTIONS: Mapping[str, Action] = {
    "iteration": _iteration,
    "shared": _shared,
    "scale": lambda t, one: t.call(
        "scale", one((1.0, 0.5, -3.0, 0.0)), one(FORMATS), one(((), (2,)))
    ),
    "no tensor": lambda t, one: t.call("scale_anything", one((3.0, None, [], (), [2.0]))),
    "gradients": lambda t, one: t.call("gradients", one(range(UNSCALABLE)), one(GRADIENTS)),
    "float16 gradients": lambda t, one: t.call("gradients", UNSCALABLE, one(GRADIENTS)),
    "unscale": lambda t, one: t.call("unscale_", one(range(len(OPTIMIZERS)))),
    "step": lambda t, one: t.call("step", one(range(len(OPTIMIZERS)))),
    "closure": lambda t, _: t.call("step_with_closure", 0),
    "update": lambda t, _: t.call("update"),
    "new scale": lambda t, one: t.call("update", one(SCALES)),
    "odd scale": lambda t, one: t.call("update", one((1e39, 4))),
    "new tensor": lambda t, one: t.call("update_with_tensor", one(SCALES), one(((), (1,), (2,)))),
    "load": lambda t, one: t.call("load_state_dict", one(STATES)),
    "swap": lambda t, _: t.swap_states(),
    "copy": lambda t, _: t.call("copy"),
    "set": _set,
}  # fmt: skip
"""What a trace is made of: one call, or a whole iteration, by name."""


@dataclass(frozen=True, slots=True)
class CallFamily:
    """Traces of one kind.

    Attributes:
        name: how a report calls it.
        weights: how often each of :data:`ACTIONS` comes.
        traces: how many traces, each from new scalers with settings of their own.
        actions: how many actions each has.
    """

    name: str
    weights: Mapping[str, int]
    traces: int = 10
    actions: int = 50

    def run(self, twins: Twins, rng: np.random.Generator) -> None:
        """Make one trace of calls."""
        weights = np.array(list(self.weights.values()), float)
        for name in rng.choice(list(self.weights), size=self.actions, p=weights / weights.sum()):
            ACTIONS[name](twins, partial(_one_of, rng))


def _one_of(rng: np.random.Generator, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def settings_from(rng: np.random.Generator) -> dict[str, float]:
    """Draw the settings of a scaler."""
    return {name: _one_of(rng, values) for name, values in SETTINGS.items()}


ORDERLESS = {
    "scale": 6, "no tensor": 1, "gradients": 10, "float16 gradients": 1, "unscale": 5, "step": 8,
    "closure": 1, "update": 8, "new scale": 1, "odd scale": 1, "new tensor": 1, "load": 1, "swap": 1,
    "copy": 1, "set": 3,
}  # fmt: skip
CALLS = (
    CallFamily("iterations, a fault in one of four", {"iteration": 1}, traces=6, actions=20),
    CallFamily("a parameter in two optimizers", {"shared": 3, "iteration": 1}, traces=6, actions=15),
    CallFamily("calls in any order", ORDERLESS, traces=20),
    CallFamily(
        "states loaded from each other", {"iteration": 4, "swap": 4, "load": 1, "copy": 2}, actions=30
    ),
    CallFamily("settings changed on the way", {"iteration": 2, "set": 3, "new scale": 1, "new tensor": 1}),
)
"""The families of calls."""


@dataclass(frozen=True, slots=True)
class VerdictFamily:
    """Runs of verdicts (was a gradient infinite or NaN?) for one rule.

    Attributes:
        name: how a report calls it.
        rule: init_scale, growth_factor, backoff_factor, growth_interval.
        worst: the largest share of bad steps; each stretch of 50 has a share of its own below it.
        steps: how many verdicts.
    """

    name: str
    rule: tuple[float, float, float, int]
    worst: float = 0.6
    steps: int = 2000


VERDICTS = (
    VerdictFamily("powers of two", (2.0**16, 2.0, 0.5, 3)),
    VerdictFamily("the defaults, few bad steps", (2.0**16, 2.0, 0.5, 2000), worst=0.0005, steps=8000),
    VerdictFamily("odd factors", (1.0, 1.1, 0.9, 3)),
    VerdictFamily("odd factors, tiny scale", (7.3e-30, 3.7, 0.31, 3)),
    VerdictFamily("growth at every good step", (1.0, 2.0, 0.5, 1), worst=0.3),
    VerdictFamily("near the end of float32", (2.0**126, 4.0, 0.25, 2), worst=0.3),
    VerdictFamily("down to zero", (1.0, 2.0, 0.5, 5), worst=1.0),
    VerdictFamily("a scale that changes its sign", (8.0, 2.0, -0.5, 2)),
    VerdictFamily("an interval of 0, which never comes", (1024.0, 2.0, 0.5, 0), worst=0.02),
)
"""The families of verdicts."""


def verdicts(family: VerdictFamily, rng: np.random.Generator) -> Iterator[bool]:
    """Yield the verdicts of a family: True is a bad step."""
    stretches = -(-family.steps // 50)
    shares = np.repeat(rng.uniform(0.0, family.worst, stretches), 50)[: family.steps]
    yield from (bool(bad) for bad in rng.random(family.steps) < shares)
