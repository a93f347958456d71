"""Folders of pictures, a folder a class: read by Pillow, which is an extra."""

from __future__ import annotations

import importlib
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.data.dataset import ArrayDataset, TrainTest
from minimp.data.files import unreadable
from minimp.data.idx import pixels
from minimp.data.text import whole
from minimp.errors import DataError, SettingError, unknown_name

__all__ = ["COLOURS", "PICTURE_ENDINGS", "image_folder", "looks_like_pictures"]

OP = "image_folder"
PICTURE_ENDINGS = frozenset(
    f".{each}" for each in ("bmp", "gif", "jpeg", "jpg", "pgm", "png", "ppm", "tif", "tiff", "webp")
)
"""What the name of a picture ends in, upper and lower case alike; other files are not looked at."""
PARTS = ("train", "test")
COLOURS = {"gray": "L", "rgb": "RGB"}
"""What the channels can be -> Pillow's name of it."""
GRAY_MODES = frozenset({"1", "L", "LA"})
EIGHT_BITS = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
"""Pillow's modes that convert to 8-bit grey or RGB without clipping."""
FAULTS = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, NotImplementedError, struct.error, zlib.error),
)
"""What Pillow raises on damaged files (its decoders use more than its documentation names)."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A file, and what its header says."""

    path: Path
    label: int
    width: int
    height: int
    mode: str


def looks_like_pictures(folder: Path) -> bool:
    """Tell whether a folder has folders in it."""
    with unreadable(folder, OP):
        return any(each.is_dir() and not each.name.startswith(".") for each in folder.iterdir())


def image_folder(
    folder: str | os.PathLike[str], *, image_size: int | None = None, colour: str | None = None
) -> ArrayDataset | TrainTest:
    """Read pictures from a folder whose folders are the classes, or that has such folders train/ and test/.

    ::

        flowers/daisy/1.png                 flowers/train/daisy/1.png
        flowers/daisy/more/2.jpg    or      flowers/train/tulip/3.png
        flowers/tulip/3.png                 flowers/test/daisy/4.png

    Classes are the names of the subfolders in code point order, and must be the same in both parts. The
    pictures of a class, those in folders below it too, come in the order of their paths. Files are taken by
    their ending (`PICTURE_ENDINGS`); names that start with a dot are skipped. Pixels are v / 255 in float32,
    inputs are (N, C, H, W). Of an animation the first frame counts; transparency is dropped; the orientation
    that a camera noted is not applied.

    Everything is decoded at once: 4 N C H W bytes are held, and 1 N C H W more while reading.

    Args:
        folder: the folder.
        image_size: S: scale each picture so that its shorter side is S (bilinear, over all pixels that fall
            together), then cut S x S out of the middle. None takes pictures as they are: all of one size.
        colour: ``"gray"`` or ``"rgb"`` for one channel or three; None takes grey if all pictures are grey.

    Returns:
        An ArrayDataset, or ``TrainTest(train, test)`` where the folder has both parts.

    Raises:
        DataError: Pillow is missing; no folders, a class without pictures, parts with other classes; sizes
            that differ; a damaged picture, one of more than 8 bits a channel, or one beyond Pillow's limit
            of pixels; more bytes than this machine has. The message names the file.
        SettingError: `image_size` or `colour` cannot be.
    """
    root = Path(folder)
    if image_size is not None:
        whole("image_size", image_size, OP)
    if colour is not None and colour not in COLOURS:
        raise SettingError(unknown_name("colour", colour, COLOURS), op=OP)
    image = _pillow()
    name = root.resolve().name
    places = {name: root} if _parts_of(root) is None else {f"{name}/{part}": root / part for part in PARTS}
    classes = _same_classes(list(places.values()))
    found = {part: _headers(place, classes, image) for part, place in places.items()}
    every = [picture for pictures in found.values() for picture in pictures]
    mode = COLOURS[colour or ("gray" if all(each.mode in GRAY_MODES for each in every) else "rgb")]
    shape = _common_shape(every, image_size, mode)
    _check_memory(len(every), shape, root)
    made = [
        ArrayDataset(
            pixels(_decoded(pictures, shape, mode, image_size, image)), [each.label for each in pictures],
            name=part, num_classes=len(classes), class_names=classes,
        )
        for part, pictures in found.items()
    ]  # fmt: skip
    return made[0] if len(made) == 1 else TrainTest(*made)


def _pillow() -> Any:
    """Return Pillow's module of images."""
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as fault:
        raise DataError(
            "folders of pictures need Pillow, which is not installed",
            op=OP, help="pip install 'minimp[images]'",
        ) from fault  # fmt: skip


# ---- what is there --------------------------------------------------------------------------------------


def _folders(place: Path) -> list[str]:
    """Return the names of the folders in a folder, in code point order."""
    with unreadable(place, OP):
        return sorted(each.name for each in place.iterdir() if each.is_dir() and each.name[0] != ".")


def _parts_of(root: Path) -> tuple[str, ...] | None:
    """Return the two parts if the folder has them, None if its folders are classes."""
    names = _folders(root)
    there = [part for part in PARTS if part in names and _folders(root / part)]
    if len(there) == 1:
        missing = PARTS[1 - PARTS.index(there[0])]
        raise DataError(
            f"{root} has a folder {there[0]}/ with classes in it, and no {missing}/ like it",
            op=OP, help="give both parts, or the folder of the classes itself, which is then split",
        )  # fmt: skip
    return PARTS if there else None


