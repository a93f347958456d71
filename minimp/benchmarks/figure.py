"""A measured ratio beside its aim."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Figure"]


@dataclass(frozen=True)
class Figure:
    """One ratio and its target.

    Attributes:
        name: what is compared.
        value: the ratio.
        target: the bound.
        at_most: whether `target` is an upper bound (else a lower one).
    """

    name: str
    value: float
    target: float
    at_most: bool = True

    @property
    def reached(self) -> bool:
        """Whether the target is reached."""
        return self.value <= self.target if self.at_most else self.value >= self.target

    def as_dict(self) -> dict[str, float | str | bool]:
        """Return what JSON has of it."""
        bound = "at most" if self.at_most else "at least"
        return {"name": self.name, "value": self.value, "bound": bound, "target": self.target,
                "reached": self.reached}  # fmt: skip
