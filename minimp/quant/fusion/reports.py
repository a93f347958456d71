"""What a change of a model did, module by module, in text of at most 100 columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap

import numpy as np

from minimp.quant.fusion.channels import Wide
from minimp.quant.fusion.flow import Flow
from minimp.quant.fusion.folding import values
from minimp.quant.fusion.pairs import LayerPair

__all__ = [
    "WIDTH", "Changed", "FusionReport", "FusionRow", "ScalingReport", "ScalingRow", "difference", "far",
    "fit", "shown_path",
]  # fmt: skip

WIDTH = 100


@dataclass(frozen=True)
class Changed:
    """How far a model's results on the example lie from those before.

    Attributes:
        difference: the largest |after - before| of all floating results, in float64; NaN where one is NaN
            that was not.
        peak: the largest |before|.
    """

    difference: float
    peak: float

    def __str__(self) -> str:
        """Show both."""
        return f"results differ by at most {self.difference:.2g} (the largest is {self.peak:.3g})"


def difference(before: Flow, after: Flow) -> Changed:
    """Compare the floating results of two runs of one model."""
    far_apart, peak = [0.0], [0.0]
    for old, new in zip(before.outputs, after.outputs, strict=True):
        if old.format is not None:
            a = values(old)
            far_apart.append(far(a, values(new)))
            peak.append(float(np.max(np.abs(a), where=np.isfinite(a), initial=0)))
    return Changed(float(np.max(far_apart)), max(peak))


def far(a: Wide, b: Wide) -> float:
    """Return the largest |b - a|, 0 of two NaN and of equal infinities; NaN where one alone is NaN."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return float(np.max(np.abs(np.subtract(b, a, where=~same, out=np.zeros_like(a))), initial=0))


@dataclass(frozen=True)
class FusionRow:
    """One row of modules that was fused, or one module that was not.

    Attributes:
        modules: the paths: of a fused row, all of them, the first being where the fused module stands now; of
            a module that was not fused, that of the module.
        pattern: the names of their classes, joined by +.
        why: why it was not fused; "" where it was.
        difference: the largest |after - before| of the row's output on the example, whose input may differ
            already, by what was fused before it. NaN where nothing was fused.
        bytes_saved: bytes of parameters and buffers before, less those after; below 0 where a layer got a
            bias and lost less.
    """

    modules: tuple[str, ...]
    pattern: str
    why: str = ""
    difference: float = float("nan")
    bytes_saved: int = 0

    @property
    def fused(self) -> bool:
        """Whether it was fused."""
        return not self.why


