"""Updating many parameters in one pass: small ones are laid end to end and share each kernel call.

A kernel call costs some ten microseconds whatever it is given; a bias of a few hundred elements takes less
than that. So small parameters that are computed in the same way (one group, format, storage and age) travel
through the kernel as one flat array. Every operation is elementwise, so the results are the bits that one
call for each parameter gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from minimp.optim.storage import STORED
from minimp.optim.work import Job, State
from minimp.tape import Array

if TYPE_CHECKING:
    from minimp.optim.optimizer import Optimizer

__all__ = ["bundles", "update", "update_all", "update_one"]

SMALL = 16 * 1024
"""A parameter of fewer elements is bundled."""
MOST = 64 * 1024
"""Elements of a bundle: what a kernel takes through the cache in one block."""
NUMBERS = ("step", "first")
"""What a state keeps as one number; on a device, as an array without axes."""


def bundles(jobs: Iterable[Job], *, together: bool) -> Iterator[list[Job]]:
    """Sort jobs into those that go through the kernel together; one alone is a bundle of one.

    Args:
        jobs: in the order of the parameters.
        together: whether the rule can take several parameters at once.
    """
    waiting: dict[Any, list[Job]] = {}
    sizes: dict[Any, int] = {}
    for job in jobs:
        size = job.grad.size
        kind = _kind(job) if together and size < SMALL else None
        if job.storage.in_order and kind not in waiting:
            yield from waiting.values()
            waiting.clear()
        if kind is None:
            yield [job]
        elif kind in waiting and sizes[kind] + size <= MOST:
            waiting[kind].append(job)
            sizes[kind] += size
        else:
            if kind in waiting:
                yield waiting[kind]
            waiting[kind], sizes[kind] = [job], size
    yield from waiting.values()


def _kind(job: Job) -> Any:
    """Return what jobs of one bundle have in common; the state's numbers are the count of steps."""
    param, state = job.param, job.state
    numbers = (_number(state.get(name)) for name in NUMBERS)
    return id(job.group), param.array.dtype, id(param.backend), tuple(state), *numbers


def _number(value: Any) -> Any:
    """Return a number, or what tells an array of one from others without reading it."""
    return id(value) if hasattr(value, "dtype") else value


def update_all(optimizer: Optimizer, jobs: list[Job]) -> None:
    """Carry all parameters one step on."""
    for bundle in bundles(jobs, together=optimizer.together):
        update(optimizer, bundle)


def update(optimizer: Optimizer, jobs: list[Job], unless: Any = None) -> None:
    """Carry a bundle one step on; `unless` is a flag on the device: see `Room`."""
    if len(jobs) == 1:
        update_one(optimizer, jobs[0], unless=unless)
    else:
        _update_several(optimizer, jobs, unless)


def update_one(optimizer: Optimizer, job: Job, *, measured: bool = False, unless: Any = None) -> Any:
    """Update one parameter through its own arrays; return the change if it is to be measured."""
    storage, state, param = job.storage, job.state, job.param
    weight = storage.weight(param, state)
    room = storage.room(param, weight, state)
    room.unless = unless
    if measured:
        room.change = param.backend.xp.empty(weight.shape, weight.dtype)
    optimizer.advance(job.group, state, param.backend, room, weight, job.grad)
    storage.finish(param, room, None)
    storage.put(param, state, room, _itself)
    return room.change


def _update_several(optimizer: Optimizer, jobs: list[Job], unless: Any) -> None:
    """Lay arrays end to end, update them as one, and give each parameter its piece."""
    first = jobs[0]
    storage, backend = first.storage, first.param.backend
    join = backend.xp.concatenate
    weight = join([storage.weight(job.param, job.state).reshape(-1) for job in jobs])
    grad = join([job.grad.reshape(-1) for job in jobs])
    kept: State = {
        name: value if name in NUMBERS else join([job.state[name].reshape(-1) for job in jobs])
        for name, value in first.state.items()
        if name != "master"
    }
    room = storage.room(first.param, weight, kept)
    room.unless = unless
    optimizer.advance(first.group, kept, backend, room, weight, grad)
    storage.finish(first.param, room, [job.grad.size for job in jobs])
    for name in STORED & kept.keys():
        del kept[name]  # the storage puts it where it belongs
    start = 0
    for job in jobs:
        shape, stop = job.param.array.shape, start + job.grad.size
        for name, value in kept.items():
            job.state[name] = value if name in NUMBERS else value[start:stop].reshape(shape)
        storage.put(job.param, job.state, room, _cutter(start, stop, shape))
        start = stop


def _itself(array: Array) -> Array:
    return array


def _cutter(start: int, stop: int, shape: tuple[int, ...]) -> Callable[[Array], Array]:
    """Return what takes a piece out of a flat array; its memory is its own, as `Tensor.numpy` shares it."""
    return lambda array: array[start:stop].reshape(shape).copy()
