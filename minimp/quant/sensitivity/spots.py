"""A copy of a float model in which each module that is quantised can be set to one of several forms.

===============  =========================================================================================
form             what runs
===============  =========================================================================================
``float``        the module as it is
``weights``      the same with weights and bias as their codes are read back; its result stays in floats
``activations``  the module as it is; its result is rounded to its codes and read back
``both``         both of them
``int8``         the module that :func:`~minimp.quant.static.convert` puts there: what comes in as codes,
                 integers within, codes out, read back as floats
``float32``,     the same, with a :class:`~minimp.quant.modules.FloatIsland` in place of integers
``float16``
===============  =========================================================================================

The first four are floats that imitate codes. With every module before one on ``int8`` its input holds
numbers that codes stand for, so that ``int8`` is then to the bit what the converted model computes; ``both``
differs from it where float32 sums fall on the other side of a tie, by one code.

Between modules in floats numbers stay floats (:mod:`minimp.quant.islands`): where neighbours are set to
``float32`` or ``float16``, nothing is rounded to codes between them, neither by an input of the model nor by
a pool.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minimp.errors import SettingError
from minimp.nn import Identity, ModuleList
from minimp.nn.module import Module
from minimp.quant.affine import Affine, dequantize
from minimp.quant.fusion.folding import parameter
from minimp.quant.fusion.intrinsic import WithReLU
from minimp.quant.islands import Visit
from minimp.quant.layer_reports import bytes_of
from minimp.quant.modules import (
    DeQuantize,
    FloatIsland,
    Quantize,
    QuantizedAdaptiveMaxPool2d,
    QuantizedConvTranspose2d,
    QuantizedFlatten,
    QuantizedMaxPool2d,
    QuantizedModule,
    QuantizedMove,
    QuantizedReLU,
    QuantizedZeroPad,
)
from minimp.quant.modules.base import arrays_changed, buffer_of
from minimp.quant.modules.conversions import CONVERSIONS
from minimp.quant.modules.layers import turned
from minimp.quant.qtensor import QTensor
from minimp.quant.static import Walk

__all__ = ["FORMS", "Bench", "Site", "read_back"]

FORMS = ("float", "weights", "activations", "both", "int8", "float32", "float16")
ISLANDS = ("float32", "float16")
QUANTIZE_BYTES = 8
"""Of the scale and the zero point of what a module gives."""
EXACT: tuple[type[Module], ...] = (
    DeQuantize, Identity, QuantizedReLU, QuantizedFlatten, QuantizedMove, QuantizedZeroPad,
    QuantizedMaxPool2d, QuantizedAdaptiveMaxPool2d,
)  # fmt: skip
"""Modules on codes that lose nothing: their float forms do the same to numbers that codes stand for."""


@dataclass(frozen=True, eq=False)
class Site:
    """One place where numbers become codes.

    Attributes:
        path: of the module; ``"input 0"`` for the first input of a model without QuantStub.
        kind: the class of the float module, or ``"input"``.
        layer: the float module; None for an input.
        built: what stands there in the converted model; None for an input.
        inputs: the numbers of the codes that come in.
        output: the numbers of those that go out.
        spot: where its form is set.
    """

    path: str
    kind: str
    layer: Module | None
    built: Module | None
    inputs: tuple[Affine | None, ...]
    output: Affine | None
    spot: Spot
    takes: tuple[int, ...] = field(default=())
    gives: tuple[int, ...] = field(default=())

    @property
    def island(self) -> bool:
        """Whether it stays in floats in any case."""
        return isinstance(self.built, FloatIsland)

    @property
    def weighted(self) -> bool:
        """Whether it has weights that are codes in the converted model."""
        return "weights" in self.spot.forms

    @property
    def keepable(self) -> bool:
        """Whether :func:`~minimp.quant.static.convert` can keep it in floats."""
        if self.layer is None:
            return False
        row = CONVERSIONS.get(type(self.layer))
        return row is None or not (row.keeps or row.inputs == 0)

    def bytes_in(self, form: str) -> int:
        """Return the bytes of parameters and buffers that the converted model holds here in a form.

        Where what goes out is codes: floats need no scale (:meth:`Bench.bytes_spared`).
        """
        inner = self.spot.forms[form]
        if not isinstance(inner, OnCodes):
            return 0
        if isinstance(inner.inner, FloatIsland):
            return bytes_of(inner.inner.inner) + QUANTIZE_BYTES
        return bytes_of(inner.inner)


class Spot(Module):
    """What stands at a site: one of its forms, and what that took and gave last."""

    def __init__(self, forms: dict[str, Module]) -> None:
        super().__init__()
        self.forms, self.form = forms, "float"
        self.took: tuple[Any, ...] = ()
        self.seen: Any = None

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Run the form that is set, and keep what it takes and gives."""
        self.took = (*inputs, *options.values())
        self.seen = self.forms[self.form](*inputs, **options)
        return self.seen


