"""Is every element finite? One flag on the device, so that nobody waits for the answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp_backends.kernels.declaring import Kernel, Parameter, per_element

__all__ = ["KERNELS"]


def find_nonfinite(values: Any, found: Any, count: int) -> None:
    """Set ``found[0]`` to 1 where one of the first ``count`` values is infinite or NaN; else leave it."""
    if not np.isfinite(values[:count].astype(np.float64)).all():
        found[0] = 1


def _kernel(kind: str) -> Kernel:
    return Kernel(
        name=f"find_nonfinite_{kind}",
        source="checking.cu",
        parameters=(
            Parameter("values", kind, "in"),
            Parameter("found", "int32", "inout"),
            Parameter("count", "int64", "value"),
        ),
        launch=lambda arguments: per_element(arguments["count"]),
        reference=find_nonfinite,
    )


KERNELS = tuple(_kernel(kind) for kind in ("float", "double", "half", "bfloat16"))
