"""Scale moved between layers; oracles: the model before, the paper's equations, torch's own equalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import functional, nn
from minimp.errors import SettingError
from minimp.models import resnet
from minimp.quant.fusion import equalize, fuse, rescale_channels
from minimp.tensors import tensor
from tests.quant.fusion.samples import run, state_of
from tests.quant.fusion.test_automatic import Keeper, Written
from tests.tolerances import assert_close, assert_ulp

X = np.random.default_rng(0).normal(size=(2, 4, 9, 8))


def chain(dtype: str = "float64") -> Any:
    """Return convolutions of every kind, activations, pools, and a linear layer behind a flattening."""
    return nn.Sequential(
        nn.Conv2d(4, 6, 3), nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=6, padding=1), nn.LeakyReLU(0.2), nn.MaxPool2d(2),
        nn.ConvTranspose2d(6, 8, 2, stride=2, groups=2, bias=False), nn.PReLU(8),
        nn.Conv2d(8, 6, 1, groups=2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(),
        nn.Linear(54, 5), nn.ReLU(), nn.Linear(5, 3),
    ).to(dtype).eval()  # fmt: skip


PATHS = [("0", "2"), ("2", "5"), ("5", "7"), ("7", "12"), ("12", "14")]


def channel_ranges(model: Any, first: str, second: str) -> tuple[list[float], list[float]]:
    """Return r1 and r2 of a pair, found by setting one channel of a probe at a time."""
    one, two = model.get_submodule(first), model.get_submodule(second)
    outer = one.out_features if isinstance(one, nn.Linear) else one.out_channels
    r1, r2 = [], []
    for channel in range(outer):
        r1.append(max(abs(w) for w, out, _ in taps(one) if out == channel))
        block = two.in_features // outer if isinstance(two, nn.Linear) else 1
        r2.append(max(abs(w) for w, _, taken in taps(two) if taken // block == channel))
    return r1, r2


def taps(layer: Any) -> Any:
    """Yield (weight, output channel, input channel) of every element, by the definitions of the layers."""
    weight = np.asarray(layer.weight.array)
    transposed = "Transpose" in type(layer).__name__
    groups = getattr(layer, "groups", 1)
    for index in np.ndindex(weight.shape):
        row, column = index[:2]
        group = row // (weight.shape[0] // groups)
        other = group * weight.shape[1] + column
        yield (weight[index], other, row) if transposed else (weight[index], row, other)


def test_both_sides_of_every_channel_have_one_range() -> None:
    """Oracle: equation 11 of the paper at the end, r1 = r2, from the elements one by one."""
    model = chain()
    made, report = equalize(model, tensor(X))
    assert [(each.first, each.second) for each in report.paired] == PATHS
    for first, second in PATHS:
        r1, r2 = channel_ranges(made, first, second)
        assert_close(r1, r2, "equalized")
        assert min(r1) != max(r1)
    assert_close(run(made, X), run(model, X), "parity_op_fp64")


def test_one_pair_is_scaled_by_the_paper_s_factor() -> None:
    """Oracle: s = sqrt(r1 r2) / r2 by hand, for two linear layers; the bias goes with the weight."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    w1, b1, w2 = (np.asarray(each.array) for each in (model[0].weight, model[0].bias, model[2].weight))
    r1, r2 = np.abs(w1).max(axis=1), np.abs(w2).max(axis=0)
    s = np.sqrt(r1 * r2) / r2
    made, report = equalize(model, tensor(X[0, 0, :, :3]))
    for found, expected in (
        (made[0].weight, w1 / s[:, None]),
        (made[0].bias, b1 / s),
        (made[2].weight, w2 * s),
    ):
        assert_close(found.array, expected, "parity_op_fp64")
    assert report.sweeps == 1
    row = report.paired[0]
    assert_close(row.before, np.mean(r1 / r1.max() * r2 / r2.max()), "parity_op_fp64")
    level = np.sqrt(r1 * r2)
    assert_close(row.after, np.mean((level / level.max()) ** 2), "parity_op_fp64")


