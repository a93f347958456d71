"""Calibration: a model runs on batches, and observers note what its modules give out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minimp.errors import DataError, MinimpError, SettingError, plain
from minimp.evaluation import judging
from minimp.nn.making import lifted
from minimp.nn.module import Module
from minimp.quant.affine import Affine
from minimp.quant.exchanging import Narrowed
from minimp.quant.fusion.flow import Call, Flow, follow
from minimp.quant.modules import QuantizedModule
from minimp.quant.modules.conversions import CONVERSIONS
from minimp.quant.modules.stubs import QuantStub
from minimp.quant.observers import HistogramObserver, Observer
from minimp.tensors import Tensor

__all__ = ["Calibrated", "Calibration", "Progress", "calibrate", "check_floats", "sites"]

OP = "calibrate"
LEAST_WIDTH = 2.0**-126
"""What the width of a range of one point counts for."""


@dataclass(frozen=True)
class Progress:
    """How far calibration is, after a batch.

    Attributes:
        batch: how many batches have run.
        of: how many there are, or None where the loader has no length.
        change: by how much the range of one observer moved at most in this batch, as a share of its width;
            None after the first, and where ranges are not asked for (`patience` is None).
        where: the path of the module whose range that was; "" for the model's input.
        settled: whether calibration ends here because ranges have settled.
    """

    batch: int
    of: int | None
    change: float | None
    where: str
    settled: bool


@dataclass(eq=False)
class Calibration:
    """What was seen of a model; made by :func:`calibrate`, read by :func:`minimp.quant.static.convert`.

    Attributes:
        flow: what goes into what, in a forward on the first batch.
        inputs: an observer for each input of the model; none where the model has a QuantStub.
        outputs: path -> the observer of a module's outputs.
        batches: how many ran.
        settled: whether it ended because ranges had settled.
        weights: path -> the observer of a module's weight, where its scales are known already.
    """

    flow: Flow
    inputs: list[Observer]
    outputs: dict[str, Observer]
    batches: int = 0
    settled: bool = False
    weights: dict[str, Observer] = field(default_factory=dict)
    _before: dict[str, tuple[float, float]] = field(default_factory=dict, repr=False)

    def observed(self, path: str) -> bool:
        """Tell whether it is known what a module gives out."""
        return path in self.outputs and self.outputs[path].batches > 0

    def affine(self, path: str) -> Affine:
        """Return the numbers for the codes that a module gives out.

        Raises:
            SettingError: no module of this path was observed.
        """
        if not self.observed(path):
            raise SettingError(
                f"'{path}' was never observed: it did not run in calibration", op="convert",
                help="calibrate on inputs that reach it, or take it out of the model",
            )  # fmt: skip
        return self.outputs[path].affine()

    def __str__(self) -> str:
        """Show a row for each observer: range, scale, zero point and error."""
        lines = [f"{'output of':<28}{'least':>11}{'largest':>11}{'scale':>12}{'zero':>6}{'error dB':>10}"]
        named = [(f"input {i}", each) for i, each in enumerate(self.inputs)] + list(self.outputs.items())
        for path, observer in named:
            if observer.batches:
                (low, high), affine = observer.range(), observer.affine()
                error = f"{observer.error():10.1f}" if observer.counting else f"{'-':>10}"
                shown = path if len(path) < 28 else "..." + path[-24:]
                lines.append(
                    f"{shown:<28}{float(low):>11.4g}{float(high):>11.4g}{float(affine.scale):>12.4g}"
                    f"{int(affine.zero_point):>6}{error}"
                )
        end = "; ended early, as ranges had settled" if self.settled else ""
        return "\n".join([*lines, f"{self.batches} batches{end}"])

    def moved(self) -> tuple[float | None, str]:
        """Return by how much the range moved that moved most since the last call, and whose it is."""
        most, where, first = 0.0, "", not self._before
        named = {f"input {i}": each for i, each in enumerate(self.inputs)} | self.outputs
        for path, observer in named.items():
            if not observer.batches:
                continue
            low, high = (float(each) for each in observer.range())
            old_low, old_high = self._before.get(path, (np.inf, -np.inf))
            self._before[path] = (low, high)
            moved = abs(low - old_low) + abs(high - old_high)
            change = moved / max(high - low, LEAST_WIDTH)
            if change > most:
                most, where = change, path
        return (None, "") if first else (most, where)


class Calibrated(Module):
    """A model that carries the numbers of its codes; :func:`minimp.quant.static.convert` asks it for them."""

    def calibrated(self) -> tuple[Module, Calibration, dict[str, str]]:
        """Return the float model to convert, its numbers, and path -> format of what stays in floats."""
        raise NotImplementedError


def calibrate(
    model: Module, loader: Iterable[Any], *, activation: Callable[[], Observer] = HistogramObserver,
    inputs_of: Callable[[Any], tuple[Any, ...]] | None = None, patience: int | None = None,
    tolerance: float = 0.01, progress: Callable[[Progress], None] | None = None,
) -> Calibration:  # fmt: skip
    """Run a model on batches, in evaluation mode and unrecorded, and observe what its modules give out.

    The model stays as it is. Batch norms are best fused first (:func:`minimp.quant.fusion.fuse`).

    Args:
        model: the float model.
        loader: gives batches, such as a DataLoader; some hundred samples are usually enough.
        activation: makes an observer, one for each input and module.
        inputs_of: batch -> what the model is called with; None takes the first field of a tuple or list, and
            else the batch itself.
        patience: end when no range has moved by more than `tolerance` in so many batches one after the
            other; None runs them all.
        tolerance: a share of the range's width.
        progress: called after each batch.

    Raises:
        DataError: there is no batch; NaN (or, for observers that heed them, infinities) in an input or in
            what a module gives out, which is named.
        SettingError: a model that is on codes already, an observer of channels, or a patience or tolerance
            that cannot be.
        MinimpError: as the model's forward.
    """
    _check(model, activation(), patience, tolerance)
    taken = inputs_of or _first_field
    made: Calibration | None = None
    calm = 0
    with judging(model):
        for batch in loader:
            inputs = tuple(map(lifted, taken(batch)))
            if made is None:
                made = _begun(model, inputs, activation)
            _observe(model, made, inputs)
            change, where = made.moved() if patience is not None else (None, "")
            calm = calm + 1 if change is not None and change <= tolerance else 0
            made.settled = patience is not None and calm >= patience
            if progress is not None:
                progress(Progress(made.batches, _length(loader), change, where, made.settled))
            if made.settled:
                break
    if made is None:
        raise DataError(
            "the calibration set is empty: the loader gave no batch", op=OP,
            help="give at least one batch; an iterator gives its batches only once",
        )  # fmt: skip
    return made


def sites(flow: Flow) -> list[Call]:
    """Return the calls of what is converted as one: modules in the table, and those without children."""
    found: list[Call] = []
    inside: set[int] = set()
    for call in flow.calls:
        if any(id(outer) in inside for outer in call.inside):
            continue
        if type(call.module) in CONVERSIONS or not any(True for _ in call.module.children()):
            found.append(call)
            inside.add(id(call))
    return found


def check_floats(model: Module, op: str) -> None:
    """Refuse a model on codes, or with weights in codes: they would be quantised twice.

    Raises:
        SettingError: the first such module is named.
    """
    for path, module in model.named_modules():
        where = f"'{path}' is a {type(module).__name__}"
        if isinstance(module, QuantizedModule):
            raise SettingError(
                f"{where}: the model is on codes already", op=op,
                help="convert the float model; it was left as it is",
            )  # fmt: skip
        if isinstance(module, Narrowed):
            raise SettingError(
                f"{where}, its weights are codes already and would be quantised twice", op=op,
                help="take the model as it was before quantize_dynamic or weight_only",
            )  # fmt: skip


def _check(model: Module, observer: Observer, patience: int | None, tolerance: float) -> None:
    if observer.ch_axis is not None:
        raise SettingError(
            f"activations must have one scale, and {type(observer).__name__} gives one a channel", op=OP,
            help="observers of channels are for weights: convert(..., weight=...)",
        )  # fmt: skip
    check_floats(model, OP)
    if isinstance(model, Calibrated):
        raise SettingError(
            f"a {type(model).__name__} has its scales from training", op=OP, help="convert(model) takes them"
        )
    if patience is not None and patience < 1:
        raise SettingError(f"patience must be at least 1 batch or None, got {patience}", op=OP)
    if not 0 <= tolerance < np.inf:
        raise SettingError(f"tolerance must be a share of at least 0, got {tolerance}", op=OP)


def _begun(model: Module, inputs: tuple[Any, ...], activation: Callable[[], Observer]) -> Calibration:
    """Return a calibration with the observers that the model needs."""
    flow = follow(model, inputs, OP)
    outputs: dict[str, Observer] = {}
    stubs = False
    for call in sites(flow):
        row = CONVERSIONS.get(type(call.module))
        stubs = stubs or type(call.module) is QuantStub
        if (row is None or not row.keeps) and len(call.outputs) == 1 and _floats(call.outputs[0]):
            outputs.setdefault(flow.paths[id(call.module)][0], activation())
    watched = [] if stubs else [activation() for each in inputs if _floats(each)]
    return Calibration(flow, watched, outputs)


def _observe(model: Module, made: Calibration, inputs: tuple[Any, ...]) -> None:
    """Run one batch."""
    batch = made.batches + 1
    floating = [each for each in inputs if _floats(each)]
    if made.inputs and len(floating) != len(made.inputs):
        raise DataError(
            f"batch {batch} has {len(floating)} inputs of floats, the first had {len(made.inputs)}", op=OP,
            help="inputs_of(batch) must give as many for each",
        )  # fmt: skip
    for i, (observer, each) in enumerate(zip(made.inputs, floating, strict=bool(made.inputs))):
        with _telling(f"input {i} of batch {batch}"):
            observer.observe(each)

    def note(path: str, observer: Observer) -> Callable[..., None]:
        def hook(module: Module, args: Any, output: Any) -> None:
            del module, args
            with _telling(f"the output of '{path}' in batch {batch}"):
                observer.observe(output)

        return hook

    hooks = [
        model.get_submodule(path).register_forward_hook(note(path, observer))
        for path, observer in made.outputs.items()
    ]
    try:
        model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    made.batches = batch


@contextmanager
def _telling(where: str) -> Iterator[None]:
    """Say where it was that an observer found something wrong."""
    try:
        yield
    except MinimpError as fault:
        raise DataError(f"{where}: {plain(fault)}", op=OP, help=fault.help) from fault


def _first_field(batch: Any) -> tuple[Any, ...]:
    return (batch[0],) if isinstance(batch, tuple | list) else (batch,)


def _floats(x: Any) -> bool:
    """Tell whether something is a tensor or an array of floating-point numbers."""
    dtype = getattr(x, "dtype", None)
    return isinstance(x, Tensor | np.ndarray) and dtype is not None and np.dtype(dtype).kind not in "biuc"


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None
