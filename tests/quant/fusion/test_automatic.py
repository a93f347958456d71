"""Fusing what a forward shows; oracles: the model before, and the reasons by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minimp import functional, nn
from minimp.errors import SettingError
from minimp.models import resnet
from minimp.policy import autocast
from minimp.quant.fusion import ConvReLU2d, fuse
from minimp.rng import get_rng_state
from minimp.tensors import Tensor, tensor
from tests.quant.fusion.samples import moved, run, state_of
from tests.tolerances import assert_close

IMAGES = np.random.default_rng(3).normal(size=(2, 3, 8, 8)).astype(np.float32)


class Written(nn.Module):
    """A model whose forward is a function over its modules, registered in an order of their own."""

    def __init__(self, forward: Callable[[Any, Any], Any], **modules: Any) -> None:
        super().__init__()
        self.path = forward
        self.relu = nn.ReLU()
        self.bn = moved(nn.BatchNorm2d(4), np.random.default_rng(0))
        self.other = nn.Conv2d(3, 4, 3)
        self.conv = nn.Conv2d(3, 4, 3)
        for name, module in modules.items():
            setattr(self, name, module)
        self.eval()

    def forward(self, x: Any) -> Any:
        """Run the function."""
        return self.path(self, x)


class Keeper(nn.Module):
    """A module that reads what it is given, and gives it on."""

    def forward(self, x: Tensor) -> Tensor:
        """Look at the values outside of the engine."""
        self.seen = float(np.asarray(x.array).sum())
        return x


class Own(nn.BatchNorm2d):
    """A batch norm that may do something else."""


def names(report: Any) -> list[str]:
    """Return what was fused, each row as one text."""
    return ["+".join(each.modules) for each in report.fused]


RIGHT = {
    "in a row": lambda m, x: m.relu(m.bn(m.conv(x))),
    "beside another way": lambda m, x: m.relu(m.bn(m.conv(x))) + m.other(x),
    "through Identity": lambda m, x: m.relu(m.same(m.bn(m.same(m.conv(x))))),
    "with lengths read": lambda m, x: m.relu(m.bn(m.conv(x))).reshape(len(x), -1),
    "under another name": lambda m, x: m.relu(m.bn(m.conv(x).detach())),
}


@pytest.mark.parametrize("case", RIGHT)
def test_what_goes_from_one_to_the_next_alone_is_fused(case: str) -> None:
    """Oracle: the forwards by hand; the model before, within float32 sums in another order."""
    model = Written(RIGHT[case], same=nn.Identity())
    made, report = fuse(model, tensor(IMAGES))
    assert names(report) == ["conv+bn+relu"]
    assert not report.refused
    assert isinstance(made.conv, ConvReLU2d)
    assert isinstance(made.bn, nn.Identity)
    assert_close(run(made, IMAGES), run(model, IMAGES), "parity_op_fp32")
    assert report.changed.difference == np.abs(run(made, IMAGES) - run(model, IMAGES)).max()


def twice(m: Any, x: Any) -> Any:
    """Use the convolution's output a second time."""
    y = m.conv(x)
    return m.relu(m.bn(y)) + y


