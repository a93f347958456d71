"""One call of an op with the gradient of its result: what a gradient's formula is written over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from minimp.checks.running import Arithmetic, Running
from minimp.formats import Format

__all__ = ["Case", "Rule"]


@dataclass(frozen=True)
class Case:
    """One call of an op, and the gradient of its result.

    Attributes:
        at: the arithmetic of the op.
        inputs: running numbers; arrays of integers, None and missing inputs as they are.
        grad: the incoming gradient.
        options: the op's keyword arguments.
        output: the format of the result, where an option chose it.
        formats: those of the inputs, where they differ from the working format; None for what has none.
    """

    at: Arithmetic
    inputs: tuple[Any, ...]
    grad: Running
    options: Mapping[str, Any]
    output: Format
    formats: tuple[Format | None, ...] = ()

    def format(self, index: int) -> Format:
        """The format of input `index`, and so of its gradient."""
        held = self.formats[index] if index < len(self.formats) else None
        return self.at.fmt if held is None else held

    def number(self, index: int) -> Running:
        """Input `index`, which is a number to compute with."""
        held: Running = self.inputs[index]
        return held

    def shape(self, index: int) -> tuple[int, ...]:
        """The shape of input `index`."""
        return self.number(index).exact.shape

    def to(self, index: int, grad: Running) -> Running:
        """Round; where input `index` was broadcast, sum over its copies and round again."""
        shape = self.shape(index)
        if grad.exact.shape == shape:
            return grad.rounded()
        return self.unbroadcast(grad.stored(), shape).rounded()

    @staticmethod
    def unbroadcast(grad: Running, shape: tuple[int, ...]) -> Running:
        """Sum over the axes that a broadcast repeated or added; nothing is rounded if there are none."""
        if grad.exact.shape == shape:
            return grad
        lead = grad.exact.ndim - len(shape)
        axes = (*range(lead), *(i + lead for i, n in enumerate(shape) if n == 1))
        return grad.sum(axes, keepdims=True).move(lambda a: a.reshape(shape))


Rule = Callable[[Case], Running]
"""The gradient of one input."""
