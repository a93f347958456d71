"""Sizes of models on the command line; oracles: the values by hand, the models' own defaults."""

from __future__ import annotations

from typing import Any

import pytest

from minimp.cli.sizes import parse_sizes, sizes_text
from minimp.errors import SettingError
from minimp.models import MODELS


@pytest.mark.parametrize("name", MODELS)
def test_the_defaults_come_back(name: str) -> None:
    """Oracle: the text of a model's sizes, read again, is its sizes."""
    assert parse_sizes(sizes_text(MODELS[name]), MODELS[name]) == dict(MODELS[name].sizes)


@pytest.mark.parametrize(
    ("model", "text", "wanted"),
    [
        ("mlp", None, {}),
        ("mlp", "", {}),
        ("mlp", "hidden=5", {"hidden": (5,)}),
        ("mlp", " hidden = 5x6x7 , dropout=0.25", {"hidden": (5, 6, 7), "dropout": 0.25}),
        ("mlp", "hidden=none", {"hidden": ()}),
        ("gpt", "tied=no,layers=1", {"tied": False, "layers": 1}),
        ("gpt", "tied=YES", {"tied": True}),
        ("autoencoder", "code=3", {"code": 3}),
    ],
)
def test_values_have_the_type_of_the_default(model: str, text: str | None, wanted: dict[str, Any]) -> None:
    """Oracle: values by hand."""
    found = parse_sizes(text, MODELS[model])
    assert found == wanted
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in wanted.items()
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("width", "takes name=value,name=value, got 'width'"),
        ("width=", "takes name=value"),
        ("width=64,", "takes name=value"),
        ("widht=64", "did you mean 'width'"),
        ("width=64,width=65", "names 'width' twice"),
        ("width=wide", "width= takes a whole number, got 'wide'"),
        ("width=6.5", "width= takes a whole number"),
        ("dropout=some", "dropout= takes a number"),
        ("tied=1", "tied= takes yes or no, got '1'"),
    ],
)
def test_what_cannot_be_read(text: str, words: str) -> None:
    """Oracle: the words of the refusal."""
    with pytest.raises(SettingError, match=words):
        parse_sizes(text, MODELS["gpt"])
    with pytest.raises(SettingError, match="hidden= takes whole numbers like 64x32, or none, got '3y4'"):
        parse_sizes("hidden=3y4", MODELS["mlp"])
