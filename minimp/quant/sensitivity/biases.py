"""Bias correction: what rounding the weights adds to a layer's result on average, taken off its bias.

With W + e the weights as their codes are read back, a layer gives e x too much; on average, channel by
channel, E[e x] = e E[x], which is no noise but a shift, and is taken off the bias (Nagel, van Baalen,
Blankevoort and Welling 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv
1906.04721, section 4.2).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Any

import numpy as np

from minimp.errors import SettingError, unknown_name
from minimp.modes import no_grad
from minimp.nn.module import Module
from minimp.nn.parameter import Parameter
from minimp.quant.calibration import Calibration
from minimp.quant.fusion.channels import Wide
from minimp.quant.fusion.flow import follow
from minimp.quant.fusion.folding import parameter, values
from minimp.quant.fusion.intrinsic import WithReLU
from minimp.quant.fusion.reports import WIDTH, fit
from minimp.quant.modules.base import buffer_of
from minimp.quant.sensitivity.expecting import expected_input
from minimp.quant.sensitivity.facts import channels_on
from minimp.quant.sensitivity.measuring import Batch, array_of, batches_of, output_of
from minimp.quant.sensitivity.spots import Bench, Site
from minimp.quant.sensitivity.sweeping import walk_of
from minimp.quant.static import ForWeights, channel_weights, walked

__all__ = ["METHODS", "BiasReport", "BiasRow", "correct_bias"]

OP = "correct_bias"
METHODS = ("empirical", "analytic")


@dataclass(frozen=True)
class BiasRow:
    """One layer with weights.

    Attributes:
        path: where it stands.
        change: what was taken off its bias, (O,) float64; zeros where nothing was.
        before, after: by how much its result, all of the model being on codes, is off on average: the mean
            over channels of |E[q] - E[y]|; NaN without data.
        why: why its bias was left; "" where it was not.
    """

    path: str
    change: Wide
    before: float
    after: float
    why: str = ""


@dataclass(frozen=True)
class BiasReport:
    """What was taken off which bias; iterable over :class:`BiasRow`, in the order of running.

    Attributes:
        rows: the layers with weights.
        method: how means were found.
        calibration: for the corrected model: the ranges are those of the one before, which its results have
            on codes.
    """

    rows: tuple[BiasRow, ...]
    method: str
    calibration: Calibration

    def __iter__(self) -> Iterator[BiasRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        """Show a row for each layer, within 100 columns."""
        count = sum(not row.why for row in self.rows)
        lines = [
            f"{count} of {len(self.rows)} layers corrected, {self.method}; shift: the mean over channels of",
            "|mean of the result on codes - mean of the float result|, in the result's units",
            "",
            f"{'layer':40} {'channels':>8} {'bias moved by up to':>20} {'shift before':>13} {'after':>10}",
        ]
        for row in self.rows:
            moved = float(np.abs(row.change).max(initial=0))
            shifts = f"{_shown(row.before):>13} {_shown(row.after):>10}"
            lines.append(f"{fit(row.path or 'the model', 40):40} {row.change.size:8} {moved:20.3g} {shifts}")
            lines += (
                wrap(f"left: {row.why}", WIDTH, initial_indent="  ", subsequent_indent="  ")
                if row.why
                else []
            )
        return "\n".join(lines)


def correct_bias(
    model: Module, calibration: Calibration, data: Iterable[Any] = (), *, method: str = "empirical",
    unfused: Module | None = None, weight: ForWeights = channel_weights,
    inputs_of: Callable[[Any], tuple[Any, ...]] | None = None,
) -> tuple[Module, BiasReport]:  # fmt: skip
    """Return a copy of a float model whose biases make up for the rounding of its weights, and a report.

    What is taken off is E[e x] for each output channel, over data and places. Weights that their codes hold
    exactly have e = 0, and their bias keeps its bits. A layer without a bias gets one where it needs it. The
    copy is made to be converted with the same `weight`: ``convert(copy, report.calibration)``; in floats it
    is off by what it makes up for.

    Args:
        model: the float model that was calibrated; it stays as it is.
        calibration: of that model.
        data: batches such as a DataLoader gives. ``"empirical"`` averages over them; the report's shifts are
            measured on them.
        method: ``"empirical"``: E[x] is the mean of what the float model gives its layers. ``"analytic"``: it
            is that of a clipped normal, from the batch norm before the layer; no data are needed, and layers
            that follow none are left.
        unfused: for ``"analytic"``, the model as it was before its batch norms were fused: its layers have
            the paths of `model`.
        weight: the one of :func:`~minimp.quant.static.convert`.
        inputs_of: batch -> what the model is called with; None takes the first field.

    Raises:
        DataError: ``"empirical"`` without data.
        SettingError: an unknown method; ``"analytic"`` without `unfused`, or one in which no layer follows a
            batch norm; and as :func:`~minimp.quant.static.convert`.
    """
    if method not in METHODS:
        raise SettingError(unknown_name("method", method, METHODS), op=OP)
    if (method == "analytic") != (unfused is not None):
        raise SettingError(
            "analytic correction, and it alone, reads the batch norms of the model before fusing", op=OP,
            help='correct_bias(fused, calibration, method="analytic", unfused=model)',
        )  # fmt: skip
    bench = Bench(model, walk_of(model, calibration, OP, weight=weight))
    data = list(data)
    batches = batches_of(data, inputs_of, OP) if data or unfused is None else []
    sites = {path: site for path, site in bench.sites.items() if site.weighted}
    if unfused is None:
        shifts, why = _measured(bench, sites, batches), dict.fromkeys(sites, "")
    else:
        shifts, why = _expected(sites, unfused, calibration)
    made = copy.deepcopy(model)
    for path, shift in shifts.items():
        _take_off(made.get_submodule(path), shift)
    example = tuple(calibration.flow.calls[0].inputs)
    found = replace(calibration, flow=follow(made, example, OP), outputs=dict(calibration.outputs))
    before, after = _far(bench, Bench(made, walked(made, found, weight=weight)), batches)
    rows = [BiasRow(path, shifts[path], before[path], after[path], why[path]) for path in sites]
    return made, BiasReport(tuple(rows), method, found)


def _measured(bench: Bench, sites: dict[str, Site], batches: list[Batch]) -> dict[str, Wide]:
    """Return path -> the mean of e x over data and places, from what the float model gives its layers."""
    errors = {path: _error(site) for path, site in sites.items()}
    sums: dict[str, Any] = dict.fromkeys(sites, 0.0)
    counts = dict.fromkeys(sites, 0)
    bench.set_forms({})
    with no_grad():
        for batch in batches:
            output_of(bench, batch, OP)
            for path, site in sites.items():
                total, count = _channel_sums(site, array_of(errors[path](*site.spot.took)))
                sums[path], counts[path] = sums[path] + total, counts[path] + count
    return {path: np.asarray(sums[path] / max(counts[path], 1)) for path in sites}


def _expected(
    sites: dict[str, Site], unfused: Module, calibration: Calibration
) -> tuple[dict[str, Wide], dict[str, str]]:
    """Return path -> the mean of e x by the batch norms of the model before fusing, and why there is none."""
    example = tuple(calibration.flow.calls[0].inputs)
    flow = follow(copy.deepcopy(unfused).eval(), example, OP)
    shifts: dict[str, Wide] = {}
    why: dict[str, str] = {}
    for path, site in sites.items():
        mean, why[path] = expected_input(flow, flow.model.get_submodule(path))
        shifts[path] = np.zeros(_outputs(site))
        if mean is not None:
            with no_grad():
                total, count = _channel_sums(site, array_of(_error(site)(buffer_of(mean.astype(np.float32)))))
            shifts[path] = np.asarray(total / count)
    if all(why.values()):
        raise SettingError(
            f"no layer follows a batch norm: of '{next(iter(why))}', {next(iter(why.values()))}", op=OP,
            help='give the model as it was before fuse(), or data and method="empirical"',
        )  # fmt: skip
    return shifts, why


def _error(site: Site) -> Any:
    """Return a layer that computes e x: its weights are W as read back less W, without bias or ReLU."""
    made, read = (_layer(each) for each in (copy.deepcopy(site.layer), site.spot.forms["weights"]))
    made.weight = parameter(values(read.weight) - values(made.weight), made.weight)
    made.bias = None
    return made


def _take_off(module: Module, shift: Wide) -> None:
    """Take a shift off a layer's bias, rounded once; nothing where there is none."""
    if not shift.any():
        return
    layer = _layer(module)
    bias = np.zeros_like(shift) if layer.bias is None else values(layer.bias)
    layer.bias = parameter(bias - shift, layer.weight if layer.bias is None else layer.bias)
    assert isinstance(layer.bias, Parameter)


