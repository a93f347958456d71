"""Modules beside torch 2.13.0's (CPU): how they are shown, what they save, what they compute."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from tests.tolerances import assert_close

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch

MODULES = (
    "Linear(5, 3)",
    "Linear(5, 3, bias=False)",
    "Conv2d(2, 4, 3)",
    "Conv2d(2, 4, (3, 2), stride=2, padding=(1, 0), dilation=(2, 1), groups=2, bias=False)",
    "Conv2d(2, 4, 3, padding='same')",
    "Conv2d(2, 4, 3, 2, padding='valid')",
    "MaxPool2d(2)",
    "MaxPool2d((3, 2), stride=(1, 2), padding=1, dilation=1, ceil_mode=True)",
    "AvgPool2d(2)",
    "AvgPool2d((2, 3), stride=1, padding=1, ceil_mode=True, count_include_pad=False)",
    "ReLU()", "Tanh()", "Sigmoid()", "GELU()", "GELU('tanh')", "Softmax(dim=1)", "LogSoftmax(dim=-1)",
    "Dropout()", "Dropout(0.1)", "Flatten()", "Flatten(0, 1)", "Identity()", "Sequential()",
    "LayerNorm(4)", "LayerNorm((2, 3), eps=1e-3, bias=False)", "LayerNorm(4, elementwise_affine=False)",
    "RMSNorm(4)", "RMSNorm((2, 3), eps=1e-6)", "RMSNorm(4, elementwise_affine=False)",
    "CrossEntropyLoss()", "NLLLoss()", "MSELoss(reduction='sum')", "ModuleList()", "ModuleDict()",
    "Sequential(Conv2d(1, 2, 3), ReLU(), Sequential(Flatten(), Linear(8, 2)), Dropout(0.2))",
    "Sequential(OrderedDict(first=Linear(2, 2), then=Tanh()))",
    "ModuleList([Linear(2, 2), Linear(2, 2), ReLU(), Linear(2, 2), Sequential(ReLU()), Sequential(ReLU())])",
    "ModuleDict({'a': Linear(1, 2), 'b': ModuleList([ReLU()])})",
)  # fmt: skip


def build(text: str) -> tuple[Any, Any]:
    """Return the module that `text` makes with our names, and with torch's."""
    pair = [
        eval(
            text,
            {"OrderedDict": OrderedDict},
            {n: getattr(space, n) for n in nn.__all__ if hasattr(space, n)},
        )
        for space in (nn, torch.nn)
    ]
    return pair[0], pair[1]


@pytest.mark.parametrize("text", MODULES)
def test_they_are_shown_and_saved_alike(text: str) -> None:
    """Oracle: torch's repr, state_dict keys, shapes and parameter names."""
    ours, theirs = build(text)
    assert repr(ours) == repr(theirs)
    assert [(name, leaf.shape) for name, leaf in ours.state_dict().items()] == [
        (name, tuple(leaf.shape)) for name, leaf in theirs.state_dict().items()
    ]
    for listing in ("named_parameters", "named_modules", "named_children", "named_buffers"):
        assert [n for n, _ in getattr(ours, listing)()] == [n for n, _ in getattr(theirs, listing)()]


COMPUTED = (
    ("Linear(6, 3)", (4, 6)),
    ("Linear(6, 3, bias=False)", (2, 4, 6)),
    ("Conv2d(2, 4, 3)", (2, 2, 7, 6)),
    ("Conv2d(2, 4, (3, 2), stride=2, padding=(1, 0), dilation=(2, 1), groups=2, bias=False)", (2, 2, 7, 6)),
    ("Conv2d(2, 4, 3, padding='same')", (2, 2, 7, 6)),
    ("MaxPool2d((3, 2), stride=(1, 2), padding=1, ceil_mode=True)", (2, 2, 7, 6)),
    ("AvgPool2d((2, 3), stride=2, padding=1, ceil_mode=True, count_include_pad=False)", (2, 2, 7, 6)),
    ("GELU()", (5, 7)), ("GELU('tanh')", (5, 7)), ("Softmax(dim=1)", (5, 7)), ("LogSoftmax(dim=0)", (5, 7)),
    ("Softmax()", (5, 7)), ("Tanh()", (5, 7)), ("Sigmoid()", (5, 7)), ("ReLU()", (5, 7)),
    ("Sequential(Conv2d(1, 2, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(8, 3))", (3, 1, 7, 6)),
)  # fmt: skip


