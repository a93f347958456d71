"""The CuPy backend where there is no GPU: on the strict device, with stand-ins for cuBLAS and the kernels.

Its own Python runs, every line as on a GPU: array functions are the strict device's, which has CuPy's names
and manners; products are planned and called as they are, and answered by the checking stand-in; kernels are
their NumPy references, given the arguments of a launch once those are checked and packed for one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp_backends.cublas import Cublas
from minimp_backends.cudnn_convolution import CudnnConvolution
from minimp_backends.cupy_backend import CupyBackend
from minimp_backends.gpu import Gpu
from minimp_backends.kernels.nvrtc import VARIANTS
from minimp_backends.kernels.packing import pack
from minimp_backends.kernels.registry import KERNELS
from minimp_backends.strict.arrays import StrictArray
from minimp_backends.strict.calls import held_of
from minimp_backends.strict.counts import DEVICE
from minimp_backends.strict.namespace import StrictNamespace
from tests.backends import cudnn_stand_in
from tests.backends.cublas_stand_in import HANDLE, Block, StandIn

__all__ = ["CupyOnStrict", "gpu_on_strict"]


class Owners:
    """The memory that the arrays of a call lie in, while it runs: it may run later than it is given."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []

    def during(self, blocks: list[Block], call: Callable[[], object]) -> None:
        """Run a call whose arrays lie in these blocks."""
        self.blocks = blocks
        try:
            call()
        finally:
            self.blocks = []


class OnStrict(Cublas):
    """cuBLAS on the strict device: the stand-in is told which memory is whose."""

    def __init__(self, capability: int = 90) -> None:
        self.owners = Owners()
        super().__init__(StrictNamespace(), StandIn(self.owners), HANDLE, capability)

    def _run(self, planned: Any, call: Any, first: Any, second: Any, made: Any) -> None:
        blocks = [_block(each) for each in (first, second, made)]
        run = super()._run
        DEVICE.launch(lambda: self.owners.during(blocks, lambda: run(planned, call, first, second, made)))


class CudnnOnStrict(CudnnConvolution):
    """cuDNN on the strict device, likewise."""

    def __init__(self) -> None:
        self.owners = Owners()
        frontend = cudnn_stand_in.Frontend(self.owners)
        super().__init__(StrictNamespace(), frontend, frontend.create_handle(), lambda: cudnn_stand_in.STREAM)

    def _execute(self, asked: Any, plan: Any, arrays: Any, workspace: Any) -> None:
        blocks = [_block(each) for each in (*arrays, workspace)]
        run = super()._execute
        DEVICE.launch(lambda: self.owners.during(blocks, lambda: run(asked, plan, arrays, workspace)))


def _block(array: StrictArray) -> Block:
    owner = array._held
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    low, high = np.lib.array_utils.byte_bounds(owner)
    return Block(low, high - low, owner)


def run_reference(name: str, /, **arguments: Any) -> None:
    """Run the NumPy reference of a kernel on what a launch would be given."""
    kernel = KERNELS[name]
    pack(kernel, arguments, StrictArray)
    with np.errstate(all="ignore"):
        DEVICE.launch(lambda: kernel.reference(**{name: _on_host(each) for name, each in arguments.items()}))


def run_variant(more: tuple[str, ...], name: str, /, **arguments: Any) -> None:
    """Run the reference as if it were compiled so: of flush to zero, what is read and written shows it."""
    if "--ftz=true" not in more:
        run_reference(name, **arguments)
        return
    given = {
        each.name: _flushed(arguments[each.name]) if each.role == "in" else arguments[each.name]
        for each in KERNELS[name].parameters
    }
    run_reference(name, **given)
    for each in KERNELS[name].parameters:
        if each.role in ("out", "inout"):
            _flush(arguments[each.name])


def _flushed(argument: Any) -> Any:
    """Return float32 arrays without their subnormal numbers, anything else as it is."""
    if isinstance(argument, list | tuple):
        return [_flushed(each) for each in argument]
    made = argument.copy()
    _flush(made)
    return made


def _flush(argument: Any) -> None:
    for each in argument if isinstance(argument, list | tuple) else [argument]:
        held = held_of(each)
        if held.dtype == np.float32:
            held[np.abs(held) < np.finfo(np.float32).smallest_normal] = 0


def _on_host(argument: Any) -> Any:
    if isinstance(argument, list | tuple):
        return [_on_host(each) for each in argument]
    held = held_of(argument)
    return argument if held is None else held


def gpu_on_strict(capability: int = 90, *, kernels: bool = True) -> Gpu:
    """Return what stands for a GPU."""
    cublas = OnStrict(capability)
    return Gpu(
        xp=cublas.xp, cublas=cublas, memory=None, kernels=run_reference if kernels else None,
        to_host=lambda array: DEVICE.read(array._held), synchronize=DEVICE.wait,
        about=MappingProxyType({"GPU": "none: the strict device"}),
        variants={name: partial(run_variant, more) for name, more in VARIANTS.items()} if kernels else {},
        cudnn=cache(CudnnOnStrict),
    )  # fmt: skip


class CupyOnStrict(CupyBackend):
    """The CuPy backend on it."""

    def __init__(self) -> None:
        super().__init__(gpu_on_strict())
