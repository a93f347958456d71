"""The CUDA sources as text: a ``.cu`` file and the ``.cuh`` headers of this folder."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from minimp.errors import SettingError, unknown_name

__all__ = ["FOLDER", "Source", "read"]

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Source:
    """One compilation unit.

    Attributes:
        name: of the ``.cu`` file; error messages of compilers begin with it.
        text: of the file.
        headers: name -> text of the headers that it may include with ``#include "name"``.
    """

    name: str
    text: str
    headers: Mapping[str, str]


@functools.cache
def read(name: str) -> Source:
    """Return a source of this folder, for example ``checking.cu``, with every header beside it.

    Raises:
        SettingError: there is no such file.
    """
    known = sorted(path.name for path in FOLDER.glob("*.cu"))
    if name not in known:
        raise SettingError(unknown_name("CUDA source", name, known), op="compile")
    headers = {path.name: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.cuh"))}
    return Source(name, (FOLDER / name).read_text("utf-8"), MappingProxyType(headers))
