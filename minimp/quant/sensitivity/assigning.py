"""Which layers get int8, float16 or float32, so that a budget is kept: greedy, by damage per byte."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minimp.errors import SettingError, unknown_name
from minimp.nn.module import Module
from minimp.quant.calibration import Calibration
from minimp.quant.convertible import formats_kept
from minimp.quant.layer_reports import bytes_of
from minimp.quant.sensitivity.assignments import Assigned, Assignment, Budget
from minimp.quant.sensitivity.measuring import (
    Advance,
    Batch,
    Config,
    Measured,
    Metric,
    batches_of,
    default_metric,
    float_outputs,
    measure,
    scored,
)
from minimp.quant.sensitivity.spots import Bench, Site
from minimp.quant.sensitivity.sweeping import walk_of
from minimp.quant.static import ForWeights, channel_weights, convert

__all__ = ["FORMATS", "assign"]

OP = "assign"
FORMATS = ("float32", "float16", "int8")
"""What a layer may be in, the largest first."""
Choice = dict[str, str]


def assign(
    model: Module, calibration: Calibration, data: Iterable[Any], *, bytes_ratio: float | None = None,
    loss: float | None = None, sqnr_db: float | None = None, formats: Iterable[str] = FORMATS,
    metric: Metric | None = None, weight: ForWeights = channel_weights, mode: str = "float",
    keep_float: Iterable[str] = (), inputs_of: Callable[[Any], tuple[Any, ...]] | None = None,
    progress: Callable[[Advance], None] | None = None,
) -> Assignment:  # fmt: skip
    """Return a format for each layer with weights, so that a budget is kept: greedy, by damage per byte.

    All layers begin in float32. The damage of a step down, to float16 or int8, is the noise that the layer
    alone adds to the model's output there (10^(-SQNR/10) less that of the beginning), also where the budget
    is one of a metric, which is too coarse to tell layers apart. Again and again the step with the least
    damage per byte that it saves is taken:

    - ``bytes_ratio``: until the model is small enough; then layers are put back, the most damaged first, as
      far as there is room.
    - ``loss`` or ``sqnr_db``: each step is tried with all those before it, and taken back where the budget
      would be broken, until no step is left.

    It is not the optimum, which would cost 3^N measurements. Next to a module on codes there are codes: what
    a layer in floats takes from it and gives to it is rounded; between layers in floats nothing is
    (:mod:`minimp.quant.islands`).

    Args:
        model: the float model that was calibrated; it stays as it is.
        calibration: of that model.
        data: batches such as a DataLoader gives; the last field of a tuple or list is its targets.
        bytes_ratio: the most bytes of parameters and buffers, as a share of the float model's.
        loss: the most that the metric may fall below the float model's: of accuracy, in points.
        sqnr_db: the least SQNR of the model's output, in dB.
        formats: those of `FORMATS` that layers may get.
        metric, weight, mode, inputs_of: those of :func:`~minimp.quant.sensitivity.sweep`.
        keep_float: modules that have no integer form; they get float16 or float32.
        progress: called after each forward; how many there will be is not known before.

    Returns:
        An assignment; ``convert(model, calibration, keep_float=assignment.formats)`` takes it.

    Raises:
        SettingError: not exactly one budget, one that no assignment keeps (the least that can be reached is
            named), a loss without a metric, unknown formats, no layer with weights; and as
            :func:`~minimp.quant.sensitivity.sweep`.
        DataError: as there.
    """
    budget = Budget.of(bytes_ratio, loss, sqnr_db)
    kept = dict.fromkeys(formats_kept(keep_float, OP), "float32")
    allowed = _allowed(formats)
    settings: dict[str, Any] = {"weight": weight, "mode": mode, "keep_float": kept}
    bench = Bench(model, walk_of(model, calibration, OP, **settings), FORMATS[:2])
    batches = batches_of(data, inputs_of, OP)
    outputs = float_outputs(model, batches, OP)
    chosen = metric or default_metric(outputs, batches)
    if loss is not None and chosen is None:
        raise SettingError(
            "a loss of what? the data have no labels, and no metric was given", op=OP,
            help="give batches of (inputs, labels), or metric=..., or a budget in dB: sqnr_db=30",
        )  # fmt: skip
    trials = _Trials(bench, batches, chosen, allowed, progress)
    widest = {path: options[0] for path, options in trials.options.items()}
    base = convert(model, calibration, **(settings | {"keep_float": kept | widest}))
    trials.rest = bytes_of(base) - trials.size(widest)
    budget.floor(bytes_of(model), scored(chosen, outputs, batches, OP))
    _check_reachable(budget, trials, widest)
    choice = (_small_enough if bytes_ratio is not None else _good_enough)(budget, trials, widest)
    return _told(budget, trials, kept | choice, chosen)


def _allowed(formats: Iterable[str]) -> tuple[str, ...]:
    given = tuple(formats)
    for each in given:
        if each not in FORMATS:
            raise SettingError(unknown_name("format", each, FORMATS), op=OP)
    if len(set(given)) < 2:
        raise SettingError("with fewer than two formats there is nothing to choose", op=OP)
    return tuple(each for each in FORMATS if each in given)


class _Trials:
    """Assignments that are tried: what each measures, and how many bytes it has.

    Attributes:
        options: path -> the formats that it may get, the largest first.
        damage: (path, format) -> the noise that it adds alone, in shares of the output's power.
        rest: the bytes of everything else.
    """

    def __init__(
        self, bench: Bench, batches: list[Batch], metric: Metric | None, allowed: tuple[str, ...],
        progress: Callable[[Advance], None] | None,
    ) -> None:  # fmt: skip
        self.bench, self.batches, self.metric, self.progress = bench, batches, metric, progress
        self.options = {
            path: options
            for path, site in bench.sites.items()
            if (options := tuple(each for each in allowed if _possible(site, each)))
        }
        if not any(len(options) > 1 for options in self.options.values()):
            raise SettingError(
                "no layer of the model has weights and a choice of formats", op=OP,
                help="convert(model, calibration) is all there is",
            )  # fmt: skip
        self.rest, self.done = 0, 0
        self.damage: dict[tuple[str, str], float] = {}
        self.alone: dict[tuple[str, str], Measured] = {}

    def bytes_at(self, path: str, form: str) -> int:
        """Return the bytes that a layer has in a format."""
        return self.bench.sites[path].bytes_in(form)

    def smallest(self, path: str) -> str:
        """Return the format of fewest bytes: float16 where int8's scales outweigh a few weights."""
        return min(self.options[path], key=lambda each: self.bytes_at(path, each))

    def size(self, choice: Mapping[str, str]) -> int:
        """Return the bytes of the converted model."""
        held = sum(self.bytes_at(*each) for each in choice.items())
        return self.rest + held - self.bench.bytes_spared(choice)

    def run(self, choices: Mapping[Any, Choice]) -> dict[Any, Measured]:
        """Measure assignments."""
        codes = dict.fromkeys(self.bench.sites, "int8")
        configs = {name: Config(codes | choice) for name, choice in choices.items()}
        return measure(self.bench, self.batches, configs, self.metric, OP, self._tick)

    def look(self, widest: Choice) -> Measured:
        """Measure the beginning, and each layer alone in each smaller format."""
        singles: dict[Any, Choice] = {
            (path, each): widest | {path: each}
            for path, options in self.options.items()
            for each in options[1:]
        }
        found = self.run({None: widest} | singles)
        base = found.pop(None)
        self.alone = found
        for path, options in self.options.items():
            self.damage[path, options[0]] = 0.0
            for each in options[1:]:
                self.damage[path, each] = max(_noise(found[path, each]) - _noise(base), 0.0)
        return base

    def steps(self, choice: Choice) -> list[tuple[float, str, str]]:
        """Return (damage per byte saved, path, format) of each step down, the least first."""
        found = []
        for path, options in self.options.items():
            now = choice[path]
            for each in options:
                saved = self.bytes_at(path, now) - self.bytes_at(path, each)
                if saved > 0:
                    found.append(((self.damage[path, each] - self.damage[path, now]) / saved, path, each))
        order = {path: i for i, path in enumerate(self.options)}
        return sorted(found, key=lambda step: (step[0], order[step[1]], step[2]))

    def _tick(self, name: Any) -> None:
        self.done += 1
        if self.progress is not None:
            what = "the beginning" if name is None else f"'{name[0]}' in {name[1]}"
            self.progress(Advance(self.done, 0, what))


