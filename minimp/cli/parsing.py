"""The command line's parser: its complaints are errors like all others, and offer the nearest name."""

from __future__ import annotations

import argparse
import re
import textwrap
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from minimp.cli.base import columns
from minimp.errors import SettingError, unknown_name

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

__all__ = ["Parser"]

NEGATIVE = re.compile(r"-(\.?\d|inf|nan)", re.IGNORECASE)
"""How a negative number begins: -0.1, -.5, -1e-7, -1/3, -0x1p-3, -inf, -nan."""


class _HelpText(argparse.RawDescriptionHelpFormatter):
    """Wraps a text that comes in one line, and leaves one with line breaks as it is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return super()._fill_text(text, width, indent)
        return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)

    def add_argument(self, action: argparse.Action) -> None:
        """Count a command's second indentation too, which Python 3.11 forgets: the longest needs its room."""
        super().add_argument(action)
        for each in self._iter_indented_subactions(action):
            length = len(self._format_action_invocation(each)) + self._current_indent
            self._action_max_length = max(self._action_max_length, length)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises where argparse would end the process.

    Negative numbers of every spelling are values, not options. Options cannot be abbreviated, so that a
    script keeps its meaning when an option is added. A description in one line is wrapped to the screen; an
    epilog with line breaks keeps them.
    """

    def __init__(self, **options: Any) -> None:
        options["formatter_class"] = partial(_HelpText, width=columns(), max_help_position=28)
        super().__init__(allow_abbrev=False, **options)
        self._negative_number_matcher = NEGATIVE  # argparse's own pattern knows only -1 and -.5

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found.

        Raises:
            SettingError: always.
        """
        raise SettingError(message, help=f"{self.prog} --help")

    def refuse(self, extra: list[str]) -> NoReturn:
        """Raise about arguments that no option and no position took.

        Raises:
            SettingError: always; it offers the nearest option.
        """
        known = [each for action in self._actions for each in action.option_strings if each.startswith("--")]
        options = [each.partition("=")[0] for each in extra if each.startswith("-")]
        if options and options[0] not in known:  # a known one may be here too, after "--"
            self.error(unknown_name("option", options[0], known))
        self.error(f"one argument too many: {extra[0]!r}")

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """Print help; argparse would pass over a full disk in silence."""
        if message and file is not None:
            file.write(message)
