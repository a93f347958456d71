"""What a trace keeps of each op, gradient and stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from minimp.trace.statistics import Stats

__all__ = ["PHASES", "Error", "Link", "OpError", "Side", "Span", "TraceEvent"]

PHASES = {
    "forward": "an op, or a cast",
    "recompute": "an op that runs again in backward (mp.recompute)",
    "backward": "the gradient of an op",
    "stage": "a stage of a training step: what it made, by name",
}
"""Phase -> what an event of it is."""

Link = int | str | None
"""Where an array came from: the number of an event, the name of a parameter, or None: from outside."""


@dataclass(frozen=True, slots=True)
class Side:
    """One array that went into an op or came out of it.

    Attributes:
        format: the name of its number format, or of its dtype if it has none.
        shape: the lengths of the axes.
        stats: its statistics, or None where they were not asked for.
        links: inputs: what made it, the events whose gradients were added up being several. Outputs of
            gradients: the names of the parameters it goes to.
        given: inputs of ops: its format before the op's casts.
        flushed: outputs: elements that this op made 0 although the result was not 0 before it was rounded.
        overflowed: outputs: infinities that this op made of finite numbers.
        reach: of an output that overflowed: the largest magnitude before it was rounded, where known.
        name: of an output of a stage: the parameter's or tensor's name.
    """

    format: str
    shape: tuple[int, ...]
    stats: Stats | None = None
    links: tuple[Link, ...] = ()
    given: str | None = None
    flushed: int = 0
    overflowed: int = 0
    reach: float | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Error:
    """How far numbers are from those that they stand for; elements that are not finite are left out.

    Attributes:
        max_ulp: the largest error of an element, in units in the last place of the output's format at that
            element; what was inherited can be any number of them where it should be 0 or nearly so.
        mean_ulp: the mean of all elements' errors, in the same units.
        relative: the norm of the errors divided by the norm of the exact numbers (0 / 0 is 0).
    """

    max_ulp: float = 0.0
    mean_ulp: float = 0.0
    relative: float = 0.0


@dataclass(frozen=True, slots=True)
class OpError:
    """The error of one output against float64, split by where it was made.

    Attributes:
        made: the result against the same op in float64 on the same inputs.
        inherited: that against the same op in float64 on the shadow's inputs, in which nothing was ever
            rounded.
        total: the result against the latter; at most the sum of the two.
        entering: the largest relative error among the inputs; of a gradient, those of the forward that it was
            made from count too.
        unrounded: statistics of the shadow's result.
        jumped: of ops whose result or gradient jumps (relu's at 0): how many elements lie on the other side
            of the jump than the shadow's.
        smooth: the relative error inherited without those, where there are some.
    """

    made: Error
    inherited: Error
    total: Error
    entering: float = 0.0
    unrounded: Stats | None = None
    jumped: int = 0
    smooth: float = 0.0

    @property
    def amplification(self) -> float:
        """By what the op multiplied the relative error of its inputs, jumps left out; 0 if they had none."""
        inherited = self.smooth if self.jumped else self.inherited.relative
        return inherited / self.entering if self.entering else 0.0


@dataclass(frozen=True, slots=True)
class Span:
    """The time that a module or a stage took.

    Attributes:
        kind: "module" or "stage".
        name: the module's path, or the stage's name.
        start, end: nanoseconds since the recording began; the recorder's own work is left out.
        thread: the number of the thread, from 0.
    """

    kind: str
    name: str
    start: int
    end: int
    thread: int = 0


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One op, gradient or stage that has run.

    Attributes:
        number: the order of the events of a recording, from 0.
        phase: a key of :data:`PHASES`.
        op: the op's name; of a stage, the stage's.
        module: the path of the innermost module that ran it; a module that is called by no other has its
            class in parentheses: "(Sequential)"; "" outside of all modules. Of gradients: the forward's.
        source: file and line outside of minimp that called it ("train.py:12"); of gradients: the forward's.
        stage: the stage of a training step that it ran in, or "".
        step: the number of that step in this recording, from 1; 0 outside of training steps.
        inputs, outputs: the arrays; None for what is no array.
        options: the op's keyword arguments, as text.
        accumulate: how its sums are accumulated.
        node: the number of the tape's node, which an op and its gradient share; -1 for stages.
        forward: of a gradient: the number of the event of its op, or None.
        start, end: nanoseconds since the recording began; the recorder's own work is left out.
        thread: the number of the thread, from 0.
        errors: with a shadow: for each output its error, or None.
        facts: of stages: plain numbers (loss_scale, swallowed updates); of gradients, and of
            the product that scales a loss: the loss_scale that they carry, where it is not 1.
        values: the names of the arrays kept: "in0", "out0", ...; read them with `Trace.values(event)`.
    """

    number: int
    phase: str
    op: str
    module: str
    source: str
    stage: str
    step: int
    inputs: tuple[Side | None, ...]
    outputs: tuple[Side | None, ...]
    options: dict[str, str] = field(default_factory=dict)
    accumulate: str = ""
    node: int = -1
    forward: int | None = None
    start: int = 0
    end: int = 0
    thread: int = 0
    errors: tuple[OpError | None, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    values: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The module; outside of modules the parameter of a cast, else the source line, or the stage."""
        return self.module or self._leaf or self.source or (f"({self.stage})" if self.stage else "(minimp)")

    @property
    def _leaf(self) -> str:
        """The name of the parameter that a cast reads, or whose gradient it makes."""
        sides = self.outputs if self.phase == "backward" else self.inputs
        if self.op != "cast" or not sides or sides[0] is None:
            return ""
        return next((link for link in sides[0].links if isinstance(link, str)), "")

    @property
    def within(self) -> str:
        """Its module or parameter for a sentence: " in layers.0", " of layers.0.weight", or ""."""
        leaf = f" of {self._leaf}" if self._leaf else ""
        return f" in {self.module}" if self.module else leaf

    @property
    def at(self) -> str:
        """Its place for a sentence: " at train.py:12"; "" where no code but minimp's own called it."""
        return f" at {self.source}" if self.source else ""

    @property
    def flushed(self) -> int:
        """Non-zero results that this op made 0."""
        return sum(side.flushed for side in self.outputs if side is not None)

    @property
    def overflowed(self) -> int:
        """Finite results that this op made infinite."""
        return sum(side.overflowed for side in self.outputs if side is not None)

    @property
    def nonfinite(self) -> int:
        """Elements of its outputs that are NaN or infinite."""
        return sum(side.stats.nonfinite for side in self.outputs if side and side.stats)

    @property
    def title(self) -> str:
        """The op with its phase: "matmul", "matmul backward", "stage update"."""
        return {"forward": self.op, "stage": f"stage {self.op}"}.get(self.phase, f"{self.op} {self.phase}")

    def __str__(self) -> str:
        came = ", ".join(_short(side) for side in self.inputs if side is not None)
        made = ", ".join(_short(side) for side in self.outputs if side is not None)
        flow = made if self.phase == "stage" else f"{came} -> {made}"
        line = f"#{self.number} {self.title}{self.within}{self.at}: {flow}"
        return line if len(line) <= 100 else line[:97] + "..."


def _short(side: Side) -> str:
    name = f"{side.name} " if side.name else ""
    return f"{name}{side.format}{list(side.shape)}"
