"""The ops of minimp beside PyTorch's, and autocast in both: what the comparison of formats is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

import minimp as mp
from minimp import ops

Shapes = tuple[tuple[int, ...], ...]


class Library:
    """One of the two, with the same names for the same things: functions, methods of tensors, formats."""

    def __init__(self, *modules: Any) -> None:
        self.modules = modules

    def __getattr__(self, name: str) -> Any:
        """Return the first thing of that name."""
        return next(getattr(module, name) for module in self.modules if hasattr(module, name))


class Minimp(Library):
    """minimp."""

    def labels(self, like: Any) -> Any:
        """Return two class indices."""
        return np.arange(like.shape[0])

    def first(self, a: Any) -> Any:
        """Return the first row."""
        return a[0]


class Torch(Library):
    """PyTorch; on fake CUDA tensors, indexing with [] would look for a GPU."""

    def labels(self, like: Any) -> Any:
        """Return two class indices, where the tensor is."""
        return self.arange(like.shape[0], device=like.device)

    def first(self, a: Any) -> Any:
        """Return the first row."""
        return a.select(0, 0)


@dataclass(frozen=True)
class Case:
    """One call, the same in both libraries.

    Attributes:
        op: the name of minimp's op that is meant.
        call: the call, given the library and the tensors.
        shapes: of its floating inputs.
        what: what sets it apart from other calls of the op.
    """

    op: str
    call: Callable[..., Any]
    shapes: Shapes
    what: str = ""

    def __str__(self) -> str:
        """Name it, for the test's id."""
        return f"{self.op}-{self.what}" if self.what else self.op


ONE: Shapes = ((2, 3),)
TWO: Shapes = ((2, 3), (2, 3))
NORMED: Shapes = ((2, 3), (3,), (3,))
IMAGE: Shapes = ((1, 2, 4, 4),)
CASES = (
    Case("matmul", lambda _, a, b: a @ b, ((2, 3), (3, 2))),
    Case("matmul", lambda _, a, b: a @ b, ((2, 2, 3), (3, 2)), "batched"),
    Case("matmul", lambda _, a, b: a @ b, ((3,), (3,)), "vectors"),
    Case("linear", lambda lib, *inputs: lib.linear(*inputs), ((2, 3), (4, 3)), "no-bias"),
    Case("linear", lambda lib, *inputs: lib.linear(*inputs), ((2, 3), (4, 3), (4,))),
    Case("conv2d", lambda lib, *inputs: lib.conv2d(*inputs), ((1, 2, 4, 4), (3, 2, 2, 2), (3,))),
    Case("add", lambda _, a, b: a + b, TWO),
    Case("add", lambda _, a: a + 2.0, ONE, "number"),
    Case("add", lambda _, a, b: a + b, ((2, 3), ()), "no-axes"),
    Case("sub", lambda _, a, b: a - b, TWO),
    Case("mul", lambda _, a, b: a * b, TWO),
    Case("div", lambda _, a, b: a / b, TWO),
    Case("div", lambda _, a: a / 2, ONE, "number"),
    Case("neg", lambda _, a: -a, ONE),
    Case("abs", lambda _, a: abs(a), ONE),
    Case("exp", lambda lib, a: lib.exp(a), ONE),
    Case("log", lambda lib, a: lib.log(a), ONE),
    Case("sqrt", lambda lib, a: lib.sqrt(a), ONE),
    Case("reciprocal", lambda lib, a: lib.reciprocal(a), ONE),
    Case("reciprocal", lambda _, a: 1 / a, ONE, "one-over"),
    Case("pow", lambda _, a: a**2, ONE, "square"),
    Case("pow", lambda _, a: 2.0**a, ONE, "number-to-the"),
    Case("pow", lambda _, a, b: a**b, TWO),
    Case("eq", lambda _, a, b: a == b, TWO),
    Case("ne", lambda _, a, b: a != b, TWO),
    Case("lt", lambda _, a, b: a < b, TWO),
    Case("le", lambda _, a, b: a <= b, TWO),
    Case("gt", lambda _, a, b: a > b, TWO),
    Case("ge", lambda _, a, b: a >= b, TWO),
    Case("isfinite", lambda lib, a: lib.isfinite(a), ONE),
    Case("argmax", lambda _, a: a.argmax(1), ONE),
    Case("relu", lambda lib, a: lib.relu(a), ONE),
    Case("tanh", lambda lib, a: lib.tanh(a), ONE),
    Case("sigmoid", lambda lib, a: lib.sigmoid(a), ONE),
    Case("gelu", lambda lib, a: lib.gelu(a), ONE),
    Case("gelu", lambda lib, a: lib.gelu(a, approximate="tanh"), ONE, "tanh"),
    Case("mse_loss", lambda lib, a, b: lib.mse_loss(a, b), TWO),
    Case("nll_loss", lambda lib, a: lib.nll_loss(a, lib.labels(a)), ONE),
    Case("nll_loss", lambda lib, a: lib.cross_entropy(a, lib.labels(a)), ONE, "cross_entropy"),
    Case("dropout", lambda lib, a: lib.dropout(a, 0.5), ONE),
    Case("max_pool2d", lambda lib, a: lib.max_pool2d(a, 2), IMAGE),
    Case("avg_pool2d", lambda lib, a: lib.avg_pool2d(a, 2), IMAGE),
    Case("sum", lambda _, a: a.sum(), ONE),
    Case("sum", lambda _, a: a.sum(1), ONE, "dim"),
    Case("sum", lambda lib, a: a.sum(dtype=lib.float16), ONE, "dtype"),
    Case("mean", lambda _, a: a.mean(), ONE),
    Case("amax", lambda _, a: a.amax(1), ONE),
    Case("softmax", lambda lib, a: lib.softmax(a, dim=1), ONE),
    Case("softmax", lambda _, a: a.softmax(1), ONE, "method"),
    Case("softmax", lambda lib, a: lib.softmax(a, dim=1, dtype=lib.bfloat16), ONE, "dtype"),
    Case("log_softmax", lambda lib, a: lib.log_softmax(a, dim=1), ONE),
    Case("layer_norm", lambda lib, a: lib.layer_norm(a, (3,)), ONE, "bare"),
    Case("layer_norm", lambda lib, *inputs: lib.layer_norm(inputs[0], (3,), *inputs[1:]), NORMED),
    Case("rms_norm", lambda lib, a: lib.rms_norm(a, (3,)), ONE),
    Case("linalg_vector_norm", lambda _, a: a.norm(), ONE),
    Case("linalg_vector_norm", lambda lib, a: lib.vector_norm(a, 1, 1), ONE, "dim"),
    Case("linalg_vector_norm", lambda lib, a: lib.vector_norm(a, dtype=lib.float64), ONE, "dtype"),
    Case("reshape", lambda _, a: a.reshape(3, 2), ONE),
    Case("permute", lambda _, a: a.permute(1, 0), ONE),
    Case("expand", lambda _, a: a.expand(2, 2, 3), ONE),
    Case("getitem", lambda lib, a: lib.first(a), ONE),
    Case("clone", lambda _, a: a.clone(), ONE),
    Case("cat", lambda lib, a, b: lib.cat([a, b]), TWO),
)

