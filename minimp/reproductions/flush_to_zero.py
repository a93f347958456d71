"""Micikevicius et al. 2018: FP16's subnormals carry gradients; hardware that flushes them needs the scale."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from minimp import formats, functional
from minimp.custom import Function, FunctionContext
from minimp.functional.creation import zeros_like
from minimp.nn import Module
from minimp.nn.hooks import register_module_forward_hook
from minimp.reproductions.loss_scaling import LOSS_UNIT, from_reference
from minimp.reproductions.master_weights import PAPER
from minimp.reproductions.record import Bar, Bench, Measures, Reproduction
from minimp.reproductions.training import AUTOENCODER, train
from minimp.tensors import Tensor

__all__ = ["FLUSH_TO_ZERO", "flushing"]

SETTING = AUTOENCODER.with_(accumulate_steps=16)
SMALLEST = 2.0**-14
"""The smallest normal number of FP16."""


class _Flush(Function):
    """The identity, but for numbers below FP16's smallest normal one: they are 0, forward and backward."""

    @staticmethod
    def forward(ctx: FunctionContext, x: Tensor) -> Tensor:
        """Flush a layer's output."""
        del ctx
        return _flushed(x)

    @staticmethod
    def backward(ctx: FunctionContext, grad: Tensor) -> Tensor:
        """Flush the gradient that comes into the layer."""
        del ctx
        return _flushed(grad)


def _flushed(x: Tensor) -> Tensor:
    return functional.where(x.abs() < SMALLEST, zeros_like(x), x)


@contextmanager
def flushing() -> Iterator[None]:
    """Let no layer give, and none take a gradient of, FP16's subnormals; other formats are left alone."""

    def flush(_layer: Module, _inputs: Any, output: Any) -> Any:
        return _Flush.apply(output) if output.dtype == formats.float16 else output

    handle = register_module_forward_hook(flush)
    try:
        yield
    finally:
        handle.remove()


def _run(seed: int, bench: Bench) -> Measures:
    full, kept = (train(SETTING, each, seed, bench).score for each in ("fp32", "fp16-master"))
    with flushing():
        plain, dynamic = (train(SETTING, each, seed, bench).score for each in ("fp16-master", "mixed-fp16"))
    return {"fp32": full, "with subnormals, S = 1": kept, "flushed, S = 1": plain,
            "flushed, dynamic S": dynamic}  # fmt: skip


FLUSH_TO_ZERO = Reproduction(
    "flush-to-zero",
    replace(PAPER, section="section 3.2, figure 3"),
    "Gradients below FP16's range become zero, and scaling the loss brings them back. What follows, and the "
    "paper does not measure: without subnormals the range ends at 2^-14, not 2^-24, so that a model that "
    "does without a scale needs one.",
    "The auto-encoder in-128-16-128-in, ReLU; Adam at 1e-3, 300 steps of 256 rows, the loss divided by 16 "
    "accumulation steps; FP16 products, FP32 masters; each layer's output, and the gradient that comes back "
    "into it, flushed to zero below 2^-14.",
    dict.fromkeys(("fp32", "with subnormals, S = 1", "flushed, S = 1", "flushed, dynamic S"), LOSS_UNIT),
    (
        Bar("loss flushed at S = 1 over that of fp32", lambda m: m["flushed, S = 1"] / m["fp32"], 2.0, 1.2),
        from_reference("with subnormals, S = 1"),
        from_reference("flushed, dynamic S"),
    ),
    _run,
)  # fmt: skip
