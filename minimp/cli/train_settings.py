"""The settings of a run of `minimp train`: from options, or from the checkpoint that is resumed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from minimp import models, rng
from minimp.cli.sizes import parse_sizes
from minimp.data import AnyParts, DataLoader
from minimp.data.opening import NAMES
from minimp.data.order import check_seed
from minimp.errors import CheckpointError, SettingError, unknown_name
from minimp.optim import LAMB, SGD, Adagrad, Adam, AdamW, Lion, Optimizer, RMSprop
from minimp.recipe import recipes
from minimp.step import TrainStep

__all__ = ["DEFAULTS", "OPTIMIZERS", "TrainSettings"]

OPTIMIZERS: Mapping[str, tuple[type[Optimizer], dict[str, float]]] = {
    "sgd": (SGD, {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}),
    "adam": (Adam, {"lr": 1e-3, "weight_decay": 0.0}),
    "adamw": (AdamW, {"lr": 1e-3, "weight_decay": 0.01}),
    "rmsprop": (RMSprop, {"lr": 1e-2, "momentum": 0.0, "weight_decay": 0.0}),
    "adagrad": (Adagrad, {"lr": 1e-2, "weight_decay": 0.0}),
    "lion": (Lion, {"lr": 1e-4, "weight_decay": 0.0}),
    "lamb": (LAMB, {"lr": 1e-3, "weight_decay": 0.01}),
}
"""Name -> class, and the options that mean something to it, with their defaults (all but lr are torch's)."""

DEFAULTS: Mapping[str, Any] = {
    "recipe": "mixed-fp16", "model": "mlp", "steps": 500, "batch": 64, "optimizer": "adam", "seed": 0,
    "backend": "numpy", "checkpoint_every": 100,
}  # fmt: skip
"""What an option is where it is not given, and the model (`ModelKind.defaults`) says nothing else."""

FREE = ("steps", "data", "label", "image_size", "colour", "checkpoint_every", "backend")
"""What a resumed run need not share; its data must still be the same values."""


@dataclass(frozen=True)
class TrainSettings:
    """What a run is made from; the fields are the command's options.

    Raises:
        SettingError: a name does not exist, a number is out of range, or a setting cannot act.
    """

    recipe: str
    model: str
    data: str
    label: str | None
    steps: int
    batch: int
    optimizer: str
    lr: float
    momentum: float | None
    weight_decay: float
    max_norm: float | None
    seed: int
    backend: str
    checkpoint_every: int
    sizes: str | None = None
    context: int | None = None
    image_size: int | None = None
    colour: str | None = None

    def __post_init__(self) -> None:
        recipes[self.recipe]
        parse_sizes(self.sizes, models.MODELS[self.model])
        check_seed(self.seed, "train")
        for name, least in (("steps", 1), ("batch", 1), ("checkpoint_every", 0)):
            if getattr(self, name) < least:
                raise SettingError(f"{_option(name)} must be at least {least}, got {getattr(self, name)}")
        for name in ("lr", "max_norm"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise SettingError(f"{_option(name)} must be a finite number greater than 0, got {value}")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> TrainSettings:
        """Return the settings of a new run; options that were not given are None."""
        given = {name: options[name] for name in cls.__dataclass_fields__}
        kind = models.MODELS[given["model"] or DEFAULTS["model"]]
        suited = {"data": kind.data, **kind.defaults}
        if given["optimizer"] not in (None, suited.get("optimizer")):
            suited.pop("lr", None)  # it is the suited optimizer's
        usual = {**DEFAULTS, **suited}
        chosen: dict[str, Any] = {
            name: usual.get(name) if value is None else value for name, value in given.items()
        }
        if chosen["optimizer"] not in OPTIMIZERS:
            raise SettingError(unknown_name("optimizer", chosen["optimizer"], OPTIMIZERS))
        own = OPTIMIZERS[chosen["optimizer"]][1]
        for name in ("lr", "momentum", "weight_decay"):
            if name not in own and chosen[name] is not None:
                raise SettingError(f"{_option(name)} cannot act on the optimizer {chosen['optimizer']!r}")
            chosen[name] = own.get(name) if chosen[name] is None else chosen[name]
        if chosen["data"] not in NAMES:
            chosen["data"] = str(Path(chosen["data"]).absolute())
        return cls(**chosen)

    @classmethod
    def from_checkpoint(cls, state: Mapping[str, Any], options: Mapping[str, Any]) -> TrainSettings:
        """Return the settings of a saved run, with those of FREE changed that were given.

        Raises:
            CheckpointError: the state is not of a run of this command; or another setting was given, and
                differs.
        """
        kept = {**state["settings"], **state["notes"]}
        try:
            saved = cls(**{name: kept[name] for name in cls.__dataclass_fields__ if name in kept})
        except TypeError as fault:
            raise CheckpointError(
                f"it was not saved by `minimp train`: {fault}", help="resume it with mp.Trainer"
            ) from fault
        given = {name: options[name] for name in cls.__dataclass_fields__ if options[name] is not None}
        for name, value in given.items():
            was = getattr(saved, name)
            if name not in FREE and value != was:
                raise CheckpointError(
                    f"the run was saved with {_option(name)} {was}, and is to be resumed with {value}",
                    help=f"leave {_option(name)} out, or begin a new run without --resume",
                )
        if given.get("data") not in (None, *NAMES):
            given["data"] = str(Path(given["data"]).absolute())
        return replace(saved, **given)

    def check_data(self, state: Mapping[str, Any], data: AnyParts) -> None:
        """Refuse to go on with other data than that of the saved run.

        Raises:
            CheckpointError: a value of the training or test part differs.
        """
        for name, fingerprint in _fingerprints(data).items():
            if state["settings"].get(name) != fingerprint:
                raise CheckpointError(
                    f"{self.data} does not hold the {name} that the run was saved with",
                    help="name the run's own data with --data, or begin a new run without --resume",
                )

    def free(self) -> dict[str, Any]:
        """Return what a resumed run need not share."""
        return {name: getattr(self, name) for name in FREE}

    def bound(self, data: AnyParts) -> dict[str, Any]:
        """Return what a resumed run must share."""
        fixed = {name: value for name, value in asdict(self).items() if name not in FREE}
        return {**fixed, **_fingerprints(data)}

    @property
    def kind(self) -> models.ModelKind:
        """What is known of the model."""
        return models.MODELS[self.model]

    @property
    def model_sizes(self) -> dict[str, Any]:
        """The sizes of the model that were asked for."""
        return parse_sizes(self.sizes, self.kind)

    def load_data(self) -> AnyParts:
        """Read the data, in the shape that the model wants."""
        names = ("label", "context", "image_size", "colour")
        return self.kind.read(self.data, **{name: getattr(self, name) for name in names})

    def make_step(self, data: AnyParts) -> TrainStep:
        """Seed the generator; build the model, its optimizer and the step."""
        rng.manual_seed(self.seed)
        model = models.build(self.model, data.train, **self.model_sizes)
        kind, own = OPTIMIZERS[self.optimizer]
        optimizer = kind(model.parameters(), **{name: getattr(self, name) for name in own})
        return TrainStep(model, self.kind.loss_fn, optimizer, self.recipe, max_norm=self.max_norm)

    def make_loader(self, data: AnyParts) -> DataLoader:
        """Return shuffled batches of the training part."""
        rows = len(data.train)
        if self.batch > rows:
            raise SettingError(
                f"--batch {self.batch} is more than the {rows} {data.train.unit} of {data.train.name}",
                help=f"--batch {rows} takes all of them in every step",
            )
        return DataLoader(data.train, self.batch, shuffle=True, seed=self.seed)


def _fingerprints(data: AnyParts) -> dict[str, str]:
    return {"training data": data.train.fingerprint, "test data": data.test.fingerprint}


def _option(name: str) -> str:
    """Return how a setting is called on the command line."""
    return "--" + name.replace("_", "-")
