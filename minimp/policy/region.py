"""The `autocast` region: which policy and which low format are in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minimp import formats
from minimp.errors import FormatError, SettingError
from minimp.formats import Format
from minimp.modes import MODES, Modes, Scope
from minimp.policy.table import Policy
from minimp.policy.torch213 import policies

__all__ = ["Region", "autocast", "get_autocast_dtype", "in_region", "is_autocast_enabled"]

LOW = (formats.float16, formats.bfloat16)


@dataclass(slots=True)
class Region:
    """An autocast region in force."""

    policy: Policy
    format: Format
    enabled: bool
    cache_enabled: bool
    cache: dict[Any, Any]


class autocast(Scope):  # noqa: N801 - torch's name
    """Run ops in the formats that a policy gives them; context manager and decorator (torch.autocast).

    Args:
        dtype: the region's low format: float16 or bfloat16, in any spelling that `mp.formats.get` takes.
        enabled: False leaves every op as if there were no region, also inside another region.
        cache_enabled: cast an FP32 leaf that requires a gradient once per region, as one node. A weight
            used twice then adds up its gradient in the low format (256 + 1 -> 256 in bfloat16);
            uncached, in float32 (257).
        policy: a name in `mp.policies`, or a Policy.

    Raises:
        FormatError: `dtype` is neither float16 nor bfloat16 (PyTorch 2.13 warns and switches off).
        SettingError: an unknown policy.
    """

    def __init__(
        self,
        dtype: Any = formats.float16,
        enabled: bool = True,
        cache_enabled: bool = True,
        policy: str | Policy = "torch-cuda",
    ) -> None:
        super().__init__()
        self.format = formats.get(dtype)
        if self.format not in LOW:
            raise FormatError(
                f"autocast computes in float16 or bfloat16, not in {self.format.name}",
                formats=[self.format.name], help="leave the region out to compute in float32",
            )  # fmt: skip
        if not isinstance(policy, str | Policy):
            raise SettingError(f"policy: expected a name or a Policy, got {type(policy).__name__}")
        self.policy = policies[policy] if isinstance(policy, str) else policy
        self.enabled, self.cache_enabled = bool(enabled), bool(cache_enabled)

    def changes(self, now: Modes) -> dict[str, Any]:
        """Open a region; nested regions share the outermost one's cache, and it dies with that one.

        The outermost one may be a disabled one.
        """
        outer = now.autocast
        cache = {} if outer is None else outer.cache
        return {"autocast": Region(self.policy, self.format, self.enabled, self.cache_enabled, cache)}


class in_region(Scope):  # noqa: N801 - reads as a statement: `with in_region(region):`
    """Put a region in force that was made before, with what its cache holds; None: no region."""

    def __init__(self, region: Region | None) -> None:
        super().__init__()
        self.region = region

    def changes(self, now: Modes) -> dict[str, Any]:  # noqa: ARG002 - the same whatever is in force
        """Name the region."""
        return {"autocast": self.region}


def is_autocast_enabled() -> bool:
    """Tell whether an enabled autocast region is in force."""
    region = MODES.get().autocast
    return region is not None and region.enabled


def get_autocast_dtype() -> Format:
    """Return the low format of the region in force, float16 outside (torch.get_autocast_dtype("cuda"))."""
    region = MODES.get().autocast
    return formats.float16 if region is None else region.format
