"""The model that training runs on: a float model with the roundings of the integer model in it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from minimp.errors import SettingError
from minimp.nn import Identity, ModuleList
from minimp.nn.making import lifted
from minimp.nn.module import Module
from minimp.quant.calibration import Calibrated, Calibration
from minimp.quant.fusion.flow import follow
from minimp.quant.observers import GivenObserver, MinMaxObserver, Observer
from minimp.quant.qat.fake_quantize import FakeQuantize
from minimp.quant.qat.layers import Twin, Weighted
from minimp.quant.qat.reports import QATReport

__all__ = ["PreparedModel"]


class PreparedModel(Calibrated):
    """Takes and gives floats, as the float model does, rounded where the integer model will round.

    Made by :func:`minimp.quant.qat.prepare_qat`; ``convert(model)`` makes the integer model of it.

    Attributes:
        inputs: a FakeQuantize for each floating input, an Identity for one that only modules in floats take;
            none where the model has a QuantStub.
        model: the model, a twin in the place of each module that rounds.
        report: what is rounded where.
    """

    def __init__(
        self, inputs: Iterable[Module], model: Module, example: tuple[Any, ...],
        keep_float: Mapping[str, str], report: QATReport,
    ) -> None:  # fmt: skip
        super().__init__()
        self.inputs, self.model = ModuleList(inputs), model
        self.example, self.keep_float, self.report = example, dict(keep_float), report

    def forward(self, *inputs: Any) -> Any:
        """Return the model's results."""
        if not len(self.inputs):
            return self.model(*inputs)
        if len(inputs) != len(self.inputs):
            raise SettingError(
                f"the model was prepared with {len(self.inputs)} inputs, got {len(inputs)}",
                op="PreparedModel",
            )
        return self.model(*(rounded(x) for rounded, x in zip(self.inputs, inputs, strict=True)))

    def to_float(self) -> Module:
        """Return a copy of the float model with what was learnt: norms folded, nothing rounded, no grad."""
        made = _in_floats(copy.deepcopy(self.model)).eval()
        made.zero_grad()
        return made

    def calibrated(self) -> tuple[Module, Calibration, dict[str, str]]:
        """Return the float model, and the very numbers by which training rounded.

        Raises:
            SettingError: nothing was observed at some place.
        """
        model = self.to_float()
        made = Calibration(
            follow(model, tuple(map(lifted, self.example)), "convert"),
            [_given(each) if isinstance(each, FakeQuantize) else MinMaxObserver() for each in self.inputs],
            {path: _given(each.activation_post_process) for path, each in self._twins(FakeQuantize)},
        )
        made.weights = {
            path: _given(each.weight_fake_quant)
            for path, each in self._twins(FakeQuantize)
            if isinstance(each, Weighted) and not isinstance(each.weight_fake_quant, Identity)
        }
        made.batches = max((each.batches for each in made.outputs.values()), default=0)
        return model, made, self.keep_float

    def _twins(self, kind: type[Module]) -> list[tuple[str, Any]]:
        """Return (path, twin) of those with an output of their own."""
        return [
            (path, each) for path, each in self.model.named_modules(remove_duplicate=False)
            if isinstance(getattr(each, "activation_post_process", None), kind)
        ]  # fmt: skip


def _in_floats(model: Module) -> Module:
    """Put the float module in the place of each twin; one that stands twice stays one."""
    if isinstance(model, Twin):
        return model.to_float()
    made: dict[int, Module] = {}
    places = [
        (path, each) for path, each in model.named_modules(remove_duplicate=False) if isinstance(each, Twin)
    ]
    for path, each in places:
        made.setdefault(id(each), each.to_float())
        model.set_submodule(path, made[id(each)])
    return model


def _given(fake_quant: Any) -> Observer:
    """Return an observer with the numbers of a FakeQuantize."""
    return GivenObserver(fake_quant.affine(), fake_quant.observed)
