"""How scales and zero points are chosen: torch's observers, and the rule of its dynamic layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from minimp.frameworks.integers.beside import Arrays, Excuse, beside
from minimp.frameworks.integers.samples import CODES, batches, floats, single
from minimp.frameworks.integers.torch_engines import engine, has_engine
from minimp.frameworks.results import Row
from minimp.quant import choose, observers
from minimp.quant.observers import Observer

__all__ = ["compare_choosing"]


@dataclass(frozen=True, slots=True)
class _Watch:
    """One class of observers, of the same name in both libraries, and settings that they share."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def both(self, kind: str, symmetric: bool, rest: Mapping[str, Any]) -> tuple[Observer, Any]:
        """Return minimp's and torch's."""
        import torch
        from torch.ao.quantization import observer

        scheme = "channel" if "Channel" in self.name else "tensor"
        scheme = f"per_{scheme}_{'symmetric' if symmetric else 'affine'}"
        codes = dict(zip(("quant_min", "quant_max"), CODES[kind], strict=True))
        own = {**self.settings, **rest}
        mine = getattr(observers, self.name)(**{**codes, **own}, symmetric=symmetric)
        its = getattr(observer, self.name)(dtype=getattr(torch, kind), qscheme=getattr(torch, scheme), **own)
        return mine, its

    @property
    def told(self) -> str:
        """The settings, for a case."""
        return "".join(f", {name}={value}" for name, value in self.settings.items())


WATCHES = (
    _Watch("MinMaxObserver"),
    _Watch("MovingAverageMinMaxObserver"),
    _Watch("MovingAverageMinMaxObserver", {"averaging_constant": 0.3}),
    _Watch("PerChannelMinMaxObserver"),
    _Watch("PerChannelMinMaxObserver", {"ch_axis": 1}),
    _Watch("MovingAveragePerChannelMinMaxObserver", {"ch_axis": 1}),
)
NARROW = ((-127, 127), (-8, 7), (-1, 1), (0, 15), (0, 3))
"""Codes for narrower numbers."""


def compare_choosing(rng: np.random.Generator) -> Iterator[Row]:
    """Compare each observer, on data of many kinds, and the dynamic rule."""
    data = batches(rng)
    for watch, (kind, symmetric, reduced) in product(WATCHES, product(CODES, (False, True), (False, True))):
        if kind == "quint8" and symmetric and reduced:
            continue  # both refuse it, see edges
        how = f"{kind}, {'symmetric' if symmetric else 'affine'}{', reduce_range' * reduced}{watch.told}"
        pairs = [
            _observed(watch.both(kind, symmetric, {"reduce_range": reduced}), each) for each in data.values()
        ]
        yield beside(watch.name, how, *_joined(pairs))
    for (low, high), symmetric in product(NARROW, (False, True)):
        kind = "qint8" if low else "quint8"
        rest = {"quant_min": low, "quant_max": high}
        pairs = [_observed(WATCHES[0].both(kind, symmetric, rest), each) for each in data.values()]
        how = f"codes {low}..{high}, {'symmetric' if symmetric else 'affine'}"
        yield beside(WATCHES[0].name, how, *_joined(pairs))
    yield from _histograms(rng)
    yield from _dynamic(rng)


def _observed(both: tuple[Observer, Any], seen: list[Any]) -> tuple[Arrays, Arrays]:
    """Show both the batches; return the range, scale and zero point of each."""
    import torch

    mine, its = both
    for x in seen:
        mine.observe(x)
        its(torch.from_numpy(x))
    scale, zero = its.calculate_qparams()
    theirs = [each.numpy().ravel() for each in (its.min_val, its.max_val, scale, zero)]
    chosen = mine.affine()
    ours = [np.ravel(each) for each in (*mine.range(), chosen.scale, chosen.zero_point)]
    if isinstance(mine, observers.HistogramObserver):  # torch keeps its histogram's ends, and not the range
        ours[:2] = np.ravel(mine.min_val), np.ravel(mine.max_val)
    return tuple(ours), (*theirs[:3], theirs[3].astype(np.int32))


def _joined(pairs: list[tuple[Arrays, Arrays]]) -> tuple[Arrays, Arrays]:
    """Put what all kinds of data gave one after the other."""
    ours, theirs = (tuple(map(np.concatenate, zip(*side, strict=True))) for side in zip(*pairs, strict=True))
    return ours, theirs


def _histograms(rng: np.random.Generator) -> Iterator[Row]:
    """Compare the search for the least squared error, on one batch and on several that widen the range."""
    watch = _Watch("HistogramObserver")
    wide = [floats(rng, 40, 50) * np.float32(1 + 0.3 * i) for i in range(4)]
    shapes = {
        "normal": wide, "half of them 0": [np.maximum(x, 0) for x in wide],
        "long tails": [x**3 for x in wide],
        "infinities among them": [np.append(x, single([np.inf, -np.inf])) for x in wide],
        "flat at first": [np.full(9, 3, np.float32), *wide],
    }  # fmt: skip
    for (name, seen), symmetric in product(shapes.items(), (False, True)):
        for count in (1, len(seen)):
            both = watch.both("quint8", symmetric, {})
            ours, theirs = _observed(both, seen[:count])
            batches_of = "one batch" if count == 1 else f"{count} batches"
            how = f"{name}, {'symmetric' if symmetric else 'affine'}, {batches_of}"
            excuse = Excuse(lambda: True, {"in float64": partial(_in_float64, both[1], ours)})
            yield beside(watch.name, how, ours, theirs, excuse)


def _in_float64(its: Any, ours: Arrays) -> bool:
    """Tell whether torch's observer chooses what ours does, once it adds up errors in float64 as well."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        scale, zero = its.double().calculate_qparams()
    finally:
        torch.set_default_dtype(before)
    near = np.allclose(scale.numpy(), ours[2], rtol=2.0**-20, atol=0)
    return bool(near and int(zero) == ours[3])


def _dynamic(rng: np.random.Generator) -> Iterator[Row]:
    """Compare the rule of dynamic layers on ranges of many sizes, of a point, and empty ones."""
    import torch

    sizes = rng.choice([1e-9, 1e-4, 1.0, 1e3, 1e30], 400)
    ends = np.sort(rng.normal(size=(400, 2)) * sizes[:, None]).astype(np.float32)
    ends[::7, 1], ends[::11] = ends[::7, 0], 0
    rows = (("qnnpack", False), ("fbgemm", False), ("fbgemm", True))  # QNNPACK has no reduced codes
    for name, reduced in rows:
        if not has_engine(name):
            continue
        with engine(name):
            its = [torch._choose_qparams_per_tensor(torch.from_numpy(each), reduced) for each in ends]
        chosen = [
            choose(*each, rule="torch-dynamic", quant_min=0, quant_max=255, reduce_range=reduced)
            for each in ends
        ]
        ours = np.stack([each.scale for each in chosen]), np.stack([each.zero_point for each in chosen])
        theirs = single([scale for scale, _ in its]), np.array([zero for _, zero in its], np.int32)
        yield beside("_choose_qparams_per_tensor", f"{name}, reduce_range={reduced}", ours, theirs)
