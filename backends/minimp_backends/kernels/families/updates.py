"""The end of a step: SGD and Adam on FP32 weights, 16-bit copies in the same pass, and the count of steps."""

from __future__ import annotations

from minimp_backends.kernels.declaring import Kernel, Parameter
from minimp_backends.kernels.families.unscaling import LAUNCH_NUMBERS, TENSORS, by_chunks, one_thread
from minimp_backends.kernels.references import updates

__all__ = ["KERNELS", "PAIRS"]

PAIRS = (("float", "half"), ("float", "bfloat16"), ("half", "half"), ("bfloat16", "bfloat16"))
"""(gradient, low copy). Without a low copy any of the first two serves."""


def _arrays(grad: str, low: str, *kept: str) -> tuple[Parameter, ...]:
    """The tables of tensors, `kept` being what the rule carries from step to step."""
    return (
        Parameter("weights", "float", "in", TENSORS),
        Parameter("grads", grad, "in", TENSORS),
        *(Parameter(name, "float", "inout", TENSORS) for name in kept),
        Parameter("news", "float", "out", TENSORS),
        Parameter("changes", "float", "out", TENSORS),
        Parameter("lows", low, "out", TENSORS),
        Parameter("compensations", low, "inout", TENSORS),
        Parameter("counts", "int64", "value", TENSORS),
        Parameter("factor", "double", "in", 1),
        Parameter("found", "uint8", "in", 1),
    )


def _numbers(*names: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, "double", "value") for name in names)


def _sgd(grad: str, low: str) -> Kernel:
    return Kernel(
        name=f"sgd_{grad}_{low}",
        source="updates.cu",
        parameters=(
            *_arrays(grad, low, "buffers"),
            Parameter("first", "uint8", "in", 1),
            *_numbers("lr", "momentum", "dampening", "weight_decay"),
            Parameter("options", "int32", "value"),
        ),
        launch=by_chunks,
        reference=updates.sgd,
        allowed={"double": LAUNCH_NUMBERS},
    )


def _adam(grad: str, low: str) -> Kernel:
    return Kernel(
        name=f"adam_{grad}_{low}",
        source="updates.cu",
        parameters=(
            *_arrays(grad, low, "means", "squares", "peaks"),
            Parameter("numbers", "float", "in", 1),
            *_numbers("size", "correction", "beta1", "beta2", "eps", "weight_decay", "shrink"),
            Parameter("options", "int32", "value"),
        ),
        launch=by_chunks,
        reference=updates.adam,
        allowed={"double": LAUNCH_NUMBERS},
    )


_ADVANCE = Kernel(
    name="adam_advance",
    source="advancing.cu",
    parameters=(
        Parameter("step", "int64", "inout"),
        Parameter("numbers", "float", "inout"),
        Parameter("found", "uint8", "in", 1),
        Parameter("by", "int64", "value"),
        *_numbers("lr", "beta1", "beta2"),
    ),
    launch=one_thread,
    reference=updates.adam_advance,
    allowed={"double": LAUNCH_NUMBERS},
)

KERNELS = (*(_sgd(*pair) for pair in PAIRS), *(_adam(*pair) for pair in PAIRS), _ADVANCE)
