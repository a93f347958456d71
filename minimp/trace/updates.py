"""Updates that were swallowed, counted while a stage `update` is recorded."""

from __future__ import annotations

from typing import Any

__all__ = ["Updates"]


class Updates:
    """Switches the measuring of an optimizer on for one step, and off again if it was."""

    def __init__(self) -> None:
        self._before: bool | None = None

    def begin(self, optimizer: Any) -> None:
        """Let the next step count."""
        self._before = getattr(optimizer, "measure_updates", None)
        if self._before is not None:
            optimizer.measure_updates = True

    def end(self, optimizer: Any, state: Any, stage: str) -> dict[str, Any]:
        """Return what was counted, parameter -> [elements, non-zero updates, swallowed ones]."""
        if stage != "update" or self._before is None:
            return {}
        report, measured = optimizer.last_update, self._before
        optimizer.measure_updates, self._before = measured, None
        if not measured:
            optimizer.last_update = None
        if state.skipped or report is None:
            return {}
        names = {id(parameter): name for name, parameter in state.parameters.items()}
        rows = {names.get(id(row.param), f"parameter {i}"): [row.size, row.nonzero, row.swallowed]
                for i, row in enumerate(report.rows)}  # fmt: skip
        return {"updates": rows}
