"""How far a model in some configuration lies from itself in floats: noise in dB, and any figure of merit."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import DataError, SettingError
from minimp.evaluation import judging
from minimp.modes import no_grad
from minimp.nn.making import lifted
from minimp.nn.module import Module
from minimp.quant.fusion.flow import tensors_in
from minimp.quant.sensitivity.spots import Bench

__all__ = [
    "Advance", "Batch", "Config", "Measured", "Metric", "accuracy", "array_of", "batches_of", "decibels",
    "float_outputs", "measure", "output_of", "scored",
]  # fmt: skip

Array = npt.NDArray[Any]
Metric = Callable[[Array, Any], float]
"""(outputs of all data, targets of all data or None) -> a number; the larger the better."""


@dataclass(frozen=True)
class Advance:
    """How far a long measurement is, after a forward.

    Attributes:
        done, of: forwards that ran, and that there will be; 0 where that depends on what comes out.
        what: what ran, in words.
    """

    done: int
    of: int
    what: str


@dataclass(frozen=True)
class Batch:
    """What a model is called with, and what was to come out; None where the loader has no targets."""

    inputs: tuple[Any, ...]
    targets: Any


@dataclass(frozen=True)
class Config:
    """What runs: path -> form, all others being ``"float"``; and whose own results are looked at."""

    forms: Mapping[str, str]
    watch: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """What a configuration gives.

    Attributes:
        sqnr_db: of the model's output against that of the float model: 10 log10(sum y^2 / sum (y - q)^2),
            in dB over all data; infinite where nothing differs.
        metric: the figure of merit; NaN where there is none.
        own_db: path -> the same as `sqnr_db` of the result of a module that was watched.
    """

    sqnr_db: float
    metric: float = math.nan
    own_db: Mapping[str, float] = field(default_factory=dict)


@dataclass
class _Sums:
    """sum y^2 and sum (y - q)^2, in float64."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, wanted: Array, got: Array) -> None:
        wide = wanted.astype(np.float64)
        self.signal += float(np.sum(np.square(wide)))
        with np.errstate(over="ignore"):
            self.noise += float(np.sum(np.square(wide - got)))


@dataclass
class _Running:
    model: _Sums = field(default_factory=_Sums)
    own: defaultdict[str, _Sums] = field(default_factory=lambda: defaultdict(_Sums))
    outputs: list[Array] = field(default_factory=list)


def decibels(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise); infinite without noise, minus infinity where nothing but noise is.

    Noise that is no number is more than any: float16 ends at 65504.
    """
    if noise == 0:
        return math.inf
    if not math.isfinite(noise):
        return -math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def accuracy(outputs: Array, targets: Any) -> float:
    """Return the share of rows whose largest score is their label's, in percent.  (N, C), (N,) -> 0..100."""
    return 100 * float(np.mean(outputs.argmax(axis=1) == np.asarray(targets)))


def batches_of(
    data: Iterable[Any], inputs_of: Callable[[Any], tuple[Any, ...]] | None, op: str
) -> list[Batch]:
    """Return the batches of a loader; the last field of a tuple or list is its targets.

    Raises:
        DataError: there are none.
    """
    found: list[Batch] = []
    for batch in data:
        fields = batch if isinstance(batch, tuple | list) else (batch,)
        inputs = inputs_of(batch) if inputs_of is not None else (fields[0],)
        found.append(Batch(tuple(map(lifted, inputs)), fields[-1] if len(fields) > 1 else None))
    if not found or not any(np.size(each) for batch in found for each in batch.inputs):
        raise DataError(
            "the data are empty: the loader gave no rows", op=op,
            help="give at least one batch; an iterator gives its batches only once",
        )  # fmt: skip
    return found


def output_of(model: Module, batch: Batch, op: str) -> Array:
    """Return what a model makes of a batch, as an array.

    Raises:
        SettingError: not one tensor of floats.
    """
    found = list(tensors_in(model(*batch.inputs)))
    if len(found) != 1 or found[0].format is None:
        kinds = ", ".join(str(each.dtype) for each in found) or "none"
        raise SettingError(
            f"expected a model that gives one tensor of floats, got {len(found)} ({kinds})", op=op,
            help="wrap the model in one whose forward returns the tensor to be judged",
        )  # fmt: skip
    return array_of(found[0])


