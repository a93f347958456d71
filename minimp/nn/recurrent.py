"""Recurrent layers: the cells of :mod:`minimp.nn.cells` over a sequence, in layers and both directions.

A recurrence is one op for all steps (:mod:`minimp.ops.recurrent`): the products with the inputs are one
product, what is left for each step is the product with its state, and gradients of weights are one product
each. Under autocast the states are in the format that the policy asks for (CUDA: the lower precision; CPU:
that for LSTM, and the input's format for the others), as in PyTorch 2.13.
"""

from __future__ import annotations

import math
from typing import Any

from minimp import functional
from minimp.errors import SettingError, ShapeError, unknown_name
from minimp.modes import MODES
from minimp.nn import init
from minimp.nn.cells import STEPS, State, Step, as_policy
from minimp.nn.making import empty, probability, whole, zeros_beside
from minimp.nn.module import Module
from minimp.ops.cells import Weights, along, side_by_side
from minimp.policy import CastClass
from minimp.tensors import Tensor

__all__ = ["GRU", "LSTM", "RNN", "RNNBase"]


class RNNBase(Module):
    """What RNN, LSTM and GRU are: `num_layers` recurrences one above the other, in one or two directions.

    Of layer k: `weight_ih_lk` (gates H, in), `weight_hh_lk` (gates H, H_out), `bias_ih_lk` and `bias_hh_lk`
    (gates H,), and for a projected LSTM `weight_hr_lk` (proj_size, H); with the suffix ``_reverse`` for the
    backward direction. H is hidden_size, H_out that or proj_size; `in` is input_size, and H_out times the
    directions above the first layer. All are drawn uniform in +-1/sqrt(H).

    Args:
        mode: ``"RNN_TANH"``, ``"RNN_RELU"``, ``"LSTM"`` or ``"GRU"``.
        input_size, hidden_size: lengths of the last axis of the input and of the states.
        num_layers: how many recurrences; each takes the outputs of the one below.
        bias: whether there are biases.
        batch_first: the input and the output are (N, T, ...) instead of (T, N, ...); states are not.
        dropout: the probability with which an output of a layer below another is zeroed in training.
        bidirectional: a second recurrence runs from the last step to the first; outputs stand side by side.
        proj_size: the length to which an LSTM projects h (Sak et al. 2014); 0 for none.
        dtype: the format of the parameters; None is float32.
        backend: the name of a backend; None takes the one in force.

    Raises:
        SettingError: numbers out of range, or a dropout that has no layer to act on (torch warns).
    """

    def __init__(
        self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, *,
        dtype: Any = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if mode not in STEPS:
            raise SettingError(unknown_name("mode", mode, STEPS), op=self._name())
        self.mode = mode
        self.input_size = whole("input_size", input_size, self._name())
        self.hidden_size = whole("hidden_size", hidden_size, self._name())
        self.num_layers = whole("num_layers", num_layers, self._name())
        self.proj_size = whole("proj_size", proj_size, self._name(), least=0)
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.dropout = float(probability(dropout, self._name(), "dropout"))
        self._check()
        for layer in range(num_layers):
            for direction in range(1 + bidirectional):
                self._make(layer, direction, dtype, backend)
        self.reset_parameters()

    def _check(self) -> None:
        if self.dropout and self.num_layers == 1:
            raise SettingError(
                f"dropout={self.dropout} acts between layers, and there is only one",
                op=self._name(), help="set num_layers above 1, or put nn.Dropout behind the layer",
            )  # fmt: skip
        if self.proj_size and (self.mode != "LSTM" or self.proj_size >= self.hidden_size):
            raise SettingError(
                f"expected proj_size below hidden_size={self.hidden_size}, of an LSTM, got {self.proj_size}",
                op=self._name(),
            )

    def _names(self, layer: int, direction: int) -> list[str]:
        """Return the names of one recurrence's parameters, in torch's order."""
        kinds = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if self.bias else [])]
        kinds += ["weight_hr"] if self.proj_size else []
        return [f"{kind}_l{layer}{'_reverse' if direction else ''}" for kind in kinds]

    def _make(self, layer: int, direction: int, dtype: Any, backend: str | None) -> None:
        rows = STEPS[self.mode].gates * self.hidden_size
        out = self.proj_size or self.hidden_size
        below = out * (1 + self.bidirectional) if layer else self.input_size
        shapes = {
            "weight_ih": (rows, below), "weight_hh": (rows, out), "bias_ih": (rows,), "bias_hh": (rows,),
            "weight_hr": (self.proj_size, self.hidden_size),
        }  # fmt: skip
        for name in self._names(layer, direction):
            self.register_parameter(name, empty(shapes[name.split("_l")[0]], dtype, backend))

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        bound = 1 / math.sqrt(self.hidden_size)
        for param in self.parameters():
            init.uniform_(param, -bound, bound)

    @property
    def all_weights(self) -> list[list[Any]]:
        """The parameters of each recurrence, layer by layer."""
        places = [(k, d) for k in range(self.num_layers) for d in range(1 + self.bidirectional)]
        return [[getattr(self, name) for name in self._names(k, d)] for k, d in places]

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run the sequence through all layers.

        Args:
            input: (T, N, input_size), (N, T, input_size) if `batch_first`, or (T, input_size).
            hx: h, or (h, c) of an LSTM, before the first step, each (layers directions, N, H), without N
                for an input without it; None is zeros.

        Returns:
            The outputs of the last layer, shaped as the input, and the states after the last step, as `hx`.

        Raises:
            ShapeError: an input or a state that does not fit, or no step at all.
        """
        kind = STEPS[self.mode]
        x: Tensor = as_policy(self._ruled_by(), input)
        self._check_input(x)
        batched = x.ndim == 3
        x = x.unsqueeze(1) if not batched else x.transpose(0, 1) if self.batch_first else x  # (T, N, in)
        states = self._initial(x, hx, batched)
        ended: list[State] = []
        for layer in range(self.num_layers):
            sides = []
            for direction in range(1 + self.bidirectional):
                outputs, last = self._recur(x, states[len(ended)], layer, backwards=direction == 1)
                sides.append(outputs)
                ended.append(last)
            x = sides[0] if len(sides) == 1 else functional.cat(sides, dim=-1)  # (T, N, directions H)
            if self.dropout and layer < self.num_layers - 1:
                x = functional.dropout(x, self.dropout, self.training)
        final = [side_by_side([state[k] for state in ended]) for k in range(kind.states)]
        if not batched:
            x, final = x.squeeze(1), [each.squeeze(1) for each in final]
        elif self.batch_first:
            x = x.transpose(0, 1)
        return x, (final[0] if kind.states == 1 else tuple(final))

    def _recur(self, x: Tensor, state: State, layer: int, *, backwards: bool) -> tuple[Tensor, State]:
        """Run one recurrence over (T, N, in); return its outputs, (T, N, H), and the state at the end."""
        weights = self._weights(layer, int(backwards))
        return _run(STEPS[self.mode], x, state, weights, self._ruled_by(), backwards=backwards)

    def _ruled_by(self) -> tuple[str, ...]:
        """Return the names of PyTorch's ops that this layer is there; oneDNN has none with a projection."""
        kind = STEPS[self.mode]
        return (kind.cell_op,) if self.proj_size else kind.layer_ops

    def _weights(self, layer: int, direction: int) -> Weights:
        found = {name.split("_l")[0]: getattr(self, name) for name in self._names(layer, direction)}
        return Weights(
            found["weight_ih"], found["weight_hh"], found.get("bias_ih"), found.get("bias_hh"),
            found.get("weight_hr"),
        )  # fmt: skip

    def _check_input(self, x: Tensor) -> None:
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            axes = "(N, T, {})" if self.batch_first else "(T, N, {})"
            raise ShapeError(
                f"expected an input of shape {axes.format(self.input_size)} or (T, {self.input_size}), "
                f"got {x.shape}",
                op=self._name(), shapes=[x.shape],
            )  # fmt: skip
        if not x.shape[1 if self.batch_first and x.ndim == 3 else 0]:
            raise ShapeError("a sequence has at least one step", op=self._name(), shapes=[x.shape])

    def _initial(self, x: Tensor, hx: Any, batched: bool) -> list[State]:
        """Return the states before the first step, one for each recurrence."""
        kind = STEPS[self.mode]
        runs = self.num_layers * (1 + self.bidirectional)
        sizes = [self.proj_size or self.hidden_size, self.hidden_size][: kind.states]
        shapes = [(runs, x.shape[1], size) for size in sizes]
        if hx is None:
            states = [zeros_beside(x, shape) for shape in shapes]
        else:
            given = tuple(hx) if kind.states > 1 else (hx,)
            if len(given) != kind.states:
                raise ShapeError(f"expected a state (h, c), got {len(given)} tensors", op=self._name())
            states = [as_policy(self._ruled_by(), each) for each in given]
            states = states if batched else [each.unsqueeze(1) for each in states]
        for state, shape in zip(states, shapes, strict=True):
            if state.shape != shape:
                raise ShapeError(
                    f"expected a state of shape {shape}, got {state.shape}",
                    op=self._name(), shapes=[x.shape, state.shape],
                )  # fmt: skip
        return [tuple(state[k] for state in states) for k in range(runs)]

    def flatten_parameters(self) -> None:
        """Do nothing: parameters have no order in memory here that a kernel would want (torch's CPU too)."""

    def extra_repr(self) -> str:
        """Show the lengths, and what differs from the defaults."""
        plain = {
            "proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0,
            "bidirectional": False,
        }  # fmt: skip
        changed = [f"{k}={getattr(self, k)}" for k, default in plain.items() if getattr(self, k) != default]
        return ", ".join([f"{self.input_size}, {self.hidden_size}", *changed])


