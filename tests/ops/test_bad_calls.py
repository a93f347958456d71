"""Every function and method, called with whatever: it answers, or refuses in this package's own words.

Oracle: the house's rule: an error is a MinimpError that names what was called, and NumPy never warns.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional
from minimp.errors import FormatError, MinimpError, SettingError
from minimp.operators.naming import naming_itself
from minimp.tensors import Tensor

CALLS = 40


class Stranger:
    """An object that is nothing known."""


def _tensor(*shape: int, dtype: str = "float32", requires_grad: bool = False) -> Tensor:
    values = np.linspace(-1.5, 2.0, int(np.prod(shape))).reshape(shape)
    return mp.tensor(values, dtype=dtype, requires_grad=requires_grad)


ANYTHING: tuple[Callable[[], Any], ...] = (
    # tensors
    _tensor, lambda: _tensor(2, 3), lambda: _tensor(2, 3, requires_grad=True), lambda: _tensor(0),
    lambda: _tensor(0, 3), lambda: _tensor(2, 3, 4), lambda: _tensor(1, 2, 4, 4), lambda: _tensor(3, 2, 2, 2),
    lambda: _tensor(2, 3, dtype="float16"), lambda: _tensor(5, dtype="bfloat16"),
    lambda: _tensor(3, dtype="float64"), lambda: mp.tensor([0, 1]), lambda: mp.tensor([[0, 5, -9]]),
    lambda: mp.tensor([True, False]), lambda: mp.tensor(np.full((2, 3), np.nan)),
    # arrays and sequences
    lambda: np.ones((2, 3)), lambda: np.arange(3), lambda: np.array(["a"]), lambda: np.array([None], object),
    lambda: [1.0, 2.0], lambda: [[1.0], [2.0, 3.0]], lambda: [_tensor(2, 3), _tensor(2, 3)],
    lambda: [_tensor(2, 3), _tensor(4)], list, tuple, lambda: (1, 2), lambda: (2, -1), lambda: (0, 0),
    lambda: (1, 2, 3),
    # numbers and other things
    lambda: 0, lambda: 1, lambda: 2, lambda: -1, lambda: -7, lambda: 100, lambda: True, lambda: np.int64(1),
    lambda: 0.5, lambda: -2.5, lambda: np.float32(1), lambda: float("nan"), lambda: float("inf"),
    lambda: None, lambda: "mean", lambda: "nonsense", lambda: b"x", dict, lambda: slice(None), lambda: max,
    Stranger,
)  # fmt: skip
SELVES = (
    _tensor, lambda: _tensor(2, 3), lambda: _tensor(2, 3, requires_grad=True), lambda: _tensor(0, 3),
    lambda: _tensor(2, 3, 4), lambda: _tensor(5, dtype="bfloat16"), lambda: mp.tensor([0, 1]),
    lambda: mp.tensor([True, False]), lambda: _tensor(3, 3, dtype="float16"),
)  # fmt: skip


def _arguments(function: Callable[..., Any], draw: random.Random) -> tuple[list[Any], dict[str, Any]]:
    """Return arguments that fit the signature and nothing else."""
    args: list[Any] = []
    options: dict[str, Any] = {}
    for each in inspect.signature(function).parameters.values():
        if each.kind is each.VAR_POSITIONAL:
            args += [draw.choice(ANYTHING)() for _ in range(draw.randint(0, 3))]
        elif each.kind is each.VAR_KEYWORD or (each.default is not each.empty and draw.random() < 0.6):
            continue
        else:
            value = draw.choice(ANYTHING)() if draw.random() < 0.8 else _tensor(2, 3)
            if each.default is each.empty and each.kind is not each.KEYWORD_ONLY:
                args.append(value)
            else:
                options[each.name] = value
    return args, options


def _refusal(call: Callable[[], Any]) -> MinimpError | None:
    try:
        call()
    except MinimpError as refusal:
        return refusal
    return None


def _hold(call: Callable[[], Any]) -> None:
    refusal = _refusal(call)
    assert refusal is None or refusal.op or ":" in str(refusal), f"it names nothing: {refusal}"


@pytest.mark.parametrize("name", functional.__all__)
def test_functions_answer_or_refuse_in_their_own_words(name: str) -> None:
    """Oracle: no error but MinimpError, which names an op, and no warning (an error in this suite)."""
    draw, function = random.Random(name), getattr(functional, name)
    for _ in range(CALLS):
        args, options = _arguments(function, draw)
        _hold(lambda a=args, o=options: function(*a, **o))


METHODS = sorted(
    name
    for group in mp.operators.Operators.__mro__[1:-2]
    for name, method in vars(group).items()
    if inspect.isfunction(method) and not name.startswith("_")
)


@pytest.mark.parametrize("name", METHODS)
def test_methods_answer_or_refuse_in_their_own_words(name: str) -> None:
    """Oracle: as of functions."""
    draw = random.Random(name)
    for _ in range(CALLS):
        method = getattr(draw.choice(SELVES)(), name)
        args, options = _arguments(method, draw)
        _hold(lambda m=method, a=args, o=options: m(*a, **o))


def test_what_nobody_foresaw_names_the_function_the_arguments_and_the_cause() -> None:
    """Oracle: the words of the message; a call that fits no signature stays Python's own to refuse."""
    with pytest.raises(
        SettingError, match=r"^one_hot: cannot be called with \(Tensor \(2,\), num_classes='x'\): "
    ) as caught:
        functional.one_hot(mp.tensor([0, 1]), num_classes="x")
    assert caught.value.op == "one_hot"
    assert isinstance(caught.value.__cause__, TypeError)
    assert "help: (...) -> (..., C)" in str(caught.value)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        functional.relu()


