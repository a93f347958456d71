"""Every kernel has what the ladder asks for: a source, a reference, samples, a fault to plant, a bound."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

from minimp_backends.kernels import sources
from minimp_backends.kernels.declaring import KINDS, MOST_BLOCKS, THREADS, Parameter, per_element
from minimp_backends.kernels.families import FAMILIES
from minimp_backends.kernels.registry import KERNELS
from tests.kernels.families import NAMES, SOURCES
from tests.kernels.linting import RULES
from tests.kernels.samples import BUGS, JUDGES, SAMPLES, arrays, small_samples


def test_names_are_each_used_once() -> None:
    """Oracle: the families, counted."""
    assert sum(len(family.KERNELS) for family in FAMILIES) == len(KERNELS)


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_is_declared_whole(name: str) -> None:
    """Oracle: the declaration, read by itself and against the source's text."""
    kernel = KERNELS[name]
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
    assert sources.read(kernel.source).text
    names = [parameter.name for parameter in kernel.parameters]
    assert len(set(names)) == len(names)
    assert {parameter.kind for parameter in kernel.parameters} <= set(KINDS)
    assert any(parameter.role in {"out", "inout"} for parameter in kernel.parameters)
    assert inspect.getdoc(kernel.reference)
    inspect.signature(kernel.reference).bind(**dict.fromkeys(names))
    assert kernel.bit_exact == (not kernel.bound)
    assert kernel.bit_exact == (name not in JUDGES)
    assert set(kernel.allowed) <= set(RULES)


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_has_samples_and_a_fault_to_plant(name: str) -> None:
    """Oracle: at least two samples, one of them small; arguments of the declared types; a fault."""
    kernel = KERNELS[name]
    samples = list(SAMPLES[name]())
    assert len(samples) >= 2
    assert small_samples(name)
    for arguments in samples:
        assert set(arguments) == {parameter.name for parameter in kernel.parameters}
        for parameter in kernel.parameters:
            for each in wanted(parameter, arguments[parameter.name]):
                assert each.dtype == KINDS[parameter.kind].dtype, parameter.name
                assert each.flags.c_contiguous
    assert [bug.name for bug in BUGS if same_code(bug.kernel, name)]


def wanted(parameter: Parameter, value: object) -> list[np.ndarray]:
    """Return the arrays of an argument."""
    found = arrays({parameter.name: value})
    if parameter.role == "value":
        assert not found
    else:
        assert len(found) == (len(value) if isinstance(value, list | tuple) else 1)
        assert len(found) <= max(parameter.many, 1)
    return found


def same_code(one: str, other: str) -> bool:
    """Return whether two kernels are one template: of one source, named alike up to the kinds of elements."""
    kinds = rf"_(?:{'|'.join(KINDS)})\b|_\d+\b"

    def stem(name: str) -> str:
        return re.sub(kinds, "", re.sub("_", " _", name)).replace(" ", "")

    return KERNELS[one].source == KERNELS[other].source and stem(one) == stem(other)


def test_every_sample_and_bug_is_some_kernels() -> None:
    """Oracle: the registry; bugs are named once."""
    assert set(SAMPLES) == set(KERNELS)
    assert {bug.kernel for bug in BUGS} <= set(KERNELS)
    assert len({(bug.kernel, bug.name) for bug in BUGS}) == len(BUGS)
    assert set(JUDGES) <= set(KERNELS)


def test_every_source_is_some_kernels() -> None:
    """Oracle: the .cu files of the package."""
    assert sorted(path.name for path in sources.FOLDER.glob("*.cu")) == SOURCES


@pytest.mark.parametrize(
    ("count", "per_thread", "grid"),
    [(0, 1, 1), (1, 1, 1), (256, 1, 1), (257, 1, 2), (1024, 4, 1), (1025, 4, 2), (2**40, 1, MOST_BLOCKS)],
)
def test_a_launch_covers_its_elements(count: int, per_thread: int, grid: int) -> None:
    """Oracle: blocks of 256 threads, at least one, at most so many that threads take several."""
    launch = per_element(count, per_thread)
    assert (launch.grid, launch.block, launch.shared_bytes) == (grid, THREADS, 0)


@pytest.mark.parametrize(
    ("parameter", "spelled"),
    [
        (Parameter("x", "half", "in"), "const __half*"),
        (Parameter("x", "bfloat16", "out"), "__nv_bfloat16*"),
        (Parameter("x", "int64", "value"), "long long"),
        (Parameter("x", "float", "inout", 8), "Many<float*, 8>"),
        (Parameter("x", "uint8", "value", 3), "Many<unsigned char, 3>"),
    ],
)
def test_parameters_spell_their_type(parameter: Parameter, spelled: str) -> None:
    """Oracle: CUDA C++."""
    assert parameter.c_type == spelled
