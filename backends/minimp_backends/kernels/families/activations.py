"""What follows a product: the bias with the rounding, and activations with their gradients."""

from __future__ import annotations

from functools import partial

from minimp_backends.kernels.declaring import KINDS, Kernel, Parameter, per_element
from minimp_backends.kernels.references import activations

__all__ = ["KERNELS", "KINDS_SERVED", "NAMES"]

NEIGHBOURS = 4  # that a thread takes
KINDS_SERVED = ("float", "half", "bfloat16")
PLAIN = ("relu", "sigmoid", "tanh", "silu", "gelu", "gelu_tanh")
"""Activations without a setting."""
SLOPED = "leaky_relu"
NAMES = frozenset({*PLAIN, *(f"{name}_gradient" for name in PLAIN), SLOPED, f"{SLOPED}_gradient"})
"""What kernels compute, for each of the kinds."""


def _add_bias(kind: str) -> Kernel:
    return Kernel(
        name=f"add_bias_{kind}",
        source="bias.cu",
        parameters=(
            Parameter("sums", "float", "in"),
            Parameter("bias", kind, "in"),
            Parameter("target", kind, "out"),
            Parameter("inner", "uint32", "value"),
            Parameter("channels", "uint32", "value"),
            Parameter("count", "uint32", "value"),
        ),
        launch=lambda arguments: per_element(arguments["count"], 16 // KINDS[kind].dtype.itemsize),
        reference=activations.add_bias,
    )


def _activation(name: str, kind: str, *numbers: str) -> tuple[Kernel, Kernel]:
    """Return a kernel of the values and one of the gradients."""
    target = Parameter("target", kind, "out")
    rest = (*(Parameter(each, "float", "value") for each in numbers), Parameter("count", "int64", "value"))
    value, gradient = activations.FUNCTIONS[name]
    source = "gelu.cu" if name.startswith("gelu") else "activations.cu"
    kept = Parameter("kept", "uint8" if name == SLOPED else kind, "in")
    return (
        Kernel(
            name=f"{name}_{kind}",
            source=source,
            parameters=(Parameter("source", kind, "in"), target, *rest),
            launch=lambda arguments: per_element(arguments["count"], NEIGHBOURS),
            reference=partial(activations.values, function=value),
        ),
        Kernel(
            name=f"{name}_gradient_{kind}",
            source=source,
            parameters=(Parameter("grad", kind, "in"), kept, target, *rest),
            launch=lambda arguments: per_element(arguments["count"], NEIGHBOURS),
            reference=partial(activations.gradients, function=gradient),
        ),
    )


KERNELS = (
    *(_add_bias(kind) for kind in KINDS_SERVED),
    *(kernel for name in PLAIN for kind in KINDS_SERVED for kernel in _activation(name, kind)),
    *(kernel for kind in KINDS_SERVED for kernel in _activation(SLOPED, kind, "slope")),
)
