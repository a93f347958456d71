"""A kernel's PTX run on host arrays: they are copied into the watched memory, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minimp_backends.kernels.declaring import KINDS, Kernel, Parameter
from tests.kernels.ptx.machine import Machine
from tests.kernels.ptx.parsing import Entry

__all__ = ["run"]


def _arrays(kernel: Kernel, arguments: dict[str, Any]) -> dict[str, tuple[Parameter, np.ndarray]]:
    """Every array of a launch by a name for messages: ``x``, or ``x[2]`` of several."""
    found = {}
    for parameter in kernel.parameters:
        if parameter.role == "value":
            continue
        value = arguments[parameter.name]
        if parameter.many:
            found |= {f"{parameter.name}[{k}]": (parameter, each) for k, each in enumerate(value)}
        else:
            found[parameter.name] = (parameter, value)
    return found


def _content(parameter: Parameter, value: Any, addresses: dict[str, int]) -> bytes:
    """The bytes of one parameter."""
    if parameter.role == "value":
        cell = np.zeros(parameter.many or 1, KINDS[parameter.kind].dtype)
        cell[: len(value) if parameter.many else 1] = value
        return cell.tobytes()
    cell = np.zeros(parameter.many or 1, np.uint64)
    names = [f"{parameter.name}[{k}]" for k in range(len(value))] if parameter.many else [parameter.name]
    cell[: len(names)] = [addresses[name] for name in names]
    return cell.tobytes()


def run(
    entry: Entry, kernel: Kernel, arguments: dict[str, Any], moved: Mapping[str, int] | None = None
) -> int:
    """Run a kernel on host arrays, which it changes; return how many instructions were run.

    Arrays with the role ``out`` count as never written until the kernel writes them, and keep their content
    where it does not. All begin at multiples of 16 bytes but for those of parameters that are `moved` by so
    many bytes, as slices may.

    Raises:
        PtxError: an instruction that is not known, or what no GPU would let pass.
    """
    launch = kernel.launch(arguments)
    machine = Machine(entry, launch.grid, launch.block, launch.shared_bytes)
    arrays = _arrays(kernel, arguments)
    steps = {name: (moved or {}).get(each.name, 0) for name, (each, _) in arrays.items()}
    sizes = {name: array.nbytes for name, (_, array) in arrays.items()}
    addresses = machine.memory.place_globals(sizes, steps)
    memory, parameters = machine.memory.regions["global"], machine.memory.regions["param"]
    for name, (parameter, array) in arrays.items():
        memory.fill(addresses[name], array.tobytes())
        if parameter.role == "out":
            memory.written[addresses[name] : addresses[name] + array.nbytes] = False
    for declared, parameter in zip(entry.parameters, kernel.parameters, strict=True):
        content = _content(parameter, arguments[parameter.name], addresses)
        parameters.fill(machine.memory.address_of(declared.name), content)
    machine.run()
    for name, (_, array) in arrays.items():
        start = addresses[name]
        array.reshape(-1).view(np.uint8)[...] = memory.data[start : start + array.nbytes]
    return machine.steps