class Rounded(Module):
    """A module whose result is rounded to codes and read back."""

    def __init__(self, inner: Module, output: Affine) -> None:
        super().__init__()
        self.inner, self.output = inner, output

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Return floats that codes stand for."""
        return buffer_of(QTensor.of(self.inner(*inputs, **options), self.output).dequantize())


class OnCodes(Module):
    """A module on codes, or an island, among modules in floats."""

    def __init__(self, inner: Module, inputs: tuple[Any, ...]) -> None:
        super().__init__()
        self.inner, self.inputs = inner, inputs

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Return floats that codes stand for, or those of an island."""
        free = self.inner.floats if isinstance(self.inner, FloatIsland) else ()

        def code(i: int, x: Any) -> Any:
            return x if i in free else QTensor.of(x, self.inputs[i])

        taken, named = arrays_changed((inputs, options), code, itertools.count())
        made = self.inner(*taken, **named)
        return buffer_of(made.dequantize()) if isinstance(made, QTensor) else made


class Bench(Module):
    """A copy of a model with a Spot at each site, and one for each of its inputs; the model stays as it is.

    Attributes:
        sites: path -> site, in the order of running: inputs first.
    """

    def __init__(self, model: Module, walk: Walk, islands: Iterable[str] = ()) -> None:
        """Take the model, what its conversion would put where, and which islands can be asked for."""
        super().__init__()
        self.model, self._walk = copy.deepcopy(model).eval(), walk
        spots = [
            _input_site(i, None if id(x.array) in walk.floats else observer.affine(), id(x.array))
            for i, (x, observer) in enumerate(
                zip(walk.flow.calls[0].inputs, walk.calibration.inputs, strict=bool(walk.calibration.inputs))
            )
        ]
        self.inputs = ModuleList(site.spot for site in spots)
        self.sites = {site.path: site for site in spots if site.output is not None}
        for visit in walk.visits:
            built = walk.made[visit.path]
            stays = not (walk.floats.isdisjoint(visit.outputs) or isinstance(built, FloatIsland))
            if visit.path not in self.sites and not isinstance(built, EXACT) and not stays:
                self.sites[visit.path] = self._placed(visit, built, walk, tuple(islands))
        self._passing: dict[frozenset[str], frozenset[int]] = {}
        self.eval()

    def forward(self, *inputs: Any) -> Any:
        """Run the model, each site in its form."""
        if self.inputs:
            inputs = tuple(spot(x) for spot, x in zip(self.inputs, inputs, strict=True))
        return self.model(*inputs)

    def set_forms(self, forms: Mapping[str, str]) -> None:
        """Set the forms of some sites, and all others to ``"float"``; and let floats pass between islands."""
        floats = self.floating(forms)
        for path, site in self.sites.items():
            form = forms.get(path, "float")
            gives = not floats.isdisjoint(site.gives)
            inner = getattr(site.spot.forms.get(form), "inner", None)
            if isinstance(inner, FloatIsland):
                free = [i for i, each in enumerate(site.takes) if each in floats]
                inner.end(free, None if gives else site.output)
            elif gives and form == "int8":
                form = "float"
            site.spot.form = form

    def floating(self, forms: Mapping[str, str]) -> frozenset[int]:
        """Return the ids of the arrays that stay floats where some sites are set to islands."""
        chosen = frozenset(path for path, form in forms.items() if form in ISLANDS)
        kept = chosen.union(self._walk.keep)
        if kept not in self._passing:
            self._passing[kept] = self._walk.floating(kept)
        return self._passing[kept]

    def bytes_spared(self, forms: Mapping[str, str]) -> int:
        """Return the bytes of scales and zero points that are not needed, as floats pass."""
        floats, walk = self.floating(forms), self._walk
        begun = [] if walk.stubs else [id(each.array) for each in walk.flow.calls[0].inputs]
        islands = {path for path, form in forms.items() if form in ISLANDS}.union(walk.keep)
        gives = {each.path: each.outputs for each in walk.visits if each.begins or each.path in islands}
        spared = [[each] for each in begun] + list(gives.values())
        return QUANTIZE_BYTES * sum(not floats.isdisjoint(each) for each in spared)

    def _placed(self, visit: Visit, built: Module, walk: Walk, islands: tuple[str, ...]) -> Site:
        """Put a Spot where a module stands, at all its paths."""
        paths, place = walk.flow.paths[id(visit.call.module)], walk.places[visit.path]
        layer = self.model.get_submodule(paths[0])
        if isinstance(built, FloatIsland):
            built = copy.deepcopy(built)  # what it takes and gives is set anew
        spot = Spot(_forms(layer, built, place.inputs, place.output))
        ends = tuple(visit.inputs), tuple(visit.outputs)
        site = Site(paths[0], type(layer).__name__, layer, built, place.inputs, place.output, spot, *ends)
        for each in islands if site.keepable else ():
            try:
                island = FloatIsland(copy.deepcopy(layer), place.output, each)
            except SettingError:  # float16 cannot hold its weights: it has no such form
                continue
            spot.forms[each] = OnCodes(island, place.inputs)
        for path in paths:
            if path:
                self.model.set_submodule(path, spot)
            else:
                self.model = spot
        return site


