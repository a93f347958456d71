"""Bad calls of ops; oracle: the house's rule: an error that names the op, what came, and what next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional, ops
from minimp.errors import DataError, FormatError, GradientError, MinimpError, SettingError, ShapeError


def t(*shape: int, dtype: Any = "float32") -> mp.Tensor:
    """Return ones."""
    return mp.tensor(np.ones(shape), dtype=dtype)


SHAPES: dict[str, tuple[Callable[[], Any], str, list[tuple[int, ...]]]] = {
    "add": (lambda: t(2, 3) + t(4), "add", [(2, 3), (4,)]),
    "matmul": (lambda: t(2, 3) @ t(2, 3), "matmul", [(2, 3), (2, 3)]),
    "matmul_batches": (lambda: t(2, 3, 4) @ t(3, 4, 5), "matmul", [(2, 3, 4), (3, 4, 5)]),
    "matmul_scalar": (lambda: t() @ t(3), "matmul", [(), (3,)]),
    "linear": (lambda: functional.linear(t(2, 3), t(4, 2)), "linear", [(2, 3), (4, 2)]),
    "conv2d_rank": (
        lambda: functional.conv2d(t(3, 5, 5), t(2, 3, 3, 3)),
        "conv2d",
        [(3, 5, 5), (2, 3, 3, 3)],
    ),
    "conv2d_channels": (
        lambda: functional.conv2d(t(1, 3, 5, 5), t(2, 4, 3, 3)),
        "conv2d",
        [(1, 3, 5, 5), (2, 4, 3, 3)],
    ),
    "conv2d_kernel": (
        lambda: functional.conv2d(t(1, 3, 2, 2), t(2, 3, 3, 3)),
        "conv2d",
        [(1, 3, 2, 2), (2, 3, 3, 3)],
    ),
    "max_pool2d": (lambda: functional.max_pool2d(t(1, 1, 2, 2), 3), "max_pool2d", [(1, 1, 2, 2)]),
    "avg_pool2d": (lambda: functional.avg_pool2d(t(2, 2), 2), "avg_pool2d", [(2, 2)]),
    "reshape": (lambda: t(2, 3).reshape(4, 2), "reshape", [(2, 3)]),
    "permute": (lambda: t(2, 3).permute(0, 0), "permute", [(2, 3)]),
    "expand": (lambda: t(2, 3).expand(4, 5), "expand", [(2, 3)]),
    "cat": (lambda: functional.cat([t(2, 3), t(3, 2)]), "cat", [(2, 3), (3, 2)]),
    "getitem": (lambda: t(2, 3)[5], "getitem", [(2, 3)]),
    "sum": (lambda: t(2, 3).sum(2), "sum", [(2, 3)]),
    "mean": (lambda: t(2, 3).mean((0, 0)), "mean", [(2, 3)]),
    "softmax": (lambda: functional.softmax(t(2, 3), 2), "softmax", [(2, 3)]),
    "log_softmax": (lambda: functional.log_softmax(t(2, 3), -3), "log_softmax", [(2, 3)]),
    "amax": (lambda: t(0, 3).amax(), "amax", [(0, 3)]),
    "argmax": (lambda: t(0, 3).argmax(), "argmax", [(0, 3)]),
    "mse_loss": (lambda: functional.mse_loss(t(2, 3), t(3)), "mse_loss", [(2, 3), (3,)]),
    "nll_loss": (
        lambda: functional.cross_entropy(t(2, 3), np.zeros((2, 3), np.int64)),
        "nll_loss",
        [(2, 3), (2, 3)],
    ),
}


@pytest.mark.parametrize("name", list(SHAPES))
def test_shape_errors_name_the_op_and_the_shapes(name: str) -> None:
    """Oracle: the op and the shapes of the call."""
    call, op, shapes = SHAPES[name]
    with pytest.raises(ShapeError) as caught:
        call()
    assert caught.value.op == op
    assert isinstance(caught.value, ValueError)
    assert [tuple(shape) for shape in caught.value.shapes] == shapes
    assert str(caught.value).startswith(f"{op}: ")


@pytest.mark.parametrize(
    ("a", "b"), [("float16", "float32"), ("float16", "bfloat16"), ("float32", "float64")]
)
@pytest.mark.parametrize("name", ["matmul", "linear", "conv2d"])
def test_products_refuse_mixed_formats(name: str, a: str, b: str) -> None:
    """Oracle: torch refuses them too; the message names both formats and the two ways out."""
    shape = (2, 2) if name != "conv2d" else (2, 2, 2, 2)
    call = {"matmul": ops.matmul, "linear": functional.linear, "conv2d": functional.conv2d}[name]
    with pytest.raises(FormatError, match=f"{name}: expected inputs of one format") as caught:
        call(t(*shape, dtype=a), t(*shape, dtype=b))
    assert set(caught.value.formats) == {a, b}
    assert caught.value.help == "cast one with .to(...), or run inside mp.autocast()"
    with mp.autocast(a if a != "float32" else "float16"):
        if "float64" not in (a, b):
            call(t(*shape, dtype=a), t(*shape, dtype=b))


OTHERS: dict[str, tuple[Callable[[], Any], type[MinimpError], str]] = {
    "label_too_large": (
        lambda: functional.cross_entropy(t(2, 3), np.array([0, 3])),
        DataError,
        r"labels from 0 to 2, got 3 in row 1\n  help: .*leave a label out with ignore_index",
    ),
    "float_labels": (
        lambda: functional.cross_entropy(t(2, 3), t(2)),
        DataError,
        "integer labels",
    ),
    "gelu": (
        lambda: functional.gelu(t(2), approximate="tan"),
        SettingError,
        "unknown approximation 'tan'; did you mean 'tanh'",
    ),
    "reduction": (
        lambda: functional.mse_loss(t(2), t(2), reduction="avg"),
        SettingError,
        r"mse_loss: unknown reduction 'avg'.*mean, sum, none",
    ),
    "dropout": (lambda: functional.dropout(t(2), 1.5), SettingError, "probability from 0 to 1, got 1.5"),
    "smoothing": (
        lambda: functional.cross_entropy(t(2, 3), [0, 1], label_smoothing=2.0),
        SettingError,
        "label_smoothing from 0 to 1",
    ),
    "cat": (lambda: functional.cat([]), SettingError, "at least one tensor"),
    "stride": (
        lambda: functional.conv2d(t(1, 1, 3, 3), t(1, 1, 3, 3), stride=0),
        SettingError,
        "stride: .*got 0",
    ),
    "same": (
        lambda: functional.conv2d(t(1, 1, 3, 3), t(1, 1, 2, 2), None, 2, "same"),
        SettingError,
        "'same' cannot act",
    ),
    "accumulate": (
        lambda: mp.accumulate("floot16"),
        SettingError,
        "unknown accumulation 'floot16'; did you mean",
    ),
    "conv_accumulate": (
        lambda: mp.accumulate("tensorcore:volta")(functional.conv2d)(t(1, 1, 3, 3), t(1, 1, 3, 3)),
        SettingError,
        r"tensorcore:volta: multiplies float16, got float32",
    ),
    "format": (lambda: t(2).to("float8_e5m2"), FormatError, "has no tensors of float8_e5m2"),
    "unknown_format": (lambda: t(2).to("fp61"), MinimpError, "fp61"),
    "ragged": (lambda: mp.tensor([[1.0], [1.0, 2.0]]), DataError, "not an array of numbers"),
    "text": (lambda: mp.tensor(["a"]), DataError, "not an array of numbers"),
    "integer_gradient": (lambda: mp.tensor([1], requires_grad=True), GradientError, "floating"),
    "item": (lambda: t(2).item(), ShapeError, "exactly one element"),
    "len": (lambda: len(t()), ShapeError, "no axes has no length"),
}


@pytest.mark.parametrize("name", list(OTHERS))
def test_other_errors_say_what_was_expected(name: str) -> None:
    """Oracle: type and words of each message."""
    call, kind, words = OTHERS[name]
    with pytest.raises(kind, match=words):
        call()


def test_errors_inside_ops_leave_no_trace() -> None:
    """Oracle: NumPy's error state and the modes in force are what they were (the suite watches them)."""
    before = np.geterr()
    for _ in range(3):
        with pytest.raises(ShapeError):
            ops.matmul(t(2, 3), t(2, 3))
    assert np.geterr() == before


def test_warnings_are_off_inside_ops_only() -> None:
    """Oracle: overflow in an op is silent, overflow in NumPy beside it warns (an error in this suite)."""
    assert float((t(1, dtype="float16") * 65504 * 2).numpy()[0]) == np.inf
    with pytest.raises(RuntimeWarning, match="overflow"):
        np.float16(65504) * np.float16(2)
