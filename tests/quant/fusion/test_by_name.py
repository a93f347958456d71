"""Fusing modules that are named; oracles: torch.ao.quantization.fuse_modules, and the model before."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from minimp import nn
from minimp.errors import SettingError
from minimp.quant.fusion import PATTERNS, ConvReLU2d, LinearReLU, fuse_modules
from tests.quant.fusion.samples import moved, run, state_of
from tests.tolerances import assert_close

RNG = np.random.default_rng(5)
ROWS = [["0", "1", "2"], ["3", "4"], ["5", "6"], ["8", "9"], ["10", "11", "12"]]


def network(space: Any = nn) -> Any:
    """Return a model with a row of several patterns, made of one library's modules."""
    return space.Sequential(
        space.Conv2d(3, 4, 3, bias=False), space.BatchNorm2d(4), space.ReLU(),
        space.ConvTranspose2d(4, 6, 2, stride=2), space.BatchNorm2d(6),
        space.Conv2d(6, 6, 3, groups=3), space.ReLU(),
        space.Flatten(), space.Linear(600, 5), space.BatchNorm1d(5),
        space.Linear(5, 3), space.BatchNorm1d(3), space.ReLU(),
    )  # fmt: skip


def ready(dtype: str = "float32") -> Any:
    """Return the model with statistics, in evaluation."""
    model = network().to(dtype)
    rng = np.random.default_rng(1)
    for each in model:
        if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d):
            moved(each, rng)
    return model.eval()


