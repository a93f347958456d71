"""Every module beside torch 2.13.0's (CPU): its looks, its state, its values and where it starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from tests.arrays import host
from tests.nn.rows import ROWS, SEED, Row, build, called
from tests.tolerances import assert_close

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = [
    pytest.mark.torch,
    # what torch says of its own kernels; and it guesses Softmax()'s axis as we do
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor is True"),
    pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask and attn_mask"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
    pytest.mark.filterwarnings("ignore:Implicit dimension choice"),
]

each_row = pytest.mark.parametrize("row", ROWS, ids=[row.text for row in ROWS])
each_called = pytest.mark.parametrize(
    "row", [row for row in ROWS if row.inputs], ids=[row.text for row in ROWS if row.inputs]
)


def pair(row: Row, dtype: str = "float32") -> tuple[Any, Any]:
    """Return our module and torch's, with our weights in both, in one format."""
    ours, theirs = build(row.text, nn), build(row.text, torch.nn)
    theirs.load_state_dict({name: torch.tensor(host(leaf)) for name, leaf in ours.state_dict().items()})
    for module in (ours, theirs):
        module.train(row.mode == "train")
    return ours.to(dtype), theirs.to(getattr(torch, dtype))


def total(outputs: list[Any], slopes: list[Any]) -> Any:
    """Return the sum of all outputs, weighted."""
    terms = [(y * slope).sum() for y, slope in zip(outputs, slopes, strict=True)]
    found = terms[0]
    for term in terms[1:]:
        found = found + term
    return found


@each_row
def test_they_are_shown_and_saved_alike(row: Row) -> None:
    """Oracle: torch's repr, state_dict keys, shapes, dtypes, and names of everything."""
    ours, theirs = build(row.text, nn), build(row.text, torch.nn)
    assert repr(ours) == repr(theirs)
    assert [(name, leaf.shape, leaf.dtype.name) for name, leaf in ours.state_dict().items()] == [
        (name, tuple(leaf.shape), str(leaf.dtype).removeprefix("torch."))
        for name, leaf in theirs.state_dict().items()
    ]
    for listing in ("named_parameters", "named_modules", "named_children", "named_buffers"):
        assert [n for n, _ in getattr(ours, listing)()] == [n for n, _ in getattr(theirs, listing)()]


@each_row
def test_state_goes_both_ways(row: Row) -> None:
    """Oracle: bit equality of every leaf after torch loads ours, strictly, and ours loads torch's."""
    ours, theirs = build(row.text, nn), build(row.text, torch.nn)
    saved = {name: np.array(host(leaf)) for name, leaf in ours.state_dict().items()}
    assert repr(theirs.load_state_dict({k: torch.from_numpy(v) for k, v in saved.items()})) == (
        "<All keys matched successfully>"
    )
    for name, leaf in theirs.state_dict().items():
        np.testing.assert_array_equal(leaf.numpy(), saved[name])
    fresh = build(row.text, nn)
    fresh.load_state_dict({name: leaf.numpy() for name, leaf in theirs.state_dict().items()})
    for name, leaf in fresh.state_dict().items():
        np.testing.assert_array_equal(host(leaf), saved[name])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_called
def test_they_compute_alike(row: Row, dtype: str) -> None:
    """Oracle: torch's outputs, gradients of inputs and parameters, and buffers afterwards."""
    ours, theirs = pair(row, dtype)
    x, a_leaves = called(row, ours, mp.tensor, dtype)
    y, b_leaves = called(row, theirs, torch.tensor, dtype)
    narrow = dtype == "float32"
    forward = "parity_op_fp32" if narrow else "fp64_sums"
    backward = "parity_gradient_fp32" if narrow or row.narrow else "fp64_sums"
    for p, q in zip(x, y, strict=True):
        assert p.dtype == dtype
        assert_close(host(p), q.detach().numpy(), forward)
    rng = np.random.default_rng(SEED + 1)
    slopes = [rng.standard_normal(p.shape).astype(dtype) for p in x]
    loss, torch_loss = total(x, [mp.tensor(s) for s in slopes]), total(y, [torch.tensor(s) for s in slopes])
    if torch_loss.requires_grad:
        loss.backward()
        torch_loss.backward()
    leaves = [
        *zip(a_leaves, b_leaves, strict=True),
        *zip(ours.parameters(), theirs.parameters(), strict=True),
    ]
    for p, q in leaves:
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            assert_close(host(p.grad), q.grad.numpy(), backward)
    for (name, p), q in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        assert p.dtype.name == str(q.dtype).removeprefix("torch."), name
        assert_close(host(p), q.numpy(), forward)


