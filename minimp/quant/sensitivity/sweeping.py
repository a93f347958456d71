"""Where quantising a model hurts: each layer by itself, one after the other, and all but one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minimp.errors import MinimpError, SettingError, plain
from minimp.nn.module import Module
from minimp.quant.calibration import Calibrated, Calibration
from minimp.quant.sensitivity.facts import activation_facts, weight_facts
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
from minimp.quant.sensitivity.reports import SensitivityReport, SensitivityRow
from minimp.quant.sensitivity.spots import Bench
from minimp.quant.static import ForWeights, Walk, channel_weights, walked

__all__ = ["sweep", "walk_of"]

OP = "sweep"
Progress = Callable[[Advance], None]
WORDS = {
    "weights": "the weights of {} alone", "activations": "the result of {} alone", "both": "{} alone",
    "upto": "everything up to {}", "without": "everything but {}", "damage": "{} and those that hurt more",
}  # fmt: skip


def sweep(
    model: Module, calibration: Calibration, data: Iterable[Any], *, metric: Metric | None = None,
    weight: ForWeights = channel_weights, mode: str = "float",
    keep_float: Iterable[str] | Mapping[str, str] = (), by_damage: bool = False,
    inputs_of: Callable[[Any], tuple[Any, ...]] | None = None, progress: Progress | None = None,
) -> SensitivityReport:  # fmt: skip
    """Return what each place where numbers become codes costs the model, in dB and in a figure of merit.

    A place is a module that is converted or kept in floats, or an input of the model; not where floats pass
    between what is kept (:mod:`minimp.quant.islands`). Three ways of looking at it:

    - **alone**: this one quantised, the rest in floats: its weights, its result, and both. These are floats
      that imitate codes (:mod:`minimp.quant.sensitivity.spots`).
    - **up to here**: this one and all that run before it: the integer layers themselves. The last row's
      figures are those of what :func:`~minimp.quant.static.convert` returns, to the bit.
    - **without**: all but this one: the figures of ``convert(..., keep_float=[path])``, also to the bit. What
      the module gives are codes there, too, where others take them.

    The noise in a module's own result has two parts: made here, as it is alone; and inherited, what comes
    through it, left in floats, from all that run before.

    Nothing is drawn at random. The model stays as it is. N places cost 5 N forwards on the data.

    Args:
        model: the float model that was calibrated, on the example of which it runs.
        calibration: of that model.
        data: batches such as a DataLoader gives; the last field of a tuple or list is its targets.
        metric: (outputs, targets), arrays over all data, -> a number, the larger the better. None takes the
            accuracy in percent where targets are labels, and nothing else.
        weight, mode, keep_float: those of :func:`~minimp.quant.static.convert`.
        by_damage: also quantise the places one after the other in order of what they cost alone, the worst
            first; in floats that imitate codes.
        inputs_of: batch -> what the model is called with; None takes the first field.
        progress: called after each forward.

    Raises:
        DataError: there are no data; NaN or infinities in what the float model gives; a metric of NaN.
        SettingError: what :func:`~minimp.quant.static.convert` refuses: a model on codes, a calibration of
            another model, unknown paths; a model that gives more than one tensor; a metric that gives no
            number.
        MinimpError: as the model's forward.
    """
    walk = walk_of(model, calibration, OP, weight=weight, mode=mode, keep_float=keep_float)
    bench = Bench(model, walk, ("float32",))
    batches = batches_of(data, inputs_of, OP)
    outputs = float_outputs(model, batches, OP)
    chosen = metric or default_metric(outputs, batches)
    best = scored(chosen, outputs, batches, OP)
    configs = _configs(bench)
    forwards = len(batches) * (len(configs) + by_damage * len(bench.sites))
    tick = _ticking(progress, forwards)
    found = measure(bench, batches, configs, chosen, OP, tick)
    activations = activation_facts(bench, batches, OP)
    rows = tuple(_row(bench, path, found, activations.get(path)) for path in bench.sites)
    damage: dict[str, Measured] = {}
    if by_damage:
        order = [row.path for row in sorted(rows, key=lambda row: row.both.sqnr_db)]
        steps = {
            ("damage", path): Config(dict.fromkeys(order[: i + 1], "both")) for i, path in enumerate(order)
        }
        damage = {path: each for (_, path), each in measure(bench, batches, steps, chosen, OP, tick).items()}
    name = getattr(chosen, "__name__", "metric") if chosen is not None else ""
    return SensitivityReport(rows, name, best, _rows_of(batches), damage)


def walk_of(model: Module, calibration: Calibration, op: str, **settings: Any) -> Walk:
    """Return what would stand where on codes; refusals name the function that asked.

    Raises:
        SettingError: no float model, no calibration, and as :func:`~minimp.quant.static.convert`.
    """
    if isinstance(model, Calibrated) or not isinstance(calibration, Calibration):
        kinds = f"{type(model).__name__} and {type(calibration).__name__}"
        raise SettingError(
            f"expected a float model and its calibration, got {kinds}", op=op,
            help="calibrate(model, loader) makes one; a prepared model has both: model.calibrated()",
        )  # fmt: skip
    try:
        return walked(model, calibration, **settings)
    except MinimpError as fault:
        rest: Any = {"shapes": fault.shapes, "formats": fault.formats, "help": fault.help}
        raise type(fault)(plain(fault), op=op, **rest) from fault


def _configs(bench: Bench) -> dict[Any, Config]:
    """Return what is run: (way of looking, path) -> configuration."""
    paths = list(bench.sites)
    found: dict[Any, Config] = {}
    for i, (path, site) in enumerate(bench.sites.items()):
        for form in ("weights", "activations", "both"):
            if form in site.spot.forms:
                found[form, path] = Config({path: form}, (path,))
        found["upto", path] = Config(dict.fromkeys(paths[: i + 1], "int8"), tuple(paths[i : i + 2]))
        if "float32" in site.spot.forms:
            found["without", path] = Config(dict.fromkeys(paths, "int8") | {path: "float32"})
    return found


def _row(bench: Bench, path: str, found: Mapping[Any, Measured], activations: Any) -> SensitivityRow:
    site, paths = bench.sites[path], list(bench.sites)
    i = paths.index(path)
    before = found["upto", paths[i - 1]].own_db[path] if i else float("inf")
    return SensitivityRow(
        path, site.kind, found.get(("weights", path)), found["activations", path], found["both", path],
        found["upto", path], found.get(("without", path)), before, weight_facts(site), activations,
    )  # fmt: skip


def _ticking(progress: Progress | None, of: int) -> Callable[[Any], None]:
    done = 0

    def tick(name: Any) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(Advance(done, of, WORDS[name[0]].format(f"'{name[1]}'")))

    return tick


def _rows_of(batches: list[Batch]) -> int:
    return sum(len(batch.inputs[0]) if batch.inputs[0].shape else 1 for batch in batches)
