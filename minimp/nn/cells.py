"""Recurrent cells, one step each; gates in torch's order, keys and shapes as torch's.

The formulas are in :mod:`minimp.ops.cells`, written with ops of the engine: each rounds where they round.
PyTorch's fused CUDA cells keep the gates of one step in float32 between the product and the new state, as
the layers of :mod:`minimp.nn.recurrent` do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from minimp import functional, ops
from minimp.errors import SettingError, ShapeError, unknown_name
from minimp.functional.common import as_the_policy_asks
from minimp.nn import init
from minimp.nn.making import empty, optional, whole, zeros_beside
from minimp.nn.module import Module
from minimp.nn.parameter import Parameter
from minimp.ops.cells import Weights, gru_step, lstm_step, rnn_relu_step, rnn_tanh_step
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = ["STEPS", "GRUCell", "LSTMCell", "RNNCell", "State", "Weights", "as_policy"]

State = tuple[Tensor, ...]
"""What a cell carries on: (h,), or (h, c) for LSTM."""


class Step(NamedTuple):
    """One kind of recurrence.

    Attributes:
        step: from W_ih x + b_ih, the state and the weights to the next state.
        sequence: the op that takes all steps of a sequence.
        gates: how many rows of weights a hidden unit has.
        states: how many tensors a state is.
        cell_op: PyTorch's name of one step, whose autocast class rules the states of a cell.
        layer_ops: those that rule the states of a whole layer.
    """

    step: Callable[[Tensor, State, Weights], State]
    sequence: Callable[..., Tensor]
    gates: int
    states: int
    cell_op: str
    layer_ops: tuple[str, ...]


STEPS = {
    "RNN_TANH": Step(rnn_tanh_step, ops.rnn_tanh, 1, 1, "rnn_tanh_cell", ("rnn_tanh_cell",)),
    "RNN_RELU": Step(rnn_relu_step, ops.rnn_relu, 1, 1, "rnn_relu_cell", ("rnn_relu_cell",)),
    "LSTM": Step(lstm_step, ops.lstm, 4, 2, "lstm_cell", ("lstm_cell", "mkldnn_rnn_layer")),
    "GRU": Step(gru_step, ops.gru, 3, 1, "gru_cell", ("gru_cell",)),
}
"""By torch's name of the mode. On CUDA the states of all are in the lower precision of an autocast region; on
the CPU those of a whole LSTM are, and the others keep the format that they are given."""


def as_policy(names: tuple[str, ...], x: Any) -> Any:
    """Return a tensor in the format that the policy in force asks for, by PyTorch's names of the op."""
    value = x if isinstance(x, Value) else Value.lift(x, None)
    for name in names:
        value = as_the_policy_asks(name, value)
    return value


class _Cell(Module):
    """What the cells share.

    `weight_ih` is (gates hidden_size, input_size), `weight_hh` (gates hidden_size, hidden_size), `bias_ih`
    and `bias_hh` (gates hidden_size,), all drawn uniform in +-1/sqrt(hidden_size).
    """

    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self, mode: str, input_size: int, hidden_size: int, bias: bool, dtype: Any, backend: str | None
    ) -> None:
        super().__init__()
        self._kind = STEPS[mode]
        self.input_size = whole("input_size", input_size, self._name())
        self.hidden_size = whole("hidden_size", hidden_size, self._name())
        self.bias = bias
        rows = self._kind.gates * self.hidden_size
        self.weight_ih = empty((rows, self.input_size), dtype, backend)
        self.weight_hh = empty((rows, self.hidden_size), dtype, backend)
        self.register_parameter("bias_ih", optional(bias, (rows,), dtype, backend))
        self.register_parameter("bias_hh", optional(bias, (rows,), dtype, backend))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        bound = 1 / math.sqrt(self.hidden_size)
        for param in self.parameters():
            init.uniform_(param, -bound, bound)

    def _step(self, input: Any, states: tuple[Any, ...] | None) -> State:
        """Take one step from the states given, or from zeros; a vector is a batch of one."""
        x: Tensor = as_policy((self._kind.cell_op,), input)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"expected an input of shape (N, {self.input_size}) or ({self.input_size},), got {x.shape}",
                op=self._name(), shapes=[x.shape],
            )  # fmt: skip
        shape = (*x.shape[:-1], self.hidden_size)
        given = states or tuple(zeros_beside(x, shape) for _ in range(self._kind.states))
        state = tuple(as_policy((self._kind.cell_op,), each) for each in given)
        for each in state:
            if each.shape != shape:
                raise ShapeError(
                    f"expected a state of shape {shape}, got {each.shape}",
                    op=self._name(), shapes=[x.shape, each.shape],
                )  # fmt: skip
        inputs = functional.linear(x, self.weight_ih, self.bias_ih)
        return self._kind.step(inputs, state, Weights(None, self.weight_hh, None, self.bias_hh))

    def extra_repr(self) -> str:
        """Show the lengths, and what differs from the defaults."""
        parts = [f"{self.input_size}, {self.hidden_size}"]
        parts += [] if self.bias is True else [f"bias={self.bias}"]
        nonlinearity = getattr(self, "nonlinearity", "tanh")
        return ", ".join(parts if nonlinearity == "tanh" else [*parts, f"nonlinearity={nonlinearity}"])


class RNNCell(_Cell):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh).  (N, input_size), (N, hidden_size) -> (N, hidden_size).

    Parameters and draws as torch.nn.RNNCell; the input may be one vector. Under autocast: the module's note.

    Args:
        input_size, hidden_size: lengths of the last axes.
        bias: whether there are b_ih and b_hh.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        dtype: the format of the parameters; None is float32.
        backend: the name of a backend; None takes the one in force.

    Raises:
        SettingError: lengths that are no whole numbers of at least 1, or another nonlinearity.
        ShapeError: on call, an input or a state that does not fit.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", *,
        dtype: Any = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        if nonlinearity not in ("tanh", "relu"):
            raise SettingError(unknown_name("nonlinearity", nonlinearity, ("tanh", "relu")), op="RNNCell")
        super().__init__(f"RNN_{nonlinearity.upper()}", input_size, hidden_size, bias, dtype, backend)
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        """Return h' from the input and h, zeros if None."""
        return self._step(input, None if hx is None else (hx,))[0]


class LSTMCell(_Cell):
    """One step of long short-term memory.  (N, input_size), (h, c) -> (h', c'), each (N, hidden_size).

    Rows of the weights in the order i, f, g, o. Arguments and errors as :class:`RNNCell`.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, dtype: Any = None,
        backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__("LSTM", input_size, hidden_size, bias, dtype, backend)

    def forward(self, input: Any, hx: tuple[Any, Any] | None = None) -> tuple[Tensor, Tensor]:
        """Return (h', c') from the input and (h, c), zeros if None."""
        h, c = self._step(input, None if hx is None else tuple(hx))
        return h, c


class GRUCell(_Cell):
    """One step of a gated recurrent unit.  (N, input_size), (N, hidden_size) -> (N, hidden_size).

    Rows of the weights in the order r, z, n. Arguments and errors as :class:`RNNCell`.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, dtype: Any = None,
        backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__("GRU", input_size, hidden_size, bias, dtype, backend)

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        """Return h' from the input and h, zeros if None."""
        return self._step(input, None if hx is None else (hx,))[0]
