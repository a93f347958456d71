"""Layers that learn with rounded weights: the float layer, and where its integer form will round.

A layer computes  y = fq_out(relu(W_q x + b)),  W_q = fq(W): products of what codes stand for, and one
rounding behind them, as the integer layer has it. In front of a batch norm the weight is folded first:

    s = gamma / sqrt(running_var + eps)
    y = fq_out(relu(bn(fq(s W) x / s + b)))

so that what is rounded is the weight that the integer layer will hold, and the batch norm still learns
(Jacob et al. 2018, arXiv 1712.05877, section 3.2, equation 14; torch.ao.nn.intrinsic.qat, 2.13.0). Once the
statistics stand still, the division and the batch norm are a term b' = (b - running_mean) s + beta, and
y = fq_out(relu(fq(s W) x + b')) is the same function: so it is computed in evaluation and after freezing.

The integer layer adds its bias in int32, in steps of s_x s_w (section 2.4). A layer that knows where its
input comes from rounds the bias to these steps too, so that its codes are the integer layer's to the last
one, unless a float32 sum falls on the other side of a tie. (torch leaves the bias as it is.)

This file has what all layers share; :mod:`minimp.quant.qat.kinds` has the layers.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from minimp import functional, nn
from minimp.errors import SettingError
from minimp.modes import no_grad
from minimp.nn.module import Module
from minimp.nn.parameter import Parameter
from minimp.quant.exchanging import blank
from minimp.quant.fusion.intrinsic import WithReLU
from minimp.quant.modules.base import buffer_of
from minimp.quant.qat.fake_quantize import SINGLE, FakeQuantize
from minimp.tensors import Tensor

__all__ = ["Folded", "Twin", "Weighted"]


class Twin(Module):
    """What stands in a prepared model where a module of the float model stood.

    Attributes:
        activation_post_process: what the output goes through (torch's name): a FakeQuantize, or an Identity
            where it stays in floats.
    """

    activation_post_process: Module

    def to_float(self) -> Module:
        """Return the float module that is to be converted."""
        raise NotImplementedError


class Weighted(Twin):
    """A layer whose weight is rounded on its way into the product.

    Attributes:
        weight, bias: those of the float layer, which learn.
        weight_fake_quant: a FakeQuantize; an Identity where the layer stays in floats.
        source: (the FakeQuantize that the input comes from,), no child of this module, but copied with the
            model; () where it is not known: the bias is not rounded then.
    """

    plain: ClassVar[type[Module]]
    """The class of the float layer."""
    with_relu: ClassVar[type[WithReLU] | None] = None
    """What holds the float layer and a ReLU; None where no ReLU follows."""
    weight: Parameter
    bias: Parameter | None
    weight_fake_quant: Module
    source: tuple[FakeQuantize, ...] = ()

    @classmethod
    def of(
        cls, modules: list[Any], weight_fake_quant: Module, output: Module,
        source: tuple[FakeQuantize, ...] = (),
    ) -> Weighted:  # fmt: skip
        """Make the twin of a layer and what was fused with it; it takes over their parameters."""
        layer = modules[0]
        made = blank(cls, layer)
        made.weight = layer.weight
        made.register_parameter("bias", layer.bias)
        made._take(modules)
        made.source = source
        made.weight_fake_quant, made.activation_post_process = weight_fake_quant, output
        return made

    def _take(self, modules: list[Any]) -> None:
        """Take over what more there is."""

    def forward(self, input: Any) -> Tensor:
        """Return what the integer layer's codes will stand for.

        Raises:
            SettingError: the weight has 16 bits.
        """
        if self.weight.dtype.itemsize < SINGLE:
            raise SettingError(
                f"weights are trained in float32 here, got {self.weight.dtype}: updates smaller than a code "
                "would be lost",
                op=self._name(),
                help="keep parameters in float32, and compute in 16 bits under autocast: recipe 'mixed-fp16' "
                "or 'mixed-bf16'",
            )  # fmt: skip
        y = self.summed(input)
        y = y if self.with_relu is None else functional.relu(y)
        made: Tensor = self.activation_post_process(y)
        return made

    def summed(self, input: Any) -> Tensor:
        """Return products, sums and bias, nothing rounded."""
        weight = self.rounded(self.weight)  # first: the steps of the bias follow from it
        return self.multiplied(input, weight, self.in_steps(self.bias))

    def rounded(self, weight: Tensor) -> Tensor:
        """Return a weight as its codes are read back."""
        made: Tensor = self.weight_fake_quant(weight)
        return made

    def in_steps(self, bias: Tensor | None) -> Tensor | None:
        """Return a bias, (O,), in whole steps of s_x s_w, as int32 will hold it; it passes straight through.

        Nothing is clamped: a bias beyond int32 gets wider steps when it is converted
        (:func:`minimp.quant.modules.weight_of`).
        """
        switches = (*self.source, self.weight_fake_quant)
        if bias is None or not self.source or not all(getattr(each, "rounding", False) for each in switches):
            return bias
        scales = [np.asarray(each.affine().scale) for each in switches if isinstance(each, FakeQuantize)]
        with np.errstate(over="ignore"):  # the op refuses an infinite scale in words
            steps = np.broadcast_to(scales[0] * scales[1], bias.shape)
        zero, limit = np.zeros(bias.shape, np.int32), 1 << 62
        return functional.fake_quantize_per_channel_affine(bias, steps, zero, 0, -limit, limit)

    def multiplied(self, input: Any, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return what the layer computes with another weight and bias."""
        raise NotImplementedError

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias of one layer that does all of it."""
        return self.weight, self.bias

    def to_float(self) -> Module:
        """Return the float layer, a batch norm folded into it; its weight is not rounded.

        Without a batch norm its parameters are this layer's own, so that ties stay. With one they are new,
        and ask for gradients as these do; a bias that only the batch norm had, as the weight.
        """
        with no_grad():
            weight, bias = self.folded()
        made: Any = blank(self.plain, self)
        vars(made).pop("source", None)
        made.weight = _like(weight, self.weight)
        asks = self.weight if self.bias is None else self.bias
        made.register_parameter("bias", None if bias is None else _like(bias, asks))
        return made if self.with_relu is None else self.with_relu(made, nn.ReLU()).train(self.training)


class Folded(Weighted):
    """A layer and the batch norm behind it, which is folded into the weight before that is rounded.

    A channel whose gamma is 0 learns on: its weight is folded with gamma = 1 until gamma moves (in torch it
    becomes NaN).

    Attributes:
        bn: the batch norm.
        bn_frozen: whether its statistics stand still in training too.
    """

    bn: Any
    bn_frozen: Tensor

    def _take(self, modules: list[Any]) -> None:
        self.bn = modules[1]
        self.register_buffer("bn_frozen", buffer_of(np.zeros(1, np.uint8)))

    @property
    def fixed(self) -> bool:
        """Whether statistics stand still: in evaluation, and once they are frozen."""
        return not self.training or self.frozen

    @property
    def frozen(self) -> bool:
        """Whether statistics stand still in training too."""
        return bool(self.bn_frozen.backend.to_host(self.bn_frozen.array)[0])

    def freeze(self, on: bool = True) -> None:
        """Let the statistics stand still in training too, or move again."""
        self.bn_frozen.array = self.bn_frozen.backend.from_host(np.full(1, on, np.uint8))

    def summed(self, input: Any) -> Tensor:
        """Return products, sums, bias and batch norm."""
        if self.fixed:
            folded, bias = self.folded()
            weight = self.rounded(folded)
            return self.multiplied(input, weight, self.in_steps(bias))
        s = self.factor(alive=True)  # (O,)
        weight = self.rounded(self.weight * self._beside(s, 0))
        y = self.multiplied(input, weight, None) / self._beside(s, 1)
        y = y if self.bias is None else y + self._beside(self.bias, 1)
        made: Tensor = self.bn(y)
        return made

    def factor(self, *, alive: bool = False) -> Tensor:
        """Return s = gamma / sqrt(running_var + eps), (O,); with `alive`, 1 stands for a gamma of 0."""
        spread = (self.bn.running_var + self.bn.eps).sqrt()
        gamma = 1.0 if self.bn.weight is None else self.bn.weight
        if alive and self.bn.weight is not None:
            gamma = functional.where(gamma == 0, 1.0, gamma)
        made: Tensor = gamma / spread
        return made

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return s W, (O, ...), and (b - running_mean) s + beta, (O,)."""
        s = self.factor()
        centred = -self.bn.running_mean if self.bias is None else self.bias - self.bn.running_mean
        bias = centred * s
        return self.weight * self._beside(s, 0), bias if self.bn.bias is None else bias + self.bn.bias

    def _beside(self, each: Tensor, axis: int) -> Tensor:
        """(O,) -> a shape with O on an axis, as many axes as the weight has."""
        shape = [1] * self.weight.ndim
        shape[axis] = -1
        return each.reshape(*shape)


def _like(values: Tensor, leaf: Parameter) -> Parameter:
    """Return a parameter of other values that asks for a gradient if this one does, or this one itself."""
    return leaf if values is leaf else Parameter(values.detach(), requires_grad=leaf.requires_grad)
