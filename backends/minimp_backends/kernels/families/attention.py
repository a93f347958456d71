"""Attention: its probabilities from products, and the gradient of its scores."""

from __future__ import annotations

from minimp_backends.kernels.declaring import Kernel, Parameter
from minimp_backends.kernels.families.rows import by_rows
from minimp_backends.kernels.references import attention

__all__ = ["KERNELS"]

NUMBERS = (
    Parameter("scale", "float", "value"),
    Parameter("causal", "int32", "value"),
    Parameter("queries", "int64", "value"),
    Parameter("rows", "int64", "value"),
    Parameter("length", "int64", "value"),
)
PRODUCTS, P = Parameter("products", "float", "in"), Parameter("p", "float", "out")

KERNELS = (
    Kernel(
        "attention_weights", "attention.cu",
        (PRODUCTS, P, Parameter("log_sums", "float", "out"), *NUMBERS), by_rows, attention.attention_weights,
    ),
    Kernel(
        "attention_slopes", "attention.cu",
        (PRODUCTS, Parameter("log_sums", "float", "in"), Parameter("r", "float", "in"), P,
         Parameter("slopes", "float", "out"), *NUMBERS),
        by_rows, attention.attention_slopes,
    ),
)  # fmt: skip
