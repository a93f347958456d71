"""What became of each layer of a model that was quantised: a row for the table of `minimp quantize`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.evaluation import judging
from minimp.nn import Module
from minimp.quant.affine import Affine
from minimp.quant.layer_reports import LayerReport, LayerRow, sqnr
from minimp.quant.modules import FloatIsland, Quantize, QuantizedModule, QuantizedTable
from minimp.quant.qtensor import QTensor
from minimp.quant.static import StaticModel
from minimp.tensors import Tensor

__all__ = ["Layer", "layers_of_report", "layers_on_codes"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """One row.

    Attributes:
        path: where it stands; "input 0" for what comes in.
        kind: its class, in short.
        low, high: the ends of what its output's codes reach; where outputs have no codes of their own -m and
            m, the largest size of its weights.
        scale: of its output: the distance between neighbouring codes; else the largest scale of its weights.
        zero_point: the code of 0.
        stored: how its weights are stored; "" where it has none, or codes of int8.
        error_db: 10 log10(sum y^2 / sum (y - y')^2), y what it gives in floats and y' what it gives now, each
            in its own model, on some data; of weights alone, where outputs were not compared.
        bytes_before, bytes_after: of its weights, biases and their scales.
        note: what else is to be known.
    """

    path: str
    kind: str
    low: float | None = None
    high: float | None = None
    scale: float | None = None
    zero_point: int | None = None
    stored: str = ""
    error_db: float = float("nan")
    bytes_before: int = 0
    bytes_after: int = 0
    note: str = ""


# ---- models on codes --------------------------------------------------------------------------------------


def layers_on_codes(made: Module, reference: Module, inputs: Any) -> list[Layer]:
    """Return a row for each place of a converted model that has a scale of its own, in order.

    Args:
        made: what :func:`minimp.quant.convert` returned.
        reference: the float model that it was made of, fused alike.
        inputs: a batch of inputs, on which both run.
    """
    places = {path: module for path, module in _places(made) if not path.startswith("input ")}
    wanted = _outputs(reference, {path: _at(reference, path) for path in places}, inputs)
    found = _outputs(made, places, inputs)
    rows = []
    for path, module in _places(made):
        affine = _numbers(module)
        error = float("nan")
        if path in wanted and path in found and wanted[path].shape == found[path].shape:
            error = sqnr([(wanted[path], found[path])])
        elif path.startswith("input "):
            x = np.asarray(inputs, np.float32)
            assert affine is not None  # inputs that stay floats are no places
            error = sqnr([(x, QTensor.of(x, affine).dequantize())])
        before = sum(leaf.nbytes for leaf in _at(reference, path).parameters()) if path in places else 0
        ends = _ends(affine)
        held = (before, _bytes_of_weights(module)) if before else (0, 0)
        rows.append(Layer(path, _kind(module), *ends, _stored(module), error, *held))
    return rows


def _places(made: Module) -> Iterator[tuple[str, Any]]:
    """Yield (path in the float model, module) of what has an output scale of its own, and not more within."""
    inside = ""
    for path, module in made.named_modules():
        if inside and path.startswith(inside):
            continue
        island = isinstance(module, FloatIsland)
        if island:
            inside = f"{path}."
        if not (island or (isinstance(module, QuantizedModule) and "codes" in vars(module))):
            continue
        own = path
        if isinstance(made, StaticModel):
            own = path.removeprefix("model").removeprefix(".")
        if isinstance(made, StaticModel) and path.startswith("quantize."):
            own = f"input {path.rpartition('.')[2]}"
        yield own, module


def _at(model: Module, path: str) -> Module:
    return model.get_submodule(path) if path else model


def _outputs(model: Module, places: dict[str, Module], inputs: Any) -> dict[str, Floats]:
    """Run a model; return path -> the numbers that the module there gave, the first time it ran."""
    found: dict[str, Floats] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(module: Module, args: Any, output: Any) -> None:
            del module, args
            if isinstance(output, QTensor):
                found.setdefault(path, output.dequantize())
            elif isinstance(output, Tensor):
                found.setdefault(path, np.asarray(output.detach().float()))

        return hook

    with _hooked({path: (module, note(path)) for path, module in places.items()}), judging(model):
        model(inputs)
    return found


@contextmanager
def _hooked(hooks: dict[str, tuple[Module, Callable[..., None]]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in hooks.values()]
    try:
        yield
    finally:
        for each in handles:
            each.remove()


def _numbers(module: Any) -> Affine | None:
    """Return the numbers of the codes that a module gives; None where it gives floats."""
    given = module.quantize if isinstance(module, FloatIsland) else module
    return given.kept("") if isinstance(given, QuantizedModule) else None


def _ends(affine: Affine | None) -> tuple[float | None, float | None, float | None, int | None]:
    if affine is None:
        return None, None, None, None
    return float(affine.low), float(affine.high), float(affine.scale), int(affine.zero_point)


def _kind(module: Any) -> str:
    """Name a module in short: "Conv2d+ReLU", "floats"."""
    if isinstance(module, FloatIsland):
        return f"{type(module.inner).__name__}, floats"
    if isinstance(module, Quantize):
        return "Quantize"
    name = type(module).__name__.removeprefix("Quantized")
    if isinstance(module, QuantizedTable) and module.name:
        name = module.name
    return f"{name}+ReLU" if getattr(module, "relu", False) else name


def _stored(module: Any) -> str:
    if "weight_codes" not in vars(module):
        return ""
    affine = module.kept("weight_")
    word = f"{'int' if affine.quant_min < 0 else 'uint'}{affine.bits}"
    return f"{word}, {affine.scale.size} scale{'s' if affine.scale.size > 1 else ''}"


def _bytes_of_weights(module: Module) -> int:
    """Return the bytes of weights, biases and their scales; without what belongs to activations."""
    if isinstance(module, FloatIsland):
        inner: Any = module.inner
        return sum(leaf.nbytes for leaf in inner.parameters())
    names = ("weight", "weight_scale", "weight_zero_point", "bias")
    return sum(leaf.nbytes for name, leaf in module.named_buffers() if name in names)


# ---- models whose layers have narrow weights --------------------------------------------------------------


def layers_of_report(report: LayerReport) -> tuple[list[Layer], list[LayerRow]]:
    """Return a row for each layer that was converted, and the layers that were left."""
    rows = [
        Layer(
            row.path, row.kind, -row.largest, row.largest, row.scale, stored=row.stored,
            error_db=row.sqnr_db, bytes_before=row.bytes_before,
            bytes_after=row.bytes_after, note=row.note,
        )
        for row in report.converted
    ]  # fmt: skip
    return rows, list(report.left)
