"""What one step is given: the parameters that have a gradient, everything checked before anything changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minimp.errors import DeviceError, FormatError, OutOfMemoryError, SettingError, ShapeError, plain
from minimp.optim.groups import Group
from minimp.optim.storage import LOW, STORED, Storage, storage_of
from minimp.tape import Array, Value

if TYPE_CHECKING:
    from minimp.optim.optimizer import Optimizer

__all__ = ["Job", "State", "drop_idle", "jobs_of", "make_missing", "torn_if_full"]

State = dict[str, Any]
HOST = (np.ndarray, np.generic)


@dataclass(slots=True, eq=False)
class Job:
    """One parameter to update.

    Attributes:
        group: its options.
        param: the parameter.
        state: what is kept for it.
        storage: how it is kept.
        grad: its gradient, wide, in the dtype that the update is computed in.
    """

    group: Group
    param: Value
    state: State
    storage: Storage
    grad: Array


def jobs_of(optimizer: Optimizer, gradients: Mapping[Any, Any] | None) -> list[Job]:
    """Return what a step has to do, in the order of the parameters; nothing has changed yet.

    Raises:
        SettingError: `update` cannot act on these parameters; a gradient for an unknown parameter; or a
            master that no longer belongs to its parameter.
        ShapeError, FormatError, DeviceError: a gradient that does not fit its parameter.
    """
    op = f"{type(optimizer).__name__}.step"
    pairs = [(group, param) for group in optimizer.param_groups for param in group["params"]]
    if optimizer.update != "fp32" and all(param.format not in LOW for _, param in pairs):
        raise SettingError(
            f"update={optimizer.update!r} cannot act: no parameter is in float16 or bfloat16",
            op=op,
            help="convert the model with .bfloat16(), or leave update= out",
        )
    if gradients is not None:
        _refuse_strangers(op, [param for _, param in pairs], gradients)
    return list(_jobs(op, optimizer, pairs, gradients))


def _refuse_strangers(op: str, params: list[Value], gradients: Mapping[Any, Any]) -> None:
    known = {id(param) for param in params}
    strangers = sum(id(param) not in known for param in gradients)
    if strangers:
        raise SettingError(
            f"{strangers} gradients are for parameters that this optimizer does not have", op=op
        )


def _jobs(
    op: str,
    optimizer: Optimizer,
    pairs: list[tuple[Group, Value]],
    gradients: Mapping[Any, Any] | None,
) -> Iterator[Job]:
    ways = {form: storage_of(form, optimizer.master_weights, optimizer.update) for form in _formats(pairs)}
    states, written = optimizer.state, optimizer.written
    for group, param in pairs:
        grad = param.grad if gradients is None else gradients.get(param)
        if grad is None:
            continue
        storage, state = ways[param.format], states.get(param)
        if state is None:
            state = {}
        else:
            _refuse_moved(op, param, written.get(param))
            storage.check(param, state, written.get(param))
        yield Job(group, param, state, storage, _wide_gradient(op, param, grad))


def _refuse_moved(op: str, param: Value, written: Array | None) -> None:
    """Refuse a parameter that went to another backend after a step, which left its state behind."""
    if written is None or type(written) is type(param.array):
        return
    if isinstance(written, HOST) != isinstance(param.array, HOST):
        raise DeviceError(
            f"a parameter of shape {param.shape} went to {param.backend.name} after a step without its state",
            op=op, shapes=[param.shape],
            help="move the model before making the optimizer; or give a new one the old state_dict()",
        )  # fmt: skip


def _formats(pairs: list[tuple[Group, Value]]) -> set[Any]:
    return {param.format for _, param in pairs}


def _wide_gradient(op: str, param: Value, grad: Any) -> Array:
    """Return a gradient in the dtype that the parameter's update is computed in."""
    backend = param.backend
    if isinstance(grad, Value):
        if grad.backend is not backend:
            raise DeviceError(f"a gradient on {grad.backend.name}, its parameter on {backend.name}", op=op)
        array = grad.array
    else:
        array = grad if isinstance(grad, backend.xp.ndarray) else Value.lift(grad, backend).array
    if array.shape != param.array.shape:
        raise ShapeError(
            f"expected a gradient of shape {param.shape}, got {array.shape}",
            op=op,
            shapes=[param.shape, array.shape],
        )
    wide, wanted = backend.wide(array), "float64" if param.array.dtype == "float64" else "float32"
    if wide.dtype == wanted or (wide.dtype == "float32" and wanted == "float64"):
        return wide.astype(wanted, copy=False)
    raise FormatError(
        f"expected a gradient of {wanted}, got {wide.dtype}", op=op, formats=[wanted, str(wide.dtype)]
    )


@contextmanager
def torn_if_full(op: str) -> Iterator[None]:
    """Say of a device that had no room in the middle of an update what that means for the parameters.

    Raises:
        OutOfMemoryError: as it came, and what to do before going on.
    """
    try:
        yield
    except OutOfMemoryError as fault:
        raise OutOfMemoryError(
            f"{plain(fault)}; it was in the middle of an update: some parameters may be a step ahead",
            op=op, asked=fault.asked, used=fault.used, total=fault.total, limit=fault.limit,
            help=f"load the last checkpoint before going on; {fault.help or ''}".removesuffix("; "),
        ) from fault  # fmt: skip


def drop_idle(job: Job) -> None:
    """Forget what another storage kept: the parameter was given another format meanwhile."""
    for idle in STORED - job.storage.state_names:
        job.state.pop(idle, None)


def make_missing(state: State, backend: Any, like: Array, *names: str) -> None:
    """Give a state zeros of the shape and dtype of `like` under each of `names` that it lacks."""
    for name in names:
        if name not in state:
            state[name] = backend.xp.zeros(like.shape, like.dtype)
