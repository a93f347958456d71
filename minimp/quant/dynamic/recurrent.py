"""Recurrent layers with int8 weights and dynamic activations.

The inputs of all steps are quantised together, the state before each step on its own; gates, functions and
states are float32, each op rounded. So do torch.ao.nn.quantized.dynamic.LSTM and GRU (2.13.0). Their
products have the same bits (engine qnnpack), their sigmoid and tanh may differ by a few ULPs, and a state
that differs in its last bit can lie on the other side of a tie between two codes, or give another scale.
"""

from __future__ import annotations

from typing import Any

from minimp.nn import GRU, LSTM, RNN
from minimp.nn.cells import State
from minimp.nn.recurrent import RNNBase
from minimp.ops.cells import gru_gates, lstm_gates, rnn_relu_gates, rnn_tanh_gates, side_by_side, steps_of
from minimp.quant.dynamic.layers import Dynamic, Packing
from minimp.tensors import Tensor

__all__ = ["DynamicQuantizedGRU", "DynamicQuantizedLSTM", "DynamicQuantizedRNN"]

GATES = {"RNN_TANH": rnn_tanh_gates, "RNN_RELU": rnn_relu_gates, "LSTM": lstm_gates, "GRU": gru_gates}
"""What follows the two products of a step, by the name of the mode."""


class _DynamicRecurrence(Dynamic, RNNBase):
    """What the three share: the weights become codes, and biases float32 buffers, under the same names."""

    def _pack(self, mod: Any, packing: Packing) -> None:
        for layer in range(self.num_layers):
            for direction in range(1 + self.bidirectional):
                for name in self._names(layer, direction):
                    take = packing.bias if name.startswith("bias") else packing.weight
                    take(self, mod, name)

    def _recur(self, x: Tensor, state: State, layer: int, *, backwards: bool) -> tuple[Tensor, State]:
        """Run one recurrence over (T, N, in); return its outputs, (T, N, H), and the state at the end."""
        place = f"l{layer}{'_reverse' if backwards else ''}"
        gates = GATES[self.mode]
        inputs = steps_of(self._times(x, f"weight_ih_{place}", self._bias("ih", place)))
        outputs = []
        for each in reversed(inputs) if backwards else inputs:
            product = self._times(state[0], f"weight_hh_{place}", self._bias("hh", place))
            state = gates(each, product, state)
            outputs.append(state[0])
        return side_by_side(outputs[::-1] if backwards else outputs), state

    def _bias(self, kind: str, place: str) -> Any:
        return getattr(self, f"bias_{kind}_{place}") if self.bias else None

    def extra_repr(self) -> str:
        """Show the lengths, what differs from the defaults, and the scales."""
        return f"{super().extra_repr()}, {self.stored()}"


class DynamicQuantizedLSTM(_DynamicRecurrence):
    """Long short-term memory of dynamic products; arguments and results as :class:`minimp.nn.LSTM`'s.

    Not with proj_size (torch's quantised LSTM has none either).
    """

    source = LSTM


class DynamicQuantizedGRU(_DynamicRecurrence):
    """A gated recurrent unit of dynamic products; arguments and results as :class:`minimp.nn.GRU`'s."""

    source = GRU


class DynamicQuantizedRNN(_DynamicRecurrence):
    """A plain recurrence of dynamic products; arguments and results as :class:`minimp.nn.RNN`'s.

    (torch quantises its cell, and no whole layer.)
    """

    source = RNN
