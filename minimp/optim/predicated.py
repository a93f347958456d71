"""A step that turns out not to have happened: the device decides, and the host does not ask.

`found_inf` is an array without axes on the device. The rule runs whatever it holds; then every array that the
rule made or changed becomes the old one where it is true, and the new one where it is not, bit for bit. A
backend whose kernel looks at the flag by itself (:meth:`ArrayBackend.obeys_verdict`) saves the copies.

What the host used to know becomes an array, too: the count of steps, and whether a momentum buffer has been
filled yet. :func:`settle` reads both back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minimp.optim.onepass import bundles, update
from minimp.optim.storage import MASTER, OWN
from minimp.optim.work import Job, State
from minimp.tape import Array

if TYPE_CHECKING:
    from minimp.optim.optimizer import Optimizer

__all__ = ["settle", "update_all_unless"]

HOST_NUMBERS = {"step": np.int64, "first": np.bool_}
"""What a state keeps as a number on the host, and what kind of array it becomes on a device."""


def update_all_unless(optimizer: Optimizer, jobs: list[Job], found_inf: Array) -> None:
    """Carry all parameters one step on, or leave every bit as it was where `found_inf` is true."""
    _begin_state(optimizer, jobs)
    optimizer.unsettled = True
    for bundle in bundles(jobs, together=optimizer.together):
        _update_unless(optimizer, bundle, found_inf)


def _begin_state(optimizer: Optimizer, jobs: list[Job]) -> None:
    """Give every parameter the state that it has before its first step, its numbers as arrays.

    Numbers that are equal become one array, so that parameters of one age still travel together.
    """
    shared: dict[Any, Array] = {}
    for job in jobs:
        backend, state = job.param.backend, job.state
        job.storage.begin(job.param, state)
        optimizer.begin(job.group, state, backend, job.storage.weight(job.param, state))
        for name, kind in HOST_NUMBERS.items():
            value = state.get(name)
            if value is not None and not hasattr(value, "dtype"):
                key = (id(backend), name, value)
                if key not in shared:
                    shared[key] = backend.from_host(np.asarray(value, kind))
                state[name] = shared[key]


def _update_unless(optimizer: Optimizer, bundle: list[Job], found_inf: Array) -> None:
    """Carry a bundle one step on, or leave every bit as it was where `found_inf` is true."""
    first = bundle[0]
    weight = first.storage.weight(first.param, first.state)
    guarded = first.storage in (OWN, MASTER) and first.param.backend.obeys_verdict(optimizer.rule, weight)
    before = [(job.param.array, _kept(job.state, numbers_only=guarded)) for job in bundle]
    update(optimizer, bundle, unless=found_inf if guarded else None)
    chosen: dict[tuple[int, int], Array] = {}

    def choose(old: Array, new: Array, backend: Any) -> Array:
        key = id(old), id(new)
        if key not in chosen:
            chosen[key] = new if old is new else backend.choose(found_inf, old, new)
        return chosen[key]

    after = [(job.param.array, dict(job.state)) for job in bundle]  # alive, so that no id comes twice
    for job, (array, state), (new_array, new_state) in zip(bundle, before, after, strict=True):
        backend = job.param.backend
        for name, old in state.items():
            job.state[name] = choose(old, new_state[name], backend)
        if not guarded:
            job.param.array = choose(array, new_array, backend)


def _kept(state: State, *, numbers_only: bool) -> State:
    """Return what a rule may change, the arrays that it changes in place as copies."""
    if numbers_only:
        return {name: state[name] for name in HOST_NUMBERS if name in state}
    replaced = ("master", *HOST_NUMBERS)
    return {name: value if name in replaced else value.copy() for name, value in state.items()}


def settle(optimizer: Optimizer) -> None:
    """Read back what steps on the device left there: the host waits, once for each array."""
    if not optimizer.unsettled:
        return
    optimizer.unsettled = False
    read: dict[int, Any] = {}
    for param, state in optimizer.state.items():
        for name in HOST_NUMBERS:
            value = state.get(name)
            if hasattr(value, "dtype"):
                if id(value) not in read:
                    read[id(value)] = param.backend.to_host(value).item()
                state[name] = read[id(value)]
        if state.pop("first", False):
            del state["momentum_buffer"]  # never filled
