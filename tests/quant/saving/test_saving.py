"""Quantised models in files: nothing is lost, nothing is guessed, nothing half-made is written."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from minimp import nn
from minimp.checkpoint import load as load_state
from minimp.checkpoint import save as save_state
from minimp.errors import CheckpointError, SettingError
from minimp.files.sealed import read_arrays, write_sealed
from minimp.nn.module import Module
from minimp.quant import saving
from minimp.quant.exchanging import Narrowed
from minimp.quant.modules import QuantizedModule
from minimp.quant.modules.conversions import CONVERSIONS
from minimp.quant.qat import prepare_qat
from minimp.quant.saving.classes import FLOATS, ROWS
from minimp.quant.saving.files import NOTE
from minimp.quant.static import calibrate, convert
from minimp.rng import manual_seed
from minimp.tensors import tensor
from tests.quant.saving.samples import CASES, Array, Gate, Joined, case, normal, results, static


def bits(model: Module) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return dtype, shape and bytes of every leaf."""
    return {path: (x.array.dtype.name, x.shape, x.array.tobytes()) for path, x in model.state_dict().items()}


@pytest.mark.parametrize("name", CASES)
def test_all_comes_back(name: str, tmp_path: Path) -> None:
    """Oracle: the model itself: its modules and settings, every bit of its leaves, every bit of results."""
    model, x = case(name)
    saving.save(tmp_path / "q.safetensors", model)
    again = saving.load(tmp_path / "q.safetensors")
    assert repr(again) == repr(model)
    assert bits(again) == bits(model)
    for a, b in zip(results(model, x), results(again, x), strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()
    assert not any(each.training for each in again.modules())


@given(st.data())
@settings(max_examples=15)
def test_random_models_come_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Oracle: codes and results of the model that was saved; the file says all there is, in either mode."""
    draw = data.draw
    manual_seed(draw(st.integers(0, 99)))
    channels, layers = 2, []
    for _ in range(draw(st.integers(1, 3))):
        outer, kernel = draw(st.integers(1, 5)), draw(st.sampled_from([1, 3]))
        layers.append(nn.Conv2d(channels, outer, kernel, padding=kernel // 2, bias=draw(st.booleans())))
        layers += draw(st.sampled_from([[], [nn.ReLU()], [nn.BatchNorm2d(outer), nn.ReLU()]]))
        layers += draw(st.sampled_from([[], [nn.MaxPool2d(1)], [nn.AvgPool2d(3, 1, 1)], [nn.Identity()]]))
        channels = outer
    layers += [nn.Flatten(), nn.Linear(36 * channels, draw(st.integers(1, 4)))]
    x = normal(3, 2, 6, 6, seed=draw(st.integers(0, 99)))
    model = static(nn.Sequential(*layers), x, mode=draw(st.sampled_from(["float", "fixed-point"])))
    path = tmp_path_factory.mktemp("random") / "q.safetensors"
    saving.save(path, model)
    again = saving.load(path)
    assert bits(again) == bits(model)
    assert [a.tobytes() for a in results(again, x)] == [a.tobytes() for a in results(model, x)]


def test_what_the_file_holds(tmp_path: Path) -> None:
    """Oracle: the safetensors library: integers as integers, by their paths; and the bytes of the tensors."""
    manual_seed(0)
    model = static(nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 10)), normal(9, 300))
    path = tmp_path / "q.safetensors"
    saving.save(path, model, meta={"model": "two layers"})
    held = load_file(path)
    assert {name: str(array.dtype) for name, array in held.items() if name.startswith("model.0.")} == {
        "model.0.weight": "int8", "model.0.weight_scale": "float32", "model.0.weight_zero_point": "int32",
        "model.0.input_scale": "float32", "model.0.input_zero_point": "int32", "model.0.scale": "float32",
        "model.0.zero_point": "int32", "model.0.bias": "int32",
    }  # fmt: skip
    own = sum(each.nbytes for each in held.values())
    assert own == sum(each.nbytes for each in model.buffers())
    assert path.stat().st_size <= 1.02 * own + 4096
    assert load_state(path).keys() == held.keys()  # any reader of weights takes the tensors


def test_ties_stay_ties(tmp_path: Path) -> None:
    """Oracle: identity in the model, and the count of tensors in the file."""
    model, _ = case("dynamic, tied")
    assert model[0].weight_codes is model[2].weight_codes
    path = tmp_path / "q.safetensors"
    saving.save(path, model)
    again = saving.load(path)
    assert again[0].weight_codes is again[2].weight_codes
    assert len(load_file(path)) == len(model.state_dict()) - 3


def test_equal_models_make_equal_files(tmp_path: Path) -> None:
    """Oracle: the bytes: a file says nothing but its model."""
    for name in ("a", "b"):
        saving.save(tmp_path / name, case("static")[0])
    saving.save(tmp_path / "c", saving.load(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_random_numbers_stay(tmp_path: Path) -> None:
    """Oracle: the draw that would have come; nothing is drawn to be thrown away."""
    model, _ = case("weights in int8")
    manual_seed(3)
    wanted = nn.Linear(2, 2).weight.array
    manual_seed(3)
    saving.save(tmp_path / "q", model)
    saving.load(tmp_path / "q")
    assert np.array_equal(nn.Linear(2, 2).weight.array, wanted)


# ---- classes --------------------------------------------------------------------------------------------


def test_classes_of_the_user(tmp_path: Path) -> None:
    """Oracle: the model: its class is named on both sides, and its attributes come back in their types."""
    manual_seed(0)
    x, path = normal(4, 2, 6, 6), tmp_path / "q.safetensors"
    model = static(Joined(), x)
    with pytest.raises(SettingError, match="the model is a Joined, a class that files have no name for"):
        saving.save(path, model)
    assert not path.exists()
    saving.save(path, model, classes=[Joined])
    with pytest.raises(CheckpointError, match=r"unknown class 'Joined'[\s\S]*classes=\[Joined\]"):
        saving.load(path)
    again = saving.load(path, classes=[Joined])
    assert type(again) is Joined
    assert again.words == model.words == ("left", 2.5, None, [True])
    assert [a.tobytes() for a in results(again, x)] == [a.tobytes() for a in results(model, x)]


def test_products_and_differences(tmp_path: Path) -> None:
    """Oracle: the model: codes that are multiplied and subtracted."""
    manual_seed(0)
    x, path = normal(4, 6), tmp_path / "q.safetensors"
    model = static(Gate(), x)
    saving.save(path, model, classes=[Gate])
    again = saving.load(path, classes=[Gate])
    assert repr(again) == repr(model)
    assert [a.tobytes() for a in results(again, x)] == [a.tobytes() for a in results(model, x)]


def _all_subclasses(kind: type[Any]) -> set[type[Any]]:
    own = set(kind.__subclasses__())
    return own.union(*map(_all_subclasses, own))


def test_every_class_on_codes_has_a_row() -> None:
    """Oracle: the subclasses that the package defines, all of them, and what converting takes."""
    made = _all_subclasses(QuantizedModule) | _all_subclasses(Narrowed)
    bases = {each for each in made if each.__subclasses__() or each.__name__.startswith("_")}
    wanted = {each for each in made - bases if each.__module__.startswith("minimp.")} | set(CONVERSIONS)
    assert {each.__name__ for each in wanted if ROWS.get(each.__name__) is None} == set()
    assert all(ROWS[each.__name__].kind is each for each in wanted)


def _arguments(kind: type[Module]) -> dict[str, Any]:
    """Return arguments that make an instance."""
    layer = {"decoder_layer": nn.TransformerDecoderLayer, "encoder_layer": nn.TransformerEncoderLayer}
    known: dict[str, Any] = {"value": 0.5, "threshold": 0.5, "unflattened_size": (2, 2), "groups": 2,
                             "num_groups": 2, "num_heads": 2, "nhead": 2, "padding": 1}  # fmt: skip
    if kind is nn.Transformer:
        return {"d_model": 4, "nhead": 2, "num_encoder_layers": 1, "dim_feedforward": 4}
    names = inspect.signature(kind).parameters.values()
    needed = [each.name for each in names if each.default is each.empty and each.kind.name[:3] != "VAR"]
    return {name: layer[name](4, 2, 4) if name in layer else known.get(name, 4) for name in needed}


@pytest.mark.parametrize("kind", [each for each in FLOATS if each.__module__.startswith("minimp.nn")])
def test_the_settings_of_float_modules(kind: type[Module], tmp_path: Path) -> None:
    """Oracle: an instance from its constructor: the row has all its settings, and no others."""
    manual_seed(0)
    model = nn.Sequential(kind(**_arguments(kind))).eval()
    saving.save(tmp_path / "q", model)
    again = saving.load(tmp_path / "q")
    assert repr(again) == repr(model)
    assert vars(again[0]).keys() == vars(model[0]).keys()


# ---- what is refused ------------------------------------------------------------------------------------


def test_what_cannot_be_described(tmp_path: Path) -> None:
    """Oracle: the words, and a folder with nothing new in it; the file of before stays."""
    path = tmp_path / "q.safetensors"
    path.write_bytes(b"before")
    hooked, odd, own = case("dynamic")[0], case("dynamic")[0], case("static")[0]
    hooked[1].register_forward_hook(lambda *_: None)
    odd[0].note = "mine"
    own.model[0].stride = np.int64(1)
    prepared = prepare_qat(nn.Sequential(nn.Linear(2, 2)), normal(4, 2))
    for model, words in (
        (prepared, "the model is a PreparedModel, which is still to be converted"),
        (hooked, "'1': it has hooks"),
        (odd, "'0.note' is an attribute that a DynamicQuantizedLinear does not have by itself"),
        (own, "'model.0.stride' is a int64, which a file cannot describe"),
        (nn.Sequential(nn.MSELoss()), "'0' is a MSELoss, a class that files have no name for"),
        ("model", "expected a module, got str"),
    ):
        with pytest.raises(SettingError, match=words):
            saving.save(path, model)  # type: ignore[arg-type] # one of them is no module
    for options, words in (
        ({"meta": {"minimp.x": "y"}}, "meta has 'minimp.x'"),
        ({"classes": [type("Linear", (Module,), {})]}, "two classes are called 'Linear'"),
        ({"classes": [int]}, "expected classes of modules"),
    ):
        with pytest.raises(SettingError, match=words):
            saving.save(path, nn.Linear(2, 2), **options)
    assert path.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["q.safetensors"]


def test_a_rounded_scale_is_not_saved(tmp_path: Path) -> None:
    """Oracle: the module's own refusal: .half() rounded its scales."""
    with pytest.raises(SettingError, match=r"cannot be rebuilt: .*its scales are float16") as fault:
        saving.save(tmp_path / "q", case("static")[0].half())
    assert str(fault.value).count("save: ") == str(fault.value).count("help: ") == 1
    assert not list(tmp_path.iterdir())


def forged(path: Path, change: Any) -> Path:
    """Return a file whose description or arrays were changed, under a checksum that fits."""
    arrays, notes = read_arrays(path, "test")
    stored = json.loads(notes[NOTE])
    change(stored, arrays)
    made = path.with_name("forged.safetensors")
    write_sealed(made, arrays, {NOTE: json.dumps(stored)}, op="test")
    return made


def _first(stored: Any) -> Any:
    return stored["model"]["children"]["model"]["children"]["0"]


def _put(name: str, array: Array) -> Any:
    def change(stored: Any, arrays: dict[str, Array]) -> None:
        arrays[name] = array
        sizes = "x".join(map(str, array.shape))
        _first(stored)["buffers"][name.rpartition(".")[2]] = f"{array.dtype.name} {sizes}".strip()

    return change


FORGERIES = {
    "a newer schema": (lambda s, _: s.update(schema=2), "schema 2, and this minimp knows"),
    "no schema": (lambda s, _: s.pop("schema"), "its description is damaged"),
    "a schema of words": (lambda s, _: s.update(schema="1"), "it has schema '1', and"),
    "an unknown class": (lambda s, _: _first(s).update({"class": "system"}), "unknown class 'system'"),
    "a class of numbers": (lambda s, _: _first(s).update({"class": 3}), "unknown class '3'"),
    "an unknown part": (lambda s, _: _first(s).update(code="x"), "has unknown parts: code"),
    "a strange setting": (lambda s, _: _first(s)["settings"].update(forward=1), "has a setting 'forward'"),
    "a lacking setting": (lambda s, _: _first(s)["settings"].pop("mode"), "lacks the setting 'mode'"),
    "an unknown value": (
        lambda s, _: _first(s)["settings"].update(mode={"code": 1}), "unknown kind, 'code'"),
    "codes that cannot be": (
        lambda s, _: _first(s)["settings"].update(codes={"tuple": [0, 999, None, "torch"]}),
        "is no QuantizedConv2d that can be: .*0..999"),
    "a missing tensor": (lambda _, a: a.pop("model.0.bias"), "tensor 'model.0.bias' is missing"),
    "one tensor more": (lambda _, a: a.update(x=np.zeros(1)), "no module has its tensor 'x'"),
    "another dtype": (
        lambda _, a: a.update({"model.0.weight": a["model.0.weight"].astype(np.int16)}),
        "is int16 4x2x3x3, and the model has int8 4x2x3x3"),
    "another shape": (
        lambda _, a: a.update({"model.0.bias": np.zeros(9, np.int32)}), "is int32 9, and the model has"),
    "a float weight": (_put("model.0.weight", np.zeros((4, 2, 3, 3), np.float32)), "expected codes in int8"),
    "a float bias": (_put("model.0.bias", np.zeros(4, np.float32)), "expected a bias in int32"),
    "a short bias": (_put("model.0.bias", np.zeros(3, np.int32)), "expected a bias of 4"),
    "few scales": (_put("model.0.weight_scale", np.ones(3, np.float32)), "shape"),
    "a scale of 0": (_put("model.0.weight_scale", np.zeros(4, np.float32)), "scale"),
    "a zero point": (_put("model.0.zero_point", np.asarray(999, np.int32)), "zero point 999"),
    "a loop": (
        lambda s, _: s["model"]["children"].update(model={"same": "nowhere"}), "do not belong together"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_files(name: str, tmp_path: Path) -> None:
    """Oracle: the words: each says what is wrong, and what to do."""
    change, words = FORGERIES[name]
    saving.save(tmp_path / "q.safetensors", case("static")[0])
    with pytest.raises(CheckpointError, match=words) as caught:
        saving.load(forged(tmp_path / "q.safetensors", change))
    assert caught.value.help


def test_a_forged_table(tmp_path: Path) -> None:
    """Oracle: the words: entries of a table must be codes of what it gives."""

    def change(stored: Any, arrays: dict[str, Array]) -> None:
        arrays["model.1.table"] = arrays["model.1.table"].astype(np.int16)
        stored["model"]["children"]["model"]["children"]["1"]["buffers"]["table"] = "int16 256"

    saving.save(tmp_path / "q.safetensors", case("functions")[0])
    with pytest.raises(CheckpointError, match=r"'model\.1' is no QuantizedTable that can be"):
        saving.load(forged(tmp_path / "q.safetensors", change))


@pytest.mark.parametrize("change", [{"compute": "float8"}, {"floats": "0"}, {"floats": {"tuple": ["0"]}}])
def test_a_forged_island(change: dict[str, Any], tmp_path: Path) -> None:
    """Oracle: the words: what it computes in, and which inputs are floats."""
    model, x = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).eval(), np.ones((3, 2), np.float32)
    saving.save(tmp_path / "q.safetensors", convert(model, calibrate(model, [x]), keep_float=["0"]))
    path = forged(tmp_path / "q.safetensors", lambda s, _: _first(s)["settings"].update(change))
    with pytest.raises(CheckpointError, match=r"'model\.0' is no FloatIsland that can be: expected compute"):
        saving.load(path)


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    """Oracle: any byte changed and any end cut off is found; other files are named for what they are."""
    path, bad = tmp_path / "q.safetensors", tmp_path / "bad"
    saving.save(path, case("dynamic")[0])
    data = path.read_bytes()
    for place in range(0, len(data), 97):
        bad.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(CheckpointError):
            saving.load(bad)
        bad.write_bytes(data[:place])
        with pytest.raises(CheckpointError):
            saving.load(bad)
    save_state(bad, {"w": np.zeros(3)})
    with pytest.raises(CheckpointError, match="a state that minimp saved, and no quantised model"):
        saving.load(bad)
    write_sealed(bad, {"w": np.zeros(3)}, {}, op="test")
    with pytest.raises(CheckpointError, match="weights alone"):
        saving.load(bad)
    with pytest.raises(CheckpointError, match="there is no such file"):
        saving.load(tmp_path / "nothing")


def test_a_file_of_numbers_that_were_tensors(tmp_path: Path) -> None:
    """Oracle: the model: frozen parameters stay frozen, buffers that no state dict has are there too."""
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].weight.requires_grad_(False)
    model[0].register_buffer("aside", tensor(np.ones(2, np.float32)), persistent=False)
    saving.save(tmp_path / "q", model)
    again = saving.load(tmp_path / "q")
    assert [each.requires_grad for each in again.parameters()] == [False, True]
    assert "0.aside" not in again.state_dict()
    assert np.array_equal(again[0].aside.array, np.ones(2))
