"""Floats between modules that stay in floats: nothing is rounded that nothing on codes gives or takes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from minimp import nn
from minimp.cli.quantize_layers import layers_on_codes
from minimp.errors import FormatError, SettingError
from minimp.nn.module import Module
from minimp.quant import QTensor
from minimp.quant.layer_reports import bytes_of, sqnr
from minimp.quant.modules import Add, Cat, DeQuantStub, FloatIsland, QuantizedFlatten, QuantStub
from minimp.quant.qat import prepare_qat
from minimp.quant.saving import load, save
from minimp.quant.sensitivity import assign, sweep
from minimp.quant.sensitivity.spots import Bench
from minimp.quant.static import calibrate, convert, walked
from minimp.tensors import Tensor, tensor
from tests.quant.static.samples import Array, residual


def run(model: Any, x: Array) -> Array:
    """Return what a model makes of an array."""
    return np.asarray(model(tensor(x)).detach().array)


def images(*, stubs: bool = False) -> tuple[Module, Array]:
    """Return a row of layers with modules between that keep scales, and inputs with an outlier."""
    layers = [
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 2), nn.AvgPool2d(2, 1), nn.Dropout(),
        nn.Flatten(), nn.Linear(16, 5), nn.Sigmoid(), nn.Linear(5, 3),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    for layer in layers:
        for param in layer.parameters():
            param.array = (rng.normal(size=param.shape) * 0.4).astype(np.float32)
    x = rng.normal(size=(24, 2, 10, 10)).astype(np.float32)
    x[0, 0, 0, 0] = 300.0
    rows = [QuantStub(), *layers, DeQuantStub()] if stubs else layers
    return nn.Sequential(*rows).eval(), x


def kept_in(model: Any, kinds: tuple[type[Module], ...] = (nn.Conv2d, nn.Linear, nn.Sigmoid)) -> list[str]:
    """Return the paths of layers."""
    return [path for path, each in model.named_modules() if isinstance(each, kinds)]


@pytest.mark.parametrize("stubs", [False, True])
def test_all_layers_in_floats_are_the_float_model(stubs: bool) -> None:
    """Oracle: the float model, bit for bit; no codes anywhere."""
    model, x = images(stubs=stubs)
    made = convert(model, calibrate(model, [x]), keep_float=kept_in(model))
    np.testing.assert_array_equal(run(made, x), run(model, x))
    kinds = [type(each).__name__ for each in (made if stubs else made.model)]
    assert not stubs or (kinds[0], kinds[-1]) == ("Identity", "Identity")
    inside = ["FloatIsland", "ReLU", "MaxPool2d", "FloatIsland", "AvgPool2d", "Identity", "Flatten"]
    assert kinds[stubs : 8 + stubs] == [*inside, "FloatIsland"] or kinds[5 + stubs] == "Dropout"
    assert bytes_of(made) == bytes_of(model)


def test_a_network_with_branches() -> None:
    """Oracle: the float model, bit for bit: sums, joined tensors and a mean of places are in floats, too."""
    model, x = residual()
    calibration = calibrate(model, [x])
    walk = walked(model, calibration)
    every = [each.path for each in walk.visits if not each.passes]
    made = convert(model, calibration, keep_float=every)
    np.testing.assert_array_equal(run(made, x), run(model, x))


def test_what_codes_meet_is_codes() -> None:
    """Oracle: by hand: an island between layers on codes; a value that an island and a layer take."""
    model, x = images()
    made: Any = convert(model, calibrate(model, [x]), keep_float=["3"]).model
    assert made[3].floats == ()
    assert isinstance(made[3](made[2](made[1](made[0](QTensor.of(x, made[0].kept("input_")))))), QTensor)
    assert isinstance(made[6], QuantizedFlatten)

    class Two(Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.left, self.right, self.add = (
                nn.Linear(4, 4),
                nn.Linear(4, 4),
                nn.Linear(4, 4),
                Add(),
            )

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            y: Tensor = self.add(self.left(h), self.right(h))
            return y

    two, rows = Two().eval(), np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
    seen = calibrate(two, [rows])
    made = convert(two, seen, keep_float=["first", "left"])
    assert isinstance(made.quantize[0], nn.Identity)
    assert made.model.first.floats == (0,)
    assert isinstance(made.model.first(tensor(rows)), QTensor)  # right takes it, too
    made = convert(two, seen, keep_float=["first", "left", "add"])
    assert (made.model.left.floats, made.model.add.floats) == ((), (0,))
    with pytest.raises(FormatError, match=r"'add' \(FloatIsland\) takes floats as input 0, got codes"):
        made.model.add(QTensor.of(rows, seen.affine("left")), None)


def test_a_module_that_runs_twice_takes_the_same_at_both() -> None:
    """Oracle: by hand: one that meets codes once gives and takes codes at both of its places."""

    class Again(Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.act, self.last = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(self.act(self.shared(self.act(self.shared(x)))))
            return y

    model, x = Again().eval(), np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
    calibration = calibrate(model, [x])
    made: Any = convert(model, calibration, keep_float=["shared"])
    assert made.model.shared.floats == ()
    assert isinstance(made.model.act(made.model.shared(made.quantize[0](x))), QTensor)
    made = convert(model, calibration, keep_float=["shared", "last"])
    np.testing.assert_array_equal(run(made, x), run(model, x))


def test_an_outlier_between_layers_in_floats_costs_nothing() -> None:
    """Oracle: SQNR: an outlier leaves few codes to the rest; without codes there it takes none."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)).eval()
    first: Any = model[0]
    first.bias.array = np.float32([300, 0, 0, 0])
    x = np.random.default_rng(1).normal(size=(60, 4)).astype(np.float32)
    calibration, y = calibrate(model, [x]), run(model, x)
    codes, floats = (
        sqnr([(y, run(convert(model, calibration, keep_float=keep), x))]) for keep in ((), ["0", "1"])
    )
    assert codes < 15
    assert floats > 35