@given(st.sampled_from(["float32", "float64"]), st.integers(0, 6), st.integers(0, 2**16))
def test_powers_of_two_keep_every_bit(dtype: str, octaves: int, seed: int) -> None:
    """Oracle: the results before, bit for bit; each range within a factor of two of the other at the end."""
    model, x = chain(dtype), X.astype(dtype)
    expected = run(model, x)
    spread, _ = rescale_channels(model, tensor(x), factors=octaves or 1, seed=seed)
    assert_ulp(run(spread, x), expected.astype(np.float64), "exact")
    made, _ = equalize(spread, tensor(x), powers_of_two=True)
    assert_ulp(run(made, x), expected.astype(np.float64), "exact")
    for first, second in PATHS:
        r1, r2 = channel_ranges(made, first, second)
        assert np.abs(np.log2(np.divide(r1, r2))).max() <= 1


def test_equalization_takes_back_what_rescaling_did() -> None:
    """Oracle: the model equalised without it; ranges are products of the same numbers."""
    model = chain()
    plain, _ = equalize(model, tensor(X))
    spread, report = rescale_channels(model, tensor(X), factors=4)
    assert max(each.factor for each in report.paired) >= 16
    again, _ = equalize(spread, tensor(X))
    for name, leaf in again.named_parameters():
        assert_close(leaf.array, plain.get_parameter(name).array, "equalized")


def test_given_factors_are_applied_as_given() -> None:
    """Oracle: the elements by hand, behind a flattening: each channel is nine inputs."""
    model = nn.Sequential(
        nn.Conv2d(4, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(18, 2)
    )
    made, _ = rescale_channels(model, tensor(X.astype(np.float32)), factors={"0": [4.0, 0.5]})
    before, after = (np.asarray(m[4].weight.array) for m in (model, made))
    np.testing.assert_array_equal(after[:, :9], before[:, :9] / 4)
    np.testing.assert_array_equal(after[:, 9:], before[:, 9:] * 2)
    np.testing.assert_array_equal(np.asarray(made[0].bias.array), np.asarray(model[0].bias.array) * [4, 0.5])


def test_a_fused_pair_goes_by_either_name() -> None:
    """Oracle: the factors given for the layer itself; a path of neither is refused, the names are told."""
    model = nn.Sequential(nn.Linear(6, 2), nn.ReLU(), nn.Linear(2, 3))
    x = tensor(np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32))
    fused, _ = fuse(model, x)
    made = [rescale_channels(fused, x, factors={name: [4.0, 0.5]})[0] for name in ("0", "0.0")]
    for one, other in zip(*(each.parameters() for each in made), strict=True):
        np.testing.assert_array_equal(np.asarray(one.array), np.asarray(other.array))
    np.testing.assert_array_equal(
        np.asarray(made[0][0][0].weight.array), np.asarray(model[0].weight.array) * [[4.0], [0.5]]
    )
    with pytest.raises(SettingError, match=r"unknown first layer '2'.*0\.0"):
        rescale_channels(fused, x, factors={"2": [1.0, 1.0, 1.0]})
    with pytest.raises(SettingError, match=r"name the layer '0\.0' twice"):
        rescale_channels(fused, x, factors={"0": [1.0, 1.0], "0.0": [2.0, 2.0]})