class RNN(RNNBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh) over a sequence; see :class:`RNNBase`.

    Args:
        nonlinearity: ``"tanh"`` or ``"relu"``.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
        bias: bool = True, batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, *,
        dtype: Any = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        if nonlinearity not in ("tanh", "relu"):
            raise SettingError(unknown_name("nonlinearity", nonlinearity, ("tanh", "relu")), op="RNN")
        mode = f"RNN_{nonlinearity.upper()}"
        super().__init__(
            mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            dtype=dtype, backend=backend,
        )  # fmt: skip
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """Long short-term memory over a sequence; see :class:`RNNBase` and :mod:`minimp.nn.cells`."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, *,
        dtype: Any = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
            dtype=dtype, backend=backend,
        )  # fmt: skip


class GRU(RNNBase):
    """A gated recurrent unit over a sequence; see :class:`RNNBase` and :mod:`minimp.nn.cells`."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, *,
        dtype: Any = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            dtype=dtype, backend=backend,
        )  # fmt: skip


def _run(
    kind: Step, x: Tensor, state: State, w: Weights, names: tuple[str, ...], *, backwards: bool
) -> tuple[Tensor, State]:
    """Run one recurrence over (T, N, in); return its outputs, (T, N, H), and the state at the end.

    It is one op for all steps, unless h is projected, or products are to be in a lower format than states.
    """
    if w.hr is not None or not _ruled_alike(names):
        states, last = along(kind.step, x, state, w, reverse=backwards)
        return states[0], last
    weights = (None if each is None else as_policy(names, each) for each in w[:4])
    y = kind.sequence(x, *state, *weights, reverse=backwards)
    each_state = [y[k] for k in range(kind.states)] if kind.states > 1 else [y]
    end = 0 if backwards else -1
    return each_state[0], tuple(each[end] for each in each_state)


def _ruled_alike(names: tuple[str, ...]) -> bool:
    """Tell whether a region has states in the format of products: not, on the CPU, those of RNN and GRU."""
    region = MODES.get().autocast
    if region is None or not region.enabled:
        return True
    return any(region.policy.rules.get(name) is CastClass.LOWER for name in names)