@pytest.mark.parametrize("compute", ["float32", "float16"])
def test_sixteen_bits_pass_as_they_are(compute: str) -> None:
    """Oracle: the second island alone on what the first one gives, which is float32 that float16 holds."""
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.Linear(3, 2)).eval()
    x = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
    made: Any = convert(model, calibrate(model, [x]), keep_float={"0": "float16", "2": compute})
    first = made.model[0](tensor(x))
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first.array, first.array.astype(np.float16).astype(np.float32))
    alone = FloatIsland(model[2], None, compute, [0])
    wanted = QTensor.of(alone(made.model[1](first)), made.model[2].quantize.kept(""))
    np.testing.assert_array_equal(made.model[:3](tensor(x)).codes, wanted.codes)


@pytest.mark.parametrize("stubs", [False, True])
def test_the_bench_is_the_converted_model(stubs: bool) -> None:
    """Oracle: convert: outputs of any assignment, to the bit, and its bytes."""
    model, x = images(stubs=stubs)
    calibration = calibrate(model, [x])
    bench = Bench(model, walked(model, calibration), ("float32", "float16"))
    paths = kept_in(model)
    choices = [
        *list(itertools.product(("int8", "float32"), repeat=len(paths)))[::4],
        ("float16",) * len(paths),
    ]
    counted = set()
    for forms in choices:
        choice = dict(zip(paths, forms, strict=True))
        made = convert(model, calibration, keep_float=choice)
        bench.set_forms(dict.fromkeys(bench.sites, "int8") | choice)
        np.testing.assert_array_equal(run(bench, x), run(made, x), err_msg=str(choice))
        held = sum(bench.sites[path].bytes_in(form) for path, form in choice.items())
        counted.add(bytes_of(made) - held + bench.bytes_spared(choice))
    assert len(counted) == 1  # the bytes of everything else
    bench.set_forms({})
    np.testing.assert_array_equal(run(bench, x), run(model, x))


def test_sweeps_and_assignments_of_what_is_kept() -> None:
    """Oracle: convert, whose figures the last row has; an assignment that loses nothing."""
    model, x = images()
    calibration = calibrate(model, [x])
    keep = {"0": "float16", "3": "float16", "9": "float32"}
    report = sweep(model, calibration, [x], keep_float=keep)
    y, q = run(model, x), run(convert(model, calibration, keep_float=keep), x)
    assert report.whole.sqnr_db == pytest.approx(sqnr([(y, q)]))
    assert "input 0" not in [row.path for row in report]
    assert report["0"].activation_facts is None
    assert report["3"].activation_facts is not None
    assert not any(each.path in ("0", "9") for each in report.blame(0))
    plan = assign(model, calibration, [x], sqnr_db=200.0, keep_float=["8"])
    assert plan.measured.sqnr_db == np.inf
    assert plan.nbytes == bytes_of(convert(model, calibration, keep_float=plan.formats)) == bytes_of(model)


def test_without_is_what_convert_gives() -> None:
    """Oracle: convert with this one in floats: the first, the last, one whose output's scale is fixed."""
    model, x = images()
    calibration, y = calibrate(model, [x]), run(model, x)
    for row in sweep(model, calibration, [x]):
        if row.without is not None:
            made = convert(model, calibration, keep_float=[row.path])
            assert row.without.sqnr_db == pytest.approx(sqnr([(y, run(made, x))])), row.path


def test_what_stays_in_floats_can_be_kept_in_a_file(tmp_path: Path) -> None:
    """Oracle: the model before: its results, bit for bit; and the rows of its table."""
    model, x = images()
    made = convert(model, calibrate(model, [x]), keep_float=["0", "3", "8", "9"])
    save(tmp_path / "m.safetensors", made)
    back: Any = load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(run(back, x), run(made, x))
    assert back.model[3].floats == (0,)
    rows = {row.path: row for row in layers_on_codes(back, model, x)}
    assert [rows[path].scale is None for path in ("0", "3", "7", "8", "9")] == [
        True,
        False,
        False,
        True,
        True,
    ]
    assert "input 0" not in rows