MIXES = {
    "all_f32": ("float32",),
    "all_low": ("low",),
    "f32_then_low": ("float32", "low"),
    "low_then_f32": ("low", "float32"),
    "all_f64": ("float64",),
    "other_low": ("other",),
}
MIXES_THAT_KERNELS_REFUSE = {"f32_then_f64": ("float32", "float64")}
"""Which formats the floating inputs have, in turn; low is the region's, other the other 16-bit one."""


def formats_of(mix: str, count: int, low: str) -> list[str]:
    """Return one format name for each floating input."""
    names = {"low": low, "other": "float16" if low == "bfloat16" else "bfloat16"}
    chosen = (MIXES | MIXES_THAT_KERNELS_REFUSE)[mix]
    return [names.get(name, name) for name in (chosen[i % len(chosen)] for i in range(count))]


def our_format(case: Case, given: list[str], low: str, policy: str) -> str:
    """Return the dtype of the result under minimp's autocast, or the kind of error."""
    inputs = [mp.tensor(np.ones(shape), dtype=name) for shape, name in zip(case.shapes, given, strict=True)]
    try:
        with mp.autocast(low, policy=policy):
            return str(case.call(Minimp(mp.functional, mp, ops), *inputs).dtype.name)
    except TypeError as fault:  # FormatError is one
        return type(fault).__name__


def their_format(case: Case, given: list[str], low: str, device: str) -> str:
    """Return the dtype of the result under torch's autocast, "FormatError" where it refuses the formats."""
    import torch

    inputs = [
        torch.ones(shape, dtype=getattr(torch, name), device=device)
        for shape, name in zip(case.shapes, given, strict=True)
    ]
    try:
        with torch_autocast(device, low):
            result = case.call(Torch(torch.nn.functional, torch, torch.linalg), *inputs)
    except RuntimeError as fault:
        if not re.search("dtype|scalar type|ScalarType|should be the same|Type promoting", str(fault)):
            raise
        return "FormatError"
    return str(result.dtype).removeprefix("torch.")


@contextmanager
def torch_autocast(device: str, low: str) -> Iterator[None]:
    """Switch torch's autocast on: by torch.autocast on the CPU, by hand for fake CUDA tensors.

    torch.autocast("cuda") would warn, and do nothing, where there is no GPU.
    """
    import torch

    dtype = getattr(torch, low)
    if device == "cpu":
        with torch.autocast("cpu", dtype):
            yield
        return
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled(device, before[0])
        torch.set_autocast_dtype(device, before[1])
        torch.clear_autocast_cache()
