"""Torch's modules and tensors in, state out; oracle: torch 2.13.0's own outputs, bits and keys."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.errors import FormatError, SettingError
from minimp.interop import from_torch, to_torch_state
from tests.nn.rows import ROWS, Row, build, called
from tests.tolerances import assert_close

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = [
    pytest.mark.torch,
    # what torch says of its own kernels
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor is True"),
    pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask and attn_mask"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]


def made(row: Row) -> Any:
    """Return torch's module of a row, with buffers and parameters that are not the first ones."""
    torch.manual_seed(5)
    module = build(row.text, torch.nn).train(row.mode == "train")
    for leaf in [*module.parameters(), *module.buffers()]:
        if leaf.dtype.is_floating_point:
            leaf.data = torch.rand_like(leaf) * 0.5 + 0.25
    return module


def bits(leaf: Any) -> bytes:
    """Return the bytes of a tensor of torch's."""
    return bytes(leaf.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("row", ROWS, ids=[row.text for row in ROWS])
def test_a_converted_module_is_shown_and_computes_alike(row: Row, dtype: str) -> None:
    """Oracle: torch's repr, training flags, what requires a gradient, and outputs."""
    theirs = made(row).to(getattr(torch, dtype))
    for leaf in list(theirs.parameters())[1::2]:
        leaf.requires_grad_(False)
    ours = from_torch(theirs)
    assert repr(ours) == repr(theirs)
    assert [(name, m.training) for name, m in ours.named_modules()] == [
        (name, m.training) for name, m in theirs.named_modules()
    ]
    assert [(name, p.requires_grad) for name, p in ours.named_parameters()] == [
        (name, p.requires_grad) for name, p in theirs.named_parameters()
    ]
    if not row.inputs:
        return
    x, _ = called(row, ours, mp.tensor, dtype)
    y, _ = called(row, theirs, torch.tensor, dtype)
    for p, q in zip(x, y, strict=True):
        assert_close(
            np.asarray(p), q.detach().numpy(), "parity_op_fp32" if dtype == "float32" else "fp64_sums"
        )
    for p, q in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert_close(
            np.asarray(p), q.detach().numpy(), "parity_op_fp32" if dtype == "float32" else "fp64_sums"
        )


IN_16_BITS = [row for row in ROWS if row.inputs and "LocalResponseNorm(2)" not in row.text]
"""Every row but one, for which torch has no kernel."""


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float16", "parity_module_fp16"), ("bfloat16", "parity_module_bf16")]
)
@pytest.mark.parametrize("row", IN_16_BITS, ids=[row.text for row in IN_16_BITS])
def test_a_module_of_16_bits_computes_alike(row: Row, dtype: str, tolerance: str) -> None:
    """Oracle: torch's outputs and dtypes with weights and inputs in that format."""
    theirs = made(row).to(getattr(torch, dtype))
    ours = from_torch(theirs)

    def give(x: Any, requires_grad: bool = False) -> Any:
        return mp.tensor(x, dtype=dtype) if x.dtype.kind == "f" else mp.tensor(x)

    def give_torch(x: Any, requires_grad: bool = False) -> Any:
        return torch.tensor(x).to(getattr(torch, dtype)) if x.dtype.kind == "f" else torch.tensor(x)

    x, _ = called(row, ours, give, "float32")
    y, _ = called(row, theirs, give_torch, "float32")
    for p, q in zip(x, y, strict=True):
        assert p.format.name == str(q.dtype).removeprefix("torch.") == dtype
        assert_close(np.asarray(p).astype(np.float64), q.detach().double().numpy(), tolerance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("row", ROWS, ids=[row.text for row in ROWS])
def test_state_there_and_back_is_the_same_to_the_bit(row: Row, dtype: str) -> None:
    """Oracle: torch loads strictly what to_torch_state gives, and every bit and dtype is as it was."""
    theirs = made(row).to(getattr(torch, dtype))
    state = to_torch_state(from_torch(theirs))
    fresh = build(row.text, torch.nn).to(getattr(torch, dtype))
    assert repr(fresh.load_state_dict(state)) == "<All keys matched successfully>"
    assert list(state) == list(theirs.state_dict())
    for name, leaf in theirs.state_dict().items():
        assert state[name].dtype == leaf.dtype
        assert bits(state[name]) == bits(leaf)


def test_what_is_tied_stays_tied() -> None:
    """Oracle: identity of parameters and modules, as in the source."""
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3), torch.nn.ReLU())
    theirs[1].weight = theirs[0].weight
    theirs.append(theirs[0])
    ours = from_torch(theirs)
    assert ours[1].weight is ours[0].weight
    assert ours[3] is ours[0]
    assert nn.count_parameters(ours) == sum(p.numel() for p in theirs.parameters())
    x = np.ones((2, 3), np.float32)
    assert_close(np.asarray(ours(mp.tensor(x))), theirs(torch.tensor(x)).detach().numpy(), "parity_op_fp32")


def test_formats_may_differ_within_a_module_and_nothing_is_shared() -> None:
    """Oracle: torch's dtypes, leaf by leaf; the source after the converted one was changed."""
    theirs = torch.nn.Sequential(torch.nn.Linear(2, 2).half(), torch.nn.Linear(2, 2).double())
    before = bits(theirs[0].weight)
    ours = from_torch(theirs)
    assert [p.format.name for p in ours.parameters()] == ["float16"] * 2 + ["float64"] * 2
    ours[0].weight.detach().numpy()[...] = 0.0
    assert bits(theirs[0].weight) == before