class Pair(NamedTuple):
    """What two branches give."""

    left: Any
    right: Any


class Branches(Module):
    """A layer on the first input; the second one is only rectified."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(3, 2), nn.ReLU()

    def forward(self, x: Tensor, y: Tensor) -> Pair:
        """(N, 3), (M,) -> (N, 2), (M,)."""
        return Pair(self.layer(x), self.act(y))


def test_codes_that_meet_no_island_are_codes() -> None:
    """Oracle: by hand: the branch without an island is quantised, the other one exact; a named tuple."""
    x, y = (np.random.default_rng(1).normal(size=shape).astype(np.float32) for shape in ((9, 3), (50,)))
    model = Branches().eval()
    calibration = calibrate(model, [(x, y)], inputs_of=lambda batch: batch)
    made: Any = convert(model, calibration, keep_float=["layer"])
    assert [type(each).__name__ for each in made.quantize] == ["Identity", "Quantize"]
    got, wanted = made(tensor(x), tensor(y)), model(tensor(x), tensor(y))
    assert isinstance(got, Pair)
    np.testing.assert_array_equal(got.left.array, wanted.left.array)
    assert 0 < np.abs(got.right.array - wanted.right.array).max() < 0.1


def test_a_result_of_floats_needs_no_mark() -> None:
    """Oracle: the float model; codes as a result are refused."""
    model = nn.Sequential(QuantStub(), nn.Linear(3, 2), nn.Linear(2, 2)).eval()
    x = np.random.default_rng(1).normal(size=(9, 3)).astype(np.float32)
    calibration = calibrate(model, [x])
    np.testing.assert_array_equal(run(convert(model, calibration, keep_float=["1", "2"]), x), run(model, x))
    with pytest.raises(SettingError, match="the model's result would be codes"):
        convert(model, calibration, keep_float=["1"])


class Twice(Module):
    """Gives its input, and the double of it."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(...) -> (...), (...)."""
        return x * 1.0, x * 2.0


def test_what_gives_several_results_is_refused() -> None:
    """Oracle: the error: it has no one output to be observed."""
    model = nn.Sequential(nn.Linear(3, 2), Twice()).eval()
    x = np.random.default_rng(1).normal(size=(9, 3)).astype(np.float32)
    with pytest.raises(SettingError, match="'1' gives 2 tensors"):
        convert(model, calibrate(model, [x]), keep_float=["0", "1"])


def test_one_string_is_no_list_of_paths() -> None:
    """Oracle: the error; its letters would be paths of a Sequential."""
    model, x = images()
    calibration = calibrate(model, [x])
    for call in (
        lambda: convert(model, calibration, keep_float="79"),
        lambda: prepare_qat(model, tensor(x), keep_float="79"),
        lambda: assign(model, calibration, [x], sqnr_db=20.0, keep_float="79"),
        lambda: sweep(model, calibration, [x], keep_float="79"),
    ):
        with pytest.raises(SettingError, match="takes several paths, got the string '79'"):
            call()


class Joined(Module):
    """Two layers whose outputs are joined; what each takes is named, or in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.cat = nn.Linear(3, 3), nn.Linear(3, 3), Cat(1)
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3) -> (N, 2)."""
        y: Tensor = self.last(input=self.cat([self.left(input=x), self.right(x)]))
        return y


@pytest.mark.parametrize("keep", [["cat"], ["cat", "left"], ["left"], ["left", "right", "cat", "last"]])
def test_inputs_in_lists_and_by_name(keep: list[str]) -> None:
    """Oracle: the float model, to a step or two of each place's codes; a bench, to the bit."""
    x = np.random.default_rng(1).normal(size=(30, 3)).astype(np.float32)
    model = Joined().eval()
    calibration = calibrate(model, [x])
    made: Any = convert(model, calibration, keep_float=keep)
    assert np.abs(run(made, x) - run(model, x)).max() < 0.03
    if "cat" in keep:
        assert made.model.cat.floats == ((0, 1) if "right" in keep else (0,) if "left" in keep else ())
    bench = Bench(model, walked(model, calibration), ("float32",))
    bench.set_forms(dict.fromkeys(bench.sites, "int8") | dict.fromkeys(keep, "float32"))
    np.testing.assert_array_equal(run(bench, x), run(made, x))


def test_inputs_are_counted() -> None:
    """Oracle: the error in words."""
    model, x = images()
    made = convert(model, calibrate(model, [x]))
    with pytest.raises(SettingError, match="calibrated with 1 inputs, got 2"):
        made(x, x)
