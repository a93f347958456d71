"""What sums that saturate do to a converted model: an experiment, of what some engines do on some processors.

Processors with AVX2 and without VNNI multiply bytes by VPMADDUBSW: products of uint8 and int8 are added in
pairs, in int16, and a pair beyond -32768..32767 is cut off there. FBGEMM (torch's engines fbgemm, x86 and
onednn) and onnxruntime compute layers with it. No pair can go so far where activations have the codes 0..127
(``reduce_range=True``: 2 * 127 * 128 = 32512), or weights those from -64 to 63 (2 * 255 * 64 = 32640).
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minimp.errors import SettingError
from minimp.modes import no_grad
from minimp.nn.module import Module
from minimp.quant.fusion.reports import fit
from minimp.quant.modules import QuantizedConv2d, QuantizedLinear
from minimp.quant.sensitivity.measuring import batches_of, decibels, output_of

__all__ = ["SaturationReport", "SaturationRow", "saturate"]

OP = "saturate"
SATURATING = "int16-saturating"
LAYERS: tuple[type[Module], ...] = (QuantizedLinear, QuantizedConv2d)
MOST = 32767


@dataclass(frozen=True)
class SaturationRow:
    """What saturating sums do to one layer, given the codes that exact sums make before it.

    Attributes:
        path: where it stands in the converted model.
        kind: its class.
        safe: whether no pair of its products can leave int16, whatever comes in.
        outputs: how many codes it gave.
        wrong: how many of them are others than those of exact sums.
        worst: by how many codes at most.
    """

    path: str
    kind: str
    safe: bool
    outputs: int
    wrong: int
    worst: int


@dataclass(frozen=True)
class SaturationReport:
    """What saturating sums do to a model; iterable over :class:`SaturationRow`.

    Attributes:
        rows: its layers, in the order of running.
        outputs, wrong: how many numbers the model gave with saturating sums throughout, and how many of them
            are others than with exact ones.
        sqnr_db: of those against the exact ones, 10 log10(sum y^2 / sum (y - q)^2).
    """

    rows: tuple[SaturationRow, ...]
    outputs: int
    wrong: int
    sqnr_db: float

    def __iter__(self) -> Iterator[SaturationRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        """Show a row for each layer, and what cures it, within 100 columns."""
        lines = [
            f"sums in saturating int16 change {self.wrong:,} of {self.outputs:,} results of the model",
            "",
            f"{'layer':34} {'class':18} {'codes':>12} {'wrong':>12} {'share':>8} {'by up to':>10}",
        ]
        for row in self.rows:
            share = f"{row.wrong / max(row.outputs, 1):.2%}"
            last = "cannot" if row.safe else f"{row.worst} codes"
            lines.append(
                f"{fit(row.path, 34):34} {fit(row.kind, 18):18} {row.outputs:12,} {row.wrong:12,} {share:>8} "
                f"{last:>10}"
            )
        return "\n".join([*lines, *(["", *CURE] if self.wrong else [])])


CURE = (
    "CPUs without VNNI do this inside popular engines. No pair of products saturates with weights from",
    "-64 to 63, PerChannelMinMaxObserver(quant_min=-64, quant_max=63, symmetric=True), or activations",
    "from 0 to 127, HistogramObserver(quant_max=127): half the codes, and a bit less of precision.",
)


@dataclass
class _Seen:
    kind: str
    safe: bool
    outputs: int = 0
    wrong: int = 0
    worst: int = 0

    def add(self, exact: Any, got: Any) -> None:
        far = np.abs(exact.codes.astype(np.int64) - got.codes)
        self.outputs += far.size
        self.wrong += int(np.count_nonzero(far))
        self.worst = max(self.worst, int(far.max(initial=0)))


@dataclass
class _Totals:
    outputs: int = 0
    wrong: int = 0
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def saturate(
    model: Module, data: Iterable[Any], *, inputs_of: Callable[[Any], tuple[Any, ...]] | None = None
) -> SaturationReport:
    """Run a converted model with sums that saturate in int16, beside its exact ones, and count what differs.

    Linear layers and convolutions are looked at, each on the codes that exact sums make before it, and then
    the model with all of them; transposed convolutions stay exact.

    Args:
        model: what :func:`minimp.quant.static.convert` returned; it stays as it is.
        data: batches such as a DataLoader gives.
        inputs_of: batch -> what the model is called with; None takes the first field.

    Raises:
        SettingError: a model that has no such layer on codes; a layer whose activations are not uint8, or
            whose weights are not int8, for which no such instruction is.
        DataError: there are no data.
    """
    trial = copy.deepcopy(model)
    layers = {path: each for path, each in trial.named_modules() if isinstance(each, LAYERS)}
    if not layers:
        raise SettingError(
            "the model has no linear layer or convolution on codes", op=OP, help="convert it first"
        )
    rows = {path: _Seen(type(each).__name__, _safe(path, each)) for path, each in layers.items()}
    batches = batches_of(data, inputs_of, OP)
    totals = _Totals()
    with no_grad():
        for batch in batches:
            _set(layers, "int32")
            hooks = [each.register_forward_hook(_beside(rows[path])) for path, each in layers.items()]
            exact = output_of(trial, batch, OP).astype(np.float64)
            for hook in hooks:
                hook.remove()
            _set(layers, SATURATING)
            got = output_of(trial, batch, OP)
            totals.outputs += got.size
            totals.wrong += int(np.count_nonzero(got != exact))
            totals.sums["signal"] += float(np.sum(exact**2))
            totals.sums["noise"] += float(np.sum((exact - got) ** 2))
    found = tuple(
        SaturationRow(path, row.kind, row.safe, row.outputs, row.wrong, row.worst)
        for path, row in rows.items()
    )
    sqnr_db = decibels(totals.sums["signal"], totals.sums["noise"])
    return SaturationReport(found, totals.outputs, totals.wrong, sqnr_db)


def _set(layers: dict[str, Any], accumulate: str) -> None:
    for layer in layers.values():
        layer.accumulate = accumulate


def _beside(seen: _Seen) -> Callable[..., None]:
    """Return a hook that runs a layer a second time, with saturating sums."""

    def hook(layer: Any, args: Any, exact: Any) -> None:
        layer.accumulate = SATURATING
        seen.add(exact, layer.forward(*args))
        layer.accumulate = "int32"

    return hook


def _safe(path: str, layer: Any) -> bool:
    """Tell whether no pair can leave int16; refuse dtypes that the instruction is not for."""
    weight, affine = np.asarray(layer.weight.backend.to_host(layer.weight.array)), layer.kept("input_")
    if weight.dtype != np.int8 or affine.storage is not np.uint8:
        kinds = f"{np.dtype(affine.storage)} activations and {weight.dtype} weights"
        raise SettingError(
            f"'{path}' has {kinds}, and the instruction multiplies uint8 by int8", op=OP,
            help="calibrate with observers of codes 0..255, and take weights from -128 to 127",
        )  # fmt: skip
    return bool(2 * affine.quant_max * int(np.abs(weight.astype(np.int64)).max(initial=0)) <= MOST)