def _input_site(index: int, affine: Affine | None, array: int) -> Site:
    forms: dict[str, Module] = {"float": Identity()}
    if affine is not None:
        forms |= dict.fromkeys(("activations", "both", "int8"), Rounded(Identity(), affine))
    return Site(f"input {index}", "input", None, None, (), affine, Spot(forms), (), (array,))


def _forms(
    layer: Module, built: Module, inputs: tuple[Affine | None, ...], output: Affine | None
) -> dict[str, Module]:
    """Return the forms of a module that do not need another island than the one that it is."""
    forms = {"float": layer, "activations": layer if output is None else Rounded(layer, output)}
    if isinstance(built, FloatIsland) and not isinstance(built.quantize, Quantize):
        floats = range(len(inputs))
        forms["activations"] = FloatIsland(copy.deepcopy(layer), None, built.compute, floats)
    forms["both"] = forms["activations"]
    forms["int8"] = OnCodes(built, inputs) if inputs else forms["activations"]
    read = read_back(layer, built)
    if read is not None:
        assert output is not None  # what gives floats has no codes
        forms |= {"weights": read, "both": Rounded(read, output)}
    return forms


def read_back(layer: Module, built: Module) -> Module | None:
    """Return a copy of a layer with weights and bias as their codes are read back; None without codes."""
    if not isinstance(built, QuantizedModule) or "weight_scale" not in built._buffers:
        return None
    codes: Any = built
    affine = codes.kept("weight_")
    weight = dequantize(_host(codes.weight), affine).astype(np.float64)
    made = copy.deepcopy(layer)
    inner: Any = made[0] if isinstance(made, WithReLU) else made
    if isinstance(built, QuantizedConvTranspose2d):
        weight = turned(weight, codes.groups)
    inner.weight = parameter(weight, inner.weight)
    if codes.bias is not None:
        steps = affine.scale.astype(np.float64) * codes.kept("input_").scale
        inner.bias = parameter(_host(codes.bias) * steps, inner.bias)
    return made


def _host(leaf: Any) -> Any:
    return np.asarray(leaf.backend.to_host(leaf.array))
