"""The gradient of an embedding's table, by places sorted beforehand."""

from __future__ import annotations

from minimp_backends.kernels.declaring import Kernel, Parameter, per_element
from minimp_backends.kernels.references import embedding

__all__ = ["KERNELS", "KINDS_SERVED"]

KINDS_SERVED = ("float", "half", "bfloat16")


def _kernel(kind: str) -> Kernel:
    return Kernel(
        name=f"sum_segments_{kind}",
        source="embedding.cu",
        parameters=(
            Parameter("rows", kind, "in"),
            Parameter("order", "int64", "in"),
            Parameter("starts", "int64", "in"),
            Parameter("table", kind, "out"),
            Parameter("vocabulary", "int64", "value"),
            Parameter("width", "int64", "value"),
        ),
        launch=lambda arguments: per_element(arguments["vocabulary"] * arguments["width"]),
        reference=embedding.sum_segments,
    )


KERNELS = tuple(_kernel(kind) for kind in KINDS_SERVED)