@pytest.mark.torch
def test_torch_equalizes_to_the_same_weights() -> None:
    """Oracle: torch.ao.quantization._equalize 2.13, whose range is max - min: 2 max |w| for weights of both
    signs, which these are; it adds 1e-9 to r2, which weights of about 2^20 do not feel.
    """
    torch = pytest.importorskip("torch")
    from torch.ao.quantization import _equalize

    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=(5, 4, 3, 3))
    first[:, :, 0], second[:, :, 0] = -first[:, :, 2], -second[:, :, 2]
    first[:, :, 1] = second[:, :, 1] = 0
    second *= 2.0**20
    ours = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3)).double()
    ours[0].weight.array, ours[2].weight.array = first, second
    theirs = [torch.nn.Conv2d(3, 4, 3).double(), torch.nn.Conv2d(4, 5, 3).double()]
    for a, b in zip((ours[0], ours[2]), theirs, strict=True):
        b.load_state_dict({name: torch.tensor(leaf.numpy()) for name, leaf in a.state_dict().items()})
    _equalize.cross_layer_equalization(*theirs)
    made, _ = equalize(ours, tensor(rng.normal(size=(1, 3, 8, 8))))
    for a, b in zip((made[0], made[2]), theirs, strict=True):
        for name, leaf in a.named_parameters():
            assert_close(leaf.array, b.get_parameter(name).detach().numpy(), "parity_op_fp64")


FUNCTIONAL = {
    "relu": (lambda m, x: m.two(functional.relu(m.one(x))), True),
    "nothing": (lambda m, x: m.two(m.one(x)), True),
    "zeros around": (lambda m, x: m.two(functional.pad(m.one(x), (1, 1))), True),
    "ones around": (lambda m, x: m.two(functional.pad(m.one(x), (1, 1), value=1.0)), False),
    "relu6": (lambda m, x: m.two(functional.relu6(m.one(x))), False),
    "used twice": (lambda m, x: m.two(y := m.one(x)) + y.sum(), False),
    "a result": (lambda m, x: (m.two(y := m.one(x)), y), False),
    "watched": (lambda m, x: m.two(m.keeper(m.one(x))), False),
    "shifted": (lambda m, x: m.two(m.one(x) + 1), False),
    "mean over places": (lambda m, x: m.three(m.one(x).mean((2, 3))), True),
    "mean over channels": (lambda m, x: m.three(m.one(x).mean(1).permute(0, 2, 1)), False),
    "mean before features": (lambda m, x: m.three(m.five(x).mean(1)), True),
    "mean that keeps axes": (lambda m, x: m.three(m.five(x).mean(1, keepdim=True)), True),
    "windows over features": (lambda m, x: m.three(functional.max_pool2d(m.five(x), 3, 1, 1)), False),
    "places as channels": (lambda m, x: m.two(m.one(x).permute(0, 3, 2, 1)), False),
    "channels last": (lambda m, x: m.three(m.one(x).permute(0, 2, 3, 1)), True),
    "channels first of a linear": (lambda m, x: m.three(m.one(x)), False),
    "weight read elsewhere": (lambda m, x: m.two(m.one(x)) * m.two.weight.sum(), False),
    "flattened twice": (lambda m, x: m.four(m.one(x).flatten(2).flatten(1)), True),
    "flattened with rows": (lambda m, x: m.five(m.one(x).flatten(0, 2)), False),
}


@pytest.mark.parametrize("case", FUNCTIONAL)
def test_pairs_are_what_scale_passes_between(case: str) -> None:
    """Oracle: f(s x) = s f(x), channel by channel, by hand for each forward; results as before."""
    forward, paired = FUNCTIONAL[case]
    parts = {
        "one": nn.Conv2d(4, 6, 3, padding=1), "two": nn.Conv2d(6, 6, 3, padding=1), "three": nn.Linear(6, 2),
        "four": nn.Linear(216, 2), "five": nn.Linear(6, 6), "keeper": Keeper(),
    }  # fmt: skip
    model = Written(forward, **parts).double()
    x = X[..., :6, :6]
    before = state_of(model)
    made, report = equalize(model, tensor(x))
    assert len(report.paired) == paired
    assert all(each.first in ("one", "five") for each in report.paired)
    assert_close(run_first(made, x), run_first(model, x), "parity_op_fp64")
    assert state_of(model) == before
    assert max(map(len, str(report).split("\n"))) <= 100


