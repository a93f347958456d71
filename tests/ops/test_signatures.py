"""Names, order and defaults of arguments beside torch 2.13.0's, of every function and every method.

Oracle: torch's own signatures: those of its Python functions, and the schemas of its operators.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional
from minimp.tensors import Tensor

pytestmark = pytest.mark.torch
Parameters = list[tuple[str, Any]]
REQUIRED = inspect.Parameter.empty

NOT_OFFERED = {
    "inplace": "arrays are never changed in place",
    "out": "arrays are never changed in place",
    "size_average": "deprecated in torch for `reduction`",
    "reduce": "deprecated in torch for `reduction`",
    "_stacklevel": "of torch's warnings",
    "implicit": "of torch's compiler",
    "memory_format": "tensors have one memory format",
    "sparse_grad": "there are no sparse tensors",
    "output_size": "saves torch a synchronisation with the GPU",
}
"""Arguments of torch that no function here has."""
MERGED = {"sum", "mean", "prod", "squeeze"}
"""Where torch has one overload with `dim` and one without, and here `dim` is None unless given."""
EXCEPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "einsum": (("equation", "operands"), "torch's takes anything; the names are its documentation's"),
    "interpolate": (
        ("input", "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor"),
        "antialias is not offered",
    ),
    "avg_pool2d": (
        ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
        "divisor_override is not offered",
    ),
    "one_hot": (("tensor", "num_classes"), "the name in torch's documentation; its binding says input"),
    "vector_norm": (("x", "ord", "dim", "keepdim", "dtype"), "torch.linalg's name; its binding takes both"),
    **dict.fromkeys(
        ("var", "std", "var_mean", "std_mean"),
        (
            ("input", "dim", "unbiased", "keepdim", "correction"),
            "torch's two overloads in one: unbiased=False, or correction=",
        ),
    ),
    **dict.fromkeys(
        ("sort", "argsort"),
        (("input", "dim", "descending", "stable"), "sorting is always stable, so True unless said"),
    ),
    **dict.fromkeys(
        ("softmax", "log_softmax", "softmin"),
        (("input", "dim", "dtype"), "without dim torch guesses the axis, and warns; here it is the last"),
    ),
    **dict.fromkeys(
        ("Tensor.max", "Tensor.min"),
        (("input", "dim", "keepdim"), "a tensor may stand in the place of dim, as in torch's overload"),
    ),
    **dict.fromkeys(
        ("Tensor.add", "Tensor.sub"),
        (("input", "other"), "alpha is not offered: write x + alpha * y, which rounds twice"),
    ),
    "Tensor.where": (("input", "condition", "other"), "torch's method: x.where(condition, other)"),
    "Tensor.to": (("input", "target", "dtype"), "a format or a backend, where torch has devices too"),
    "Tensor.backward": (
        ("input", "grad", "retain_graph", "create_graph"),
        "torch's `gradient`; `inputs` are what mp.grad takes",
    ),
}  # fmt: skip
"""Name -> our arguments, and why they are not torch's. "Tensor.x" is a method only."""
ALIASES = {"logsigmoid": "log_sigmoid", "vector_norm": "linalg_vector_norm"}
NO_ARGUMENTS = {"numpy", "tolist", "half", "bfloat16", "float", "double"}
"""Methods that are no operators in torch, and take no arguments there that matter here."""


def _plain(default: Any) -> Any:
    """Return a default as it is written: torch's schemas have [1, 1] for 1, and [] for None."""
    if isinstance(default, list):
        return None if not default else default[0] if len(set(default)) == 1 else default
    return 0 if default == "valid" else default


def _parameters(function: Callable[..., Any]) -> Parameters:
    given = inspect.signature(function).parameters.values()
    return [(p.name, "*" if p.kind is p.VAR_POSITIONAL else p.default) for p in given]


def _schemas(name: str) -> list[Parameters]:
    import torch

    found = torch._C._jit_get_schemas_for_operator(f"aten::{ALIASES.get(name, name)}")
    found = found or torch._C._jit_get_schemas_for_operator(f"aten::linalg_{name}")
    return [
        [
            ("input" if a.name == "self" else a.name, a.default_value if a.has_default_value() else REQUIRED)
            for a in schema.arguments
        ]
        for schema in found
    ]


def _theirs(name: str, method: bool, ours: set[str]) -> list[Parameters]:
    """Return the signatures that torch has under that name, without what is not offered."""
    import torch

    homes = [torch.Tensor] if method else [torch.nn.functional, torch]
    found: list[Parameters] = []
    for home in homes:
        for full in (f"{name}_with_indices", name):
            try:
                found = found or [_parameters(getattr(home, full))]
            except (AttributeError, ValueError, TypeError):  # not there, or written in C
                continue
    if not found or found[0][0][0] == "args":
        found = _schemas(name)
    left_out = set(NOT_OFFERED) - ours
    return [
        [
            ("input" if method and not i else each, _plain(default))
            for i, (each, default) in enumerate(one)
            if each not in left_out
        ]
        for one in found
    ]


def _alike(ours: Parameters, theirs: Parameters, merged: bool) -> bool:
    if len(ours) != len(theirs):
        return False
    for (name, default), (other, theirs_default) in zip(ours, theirs, strict=True):
        if default == "*":  # x.view(2, 3) or x.view((2, 3)); no name can be used
            continue
        optional = merged and name == "dim" and default is None and theirs_default is REQUIRED
        if name != other or not (optional or default is theirs_default or default == theirs_default):
            return False
    return True


METHODS = sorted(
    name for name in dir(Tensor)
    if not name.startswith("_") and not name.endswith("_") and name not in ("lift", "make")
    and inspect.isfunction(getattr(Tensor, name))
)  # fmt: skip
CASES = [(name, False) for name in functional.__all__] + [(name, True) for name in METHODS]


@pytest.mark.parametrize(("name", "method"), CASES, ids=[f"Tensor.{n}" if m else n for n, m in CASES])
def test_arguments_are_torchs(name: str, method: bool) -> None:
    """Oracle: one of torch's signatures of that name, or the row of EXCEPTIONS, which must be needed."""
    ours = _parameters(getattr(Tensor if method else functional, name))
    if method:
        ours = [("input", REQUIRED), *ours[1:]]
    theirs = _theirs(name, method, {each for each, _ in ours})
    fits = any(_alike(ours, each, name in MERGED) for each in theirs)
    row = EXCEPTIONS.get(f"Tensor.{name}") if method else None
    row = row or EXCEPTIONS.get(name)
    if method and name in NO_ARGUMENTS:
        assert not theirs
        assert len(ours) == 1
    elif row is None:
        assert fits, f"{name}{ours} is none of {theirs}"
    else:
        assert tuple(each for each, _ in ours) == row[0], row[1]
        assert not fits or name in functional.__all__, f"the exception of {name} is not needed"


@pytest.mark.parametrize("fmt", ["int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("wanted", ["bfloat16", "float32"])
def test_a_mean_in_another_format_is_of_the_cast_elements(fmt: str, wanted: str) -> None:
    """Oracle: torch.Tensor.mean(dtype=...), the result and its format."""
    torch = pytest.importorskip("torch")
    values = np.arange(12).reshape(3, 4) * 3
    got = mp.tensor(values, dtype=fmt).mean(1, dtype=wanted)
    other = torch.tensor(values).to(getattr(torch, fmt)).mean(1, dtype=getattr(torch, wanted))
    np.testing.assert_array_equal(got.numpy().astype(np.float64), other.double().numpy())
    assert got.dtype.name == str(other.dtype).removeprefix("torch.")
