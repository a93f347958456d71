"""What a sweep found, and which layer is to blame, in text of at most 100 columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap

from minimp.errors import SettingError
from minimp.quant.fusion.reports import WIDTH
from minimp.quant.sensitivity.blaming import Blame, cause_of
from minimp.quant.sensitivity.facts import ActivationFacts, WeightFacts
from minimp.quant.sensitivity.measuring import Measured

__all__ = ["SensitivityReport", "SensitivityRow", "number"]

PATH = 24
LITTLE = 30.0
"""From here on noise is a thousandth of the power, and labels seldom change."""
MEANING = (
    "SQNR is the power of the float model's output over that of what differs, in dB: 6 dB a bit, 20 dB where "
    "noise is 1 % of the power, the larger the better. 'alone': this place on codes, the rest in floats. "
    "'own result': the place's own, made here alone or inherited from those before. 'up to': this and all "
    "before. 'without': all but this one."
)


@dataclass(frozen=True)
class SensitivityRow:
    """One place where numbers become codes.

    Attributes:
        path: of the module, or ``"input 0"``.
        kind: its class, or ``"input"``.
        weights: with its weights alone on codes; None where it has none.
        activations: with its result alone on codes.
        both: with both.
        upto: with this and all that run before it on codes.
        without: with all but this one on codes, as ``keep_float=[path]`` has it; None where it cannot stay.
        inherited_db: how exactly its own result comes out of it in floats, those before being on codes.
        weight_facts: what its weights' codes look like; None where it has none.
        activation_facts: what its result's codes look like; None where it gives floats.
    """

    path: str
    kind: str
    weights: Measured | None
    activations: Measured
    both: Measured
    upto: Measured
    without: Measured | None
    inherited_db: float
    weight_facts: WeightFacts | None
    activation_facts: ActivationFacts | None

    @property
    def made_db(self) -> float:
        """How exactly its own result comes out of it alone on codes."""
        return self.both.own_db[self.path]

    @property
    def own_db(self) -> float:
        """How exactly its own result comes out with this and all before it on codes."""
        return self.upto.own_db[self.path]


@dataclass(frozen=True)
class SensitivityReport:
    """What each place costs; iterable over :class:`SensitivityRow`, in the order of running.

    Attributes:
        rows: the places.
        metric_name: what the figure of merit is called; "" without one.
        float_metric: what it is of the float model; NaN without one.
        count: how many rows of data were run.
        by_damage: path -> with this place and all that cost more alone on codes, the worst first; empty where
            it was not asked for.
    """

    rows: tuple[SensitivityRow, ...]
    metric_name: str
    float_metric: float
    count: int
    by_damage: Mapping[str, Measured]

    def __iter__(self) -> Iterator[SensitivityRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, path: str) -> SensitivityRow:
        for row in self.rows:
            if row.path == path:
                return row
        raise KeyError(path)

    @property
    def whole(self) -> Measured:
        """With everything on codes: the converted model."""
        return self.rows[-1].upto

    def blame(self, share: float = 0.25) -> tuple[Blame, ...]:
        """Return the places that hurt most, each with its reason and what to do about it.

        The noise of a place is what it makes in the model's output alone, its weights and its result each for
        itself: 10^(-SQNR/10) of the output's power.

        What stays in floats of 16 bits is not codes, and not named.

        Args:
            share: of the noise of all places; those with so much are named, and the worst in any case.
                Nothing is named where nothing is lost.

        Raises:
            SettingError: a share that is not between 0 and 1.
        """
        if not 0 <= share <= 1:
            raise SettingError(f"share must lie between 0 and 1, got {share}", op="blame")
        parts = [
            (row, part, measured.sqnr_db)
            for row in self.rows
            for part, measured in (("weights", row.weights), ("activations", row.activations))
            if measured is not None and measured.sqnr_db < math.inf and _facts(row, part) is not None
        ]
        parts.sort(key=lambda each: each[2])
        least = parts[0][2] if parts else 0.0
        sizes = [10 ** ((least - each[2]) / 10) if each[2] > -math.inf else 1.0 for each in parts]
        shares = [size / sum(sizes) for size in sizes]
        return tuple(
            _blame(*part, mine)
            for i, (part, mine) in enumerate(zip(parts, shares, strict=True))
            if i == 0 or mine >= share
        )

    def __str__(self) -> str:
        """Show what the numbers mean, a row for each place, and which are to blame."""
        return "\n".join([*self._head(), "", *self._table(), *self._damage(), "", *self._blames()])

    def _head(self) -> list[str]:
        result = f"all on codes: SQNR {number(self.whole.sqnr_db)} dB"
        if self.metric_name:
            result += f", {self.metric_name} {number(self.whole.metric)} (float: {number(self.float_metric)})"
        return [
            f"{result}; {len(self.rows)} places, {self.count} rows of data",
            *wrap(MEANING, WIDTH),
        ]

    def _table(self) -> list[str]:
        merit = bool(self.metric_name)
        named = f" {self.metric_name[:21]:^22}" if merit else ""
        lines = [
            f"{'':{PATH}}{'alone, dB':^21} {'own result, dB':^15} {'model, dB':^15}{named}",
            f"{'place':{PATH}}{'weights':>7}{'result':>7}{'both':>7} {'made':>7}{'inherit':>8} "
            f"{'up to':>7}{'without':>8}" + (f" {'alone':>7}{'up to':>7}{'without':>8}" if merit else ""),
        ]
        for row in self.rows:
            weights, without = (each or Measured(math.nan) for each in (row.weights, row.without))
            groups = [
                _columns((weights.sqnr_db, row.activations.sqnr_db, row.both.sqnr_db), (7, 7, 7)),
                _columns((row.made_db, row.inherited_db), (7, 8)),
                _columns((row.upto.sqnr_db, without.sqnr_db), (7, 8)),
            ]
            if merit:
                groups.append(_columns((row.both.metric, row.upto.metric, without.metric), (7, 7, 8)))
            lines.append(_fit(row.path or "the model") + " ".join(groups))
        return lines

    def _damage(self) -> list[str]:
        if not self.by_damage:
            return []
        lines = [
            "",
            f"{'the worst first, one after the other':{PATH + 14}} {'model, dB':>10} {self.metric_name:>10}",
        ]
        for path, each in self.by_damage.items():
            merit = f" {number(each.metric):>10}" if self.metric_name else ""
            lines.append(f"{_fit(path, PATH + 14)} {number(each.sqnr_db):>10}{merit}")
        return lines

    def _blames(self) -> list[str]:
        found = self.blame()
        if not found:
            return ["nothing is lost anywhere"]
        little = self.whole.sqnr_db >= LITTLE
        lines = ["what costs most, though little is lost:" if little else "what costs most:"]
        for each in found:
            lines += wrap(str(each), WIDTH, initial_indent="- ", subsequent_indent="  ")
        return lines


def _facts(row: SensitivityRow, part: str) -> ActivationFacts | WeightFacts | None:
    return row.activation_facts if part == "activations" else row.weight_facts


def _blame(row: SensitivityRow, part: str, sqnr_db: float, share: float) -> Blame:
    facts = _facts(row, part)
    assert facts is not None
    cause, words = cause_of(facts)
    return Blame(row.path, part, share, sqnr_db, cause.name, words, cause.step)


def number(value: float | None) -> str:
    """Return a figure in at most six columns; "-" where there is none, "exact" where nothing is lost."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "exact" if value > 0 else "noise"
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:.3g}"


def _columns(values: Sequence[float | None], widths: Sequence[int]) -> str:
    return "".join(f"{number(value):>{width}}" for value, width in zip(values, widths, strict=True))


def _fit(path: str, width: int = PATH) -> str:
    return f"{path if len(path) <= width else '...' + path[3 - width :]:{width}}"