def run_first(model: Any, x: Any) -> Any:
    """Return the first result of a model as an array."""
    found = model(tensor(x))
    return np.asarray((found[0] if isinstance(found, tuple) else found).detach().array)


def test_a_residual_network_has_the_pairs_inside_of_its_blocks() -> None:
    """Oracle: its code: conv1 to conv2 in each of three blocks, once norms are fused; sums stop the rest."""
    model = resnet((4, 8, 8), 10, width=4).double().eval()
    fused, _ = fuse(model, tensor(X))
    _, report = equalize(fused, tensor(X))
    assert not equalize(model, tensor(X))[1].paired
    pairs = [(each.first, each.second) for each in report.paired]
    assert pairs == [(f"blocks.{i}.conv1.0", f"blocks.{i}.conv2") for i in range(3)]
    reasons = {each.first: each.why for each in report if each.why}
    assert "goes to" in reasons["conv.0"]


def test_dead_channels_are_left_alone() -> None:
    """Oracle: a channel of zeros on either side keeps its weights, bit for bit."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    for leaf, where in ((model[0].weight, np.s_[1]), (model[2].weight, np.s_[:, 2])):
        leaf.array = leaf.array.copy()
        leaf.array[where] = 0
    made, _ = equalize(model, tensor(np.ones((1, 3), np.float32)))
    for name, leaf in made.named_parameters():
        old = np.asarray(model.get_parameter(name).array)
        axis = 1 if name == "2.weight" else 0
        if name != "2.bias":
            np.testing.assert_array_equal(np.take(leaf.array, [1, 2], axis), np.take(old, [1, 2], axis))


def test_in_place_parameters_stay_the_same_objects() -> None:
    """Oracle: identities; without it, identities and bytes of the model."""
    model = chain()
    leaves, before = list(model.parameters()), state_of(model)
    assert equalize(model, tensor(X))[0] is not model
    assert state_of(model) == before
    assert equalize(model, tensor(X), inplace=True)[0] is model
    assert all(a is b for a, b in zip(model.parameters(), leaves, strict=True))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (equalize, "an example input is needed"),
        (lambda m: equalize(m, tensor(X), sweeps=0), "expected sweeps"),
        (lambda m: equalize(m, tensor(X), tolerance=-1.0), "tolerance must be a share of at least 0, got -1"),
        (lambda m: rescale_channels(m, tensor(X), factors=0), "expected factors"),
        (lambda m: rescale_channels(m, tensor(X), factors=2.0), "expected factors to be a whole number"),
        (lambda m: rescale_channels(m, tensor(X), factors=None), "expected factors to be a whole number"),
        (lambda m: rescale_channels(m, tensor(X), factors={"0": "a"}), "expected 6 positive factors"),
        (lambda m: rescale_channels(m, tensor(X), factors={"1": 2.0}), "unknown first layer '1'"),
        (lambda m: rescale_channels(m, tensor(X), factors={"0": [1.0]}), "expected 6 positive factors"),
        (lambda m: rescale_channels(m, tensor(X), factors={"0": -1.0}), "expected 6 positive factors"),
        (lambda m: rescale_channels(m.half(), tensor(X).half(), factors={"0": 1e6}), "more than float16"),
    ],
)
def test_what_cannot_be_done_is_refused(call: Any, said: str) -> None:
    """Oracle: the reason by hand."""
    with pytest.raises(SettingError, match=said):
        call(chain())


def test_a_weight_that_overflows_leaves_the_model_as_it_was() -> None:
    """Oracle: identities and bytes after the refusal, in place."""
    model = chain("float16")
    before = state_of(model)
    with pytest.raises(SettingError, match="more than float16 holds"):
        rescale_channels(model, tensor(X).half(), factors={"7": 1e6}, inplace=True)
    assert state_of(model) == before