def _far(before: Bench, after: Bench, batches: list[Batch]) -> tuple[dict[str, float], dict[str, float]]:
    """Return path -> the mean over channels of |E[q] - E[y]|, of both models on codes."""
    sums: list[dict[str, Any]] = [{}, {}]
    counts: dict[str, int] = dict.fromkeys(before.sites, 0)
    with no_grad():
        for batch in batches:
            before.set_forms({})
            output_of(before, batch, OP)
            wanted = {
                path: array_of(site.spot.seen).astype(np.float64) for path, site in before.sites.items()
            }
            for bench, found in zip((before, after), sums, strict=True):
                bench.set_forms(dict.fromkeys(bench.sites, "int8"))
                output_of(bench, batch, OP)
                for path, site in bench.sites.items():
                    far, count = _channel_sums(site, array_of(site.spot.seen) - wanted[path])
                    found[path] = found.get(path, 0.0) + far
                    counts[path] += count if bench is before else 0
    first, second = (
        {
            path: float(np.mean(np.abs(found[path] / counts[path]))) if counts[path] else math.nan
            for path in counts
        }
        for found in sums
    )
    return first, second


def _channel_sums(site: Site, y: Any) -> tuple[Wide, int]:
    """Return the sum over all but the channels, in float64, and how many numbers each is of."""
    axis = channels_on(site, y.ndim)
    total = y.astype(np.float64).sum(axis=tuple(i for i in range(y.ndim) if i != axis))
    return total, y.size // max(total.size, 1)


def _layer(module: Any) -> Any:
    return module[0] if isinstance(module, WithReLU) else module


def _outputs(site: Site) -> int:
    built: Any = site.built
    return int(built.weight.shape[0])


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"