KEPT: dict[str, tuple[Callable[[Any, Any], Any], list[str], str]] = {
    "used twice": (twice, ["bn+relu"], "the output of 'conv' goes to 'bn' and the op add in the model"),
    "a result": (
        lambda m, x: (y := m.conv(x), m.relu(m.bn(y))),
        ["bn+relu"],
        "the output of 'conv' goes to 'bn' and the model's result",
    ),
    "in two modules": (
        lambda m, x: (m.bn(y := m.conv(x)), m.relu(y)),
        [],
        "the output of 'conv' goes to 'bn' and 'relu'",
    ),
    "a module between": (
        lambda m, x: m.bn(m.keeper(m.conv(x))),
        [],
        "the output of 'conv' goes to 'keeper' and 'bn'",
    ),
    "an op between": (
        lambda m, x: m.bn(m.conv(x) * 2),
        [],
        "its input comes from the op mul in the model, not from one module",
    ),
    "two sources": (
        lambda m, x: m.bn(m.conv(x)) + m.bn(m.other(x)),
        [],
        "its input comes from 'conv' and 'other', not from one module",
    ),
    "called twice": (
        lambda m, x: m.bn(m.bn(m.conv(x))),
        [],
        "its input comes from 'conv' and 'bn', not from one module",
    ),
    "no module": (lambda m, x: m.bn(functional.conv2d(x, m.conv.weight)), [], "the op conv2d in the model"),
    "weight read elsewhere": (
        lambda m, x: m.bn(m.conv(x)) + m.conv.weight.sum(),
        [],
        "'conv': its weight is read by the op sum in the model too",
    ),
    "first of all": (lambda m, x: m.bn(functional.pad(x, (0, 0, 0, 0, 0, 1))), [], "constant_pad_nd"),
    "not run": (lambda m, x: m.conv(x), [], "it does not run on the example"),
    "a class of its own": (
        lambda m, x: m.own(m.conv(x)),
        [],
        "it follows 'conv': there is no pattern Conv2d+Own",
    ),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_is_used_elsewhere_stays_and_the_report_says_why(case: str) -> None:
    """Oracle: the forwards by hand: what may be fused, and the reason; results as before."""
    forward, fused, why = KEPT[case]
    model = Written(forward, keeper=Keeper(), own=moved(Own(4), np.random.default_rng(1)))
    made, report = fuse(model, tensor(IMAGES))
    assert names(report) == fused
    assert any(why in each.why for each in report.refused), [each.why for each in report.refused]
    assert all(max(map(len, str(report).split("\n"))) <= 100 for _ in [0])
    if not fused:
        assert repr(made) == repr(model)


def test_one_row_that_runs_twice_is_fused() -> None:
    """Oracle: one convolution and one batch norm on both images; the model before."""
    model = Written(lambda m, x: m.bn(m.conv(x)) - m.bn(m.conv(x + 1)))
    made, report = fuse(model, tensor(IMAGES))
    assert names(report) == ["conv+bn"]
    assert_close(run(made, IMAGES), run(model, IMAGES), "parity_op_fp32")


def test_a_residual_network_is_fused_block_by_block() -> None:
    """Oracle: its code: 9 convolutions with a norm each, four with a ReLU; float64 results."""
    model = resnet((3, 8, 8), 10, width=4).double()
    rng = np.random.default_rng(0)
    for each in model.modules():
        if isinstance(each, nn.BatchNorm2d):
            moved(each, rng, 0.3)
    x = IMAGES.astype(np.float64)
    made, report = fuse(model.eval(), tensor(x))
    assert len(report.fused) == 9
    assert [each.pattern for each in report.fused].count("Conv2d+BatchNorm2d+ReLU") == 4
    assert not report.refused
    assert not [each for each in made.modules() if isinstance(each, nn.BatchNorm2d)]
    assert_close(run(made, x), run(model, x), "composite_gradient_fp64")
    wide = sum(leaf.nbytes for leaf in [*model.parameters(), *model.buffers()])
    assert wide - sum(leaf.nbytes for leaf in [*made.parameters(), *made.buffers()]) == report.bytes_saved


def test_in_training_mode_no_norm_is_folded_and_nothing_moves() -> None:
    """Oracle: identities and bytes, statistics and the random state too; the reason for each norm."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout())
    before, dice = state_of(model), get_rng_state()
    made, report = fuse(model, tensor(IMAGES))
    assert state_of(model) == before
    assert get_rng_state() == dice
    assert names(report) == ["1+2"]
    assert "training mode" in report.refused[0].why
    assert made[1][0].num_batches_tracked.item() == 0


def test_the_axis_of_the_features_must_be_the_norm_s() -> None:
    """Oracle: (N, S, F): a Linear's features are last, BatchNorm1d works on axis 1, also where S = F."""
    model = nn.Sequential(nn.Linear(3, 4), moved(nn.BatchNorm1d(4), np.random.default_rng(0))).eval()
    made, report = fuse(model, tensor(np.ones((2, 4, 3), np.float32)))
    assert "features are on axis 2, the batch norm works on axis 1" in report.refused[0].why
    assert fuse(model, tensor(np.ones((2, 3), np.float32)))[1].fused
    assert repr(made) == repr(model)


def test_a_change_of_format_is_no_fusion() -> None:
    """Oracle: Paddle's O1 rules, under which a convolution gives bfloat16 and a batch norm float32."""

    def mixed(m: Any, x: Any) -> Any:
        with autocast(policy="paddle-o1", dtype="bfloat16"):
            return m.bn(m.conv(x))

    report = fuse(Written(mixed), tensor(IMAGES))[1]
    assert report.refused[0].why == "the output would be bfloat16, and is float32 now"


@pytest.mark.parametrize("where", ["conv", "bn", "box"])
def test_hooks_that_would_see_other_values_are_in_the_way(where: str) -> None:
    """Oracle: a hook on a module of the row, or on one that hands on what lies inside of the row."""
    model = Written(lambda m, x: m.bn(m.box(x)), box=nn.Sequential())
    model.box.append(model.conv)
    del model.conv
    path = {"conv": "box.0"}.get(where, where)
    model.get_submodule(path).register_forward_hook(lambda *_: None)
    report = fuse(model, tensor(IMAGES))[1]
    assert not report.fused
    assert report.refused[0].why.startswith(f"'{path}': it has hooks")


def test_values_used_unseen_are_noticed_by_the_results() -> None:
    """Oracle: a forward that takes an output out of the engine; the error, and the model as it was."""

    def hidden(m: Any, x: Any) -> Any:
        y = m.conv(x)
        return m.bn(y) + tensor(np.array(y.array))

    model = Written(hidden)
    before = state_of(model)
    with pytest.raises(SettingError, match=r"(?s)results differ by .* uses an output between two modules"):
        fuse(model, tensor(IMAGES), inplace=True)
    assert state_of(model) == before
    assert names(fuse(model, tensor(IMAGES), tolerance=100.0)[1]) == ["conv+bn"]


def test_an_example_with_an_infinity() -> None:
    """Oracle: by hand: what is infinite or NaN before and after differs by 0, the rest by roundings."""
    x = IMAGES.copy()
    x[0, 0, 0, 0] = np.inf
    _, report = fuse(Written(lambda m, x: m.relu(m.bn(m.conv(x)))), tensor(x))
    assert 0 <= report.rows[0].difference < 1e-5


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf"), "a"])
def test_a_tolerance_that_is_none(tolerance: Any) -> None:
    """Oracle: the message."""
    with pytest.raises(SettingError, match="tolerance must be a share of at least 0, got"):
        fuse(Written(lambda m, x: m.bn(m.conv(x))), tensor(IMAGES), tolerance=tolerance)


def test_a_module_held_elsewhere_too_is_noticed() -> None:
    """Oracle: a list of Python's that holds the modules: replacing them in the tree would change nothing."""
    model = Written(lambda m, x: m.row[1](m.row[0](x)))
    model.row = [model.conv, model.bn]
    before = state_of(model)
    with pytest.raises(SettingError, match="what stands at 'conv' now does not run"):
        fuse(model, tensor(IMAGES), inplace=True)
    assert state_of(model) == before


def test_patterns_limit_what_is_fused() -> None:
    """Oracle: one pattern of three; and a pattern that is in no row of the table."""
    model = Written(RIGHT["in a row"])
    made, report = fuse(model, tensor(IMAGES), patterns=[(nn.BatchNorm2d, nn.ReLU)])
    assert names(report) == ["bn+relu"]
    assert type(made.conv) is nn.Conv2d
    with pytest.raises(SettingError, match=r"no pattern Conv2d\+Tanh"):
        fuse(model, tensor(IMAGES), patterns=[(nn.Conv2d, nn.Tanh)])
    with pytest.raises(SettingError, match="no pattern 3"):
        fuse(model, tensor(IMAGES), patterns=[3])  # type: ignore[list-item]
    with pytest.raises(SettingError, match="no patterns were given"):
        fuse(model, tensor(IMAGES), patterns=[])


def test_without_an_example_there_is_an_error() -> None:
    """Oracle: the message says what an example is for."""
    with pytest.raises(SettingError, match=r"(?s)an example input is needed.*fuse\(model, x\)"):
        fuse(Written(RIGHT["in a row"]))


def test_in_place_the_model_itself_is_changed() -> None:
    """Oracle: identity, and the report of a copy."""
    model = Written(RIGHT["in a row"])
    before = run(model, IMAGES)
    relu = model.relu
    made, _ = fuse(model, tensor(IMAGES), inplace=True)
    assert made is model
    assert model.conv[1] is relu
    assert_close(run(model, IMAGES), before, "parity_op_fp32")


def test_the_report_is_a_table_of_at_most_100_columns() -> None:
    """Oracle: the lengths of its lines under long paths; its numbers by hand."""
    inner: Any = Written(RIGHT["in a row"])
    for _ in range(6):
        inner = nn.Sequential(nn.Sequential(inner), Keeper())
    report = fuse(inner, tensor(IMAGES))[1]
    text = str(report)
    assert max(map(len, text.split("\n"))) <= 100
    assert text.startswith("1 fused, 0 not; 72 bytes of parameters and buffers saved\n")
    assert len(report) == len(list(report)) == 1
    assert report.bytes_saved == 4 * 4 * 4 + 8  # gamma, beta, mean, var; the count of batches


def test_what_was_fused_before_stays() -> None:
    """Oracle: the model that was fused once: fusing it again changes nothing, pairs above all."""
    x = tensor(np.random.default_rng(0).normal(size=(2, 3, 6, 6)).astype(np.float32))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5), nn.ReLU()).eval()
    once, report = fuse(model, x)
    again, nothing = fuse(once, x)
    assert (len(report.fused), len(nothing.fused)) == (2, 0)
    assert repr(again) == repr(once)