@dataclass(frozen=True)
class FusionReport:
    """What was fused and what was not, and why; iterable over :class:`FusionRow`, in the order of running.

    Attributes:
        rows: the rows.
        changed: how far the model's results moved.
    """

    rows: tuple[FusionRow, ...]
    changed: Changed

    def __iter__(self) -> Iterator[FusionRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def fused(self) -> tuple[FusionRow, ...]:
        """The rows that were fused."""
        return tuple(each for each in self.rows if each.fused)

    @property
    def refused(self) -> tuple[FusionRow, ...]:
        """The modules that were not, each with its reason."""
        return tuple(each for each in self.rows if not each.fused)

    @property
    def bytes_saved(self) -> int:
        """Bytes of parameters and buffers that the model lost."""
        return sum(each.bytes_saved for each in self.rows)

    def __str__(self) -> str:
        """Show a table of what was fused, and the reasons why the rest was not, within 100 columns."""
        saved = f"{self.bytes_saved:,} bytes of parameters and buffers saved"
        lines = [
            f"{len(self.fused)} fused, {len(self.refused)} not; {saved}",
            f"on the example, {self.changed}",
        ]
        if self.fused:
            lines += ["", f"{'fused':46} {'pattern':28} {'max |diff|':>11} {'bytes saved':>12}"]
        lines += [
            f"{fit(shown_path(each.modules), 46):46} {fit(each.pattern, 28):28} "
            f"{each.difference:11.2g} {each.bytes_saved:12,}"
            for each in self.fused
        ]
        if self.refused:
            lines += ["", "not fused"]
        for each in self.refused:
            head = f"{fit(each.modules[0] or 'the model', 34):34} {fit(each.pattern, 16):16} "
            lines += wrap(each.why, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
        return "\n".join(lines)


@dataclass(frozen=True)
class ScalingRow:
    """Two layers between which scale was moved, or one layer behind which it could not be.

    Attributes:
        first, second: their paths.
        through: the names of the ops between them.
        channels: how many channels lie between them.
        factor: the largest of r1'/r1 and r1/r1' over the channels, r1 before and r1' after.
        before, after: how well one scale for each weight serves the channels: the mean over channels of
            (r1_i / max r1) (r2_i / max r2), 1 where all ranges are equal (Nagel et al. 2019, equation 9,
            divided by the number of channels).
        why: why nothing was moved; "" where it was.
    """

    first: str
    second: str = ""
    through: tuple[str, ...] = ()
    channels: int = 0
    factor: float = 1.0
    before: float = float("nan")
    after: float = float("nan")
    why: str = ""

    @classmethod
    def of(cls, pair: LayerPair, old: tuple[Wide, Wide], new: tuple[Wide, Wide]) -> ScalingRow:
        """Make the row of a pair from its ranges (r1, r2) before and after."""
        alive = old[0] > 0
        octaves = np.abs(np.log2(new[0][alive] / old[0][alive]))
        factor = float(np.exp2(octaves.max(initial=0.0)))
        names = pair.first, pair.second, pair.through, pair.channels
        return cls(*names, factor, _precision(*old), _precision(*new))

    @property
    def paired(self) -> bool:
        """Whether scale was moved."""
        return not self.why


def _precision(r1: Wide, r2: Wide) -> float:
    """Return the mean of (r1 / max r1) (r2 / max r2); NaN if all weights are zero."""
    if not r1.max() or not r2.max():
        return float("nan")
    return float(np.mean(r1 / r1.max() * (r2 / r2.max())))


@dataclass(frozen=True)
class ScalingReport:
    """Between which layers scale was moved, and where it could not be; iterable over :class:`ScalingRow`.

    Attributes:
        rows: the pairs in the order of running, then the layers that are not the first of one.
        changed: how far the model's results moved.
        sweeps: how often the pairs were gone through before they stood still.
    """

    rows: tuple[ScalingRow, ...]
    changed: Changed
    sweeps: int

    def __iter__(self) -> Iterator[ScalingRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def paired(self) -> tuple[ScalingRow, ...]:
        """The pairs."""
        return tuple(each for each in self.rows if each.paired)

    def __str__(self) -> str:
        """Show a table of the pairs, and the reasons why other layers are in none, within 100 columns."""
        rest = [each for each in self.rows if not each.paired]
        lines = [
            f"pairs of layers: {len(self.paired)}; sweeps: {self.sweeps}",
            f"on the example, {self.changed}",
        ]
        if self.paired:
            title = f"{'layers':38} {'through':21} {'channels':>8}"
            lines += ["", f"{title} {'factor up to':>12} {'ranges alike':>15}"]
        lines += [
            f"{fit(f'{each.first} -> {each.second}', 38):38} {fit(', '.join(each.through), 21):21} "
            f"{each.channels:8} {each.factor:12.4g} {each.before:6.3f} -> {each.after:5.3f}"
            for each in self.paired
        ]
        lines += ["", "layers whose scale cannot go anywhere"] if rest else []
        for each in rest:
            head = f"{fit(each.first or 'the model', 40):40} "
            lines += wrap(each.why, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
        return "\n".join(lines)


def shown_path(paths: tuple[str, ...]) -> str:
    """Return paths joined by +; what those behind the first have in common with it is left out.

    >>> shown_path(("blocks.0.conv1", "blocks.0.norm1", "blocks.0.relu"))
    'blocks.0.conv1 + .norm1 + .relu'
    """
    owner = paths[0].rpartition(".")[0] + "."
    rest = [
        each.removeprefix(owner[:-1]) if owner != "." and each.startswith(owner) else each for each in paths
    ]
    return " + ".join([paths[0], *rest[1:]])


def fit(text: str, width: int) -> str:
    """Return a text cut to a width, "..." where it was cut."""
    return text if len(text) <= width else f"{text[: width - 3]}..."