def _possible(site: Site, form: str) -> bool:
    """Tell whether a layer with weights can be in a format."""
    if site.built is None or form not in site.spot.forms:
        return False
    island = "inner" in site.built._modules
    if form == "int8":
        return site.weighted
    return site.keepable and (site.weighted or (island and bytes_of(site.layer or site.built) > 0))


def _noise(measured: Measured) -> float:
    return 0.0 if measured.sqnr_db == math.inf else 10 ** (-measured.sqnr_db / 10)


def _check_reachable(budget: Budget, trials: _Trials, widest: Choice) -> None:
    """Refuse a budget that neither the smallest nor the widest assignment keeps."""
    narrowest = {path: trials.smallest(path) for path in trials.options}
    base = trials.look(widest)
    size = trials.size(narrowest if budget.of_bytes else widest)
    if not budget.kept(size, base):
        raise SettingError(
            f"no assignment keeps {budget}: {budget.reached(size, base)} can be reached at best", op=OP,
            help="ask for less; what modules without a choice give is rounded to codes in any assignment"
            if not budget.of_bytes else "ask for more bytes, or allow smaller formats",
        )  # fmt: skip


def _small_enough(budget: Budget, trials: _Trials, widest: Choice) -> Choice:
    """Step down until the bytes are few enough, then put back what there is room for."""
    choice = dict(widest)
    while trials.size(choice) > budget.most_bytes:
        _, path, each = trials.steps(choice)[0]
        choice[path] = each
    for path in sorted(choice, key=lambda each: -trials.damage[each, choice[each]]):
        for each in trials.options[path]:
            trial = choice | {path: each}
            better = trials.damage[path, each] < trials.damage[path, choice[path]]
            if better and trials.size(trial) <= budget.most_bytes:
                choice = trial
                break
    return choice


def _good_enough(budget: Budget, trials: _Trials, widest: Choice) -> Choice:
    """Step down wherever the budget is kept."""
    choice, refused = dict(widest), set()
    while steps := [step for step in trials.steps(choice) if step[1:] not in refused]:
        _, path, each = steps[0]
        trial = choice | {path: each}
        if budget.kept(trials.size(trial), trials.run({(path, each): trial})[path, each]):
            choice = trial
        else:
            refused.add((path, each))
    return choice


def _told(budget: Budget, trials: _Trials, choice: Choice, metric: Metric | None) -> Assignment:
    rows = tuple(
        Assigned(
            path, trials.bench.sites[path].kind, form,
            {each: trials.bytes_at(path, each) for each in trials.options[path]},
            {each: trials.alone[path, each].sqnr_db for each in trials.options[path][1:]},
        )
        for path, form in choice.items()
        if path in trials.options
    )  # fmt: skip
    chosen = {row.path: row.format for row in rows}
    name = getattr(metric, "__name__", "metric") if metric is not None else ""
    measured = trials.run({None: chosen})[None]
    return Assignment(rows, choice, budget, trials.size(chosen), measured, name)
