"""Quantisation-aware training: a float model learns with the roundings of its integer form.

    model = prepare_qat(trained, x)       # float weights, rounded on their way through the model
    ...                                   # train on: rounding is the identity in backward
    integers = convert(model)             # the same numbers, in int8

- ``fake_quantize``: one place at which numbers are rounded, and its range.
- ``layers``, ``kinds``, ``places``: what stands in the model where the integer model rounds.
- ``preparing``, ``prepared``: where that is, and the model as a whole.
- ``switches``, ``schedule``: what is on when.

Two designs were weighed. Hooks on the float model leave it as it is, but a folded batch norm needs a forward
of its own, and what happens is nowhere to be read. So modules are exchanged, as in torch's eager mode; but
where they go is not for a table of settings to say: the model is converted once for rehearsal, and whatever
rounds in the integer model rounds in training.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference" (arXiv 1712.05877), section 3; torch.ao.quantization, 2.13.0.
"""

from minimp.quant.qat.fake_quantize import FakeQuantize, FixedQParamsFakeQuantize
from minimp.quant.qat.kinds import (
    Conv1d,
    Conv2d,
    ConvBn1d,
    ConvBn2d,
    ConvBnReLU1d,
    ConvBnReLU2d,
    ConvReLU1d,
    ConvReLU2d,
    ConvTranspose1d,
    ConvTranspose2d,
    Linear,
    LinearBn1d,
    LinearBnReLU1d,
    LinearReLU,
)
from minimp.quant.qat.places import RoundedAgain, RoundedOutput
from minimp.quant.qat.prepared import PreparedModel
from minimp.quant.qat.preparing import prepare_qat
from minimp.quant.qat.reports import PreparedRow, QATReport
from minimp.quant.qat.schedule import QATSchedule
from minimp.quant.qat.switches import (
    disable_fake_quant,
    disable_observer,
    enable_fake_quant,
    enable_observer,
    freeze_bn_stats,
    update_bn_stats,
)

__all__ = [
    "Conv1d", "Conv2d", "ConvBn1d", "ConvBn2d", "ConvBnReLU1d", "ConvBnReLU2d", "ConvReLU1d",
    "ConvReLU2d", "ConvTranspose1d", "ConvTranspose2d", "FakeQuantize", "FixedQParamsFakeQuantize",
    "Linear", "LinearBn1d", "LinearBnReLU1d", "LinearReLU", "PreparedModel", "PreparedRow", "QATReport",
    "QATSchedule", "RoundedAgain", "RoundedOutput", "disable_fake_quant", "disable_observer",
    "enable_fake_quant", "enable_observer", "freeze_bn_stats", "prepare_qat", "update_bn_stats",
]  # fmt: skip