def test_an_error_that_names_nothing_gets_the_functions_name_once() -> None:
    """Oracle: an error raised without `op` and without the name; one that has the name stays as it is."""

    def pool(names: bool) -> None:
        raise SettingError("pool: too small" if names else "stride: too small", help="enlarge it")

    for names, text in ((False, "pool: stride: too small"), (True, "pool: too small")):
        with pytest.raises(SettingError) as caught:
            naming_itself(pool)(names)
        assert str(caught.value) == f"{text}\n  help: enlarge it"


@pytest.mark.torch
@pytest.mark.parametrize("fmt", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("number", [0.1, 1e6, -1e300, 10**30, float("inf")])
def test_numbers_beside_tensors_are_rounded_without_a_warning(fmt: str, number: float) -> None:
    """Oracle: torch.clamp, which rounds its bound to the format too, overflow to infinity."""
    torch = pytest.importorskip("torch")
    x = np.array([-2.0, 3.0])
    got = mp.tensor(x, dtype=fmt).clamp(min=number)
    bound = torch.tensor(float(number), dtype=getattr(torch, fmt))
    wanted = torch.tensor(x, dtype=getattr(torch, fmt)).clamp(min=bound)
    np.testing.assert_array_equal(got.numpy().astype(np.float64), wanted.double().numpy())
    assert got.dtype.name == str(wanted.dtype).removeprefix("torch.")


def test_a_number_that_integers_cannot_hold_is_refused() -> None:
    """Oracle: the format named; NumPy's OverflowError is the cause."""
    with pytest.raises(FormatError, match="does not fit in int64"):
        mp.tensor([1]).maximum(10**30)


@pytest.mark.torch
def test_a_number_as_variance_beside_integers_keeps_its_fraction() -> None:
    """Oracle: torch.nn.functional.gaussian_nll_loss on the same integers."""
    torch = pytest.importorskip("torch")
    got = functional.gaussian_nll_loss(mp.tensor([1, 2]), mp.tensor([1.0, 1.0]), 0.5)
    wanted = torch.nn.functional.gaussian_nll_loss(torch.tensor([1, 2]), torch.ones(2), 0.5)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_celu_refuses_an_alpha_of_zero() -> None:
    """Oracle: torch refuses it too: the function would divide by it."""
    with pytest.raises(SettingError, match="celu: expected a number other than 0"):
        functional.celu(_tensor(2, 3), alpha=0)
