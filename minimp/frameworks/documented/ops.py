"""Known differences of ops: the formats of their results, and their values."""

from __future__ import annotations

from minimp.frameworks.documented.difference import Difference

__all__ = ["OP_DIFFERENCES"]

OP_DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "mixed-probabilities-promote", "torch", "formats", ("binary_cross_entropy",),
        "cpu, *, float32 then float64",
        "autocast casts the float32 input alone, and torch's kernel refuses float32 beside float64; here, "
        "as in the other losses, formats promote",
        "torch 2.13.0, CPU: binary_cross_entropy: 'Found dtype Double but expected Float'",
    ),
    Difference(
        "huber-keeps-the-inputs-format", "torch", "formats", ("huber_loss",), "cpu, *, float32 then float64",
        "torch's CPU kernel gives a result of the input's format, whatever the target's is; here, as in the "
        "other losses, formats promote",
        "torch 2.13.0, CPU: huber_loss(float32, float64) is float32, where mse_loss is float64",
    ),
    Difference(
        "fake-kernels-do-not-check", "torch", "formats", ("index_add", "index_copy"),
        "cuda, *, * then *",
        "fake CUDA tensors do not run the kernel's check that both formats are one; the CPU's kernel refuses "
        "them as we do",
        "torch 2.13.0: torch/_meta_registrations.py, which fake tensors run",
    ),
)  # fmt: skip