X = np.random.default_rng(2).normal(size=(4, 3, 8, 8))
"""Images; after the first two rows they are 12 x 12."""


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_torch_fuses_to_the_same_model(dtype: str) -> None:
    """Oracle: torch.ao.quantization.fuse_modules 2.13 on CPU: paths, parameters and results.

    Linear + batch norm + ReLU is no row of torch's; it is asked for the first two.
    """
    torch = pytest.importorskip("torch")
    ours = ready(dtype)
    theirs = network(torch.nn).to(getattr(torch, dtype))
    theirs.load_state_dict({name: torch.tensor(leaf.numpy()) for name, leaf in ours.state_dict().items()})
    rows = [*ROWS[:4], ["10", "11"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the module is deprecated, and says so on import
        expected = torch.ao.quantization.fuse_modules(theirs.eval(), rows)
    made = fuse_modules(ours, rows)
    wanted = {name: leaf.numpy() for name, leaf in expected.state_dict().items()}
    assert list(made.state_dict()) == list(wanted)
    for name, leaf in made.state_dict().items():
        assert_close(leaf.numpy(), wanted[name], f"parity_op_fp{dtype[-2:]}")
    kinds = [type(each).__name__ for each in expected]
    assert [type(each).__name__ for each in made] == kinds
    x = X.astype(dtype)
    assert_close(run(made, x), expected(torch.tensor(x)).detach().numpy(), f"parity_gradient_fp{dtype[-2:]}")


def test_the_function_stays_the_same() -> None:
    """Oracle: the model before, in float64, within its sums in another order."""
    model = ready("float64")
    made = fuse_modules(model, ROWS)
    assert_close(run(made, X), run(model, X), "fp64_same_maths")
    assert isinstance(made[0], ConvReLU2d)
    assert isinstance(made[10], LinearReLU)
    assert [type(made[i]) for i in (1, 2, 4, 6, 9, 11, 12)] == [nn.Identity] * 7


def test_a_copy_is_changed_unless_in_place() -> None:
    """Oracle: identities and bytes of every leaf and module before and after."""
    model = ready()
    before = state_of(model)
    assert fuse_modules(model, ROWS) is not model
    assert state_of(model) == before
    assert fuse_modules(model, ROWS, inplace=True) is model
    assert isinstance(model[0], ConvReLU2d)


def test_one_list_is_one_row() -> None:
    """Oracle: the same row in a list of lists."""
    model = ready()
    assert repr(fuse_modules(model, ["0", "1", "2"])) == repr(fuse_modules(model, [["0", "1", "2"]]))


def test_fused_modules_are_in_the_mode_of_the_first() -> None:
    """Oracle: conv + ReLU in training; torch sets the mode of the Identity too."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    assert fuse_modules(model, ["0", "1"])[0].training
    made = fuse_modules(model.eval(), ["0", "1"])
    assert not any(each.training for each in made.modules())


def shared(model: Any) -> None:
    """Let two layers have one weight."""
    model[10].weight = model[0].weight


REFUSALS = {
    "training mode": lambda m: m[1].train(),
    "no running statistics": lambda m: m.__setitem__(1, nn.BatchNorm2d(4, track_running_stats=False).eval()),
    "gives 4 channels, the batch norm takes 5": lambda m: m.__setitem__(1, nn.BatchNorm2d(5).eval()),
    "shares its parameters with 10.weight": shared,
    "stands at 2 places: 1, 13": lambda m: m.append(m[1]),
    "it has hooks": lambda m: m[2].register_forward_hook(lambda *_: None),
    "no pattern": lambda m: m.__setitem__(2, nn.Tanh()),
    "no module at": lambda m: m.__delitem__(slice(2, 13)),
    "bias is not finite": lambda m: setattr(m[1].running_mean, "array", np.full(4, np.nan, np.float32)),
}


@pytest.mark.parametrize("said", REFUSALS)
def test_what_cannot_be_fused_is_refused_and_nothing_changes(said: str) -> None:
    """Oracle: the reason by hand; identities and bytes, although another row could be fused."""
    model = ready()
    REFUSALS[said](model)
    before = state_of(model)
    with pytest.raises(SettingError, match=said) as fault:
        fuse_modules(model, [["5", "6"], ["0", "1", "2"]], inplace=True)
    assert str(fault.value).count("help: ") <= 1
    assert "fold_batch_norm: " not in str(fault.value)
    assert state_of(model) == before


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["0", "1"], ["1", "2"]], "'1' is named more than once"),
        ([["0", 1]], "expected lists of paths"),
        (["0", ["1"]], "expected lists of paths"),
        ([[]], "expected lists of paths"),
        (3, "expected lists of paths, got 3"),
        ("0", "expected lists of paths, got '0'"),
        ([["1", "0"]], r"BatchNorm2d\+Conv2d, for which there is no pattern"),
    ],
)
def test_rows_that_are_none_are_refused(rows: Any, said: str) -> None:
    """Oracle: the reason by hand."""
    with pytest.raises(SettingError, match=said):
        fuse_modules(ready(), rows)


@pytest.mark.parametrize("classes", PATTERNS, ids=lambda classes: PATTERNS[classes].name)
def test_each_pattern_fuses(classes: tuple[Any, ...]) -> None:
    """Oracle: the modules one after the other, in float64; what stands there is of the row's own class."""
    rng = np.random.default_rng(7)
    axes = int(classes[0].__name__[-2]) if classes[0].__name__.endswith("d") else 0
    modules: list[Any] = []
    for kind in classes:
        if issubclass(kind, nn.ReLU):
            modules.append(kind())
        elif "BatchNorm" in kind.__name__:
            modules.append(moved(kind(4, dtype="float64"), rng))
        else:
            modules.append(kind(4, 4, *(3,)[:axes], dtype="float64"))
    model = nn.Sequential(*modules).eval()
    x = rng.normal(size=(3, 4, *(5, 6, 4)[:axes]))
    made = fuse_modules(model, [str(i) for i in range(len(classes))])
    assert type(made[0]) is (PATTERNS[classes].into or classes[0])
    assert all(type(each) is nn.Identity for each in list(made)[1:])
    assert_close(run(made, x), run(model, x), "parity_op_fp64")


def test_a_pair_takes_its_two_classes_only() -> None:
    """Oracle: the class of the module."""
    with pytest.raises(SettingError, match="expected a Conv2d and a ReLU, got Conv1d, ReLU"):
        ConvReLU2d(nn.Conv1d(1, 1, 1), nn.ReLU())
