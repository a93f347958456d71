"""Switches for all of a prepared model, with the names of torch.ao.quantization (2.13.0)."""

from __future__ import annotations

from minimp.errors import SettingError
from minimp.nn.module import Module
from minimp.quant.qat.fake_quantize import FakeQuantize
from minimp.quant.qat.layers import Folded

__all__ = [
    "disable_fake_quant", "disable_observer", "enable_fake_quant", "enable_observer", "fake_quants",
    "freeze_bn_stats", "norms", "update_bn_stats",
]  # fmt: skip


def disable_observer(model: Module) -> None:
    """Let all ranges, and so all scales, stand still.

    Raises:
        SettingError: the model has no FakeQuantize, or one of them has observed nothing yet.
    """
    found = fake_quants(model, "disable_observer")
    for each in found:
        each.affine()  # raises where there is no range to stand still
    for each in found:
        each.switch(observer=False)


def enable_observer(model: Module) -> None:
    """Let ranges move in training.

    Raises:
        SettingError: the model has no FakeQuantize.
    """
    for each in fake_quants(model, "enable_observer"):
        each.switch(observer=True)


def disable_fake_quant(model: Module) -> None:
    """Let all numbers pass as they are.

    Raises:
        SettingError: the model has no FakeQuantize.
    """
    for each in fake_quants(model, "disable_fake_quant"):
        each.switch(fake_quant=False)


def enable_fake_quant(model: Module) -> None:
    """Round all numbers to codes and back.

    Raises:
        SettingError: the model has no FakeQuantize.
    """
    for each in fake_quants(model, "enable_fake_quant"):
        each.switch(fake_quant=True)


def freeze_bn_stats(model: Module) -> None:
    """Let the statistics of folded batch norms stand still; gamma and beta learn on.

    Raises:
        SettingError: there are none.
    """
    for each in norms(model, "freeze_bn_stats"):
        each.freeze()


def update_bn_stats(model: Module) -> None:
    """Let the statistics of folded batch norms move in training.

    Raises:
        SettingError: there are none.
    """
    for each in norms(model, "update_bn_stats"):
        each.freeze(False)


def fake_quants(model: Module, op: str) -> list[FakeQuantize]:
    """Return all FakeQuantize of a model.

    Raises:
        SettingError: there are none.
    """
    found = [each for each in model.modules() if isinstance(each, FakeQuantize)]
    if not found:
        raise SettingError(
            "the model has no FakeQuantize", op=op, help="prepare it: model = prepare_qat(model, x)"
        )
    return found


def norms(model: Module, op: str) -> list[Folded]:
    """Return all layers with a folded batch norm.

    Raises:
        SettingError: there are none.
    """
    found = [each for each in model.modules() if isinstance(each, Folded)]
    if not found:
        raise SettingError(
            "the model has no layer with a batch norm folded into it", op=op,
            help="leave it out; of a float model, prepare_qat makes such layers where a batch norm follows",
        )  # fmt: skip
    return found
