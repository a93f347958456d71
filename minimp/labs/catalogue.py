"""Where the labs are, and what there is of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from minimp.errors import DataError, SettingError, unknown_name

__all__ = ["LabFolder", "folder", "lab_named", "labs"]

NAME = re.compile(r"^lab(?P<number>\d\d)_(?P<word>\w+)$")
TITLE = re.compile(r"^# # (?:Lab \d+:? *)?(?P<title>.+)$", re.MULTILINE)
MINUTES = re.compile(r"\b(?P<minutes>\d+) minutes\b")


@dataclass(frozen=True)
class LabFolder:
    """One lab.

    Attributes:
        number: from 0.
        name: of its folder, ``"lab00_bits"``.
        path: the folder.
    """

    number: int
    name: str
    path: Path

    @property
    def script(self) -> Path:
        """``lab.py``, with the solutions."""
        return self.path / "lab.py"

    @property
    def checks(self) -> Path:
        """The instructor's checks."""
        return self.path / f"lab{self.number:02d}_checks.py"

    @property
    def title(self) -> str:
        """The first heading."""
        found = TITLE.search(self.script.read_text("utf-8"))
        return found["title"].strip() if found else self.name

    @property
    def minutes(self) -> int | None:
        """How long it takes, as its first lines say; None if they do not."""
        found = MINUTES.search(self.script.read_text("utf-8")[:3000])
        return int(found["minutes"]) if found else None


def folder() -> Path:
    """Return the folder of the labs: of a checkout, or beside the installed package.

    Raises:
        DataError: there is none.
    """
    package = Path(__file__).resolve().parents[1]
    for place in (package / "tutorials", package.parent / "tutorials"):
        if place.is_dir():
            return place
    raise DataError("the labs are not installed with this copy of minimp", help="install it from its wheel")


def labs() -> list[LabFolder]:
    """Return the labs in their order."""
    found = [(NAME.match(path.name), path) for path in folder().iterdir() if path.is_dir()]
    made = [LabFolder(int(name["number"]), path.name, path) for name, path in found if name]
    return sorted(made, key=lambda lab: lab.number)


def lab_named(name: str) -> LabFolder:
    """Return a lab by its folder's name, its number or the word in it: lab05_loss_scaling, 5, loss_scaling.

    Raises:
        SettingError: there is no such lab.
    """
    for lab in labs():
        word = lab.name.partition("_")[2]
        if name in (lab.name, str(lab.number), f"{lab.number:02d}", f"lab{lab.number:02d}", word):
            return lab
    raise SettingError(unknown_name("lab", name, [lab.name for lab in labs()]))