def array_of(x: Any) -> Array:
    """Return the values of a tensor in float32 or wider."""
    array = np.asarray(x.backend.to_host(x.array))
    return array if array.dtype.itemsize >= 4 else array.astype(np.float32)


def float_outputs(model: Module, batches: list[Batch], op: str) -> list[Array]:
    """Return what the float model makes of the data.

    Raises:
        DataError: NaN or infinities among it.
    """
    found = []
    with judging(model):
        for i, batch in enumerate(batches, 1):
            y = output_of(model, batch, op)
            wrong = int(np.count_nonzero(~np.isfinite(y)))
            if wrong:
                raise DataError(
                    f"{wrong} of {y.size} numbers that the float model gives in batch {i} are not finite",
                    op=op, help="look at the data, and at the layer that overflows",
                )  # fmt: skip
            found.append(y)
    return found


def default_metric(outputs: list[Array], batches: list[Batch]) -> Metric | None:
    """Return accuracy where targets are labels of rows of scores, else nothing."""
    for y, batch in zip(outputs, batches, strict=True):
        labels = None if batch.targets is None else np.asarray(batch.targets)
        if labels is None or labels.dtype.kind not in "iu" or y.ndim != 2 or labels.shape != y.shape[:1]:
            return None
    return accuracy


def scored(metric: Metric | None, outputs: list[Array], batches: list[Batch], op: str) -> float:
    """Return a metric over all data; NaN where there is none; minus infinity where it makes NaN of outputs
    that are not finite.

    Raises:
        SettingError: it gives no number.
        DataError: it gives NaN.
    """
    if metric is None:
        return math.nan
    known = all(batch.targets is not None for batch in batches)
    targets = np.concatenate([np.asarray(batch.targets) for batch in batches]) if known else None
    found: Any = metric(np.concatenate(outputs), targets)
    name = getattr(metric, "__name__", "metric")
    if np.ndim(found) != 0 or isinstance(found, str | bytes) or found is None:
        raise SettingError(
            f"{name} must give one number, got {type(found).__name__}", op=op,
            help="metric(outputs, targets) -> float, the larger the better",
        )  # fmt: skip
    try:
        value = float(found)
    except (TypeError, ValueError):
        raise SettingError(f"{name} must give one number, got {found!r}", op=op) from None
    if math.isnan(value) and not all(np.isfinite(each).all() for each in outputs):
        return -math.inf
    if math.isnan(value):
        raise DataError(f"{name} gives NaN", op=op, help="look at what it divides by, and at its targets")
    return value


def measure(
    bench: Bench, batches: list[Batch], configs: Mapping[Any, Config], metric: Metric | None, op: str,
    tick: Callable[[Any], None] = lambda _: None,
) -> dict[Any, Measured]:  # fmt: skip
    """Run configurations of a bench on data, batch by batch, beside the float model.

    Args:
        bench: the copy whose forms are set; all are ``"float"`` afterwards.
        batches: the data.
        configs: name -> configuration.
        metric: the figure of merit, or None.
        op: who asks, for messages.
        tick: called with a name after each forward.
    """
    running = {name: _Running() for name in configs}
    with no_grad():
        for batch in batches:
            bench.set_forms({})
            wanted = output_of(bench, batch, op)
            own = {path: array_of(site.spot.seen) for path, site in bench.sites.items()}
            for name, config in configs.items():
                bench.set_forms(config.forms)
                got, sums = output_of(bench, batch, op), running[name]
                sums.model.add(wanted, got)
                sums.outputs.append(got)
                for path in config.watch:
                    sums.own[path].add(own[path], array_of(bench.sites[path].spot.seen))
                tick(name)
    bench.set_forms({})
    return {
        name: Measured(
            decibels(sums.model.signal, sums.model.noise),
            scored(metric, sums.outputs, batches, op),
            {path: decibels(own.signal, own.noise) for path, own in sums.own.items()},
        )
        for name, sums in running.items()
    }
