"""The part of `minimp range` for formats whose numbers share a scale, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy.typing as npt

from minimp import formats
from minimp.errors import SettingError
from minimp.formats.blocks.report import BlockComparison, BlockReport

__all__ = ["as_json", "compared", "quiet_lines"]


def compared(text: str, x: npt.NDArray[Any] | None) -> BlockComparison:
    """Return what x loses in the block formats that `text` names: NAME or NAME:RULE, between commas.

    Raises:
        SettingError: there is no x, no name, or an unknown rule. FormatError: an unknown name.
    """
    if x is None:
        raise SettingError(
            "--blocks cannot act without --data", help="a block's scale is that of its numbers"
        )
    asked = [_asked(part) for part in text.split(",") if part]
    if not asked:
        raise SettingError(
            "expected the name of a block format after --blocks", help="for example mxfp8,nvfp4"
        )
    return formats.compare_blocks(x, asked)


def _asked(part: str) -> Any:
    name, _, rule = part.partition(":")
    return (formats.block_format(name), rule or None)


def quiet_lines(reports: Sequence[BlockReport]) -> list[str]:
    """Return one line for each report."""
    return [
        f"{each.format} {each.scale_rule}: SQNR {each.sqnr_db:.1f} dB in {each.bits_per_value:.4g} bits a"
        f" value, {each.flushed:.2%} flushed, {each.saturated:.2%} saturated"
        for each in reports
    ]


def as_json(reports: Sequence[BlockReport]) -> list[dict[str, Any]]:
    """Return what `--json` prints of them."""
    return [asdict(each) for each in reports]