@each_called
def test_formats_under_autocast_are_torchs(row: Row) -> None:
    """Oracle: the dtypes of torch's outputs and gradients in a CPU region of bfloat16; near its values."""
    ours, theirs = pair(row)
    with mp.autocast("bfloat16", policy="torch-cpu"):
        x, leaves = called(row, ours, mp.tensor, "float32")
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = called(row, theirs, torch.tensor, "float32")
    assert [p.format.name for p in x] == [str(q.dtype).removeprefix("torch.") for q in y]
    for p, q in zip(x, y, strict=True):
        assert_close(host(p).astype(np.float64), q.detach().double().numpy(), "parity_module_bf16")
    if any(p.requires_grad for p in x):
        total(x, [1.0] * len(x)).backward()
    for leaf in [*leaves, *ours.parameters()]:
        assert leaf.grad is None or leaf.grad.format is mp.float32


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
    """Oracle: torch's loss and its gradient in float32, and how it is shown."""
    scores = rng.standard_normal((6, 4)).astype(np.float32)
    weight = rng.uniform(0.5, 2.0, 4).astype(np.float32)
    target = rng.integers(0, 4, 6) if kind == "labels" else rng.standard_normal((6, 4)).astype(np.float32)
    ours = eval("nn." + text.format(weight="weight"), {"nn": nn, "weight": weight})
    theirs = eval("nn." + text.format(weight="weight"), {"nn": torch.nn, "weight": torch.tensor(weight)})
    a, b = mp.tensor(scores, requires_grad=True), torch.tensor(scores, requires_grad=True)
    x, y = ours(a, target), theirs(b, torch.tensor(target))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert_close(host(x), y.detach().numpy(), "parity_op_fp32")
    x.sum().backward()
    y.sum().backward()
    assert a.grad is not None
    assert_close(host(a.grad), b.grad.numpy(), "parity_gradient_fp32")


def test_gains_are_torchs() -> None:
    """Oracle: torch.nn.init.calculate_gain for every name that it knows."""
    for name in nn.init.GAINS:
        assert nn.init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    for slope in (None, 0, 0.2, 5**0.5):
        assert nn.init.calculate_gain("leaky_relu", slope) == torch.nn.init.calculate_gain(
            "leaky_relu", slope
        )


DRAWN = (
    "Linear(300, 40)", "Conv2d(6, 8, (5, 3), groups=2)", "Conv1d(6, 8, 5)",
    "ConvTranspose2d(6, 8, 5, groups=2)", "Bilinear(30, 20, 10)", "Embedding(40, 30)", "LSTM(30, 40)",
    "GRUCell(30, 40)", "MultiheadAttention(60, 2)", "MultiheadAttention(60, 2, kdim=20)",
    "MultiheadAttention(100, 2, add_bias_kv=True)", "Transformer(16, 2, 1, 1, 32)",
)  # fmt: skip


@pytest.mark.parametrize("text", DRAWN)
def test_layers_begin_as_torchs_do(text: str) -> None:
    """Oracle: torch's own draws: constants are equal, deviations within 5 %, uniform bounds within 3 %."""
    torch.manual_seed(11)
    pairs = [(build(text, nn), build(text, torch.nn)) for _ in range(20 if "Tran" not in text else 5)]
    for name, leaf in pairs[0][0].named_parameters():
        ours = np.stack([host(pair[0].get_parameter(name).detach()) for pair in pairs])
        theirs = np.stack([pair[1].get_parameter(name).detach().numpy() for pair in pairs])
        if theirs.std() == 0:
            np.testing.assert_array_equal(ours, theirs)
            continue
        assert_close(ours.std(), theirs.std(), "parity_spread")
        kurtosis = ((theirs / theirs.std()) ** 4).mean()
        if (
            kurtosis < 2.4 and leaf.size * len(pairs) > 160
        ):  # 1.8 for a uniform distribution, 3 for a normal one
            assert_close(np.abs(ours).max(), np.abs(theirs).max(), "parity_range")
        assert (((ours / ours.std()) ** 4).mean() < 2.4) == (kurtosis < 2.4), name
