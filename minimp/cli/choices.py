"""Options that `train` and `compare` share: the model's sizes, and how its data is read."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable

from minimp.backend import use_backend
from minimp.cli.sizes import sizes_text
from minimp.data import AnyParts, TextDataset
from minimp.data.corpus import CONTEXT
from minimp.data.pictures import COLOURS
from minimp.errors import SettingError
from minimp.memory.forecasting import SHAPES_OF
from minimp.models import MODELS

__all__ = [
    "READING", "add_backend", "add_reading", "both_sizes", "computing_on", "models_text", "refuse_reading",
]  # fmt: skip

READING = ("context", "image_size", "colour")
"""Options of the reader that both commands have."""
BACKEND_HELP = (
    "where to compute: numpy, cupy (an NVIDIA GPU), or strict (for tests: a device of host memory, as picky "
    "as a GPU, and slow)"
)


def add_backend(add: Callable[..., object], default: str | None = "numpy", note: str = "") -> None:
    """Add the option that says where to compute; without a default of its own, say in `note` which it is."""
    add("--backend", metavar="NAME", default=default, help=f"{BACKEND_HELP} (default: numpy{note})")


def add_reading(add: Callable[..., object], *, sizes: bool = True) -> None:
    """Add the options of the data, and of the model's sizes if it is not made yet."""
    add("--data", metavar="SOURCE",
        help="'digits', an IDX folder, a folder of pictures (a folder a class), .npz or .csv; for gpt: "
        "'stdlib' or a UTF-8 text file (default: the model's)")  # fmt: skip
    add("--context", type=int, metavar="N", help=f"gpt: characters that the model sees (default: {CONTEXT})")
    add("--image-size", type=int, metavar="S", help="pictures: scale and cut all to S x S")
    add("--colour", metavar="NAME", help=f"pictures: {' or '.join(COLOURS)} (default: gray if all are)")
    if sizes:
        add("--sizes", metavar="A=X,B=Y", help="sizes of the model, see below")


def refuse_reading(args: argparse.Namespace, beside: str) -> None:
    """Refuse the options of the data, where none is read.

    Raises:
        SettingError: one of them was given.
    """
    for name in ("data", "label", *READING):
        if getattr(args, name) is not None:
            raise SettingError(f"--{name.replace('_', '-')} cannot act beside {beside}")


def computing_on(name: str) -> use_backend:
    """Use a backend that computes values.

    Raises:
        SettingError, DeviceError: as `use_backend`; or it is the backend of shapes.
    """
    if name in SHAPES_OF.values():
        raise SettingError(
            f"--backend {name} computes no values, only shapes", help="minimp memory counts with it"
        )
    return use_backend(name)


def both_sizes(data: AnyParts) -> str:
    """Return the sizes of both parts in words."""
    of = f" of {data.train.about}" if isinstance(data.train, TextDataset) else ""
    return f"{data.train.size_text}{of}, {data.test.size_text.split()[0]} to test"


def models_text() -> str:
    """Return the models with their sizes, for the end of a help text."""
    lines = ["models, with their sizes:"]
    for kind in MODELS.values():
        text = f"{kind.name}: {kind.note}. --sizes {sizes_text(kind)}"
        if kind.defaults:
            usual = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in kind.defaults.items())
            text += f". train, if nothing else is said: {usual}"
        lines.append(
            textwrap.fill(
                text, 96, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False,
                break_long_words=False,
            )
        )  # fmt: skip
    return "\n".join(lines)
