"""Figures of a lab: shown where there is a notebook, kept where they are asked for."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from minimp.errors import DataError, SettingError

__all__ = ["show"]


def show(figure: Any, name: str) -> None:
    """Show a matplotlib figure in a notebook; beside a script, write it where MINIMP_LABS_FIGURES says.

    Args:
        figure: a matplotlib figure; it is closed afterwards.
        name: of its file, without an ending: letters, digits, ``-`` and ``_``.

    Raises:
        SettingError: a name that is no plain file name.
        DataError: the folder cannot be written to.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise SettingError(f"show: expected a name of letters, digits, - and _, got {name!r}")
    from matplotlib import pyplot as plt

    folder = os.environ.get("MINIMP_LABS_FIGURES")
    if folder:
        path = Path(folder) / f"{name}.png"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=110)
        except OSError as fault:
            raise DataError(f"{path} cannot be written: {fault.strerror}", op="show") from fault
    elif _in_notebook():
        from IPython.display import display

        display(figure)
    plt.close(figure)


def _in_notebook() -> bool:
    import sys

    shell = sys.modules.get("IPython")
    return shell is not None and shell.get_ipython() is not None
