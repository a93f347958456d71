"""Backward: gradients are added to the leaves they belong to, and marked with the scale they carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minimp.quiet import hush, speak
from minimp.tape.records import Array, Value
from minimp.tape.scales import PLAIN, SOURCES, Mark, Marks, mark_of, mark_sum, marks_behind, showing
from minimp.tape.walk import gradients

__all__ = ["add_to_leaves", "backward"]


def backward(output: Value, grad: Array, *, keep: bool = False, carried: Mark | None = None) -> None:
    """Add d(output)/d(leaf), weighted by `grad`, to the `.grad` of each leaf that requires a gradient.

    Args:
        output: a result of recorded ops.
        grad: the gradient of the output: an array of its shape and format.
        keep: keep what was saved, so that backward can run again (torch's `retain_graph`).
        carried: the mark of `grad`, if it has one: the loss scale goes on from there.

    Raises:
        GradientError: nothing was recorded, or what was saved has been freed by an earlier backward.
    """
    if not SOURCES and carried is None:  # the usual case without loss scaling, kept short
        marks, found = None, gradients([(output, grad)], keep=keep)
    else:
        marks = marks_behind([output], [carried])
        with showing(marks):
            found = gradients([(output, grad)], keep=keep)
    add_to_leaves(found, marks)


def add_to_leaves(found: Mapping[Any, Array], marks: Marks | None) -> None:
    """Add to the `.grad` of each leaf what was found for it, without NumPy's warnings: inf - inf is measured.

    Args:
        found: place on the tape -> gradient; places that are no leaves are passed over.
        marks: tells the scales that they carry, or None.
    """
    token = hush()
    try:
        for leaf, array in found.items():
            if isinstance(leaf, Value):
                held = leaf.grad
                made = Value.make(
                    array if held is None else leaf.backend.add(held.array, array), leaf.backend
                )
                if marks is not None or (held is not None and mark_of(held) is not None):
                    mark_sum(made, held, PLAIN if marks is None else marks(leaf))
                leaf.grad = made
    finally:
        speak(token)
