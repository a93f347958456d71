"""A trained model on the command line: the checkpoint of a run, or a file of weights that says what it is."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimp import checkpoint, models
from minimp.cli.choices import READING
from minimp.cli.sizes import parse_sizes
from minimp.cli.train_settings import TrainSettings
from minimp.data import AnyParts, TextDataset
from minimp.errors import CheckpointError, DataError, MinimpError, SettingError
from minimp.nn import Module

__all__ = ["CHECKPOINT", "WEIGHTS", "Source", "find_source"]

CHECKPOINT, WEIGHTS = "checkpoint.safetensors", "weights.safetensors"
KNOWN = ("model", "input_shape", "num_classes", "sizes")
"""What the file of weights says of its model (`minimp train` writes it)."""


@dataclass(frozen=True)
class Source:
    """A trained model's weights, and what is known of the model.

    Attributes:
        title: what it is, in words.
        folder: where it lies.
        file: the file that holds it.
        weights: the flat state dict.
        meta: what a file of weights says of its model.
        settings: of the run, where a checkpoint was read.
        state: the checkpoint.
        op: the command that reads it, for messages.
    """

    title: str
    folder: Path
    file: Path
    weights: Mapping[str, Any]
    meta: Mapping[str, str]
    settings: TrainSettings | None = None
    state: Mapping[str, Any] | None = None
    op: str = "export"

    @property
    def kind(self) -> models.ModelKind:
        """The kind of model."""
        return models.MODELS[self.settings.model if self.settings else self.meta["model"]]

    @property
    def sizes(self) -> dict[str, Any]:
        """The sizes of the model."""
        return parse_sizes(self.settings.sizes if self.settings else self.meta["sizes"], self.kind)

    def read(self, options: Mapping[str, Any]) -> AnyParts:
        """Read the data to judge by: the run's own, where nothing else is named."""
        given = {name: options[name] for name in ("label", *READING)}
        if self.settings is None:
            if self.kind.shape == "text" and given["context"] is None:
                (given["context"],) = self._shape
            data = self.kind.read(options["data"] or self.kind.data, **given)
            self._check_vocabulary(data)
            self._check_shape(data)
            return data
        own = {name: getattr(self.settings, name) for name in given} if options["data"] is None else {}
        chosen = {**own, **{name: value for name, value in given.items() if value is not None}}
        data = self.kind.read(options["data"] or self.settings.data, **chosen)
        if self.state is not None and (options["data"] is None or isinstance(data.train, TextDataset)):
            self.settings.check_data(self.state, data)
        return data

    @property
    def _shape(self) -> tuple[int, ...]:
        """The shape of one input, as the file of weights has it."""
        return tuple(ast.literal_eval(self.meta["input_shape"]))

    def _check_vocabulary(self, data: AnyParts) -> None:
        train = data.train
        if isinstance(train, TextDataset) and train.vocabulary.characters != self.meta.get("vocabulary"):
            raise DataError(
                f"{train.name} has other characters than the model was trained on",
                op=self.op, help="name its own text with --data, or leave the judging out: --size-only",
            )  # fmt: skip

    def _check_shape(self, data: AnyParts) -> None:
        wanted, found = self._shape, tuple(data.train.input_shape)
        if wanted != found:
            raise DataError(
                f"the model takes inputs of {wanted}, and {data.train.name} has {found}",
                op=self.op, shapes=[found], help="name the data that it was trained on with --data",
            )  # fmt: skip

    def build(self, data: AnyParts | None) -> Module:
        """Make the model with its weights, in FP32."""
        shapes: Any = data and data.train
        if self.meta:
            shapes = self._shape, int(self.meta["num_classes"])
        model = models.build(self.kind.name, shapes, **self.sizes)
        try:
            model.load_state_dict(self.weights)
        except MinimpError as fault:
            text = str(fault).partition("\n")[0]
            raise DataError(
                f"the weights do not fit a model of this data: {text}", op=self.op,
                help="name data like that which it was trained on with --data",
            ) from fault  # fmt: skip
        return model

    def described(self, data: AnyParts | None) -> dict[str, str]:
        """Return what the new file says of its model: what the old one said, or what the data does."""
        if self.settings is None or data is None:
            return {
                name: text for name, text in self.meta.items() if name in (*KNOWN, "recipe", "vocabulary")
            }
        train = data.train
        said = {
            "model": self.settings.model, "recipe": self.settings.recipe,
            "input_shape": str(train.input_shape), "num_classes": str(train.num_classes),
            "sizes": self.settings.sizes or "",
        }  # fmt: skip
        if isinstance(train, TextDataset):
            said["vocabulary"] = train.vocabulary.characters
        return said


def find_source(path: Path, op: str, *, files: Sequence[str] = (CHECKPOINT, WEIGHTS)) -> Source:
    """Find the weights: of a run's checkpoint, which is its newest state, or of a file of weights.

    Args:
        path: a folder, a checkpoint, or a file of weights.
        op: the command, for messages.
        files: what to look for in a folder, in this order.

    Raises:
        CheckpointError: there is none, or it cannot be read, or does not say of which model it is.
        SettingError: it holds a model that is quantised already.
    """
    file = path
    if path.is_dir():
        file = next((path / name for name in files if (path / name).exists()), path)
        if file is path:
            raise CheckpointError(
                f"{path} holds no run: there is neither {CHECKPOINT} nor {WEIGHTS} in it",
                help="name the folder of a run of `minimp train`, or a file of weights",
            )
    state = checkpoint.load(file)
    if isinstance(state.get("model"), dict) and isinstance(state.get("settings"), dict):
        settings = TrainSettings.from_checkpoint(state, dict.fromkeys(TrainSettings.__dataclass_fields__))
        title = f"{settings.model} trained by {settings.recipe}, step {state['step']:,}"
        return Source(title, file.parent, file, state["model"], {}, settings, state, op)
    meta = checkpoint.read_meta(file)
    if "quantized" in meta:
        raise SettingError(
            f"{file} holds a model that is quantised already ({meta['quantized']})", op=op,
            help="name the run that it was made from",
        )  # fmt: skip
    lacking = [name for name in KNOWN if name not in meta]
    if lacking:
        raise CheckpointError(
            f"{file} does not say of which model it is (no {', '.join(lacking)} in its metadata)",
            help="name a run of `minimp train`, or call minimp.checkpoint.export with the model",
        )
    title = f"{meta['model']} from {file.name}"
    return Source(title, file.parent, file, state, meta, op=op)