def test_settings_of_parts_are_kept() -> None:
    """Oracle: what was changed in torch's parts by hand; its outputs."""
    layer = torch.nn.TransformerEncoderLayer(4, 2, 8, 0.0, activation=torch.nn.SiLU())
    theirs = torch.nn.TransformerEncoder(layer, 2, torch.nn.LayerNorm(4, eps=0.1), False)
    theirs.layers[1].norm1.eps = 0.5
    theirs.layers[0].dropout1.p = 0.25
    theirs.eval()
    ours = from_torch(theirs)
    assert repr(ours) == repr(theirs)
    x = np.random.default_rng(0).standard_normal((5, 2, 4)).astype(np.float32)
    with torch.enable_grad():
        expected = theirs(torch.tensor(x)).detach().numpy()
    assert_close(np.asarray(ours(mp.tensor(x))), expected, "parity_op_fp32")


LOSSES = (
    ("CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]), ignore_index=1, label_smoothing=0.1)", "labels"),
    ("NLLLoss(reduction='sum')", "labels"),
    ("MSELoss()", "values"),
    ("HuberLoss(delta=0.5)", "values"),
    ("SmoothL1Loss(beta=0.3)", "values"),
    ("BCEWithLogitsLoss(pos_weight=torch.tensor([2.0, 1.0, 3.0]))", "values"),
    ("KLDivLoss(reduction='batchmean', log_target=True)", "values"),
)


@pytest.mark.parametrize(("text", "kind"), LOSSES, ids=[text for text, _ in LOSSES])
def test_losses_keep_their_settings(text: str, kind: str, rng: np.random.Generator) -> None:
    """Oracle: torch's loss."""
    theirs = eval("torch.nn." + text, {"torch": torch})
    ours = from_torch(theirs)
    x = rng.standard_normal((5, 3)).astype(np.float32)
    target = rng.integers(0, 3, 5) if kind == "labels" else rng.random((5, 3)).astype(np.float32)
    expected = theirs(torch.tensor(x), torch.tensor(target)).numpy()
    assert_close(np.asarray(ours(mp.tensor(x), mp.tensor(target))), expected, "parity_op_fp32")
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("name", [name for name in nn.__all__ if name.endswith("Loss")])
def test_every_loss_has_a_counterpart(name: str) -> None:
    """Oracle: torch's defaults, attribute by attribute."""
    theirs = getattr(torch.nn, name)()
    ours = from_torch(theirs)
    for attribute, value in vars(theirs).items():
        if not attribute.startswith("_"):
            assert getattr(ours, attribute) == value, attribute


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64", "bool", "uint8"])
def test_tensors_are_copied_to_the_bit(dtype: str) -> None:
    """Oracle: the bytes; a leaf stays a leaf that wants its gradient."""
    theirs = (torch.randn(3, 4) * 3).to(getattr(torch, dtype))
    if theirs.dtype.is_floating_point:
        theirs[0, 0] = float("inf")
        theirs.requires_grad_()
    ours = from_torch(theirs)
    assert ours.dtype.name == dtype
    assert ours.requires_grad is theirs.requires_grad
    assert np.asarray(ours).tobytes() == bits(theirs)
    assert not from_torch(theirs * 2 if dtype != "bool" else theirs).requires_grad


def custom() -> Any:
    """Return a module written by hand, below containers."""

    class Block(torch.nn.Linear):  # type: ignore[misc,name-defined]  # torch has no types here
        """A forward of its own."""

    return torch.nn.Sequential(torch.nn.ReLU(), torch.nn.ModuleDict({"inner": Block(2, 2)}))


def hooked() -> Any:
    """Return a module with a hook."""
    module = torch.nn.Sequential(torch.nn.ReLU())
    module[0].register_forward_hook(lambda *args: None)
    return module


def extended() -> Any:
    """Return a module with one buffer more."""
    module = torch.nn.Linear(2, 2)
    module.register_buffer("mask", torch.ones(2))
    return module


REFUSED: tuple[tuple[Callable[[], Any], type[Exception], str], ...] = (
    (custom, SettingError, r"no counterpart of Block, a subclass of torch.nn.Linear, at '1.inner'"),
    (hooked, SettingError, r"at '0', a torch.nn.ReLU, has hooks"),
    (extended, SettingError, r"the two modules do not have the same members: mask"),
    (lambda: torch.nn.Conv3d(1, 1, 1), SettingError, r"no counterpart of Conv3d, the module itself"),
    (lambda: torch.nn.Embedding(3, 2, max_norm=1.0), SettingError, r"max_norm=1.0 is not offered"),
    (lambda: torch.ones(2, dtype=torch.complex64), FormatError, r"complex64"),
    (lambda: [1.0], SettingError, r"expected a torch tensor or module, got list"),
)


@pytest.mark.parametrize(("make", "error", "message"), REFUSED, ids=[message for *_, message in REFUSED])
def test_what_has_no_counterpart_is_named(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    """Oracle: the errors in the docstring, the path in them."""
    with pytest.raises(error, match=message):
        from_torch(make())


def test_a_setting_that_is_not_offered_says_where() -> None:
    """Oracle: the note with the path."""
    with pytest.raises(SettingError, match="divisor_override") as caught:
        from_torch(torch.nn.Sequential(torch.nn.AvgPool2d(2, divisor_override=3)))
    assert caught.value.__notes__ == ["while converting at '0', a torch.nn.AvgPool2d"]


def test_inplace_becomes_plain() -> None:
    """Oracle: the docstring: the same values, no change in place."""
    ours = from_torch(torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Hardtanh(inplace=True)))
    x = mp.tensor([-1.0, 3.0])
    assert ours(x).tolist() == [0.0, 1.0]
    assert x.tolist() == [-1.0, 3.0]


def test_torch_is_not_imported_before_it_is_used() -> None:
    """Oracle: sys.modules of a fresh process."""
    code = "import sys, minimp.interop; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
