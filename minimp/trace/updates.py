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

    def counted(self, optimizer: Any) -> tuple[Any, ...]:
        """Return a row for each parameter, and leave the optimizer's setting as it was."""
        measured, self._before = self._before, None
        if measured is None:
            return ()
        report, optimizer.measure_updates = optimizer.last_update, measured
        if not measured:
            optimizer.last_update = None
        return () if report is None else tuple(report.rows)

    def end(self, optimizer: Any, state: Any, stage: str) -> dict[str, Any]:
        """Return what was counted, parameter -> [elements, non-zero updates, swallowed ones]."""
        if stage != "update":
            return {}
        rows = self.counted(optimizer)
        if state.skipped or not rows:
            return {}
        names = {id(parameter): name for name, parameter in state.parameters.items()}
        return {
            "updates": {
                names.get(id(row.param), f"parameter {i}"): [row.size, row.nonzero, row.swallowed]
                for i, row in enumerate(rows)
            }
        }
