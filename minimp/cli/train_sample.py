"""What a model of text writes at the end of `minimp train`."""

from __future__ import annotations

import argparse
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from minimp.cli.train_settings import TrainSettings
from minimp.data import AnyParts, TextDataset, Vocabulary
from minimp.errors import DataError, SettingError
from minimp.models.sampling import Drawing, sample
from minimp.nn import Module

__all__ = ["OPTIONS", "Sampler", "add_sample_options", "show_sample"]

LENGTH, TEMPERATURE, TOP_K, PROMPT = 400, 0.8, 20, "\n"
OPTIONS = ("sample", "prompt", "temperature", "top_k")
WIDTH = 98


def add_sample_options(add: Callable[..., object]) -> None:
    """Add the options of the text at the end."""
    add(
        "--sample",
        type=int,
        metavar="N",
        help=f"gpt: characters to write at the end (default: {LENGTH}; 0: none)",
    )
    add("--prompt", metavar="TEXT", help="gpt: what they go on from (default: a new line)")
    add("--temperature", type=float, metavar="X",
        help=f"gpt: 0: the likeliest, 1: as the model expects (default: {TEMPERATURE})")  # fmt: skip
    add("--top-k", type=int, metavar="K", help=f"gpt: draw from the K likeliest (default: {TOP_K})")


class Sampler:
    """The options of the text at the end, looked at before the training begins.

    Args:
        args: the command's options.
        settings: of the run.
        data: of the run.

    Raises:
        SettingError: an option that cannot act on the model, or is out of range.
        DataError: the prompt has a character that the text has not.
    """

    def __init__(self, args: argparse.Namespace, settings: TrainSettings, data: AnyParts) -> None:
        given = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
        self.vocabulary = data.train.vocabulary if isinstance(data.train, TextDataset) else None
        if self.vocabulary is None:
            for name in given:
                raise SettingError(
                    f"--{name.replace('_', '-')} cannot act on {settings.model!r}, which writes no text",
                    help="leave it out, or take --model gpt",
                )
        self.length = given.get("sample", LENGTH)
        self.prompt = given.get("prompt", _first_prompt(self.vocabulary))
        self.options = {
            "temperature": given.get("temperature", TEMPERATURE), "top_k": given.get("top_k", TOP_K),
            "seed": settings.seed,
        }  # fmt: skip
        self.recipe, self.context = settings.recipe, data.train.input_shape[0]
        if self.length < 0:
            raise SettingError(f"--sample must be 0 or more, got {self.length}")
        if not self.prompt:
            raise SettingError("--prompt is empty", help="give at least one character")
        Drawing(**self.options)
        if self.vocabulary is not None:
            self.vocabulary.encode(self.prompt)

    def write(self, model: Module) -> dict[str, Any] | None:
        """Return what the model writes, with how it was drawn; None where there is nothing to write.

        A model whose scores are no numbers writes nothing: then ``"text"`` is None, and ``"fault"`` says why.
        """
        if self.vocabulary is None or not self.length:
            return None
        how = {"prompt": self.prompt, "length": self.length, **self.options}
        try:
            text = sample(
                model, self.vocabulary, self.recipe, length=self.length, context=self.context,
                prompt=self.prompt, drawing=Drawing(**self.options),
            )  # fmt: skip
        except DataError as fault:
            return {**how, "text": None, "fault": str(fault).partition("\n")[0]}
        return {**how, "text": text}


def _first_prompt(vocabulary: Vocabulary | None) -> str:
    """Return a new line, or the first character that there is."""
    if vocabulary is None or PROMPT in vocabulary.characters:
        return PROMPT
    return vocabulary.characters[0]


def show_sample(out: Console, made: Mapping[str, Any]) -> None:
    """Print a text under a line that says how it was drawn; its prompt in bold, no line over 98 columns."""
    head = (
        f"what it writes: {made['length']:,} characters, temperature {made['temperature']:g}, "
        f"top-k {made['top_k']}, seed {made['seed']}"
    )
    out.print()
    if made["text"] is None:
        out.print(f"what it writes: nothing. {made['fault']}", highlight=False, markup=False)
        return
    out.print(head, highlight=False, markup=False, style="dim")
    written = Text(_harmless(made["prompt"].lstrip("\n")), style="bold").append(
        _harmless(made["text"]), style="not bold"
    )
    for line in written.split("\n"):
        for start in range(0, max(len(line), 1), WIDTH):
            out.print(line[start : start + WIDTH], highlight=False, soft_wrap=True)


def _harmless(text: str) -> str:
    """Return a text with nothing in it that moves the cursor but new lines; tabs as four spaces."""
    shown = text.replace("\t", "    ")
    return "".join(
        each if each == "\n" or unicodedata.category(each)[0] != "C" else "\N{REPLACEMENT CHARACTER}"
        for each in shown
    )
