"""Recurrent layers; oracle: the cells' formulas in NumPy float64, numerical derivatives, torch's tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.checks.gradcheck import gradcheck
from minimp.errors import SettingError, ShapeError
from tests.arrays import host
from tests.tolerances import assert_close


def logistic(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return 1 / (1 + e^-x)."""
    return 1 / (1 + np.exp(-x))


def test_an_lstm_is_its_formula(rng: np.random.Generator) -> None:
    """Oracle: the three lines of the docstring, written in NumPy float64, step by step, both directions."""
    layer = nn.LSTM(3, 4, bidirectional=True).double()
    w = {name: host(p.detach()) for name, p in layer.named_parameters()}
    x = rng.standard_normal((5, 2, 3))
    y, (h, c) = layer(mp.tensor(x))
    for side, (suffix, order) in enumerate((("", range(5)), ("_reverse", range(4, -1, -1)))):
        hidden, cell = np.zeros((2, 4)), np.zeros((2, 4))
        for t in order:
            gates = x[t] @ w[f"weight_ih_l0{suffix}"].T + hidden @ w[f"weight_hh_l0{suffix}"].T
            i, f, g, o = np.split(gates + w[f"bias_ih_l0{suffix}"] + w[f"bias_hh_l0{suffix}"], 4, axis=1)
            cell = logistic(f) * cell + logistic(i) * np.tanh(g)
            hidden = logistic(o) * np.tanh(cell)
            assert_close(y.detach().numpy()[t, :, 4 * side : 4 * side + 4], hidden, "fp64_sums")
        assert_close(h.detach().numpy()[side], hidden, "fp64_sums")
        assert_close(c.detach().numpy()[side], cell, "fp64_sums")


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_gradients_and_second_derivatives(kind: str, rng: np.random.Generator) -> None:
    """Oracle: central differences in float64 of the output, and of a gradient's norm."""
    layer = getattr(nn, kind)(2, 3, 2).double()

    def run(x: Any) -> Any:
        return layer(x)[0]

    x = rng.standard_normal((3, 2, 2))
    assert gradcheck(run, [x])

    def penalty(x: Any) -> Any:
        (slope,) = mp.grad((run(x) ** 2).sum(), x, create_graph=True)
        return (slope * slope).sum()

    assert gradcheck(penalty, [x])


@pytest.mark.parametrize("length", [1, 2, 3, 8, 33])
def test_steps_of_any_number_come_in_order(length: int) -> None:
    """Oracle: a cumulative sum, which an RNN of weight 1 and relu computes exactly."""
    layer = nn.RNN(1, 1, nonlinearity="relu", bias=False)
    for param in layer.parameters():
        nn.init.ones_(param)
    x = np.arange(1.0, length + 1, dtype=np.float32).reshape(length, 1, 1)
    y, h = layer(mp.tensor(x))
    np.testing.assert_array_equal(y.detach().numpy(), np.cumsum(x, axis=0))
    assert h.tolist() == [[[float(x.sum())]]]


def test_gradients_grow_with_the_length_and_not_with_its_square() -> None:
    """Oracle: bytes made while splitting: each doubling of T adds one level of halves, two passes.

    Steps are taken apart where states are projected.
    """
    sizes = {}
    for length in (16, 64, 256):
        moved = 0

        def count(event: Any) -> None:
            nonlocal moved
            if event.phase == "backward" and event.node.op.name == "getitem":
                moved += event.outputs[0].nbytes

        x = mp.tensor(np.ones((length, 1, 8), np.float32))
        layer = nn.LSTM(8, 8, proj_size=4)
        with mp.modes.listen(count):
            layer(x)[0].sum().backward()
        sizes[length] = moved / length
    assert sizes[256] / sizes[16] <= np.log2(256) / np.log2(16) + 0.5


LOW = {"RNN": 1, "LSTM": 2, "GRU": 1, "RNNCell": 1, "LSTMCell": 2, "GRUCell": 1}


