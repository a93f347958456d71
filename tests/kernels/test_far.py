"""Kernels over arrays of more elements than 32 bits count: what lies beyond is found and written."""

from __future__ import annotations

import sys

import pytest

from minimp_backends.kernels import sources
from minimp_backends.kernels.registry import KERNELS
from tests.kernels.families import NAMES
from tests.kernels.far import far_faults, is_far

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory that is not reserved")
ONE_THREAD = {"adam_advance", "update_scale"}
"""Kernels of a few numbers."""


@pytest.mark.parametrize("name", [name for name in NAMES if is_far(KERNELS[name])])
def test_elements_beyond_32_bits(host_compiler: str, name: str) -> None:
    """Oracle: the NumPy reference on the last few elements alone."""
    kernel = KERNELS[name]
    assert list(far_faults(sources.read(kernel.source), kernel)) == []


def test_every_kernel_of_arrays_is_tried() -> None:
    """Oracle: the list by hand."""
    assert {name for name in NAMES if not is_far(KERNELS[name])} == ONE_THREAD
