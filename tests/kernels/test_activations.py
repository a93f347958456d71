"""The bias beyond its samples: sums that are overwritten with the result."""

from __future__ import annotations

import numpy as np
import pytest

from minimp_backends.kernels import sources
from minimp_backends.kernels.registry import KERNELS
from tests.kernels.agreement import expected, launched
from tests.kernels.families import kernels_of
from tests.kernels.samples.activations import add_bias_samples
from tests.kernels.shim.building import build


@pytest.mark.parametrize("backwards", [False, True])
def test_sums_may_be_overwritten(host_compiler: str, backwards: bool) -> None:
    """Oracle: the NumPy reference, with an array of its own for the result; either order of threads."""
    kernel = KERNELS["add_bias_float"]
    built = build(sources.read(kernel.source), kernels_of(kernel.source))
    place = [each.name for each in kernel.parameters].index("target")
    for arguments in add_bias_samples("float"):
        launch = launched(kernel, arguments)
        launch.cells[place][0] = launch.copies["sums"].ctypes.data
        assert built.launch(kernel, launch.shape, launch.addresses, backwards=backwards) == ""
        np.testing.assert_array_equal(launch.copies["sums"], expected(kernel, arguments)["target"])
        np.testing.assert_array_equal(launch.copies["target"], 7)
