"""What `minimp memory` prints: both columns for each recipe, bars, the measured step, the claims."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from minimp.memory import MOMENTS, Applied, Claim, Ledger

if TYPE_CHECKING:
    from minimp.cli.memory import Subject
    from minimp.cli.memory_measure import Measured

__all__ = ["show_inference", "show_ledgers", "show_measured", "show_sayings"]

NAMES = {
    "parameters": "parameters", "masters": "masters", "low_copies": "low copies", "gradients": "gradients",
    "optimizer": "optimizer", "activations": "activations", "workspaces": "workspaces",
}  # fmt: skip
LETTERS = {
    "parameters": "p", "masters": "m", "low_copies": "l", "gradients": "g", "optimizer": "o",
    "activations": "a", "workspaces": "w",
}  # fmt: skip
HEAD, CELL, BAR = 14, 20, 60
MIB = 2**20
HOLDERS = {
    "numpy": ("this process", "in this process", "float32 twins of 16-bit arrays, "),
    "cupy": ("a GPU", "on a GPU", ""),
    "strict": ("the strict device", "on the strict device", ""),
}
"""Backend -> who holds the physical column, where that is, and what is held beside the arrays themselves."""
MEANING = (
    "Logical: every array in its own format, each cause at its height, as on hardware with real 16-bit "
    "arithmetic. Physical: what {holder} holds at the fullest of three moments of a step (after the "
    "forward, the backward, the update), each cause at its height: also {twins}unscaled float32 gradients, "
    "and the weights that the update has just replaced. What kernels need while they run, and the batch as "
    "the data set holds it, are not in it."
)


def show_ledgers(
    out: Console, subject: Subject, optimizer: str, ledgers: Mapping[str, Ledger], backend: str
) -> None:
    """Print both columns of every recipe, in MiB and bytes a parameter, and the bars."""
    holder, where, twins = HOLDERS[backend]
    elements = next(iter(ledgers.values())).elements
    _print(out, f"{_titled(subject, elements)}, {optimizer}")
    logical = {name: held.logical.as_dict() for name, held in ledgers.items()}
    _table(
        out, "logical: what hardware with 16-bit arithmetic would hold", elements, logical,
        {"total": [held.total for held in ledgers.values()]},
    )  # fmt: skip
    _bars(out, logical)
    _table(
        out, f"physical: what {holder} holds", elements,
        {name: held.physical.as_dict() for name, held in ledgers.items()},
        {"fullest moment": [held.peak for held in ledgers.values()]},
    )  # fmt: skip
    _print(out, "")
    _compared(out, ledgers, where)
    _wrapped(out, MEANING.format(holder=holder, twins=twins))


def _table(
    out: Console, title: str, elements: int, columns: Mapping[str, Mapping[str, int]],
    last: Mapping[str, Sequence[int]],
) -> None:  # fmt: skip
    """Print a row for each cause that holds anything, and a last one."""
    _print(out, f"\n[bold]{title}[/]   (MiB, and bytes a parameter)", markup=True)
    _print(out, " " * HEAD + "".join(f"{name:>{CELL}}" for name in columns))
    rows = {NAMES[cause]: [each[cause] for each in columns.values()] for cause in NAMES}
    for name, counts in ({name: row for name, row in rows.items() if any(row)} | {**last}).items():
        cells = (_cell(count, elements) for count in counts)
        _print(out, f"{name:{HEAD}}" + "".join(f"{cell:>{CELL}}" for cell in cells))


def _compared(out: Console, ledgers: Mapping[str, Ledger], where: str) -> None:
    """Say how much each recipe holds beside the first."""
    (first, reference), *others = ledgers.items()
    for name, held in others:
        _wrapped(
            out,
            f"{name} beside {first}: {held.total / reference.total:.2f}x the bytes on such hardware, "
            f"{held.peak / reference.peak:.2f}x {where}; activations "
            f"{held.activations / max(reference.activations, 1):.2f}x.",
        )


def _titled(subject: Subject, elements: int) -> str:
    sizes = "".join(f", {name} {value}" for name, value in subject.sizes.items())
    return (
        f"{subject.kind.name}{sizes}: {elements:,} parameters; {subject.batch} x "
        f"{'x'.join(map(str, subject.shape))} from {subject.source}"
    )


def _cell(count: int, elements: int) -> str:
    return f"{_mib(count)} {count / max(elements, 1):7,.1f}" if count else "-      -"


def _mib(count: int) -> str:
    """Return MiB with as many digits as mean something."""
    size = count / MIB
    return f"{size:,.0f}" if size >= 1000 else f"{size:,.1f}" if size >= 10 else f"{size:,.2f}"


def _bars(out: Console, columns: Mapping[str, Mapping[str, int]]) -> None:
    """Print a bar for each recipe: letters of the causes, as long as their bytes."""
    most = max(sum(each.values()) for each in columns.values()) or 1
    for name, each in columns.items():
        _print(out, f"{name[:16]:17}{bar(each, most, BAR)} {_mib(sum(each.values()))} MiB")
    used = [cause for cause in NAMES if any(each[cause] for each in columns.values())]
    _print(out, " " * 17 + "  ".join(f"{LETTERS[cause]} {NAMES[cause]}" for cause in used))


def bar(counts: Mapping[str, int], most: int, width: int) -> str:
    """Return letters of causes, each as long as its share of `most`, ends rounded to whole letters.

    >>> bar({"masters": 2, "low_copies": 1, "gradients": 1}, 8, 16)
    'mmmmllgg'
    """
    text, running = "", 0
    for cause, count in counts.items():
        running += count
        text += LETTERS[cause] * (round(running * width / most) - len(text))
    return text


def show_measured(out: Console, ledgers: Mapping[str, Ledger], seen: Mapping[str, Measured]) -> None:
    """Print forecast, measurement and what the allocator says, moment by moment."""
    witness = next((each.witness for each in seen.values()), "tracemalloc")
    _print(out, "\n[bold]a real step[/]   (MiB)", markup=True)
    heads = ("forecast", "measured", witness, f"measured / {witness}")
    _print(out, f"{'recipe':17}{'moment':12}" + "".join(f"{head:>{len(head) + 4}}" for head in heads))
    for name, each in seen.items():
        for moment, found in each.ledger.moments.items():
            numbers = (ledgers[name].moments[moment].total, found.total, each.traced[moment])
            cells = [_mib(number) for number in numbers] + [f"{found.total / each.traced[moment]:.3f}"]
            row = "".join(f"{cell:>{len(head) + 4}}" for cell, head in zip(cells, heads, strict=True))
            _print(out, f"{name[:16]:17}{moment:12}{row}")
        _print(out, f"{name[:16]:17}{'inside':12}{'':24}{_mib(each.peak):>15}")
    moments = "; ".join(f"{name}: {text}" for name, text in MOMENTS.items())
    _wrapped(out, f"{moments}; inside: the most during a step, with what kernels need while they run.")
    same = [name for name, each in seen.items() if each.ledger.logical == ledgers[name].logical]
    _wrapped(
        out, f"The logical column of the step is the forecast's, to the byte: {', '.join(same) or 'of none'}."
    )


def show_inference(out: Console, subject: Subject, found: Mapping[str, Applied]) -> None:
    """Print what applying a model takes, format by format."""
    first = next(iter(found.values()))
    _print(out, f"{_titled(subject, first.elements)}, applied without recording")
    _print(out, f"{'':{HEAD}}{'weights':>{CELL}}{'largest op':>{CELL}}{'together':>{CELL}}   (MiB)")
    for name, each in found.items():
        cells = (f"{_mib(each.weights)} ({each.weights / first.weights:.2f}x)",
                 f"{_mib(each.working)} ({each.working / max(first.working, 1):.2f}x)",
                 f"{_mib(each.total)} ({each.total / first.total:.2f}x)")  # fmt: skip
        _print(out, f"{name:{HEAD}}" + "".join(f"{cell:>{CELL}}" for cell in cells))
    _wrapped(
        out,
        "Weights: parameters and buffers, as model.half() or .bfloat16() leaves them. Largest op: its "
        "inputs and its result, which must be there together. Logical bytes: float32 twins come on top in "
        "this process.",
    )


def show_sayings(out: Console, sayings: Sequence[Claim]) -> None:
    """Print what is often said, and what is counted on this model."""
    _print(
        out,
        "\n[bold]what is often said, counted on this model and batch (mixed-fp16 beside fp32)[/]",
        markup=True,
    )
    for each in sayings:
        _print(out, f"{each.verdict:15}{each.name}: {each.value:.2f}{_unit(each)}")
        for line in (f'"{each.said}" ({each.source})', each.arithmetic):
            _wrapped(out, line, indent=15)


def _unit(claim: Claim) -> str:
    return " bytes a parameter" if claim.name == "masters" else "x"


def _wrapped(out: Console, text: str, indent: int = 0) -> None:
    lines = textwrap.wrap(text, out.width - indent, break_on_hyphens=False)
    _print(out, "\n".join(" " * indent + line for line in lines))


def _print(out: Console, text: str, *, markup: bool = False) -> None:
    out.print(text if markup else escape(text), soft_wrap=True, highlight=False)
