"""What it costs that somebody could listen: a step as it is, beside one whose hooks were cut out.

The copy without hooks is made from the source: every ``if ....listeners:`` is taken out of the functions that
run an op and its gradient. Nothing else differs, and nobody listens in either.
"""

from __future__ import annotations

import ast
import inspect
import statistics
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any

from minimp import door
from minimp.benchmarks.figure import Figure
from minimp.benchmarks.timing import interleave
from minimp.benchmarks.workloads import WORKLOADS, minimp_step
from minimp.tape import walk

__all__ = ["deaf_codes", "listening_cost", "running"]

MOST = 1.02
Codes = Mapping[FunctionType, CodeType]
"""Function -> the code that it is to run."""


class _Deafen(ast.NodeTransformer):
    """Takes out ``if modes.listeners:`` with what stands under it."""

    def __init__(self) -> None:
        self.removed = 0

    def visit_If(self, node: ast.If) -> Any:
        """Drop the statement if it asks for listeners."""
        self.generic_visit(node)
        if not (isinstance(node.test, ast.Attribute) and node.test.attr == "listeners"):
            return node
        self.removed += 1
        return node.orelse or None


def deaf_codes() -> dict[FunctionType, CodeType]:
    """Return the code without hooks of each function of the door and the tape that has one.

    Raises:
        RuntimeError: there is none, so nothing would be measured.
    """
    functions = [
        each
        for holder in (door, door.Op, walk)
        for each in vars(holder).values()
        if isinstance(each, FunctionType) and each.__module__ in (door.__name__, walk.__name__)
    ]
    found = {function: code for function in functions if (code := _deaf(function)) is not None}
    homes = {function.__module__ for function in found}
    if homes != {door.__name__, walk.__name__}:
        raise RuntimeError(f"hooks for listeners were found in {', '.join(sorted(homes)) or 'nothing'} alone")
    return found


def _deaf(function: FunctionType) -> CodeType | None:
    """Return the function's code without hooks, None if it has none."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    cut = _Deafen()
    tree = ast.fix_missing_locations(cut.visit(tree))
    if not cut.removed:
        return None
    made: dict[str, Any] = {}
    flags = compile("from __future__ import annotations", "", "exec").co_flags
    exec(compile(tree, f"<{function.__name__} without hooks>", "exec", flags), function.__globals__, made)
    code: CodeType = made[function.__name__].__code__
    return code


@contextmanager
def running(codes: Codes) -> Iterator[None]:
    """Let functions run other code inside the block."""
    before = {function: function.__code__ for function in codes}
    try:
        for function, code in codes.items():
            function.__code__ = code
        yield
    finally:
        for function, code in before.items():
            function.__code__ = code


def listening_cost(name: str = "mlp", rounds: int = 31, *, steps: int = 4) -> Figure:
    """Return the time of fp32 training steps over that of the same without hooks; nobody listens.

    Both are timed twice in a round, in the order a b b a, so that neither gains by its place. The figure is
    the median over the rounds.

    Args:
        name: a workload.
        rounds: interleaved rounds.
        steps: steps that are timed together.
    """
    deaf = deaf_codes()
    as_it_is: Codes = {function: function.__code__ for function in deaf}
    run = minimp_step(WORKLOADS[name], "fp32")

    def contender(codes: Codes) -> Callable[[], None]:
        def call() -> None:
            with running(codes):
                for _ in range(steps):
                    run()

        return call

    one, other = contender(as_it_is), contender(deaf)
    seconds = interleave({"a": one, "b": other, "b again": other, "a again": one}, rounds)
    ratios = [
        (a + d) / (b + c)
        for a, b, c, d in zip(*(seconds[key] for key in ("a", "b", "b again", "a again")), strict=True)
    ]
    label = f"{name}: a step that nobody listens to / the same without hooks"
    return Figure(label, statistics.median(ratios), MOST)