@pytest.mark.parametrize(("text", "shape"), COMPUTED, ids=[text for text, _ in COMPUTED])
@pytest.mark.filterwarnings(
    "ignore:Implicit dimension choice"
)  # torch guesses Softmax()'s axis: ours is equal
def test_they_compute_alike(text: str, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    """Oracle: torch's outputs and gradients in float32, from the same weights and inputs."""
    ours, theirs = build(text)
    theirs.load_state_dict({name: torch.tensor(np.asarray(leaf)) for name, leaf in ours.state_dict().items()})
    x = rng.standard_normal(shape).astype(np.float32)
    a, b = mp.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    assert_close(np.asarray(y), z.detach().numpy(), "parity_op_fp32")
    slope = rng.standard_normal(y.shape).astype(np.float32)
    y.backward(slope)
    z.backward(torch.tensor(slope))
    assert a.grad is not None
    assert_close(np.asarray(a.grad), b.grad.numpy(), "parity_gradient_fp32")
    for (name, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert p.grad is not None, name
        assert_close(np.asarray(p.grad), q.grad.numpy(), "parity_gradient_fp32")


LOSSES = (
    ("CrossEntropyLoss({weight}, ignore_index=1, label_smoothing=0.1)", "labels"),
    ("CrossEntropyLoss(reduction='none')", "labels"),
    ("CrossEntropyLoss({weight}, reduction='sum')", "labels"),
    ("NLLLoss({weight}, ignore_index=2)", "labels"),
    ("MSELoss()", "values"),
    ("MSELoss(reduction='none')", "values"),
)


@pytest.mark.parametrize(("text", "kind"), LOSSES, ids=[text for text, _ in LOSSES])
def test_losses_are_alike(text: str, kind: str, rng: np.random.Generator) -> None:
    """Oracle: torch's loss and its gradient in float32."""
    scores = rng.standard_normal((6, 4)).astype(np.float32)
    weight = rng.uniform(0.5, 2.0, 4).astype(np.float32)
    target = rng.integers(0, 4, 6) if kind == "labels" else rng.standard_normal((6, 4)).astype(np.float32)
    ours = eval("nn." + text.format(weight="weight"), {"nn": nn, "weight": weight})
    theirs = eval("nn." + text.format(weight="weight"), {"nn": torch.nn, "weight": torch.tensor(weight)})
    a, b = mp.tensor(scores, requires_grad=True), torch.tensor(scores, requires_grad=True)
    x, y = ours(a, target), theirs(b, torch.tensor(target))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert_close(np.asarray(x), y.detach().numpy(), "parity_op_fp32")
    x.sum().backward()
    y.sum().backward()
    assert a.grad is not None
    assert_close(np.asarray(a.grad), b.grad.numpy(), "parity_gradient_fp32")


def test_gains_are_torchs() -> None:
    """Oracle: torch.nn.init.calculate_gain for every name that it knows."""
    for name in nn.init.GAINS:
        assert nn.init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    for slope in (None, 0, 0.2, 5**0.5):
        assert nn.init.calculate_gain("leaky_relu", slope) == torch.nn.init.calculate_gain(
            "leaky_relu", slope
        )


@pytest.mark.parametrize("text", ["Linear(300, 40)", "Conv2d(6, 8, (5, 3), groups=2)"])
def test_layers_begin_in_torchs_range(text: str) -> None:
    """Oracle: the largest magnitudes that torch draws, many times over."""
    torch.manual_seed(11)
    pairs = [build(text) for _ in range(20)]
    for name in ("weight", "bias"):
        ours, theirs = ([np.asarray(getattr(pair[side], name).detach()) for pair in pairs] for side in (0, 1))
        assert_close(np.abs(ours).max(), np.abs(theirs).max(), "parity_range")