@pytest.mark.parametrize("kind", LOW)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_states_are_low_under_cudas_policy(kind: str, dtype: str) -> None:
    """Oracle: AT_FORALL_LOWER_PRECISION_FP of torch 2.13.0 has every cell; gradients come back in float32."""
    module, x = getattr(nn, kind)(3, 4), mp.tensor(np.ones((2, 1, 3), np.float32), requires_grad=True)
    with mp.autocast(dtype, policy="torch-cuda"):
        found = module(x if kind in ("RNN", "LSTM", "GRU") else x[:, 0])
    outputs = [y for each in (found if isinstance(found, tuple) else (found,)) for y in
               (each if isinstance(each, tuple) else (each,))]  # fmt: skip
    assert {y.format.name for y in outputs} == {dtype}
    outputs[0].sum().backward()
    assert {p.grad.format for p in module.parameters() if p.grad is not None} == {mp.float32}
    assert x.grad is not None
    assert x.grad.format is mp.float32


def test_dropout_acts_between_layers_and_in_training_only(rng: np.random.Generator) -> None:
    """Oracle: with everything dropped, the upper layer sees zeros, whatever the input."""
    layer = nn.GRU(3, 4, 2, dropout=1.0)
    a, b = (mp.tensor(rng.standard_normal((5, 2, 3)), dtype="float32") for _ in range(2))
    np.testing.assert_array_equal(host(layer(a)[0]), host(layer(b)[0]))
    assert host(layer(a)[0]).all()  # nothing is dropped behind the last layer
    layer.eval()
    assert np.any(host(layer(a)[0]) != host(layer(b)[0]))


def test_weights_are_grouped_as_torch_groups_them() -> None:
    """Oracle: identity, in torch's order of names."""
    layer = nn.LSTM(2, 3, 2, bidirectional=True)
    assert len(layer.all_weights) == 4
    assert layer.all_weights[1][0] is layer.weight_ih_l0_reverse
    assert layer.all_weights[2][3] is layer.bias_hh_l1
    layer.flatten_parameters()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.LSTM(2, 3, dropout=0.5), "acts between layers, and there is only one"),
        (lambda: nn.LSTM(2, 3, proj_size=3), "expected proj_size below hidden_size=3"),
        (lambda: nn.RNN(2, 3, nonlinearity="sin"), "unknown nonlinearity 'sin'"),
        (lambda: nn.GRU(2, 0), "expected hidden_size to be a whole number of at least 1, got 0"),
        (lambda: nn.RNNCell(2, 3, nonlinearity="gelu"), "unknown nonlinearity 'gelu'"),
        (lambda: nn.GRU(2, 3, 2, dropout=1.5), "expected dropout from 0 to 1, got 1.5"),
        (lambda: nn.recurrent.RNNBase("GRUU", 2, 3), "unknown mode 'GRUU'; did you mean 'GRU'"),
    ],
)
def test_settings_that_cannot_act_are_refused(make: Any, message: str) -> None:
    """Oracle: the errors in the docstrings."""
    with pytest.raises(SettingError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "state", "message"),
    [
        ((5, 2, 4), None, r"expected an input of shape \(T, N, 3\)"),
        ((3,), None, r"expected an input of shape"),
        ((0, 2, 3), None, "a sequence has at least one step"),
        ((5, 2, 3), [(1, 2, 4)], r"expected a state \(h, c\), got 1 tensors"),
        ((5, 2, 3), [(1, 3, 4), (1, 2, 4)], r"expected a state of shape \(1, 2, 4\), got \(1, 3, 4\)"),
    ],
)
def test_what_does_not_fit_is_named(
    shape: tuple[int, ...], state: list[tuple[int, ...]] | None, message: str
) -> None:
    """Oracle: the errors in the docstrings."""
    hx = None if state is None else tuple(mp.tensor(np.zeros(s, np.float32)) for s in state)
    with pytest.raises(ShapeError, match=message):
        nn.LSTM(3, 4)(mp.tensor(np.zeros(shape, np.float32)), hx)


def test_cells_check_their_inputs() -> None:
    """Oracle: the errors in the docstrings."""
    cell = nn.GRUCell(3, 4)
    with pytest.raises(ShapeError, match=r"expected an input of shape \(N, 3\)"):
        cell(mp.tensor(np.zeros((2, 2, 3), np.float32)))
    with pytest.raises(ShapeError, match=r"expected a state of shape \(2, 4\), got \(2, 3\)"):
        cell(mp.tensor(np.zeros((2, 3), np.float32)), mp.tensor(np.zeros((2, 3), np.float32)))
