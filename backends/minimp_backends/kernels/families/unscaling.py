"""Unscaling gradients of many tensors at once, and moving the loss scale, without the host being asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minimp_backends.kernels.declaring import MOST_BLOCKS, THREADS, Kernel, Launch, Parameter
from minimp_backends.kernels.references import unscaling

__all__ = ["CHUNK", "KERNELS", "LAUNCH_NUMBERS", "TENSORS", "by_chunks", "one_thread"]

TENSORS, CHUNK = 32, 2048
"""Tensors of one launch at most, and elements of a chunk; as in tensors.cuh."""
LAUNCH_NUMBERS = "numbers of the whole launch, in float64 as the host has them: a few operations a thread"
"""Why a kernel may compute in float64: what the lint asks for."""


def by_chunks(arguments: Mapping[str, Any]) -> Launch:
    """Return one block for each chunk of the tensors, as far as there may be blocks."""
    chunks = sum(-(-count // CHUNK) for count in arguments["counts"])
    return Launch(min(max(chunks, 1), MOST_BLOCKS), THREADS)


def one_thread(_: Mapping[str, Any]) -> Launch:
    """Return the smallest launch."""
    return Launch(1, 1)


def _unscale(grad: str, wide: str) -> Kernel:
    return Kernel(
        name=f"unscale_{grad}",
        source="unscaling.cu",
        parameters=(
            Parameter("grads", grad, "in", TENSORS),
            Parameter("outs", wide, "out", TENSORS),
            Parameter("counts", "int64", "value", TENSORS),
            Parameter("factor", "double", "in"),
            Parameter("of_products", "int32", "value"),
            Parameter("found", "int32", "inout"),
            Parameter("found_any", "int32", "inout"),
        ),
        launch=by_chunks,
        reference=unscaling.unscale,
        allowed={"double": "gradients that are float64" if grad == "double" else LAUNCH_NUMBERS},
    )


_STATE = (("scale", "double"), ("growth_tracker", "int64"), ("skips", "int64"), ("met_bad", "uint8"))

_UPDATE = Kernel(
    name="update_scale",
    source="scales.cu",
    parameters=(
        *(Parameter(name, kind, "in") for name, kind in _STATE),
        *(Parameter(f"new_{name}", kind, "out") for name, kind in _STATE),
        Parameter("found", "uint8", "in"),
        *(Parameter(name, "double", "value") for name in ("growth", "backoff", "early", "lowest", "highest")),
        Parameter("interval", "int64", "value"),
        Parameter("hysteresis", "int64", "value"),
        Parameter("options", "int32", "value"),
    ),
    launch=one_thread,
    reference=unscaling.update_scale,
    allowed={"double": LAUNCH_NUMBERS},
)

KERNELS = (
    _unscale("float", "float"),
    _unscale("half", "float"),
    _unscale("bfloat16", "float"),
    _unscale("double", "double"),
    _UPDATE,
)