def _same_classes(places: Sequence[Path]) -> tuple[str, ...]:
    """Return the names of the classes, which must be those of every place."""
    first, *others = (tuple(_folders(place)) for place in places)
    if not first:
        raise DataError(
            f"{places[0]} has no folders, and each class needs one", op=OP, help="sort them in folders"
        )
    for place, names in zip(places[1:], others, strict=True):
        if names != first:
            odd = sorted(set(first) ^ set(names))
            raise DataError(
                f"{places[0]} and {place} have different classes: {', '.join(odd[:8])} stands in one of them",
                op=OP, help="both parts need the same folders",
            )  # fmt: skip
    return first


def _files(place: Path) -> Iterator[Path]:
    """Give the pictures below a folder in the order of their paths."""
    with unreadable(place, OP):
        below = [Path(top, name) for top, _, names in os.walk(place) for name in names]
    taken = [path for path in below if path.suffix.lower() in PICTURE_ENDINGS and path.name[0] != "."]
    yield from sorted(taken, key=lambda path: path.relative_to(place).parts)


def _headers(place: Path, classes: Sequence[str], image: Any) -> list[Picture]:
    """Read the header of every picture of a part, class by class."""
    pictures: list[Picture] = []
    for label, name in enumerate(classes):
        before = len(pictures)
        for path in _files(place / name):
            with _opened(path, image) as opened:
                width, height = opened.size
                pictures.append(Picture(path, label, width, height, opened.mode))
        if len(pictures) == before:
            raise DataError(
                f"{place / name} has no pictures",
                op=OP, help=f"a picture's name ends in {', '.join(sorted(PICTURE_ENDINGS))}",
            )  # fmt: skip
    for each in pictures:
        if each.mode not in EIGHT_BITS:
            raise DataError(
                f"{each.path} is of Pillow's mode {each.mode!r}, not of 8 bits a channel",
                op=OP, help="convert it to 8-bit grey or RGB",
            )  # fmt: skip
    return pictures


@contextmanager
def _opened(path: Path, image: Any) -> Iterator[Any]:
    """Give a picture; whatever is wrong with the file becomes a DataError that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which is not used
            warnings.simplefilter("error", image.DecompressionBombWarning)
            with path.open("rb") as stream, image.open(stream) as opened:
                yield opened
    except (*FAULTS, image.DecompressionBombError, image.DecompressionBombWarning) as fault:
        said = str(fault).replace(str(path), "the file").replace("\n", " ")
        raise DataError(
            f"cannot read the picture {path}: {said or type(fault).__name__}",
            op=OP, help="replace or remove the file",
        ) from fault  # fmt: skip


# ---- its pixels -----------------------------------------------------------------------------------------


def _common_shape(pictures: Sequence[Picture], image_size: int | None, mode: str) -> tuple[int, int, int]:
    """Return (C, H, W), the shape that every picture will have."""
    channels = 1 if mode == "L" else 3
    if image_size is not None:
        return channels, image_size, image_size
    first = pictures[0]
    for each in pictures:
        if (each.width, each.height) != (first.width, first.height):
            raise DataError(
                f"pictures differ in size: {first.path} has {first.width} x {first.height} pixels, "
                f"{each.path} {each.width} x {each.height}",
                op=OP, help="give image_size=S (--image-size S) to scale and cut all to S x S",
            )  # fmt: skip
    return channels, first.height, first.width


def _check_memory(count: int, shape: tuple[int, int, int], root: Path) -> None:
    """Refuse what this machine cannot hold, before it tries to."""
    needed = 5 * count * shape[0] * shape[1] * shape[2]
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise DataError(
            f"{root}: {count:,} pictures of {shape} take {needed / 2**30:,.1f} GiB to read, and this machine "
            f"has {there / 2**30:,.1f}",
            op=OP, shapes=[shape], help="give a smaller image_size (--image-size), or fewer pictures",
        )  # fmt: skip


def _decoded(
    pictures: Sequence[Picture], shape: tuple[int, int, int], mode: str, image_size: int | None, image: Any
) -> npt.NDArray[np.uint8]:
    """Return the pixels, uint8 (N, C, H, W)."""
    channels, height, width = shape
    held = np.empty((len(pictures), *shape), np.uint8)
    for number, each in enumerate(pictures):
        with _opened(each.path, image) as opened:
            made = opened.convert(mode)
            made = made if image_size is None else _scaled(made, image_size, image)
            held[number] = np.asarray(made).reshape(height, width, channels).transpose(2, 0, 1)
    return held


def _scaled(picture: Any, size: int, image: Any) -> Any:
    """Return the middle size x size of a picture whose shorter side is brought to `size`."""
    width, height = picture.size
    shorter = min(width, height)
    wide, high = (max(size, round(side * size / shorter)) for side in (width, height))
    left, top = (wide - size) // 2, (high - size) // 2
    scaled = picture.resize((wide, high), image.Resampling.BILINEAR)
    return scaled.crop((left, top, left + size, top + size))
