"""Counting the updates of one parameter that were swallowed, while it is updated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minimp.optim.onepass import update_one
from minimp.optim.report import ParameterUpdate
from minimp.optim.work import Job
from minimp.tape import Array

if TYPE_CHECKING:
    from minimp.optim.optimizer import Optimizer

__all__ = ["update_measured"]


def update_measured(optimizer: Optimizer, job: Job) -> ParameterUpdate:
    """Update one parameter, and count the updates that were swallowed."""
    before = job.storage.parts(job.param, job.state)
    change = update_one(optimizer, job, measured=True)
    return _compare(job, before, change)


def _compare(job: Job, before: tuple[Array, ...], change: Array) -> ParameterUpdate:
    """Count the updates that were not zero, and those of them that left everything as it was."""
    param = job.param
    xp, wide = param.backend.xp, param.backend.wide
    moved = change != 0
    same = moved
    for old, new in zip(before, job.storage.parts(param, job.state), strict=True):
        same = same & (wide(old) == wide(new))
    size = int(param.array.size)
    return ParameterUpdate(param, size, int(xp.count_nonzero(moved)), int(xp.count_nonzero(same)))
