"""Which format an op computes in: cast classes, policies, and the `autocast` region.

The rule is a pure function of the op's cast class, the formats of its inputs, and the region's format:
:func:`compute_formats`. A :class:`Policy` says which class each op has; ``policies["torch-cuda"]`` is
what each op declares itself, after the CUDA registrations of PyTorch 2.13.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from minimp import formats
from minimp.errors import FormatError, SettingError, unknown_name
from minimp.formats import Format
from minimp.modes import MODES, Modes, Scope

if TYPE_CHECKING:
    from minimp.tape import Op

__all__ = [
    "CastClass", "Mixed", "Policy", "Region", "autocast", "common_format", "compute_formats", "format_of",
    "get_autocast_dtype", "in_region", "is_autocast_enabled", "policies",
]  # fmt: skip

_BY_DTYPE: dict[Any, Format] = {
    np.dtype(name): formats.get(name)
    for name in ("float64", "float32", "float16", ml_dtypes.bfloat16, "int8")
}
format_of = _BY_DTYPE.get
"""Return the Format that arrays of a NumPy dtype hold, or None (integers, booleans)."""

FLOATING = frozenset(f for f in _BY_DTYPE.values() if f is not formats.int8)
_LOW = (formats.float16, formats.bfloat16)


class CastClass(Enum):
    """What autocast does with an op's floating inputs (float64 is never touched).

    The values are the names of PyTorch 2.13.0's registrations (aten/src/ATen/autocast_mode.h).
    """

    LOWER = "lower_precision_fp"
    """All to the region's format."""
    FP32 = "fp32"
    """All to float32."""
    SET_FP32 = "fp32_set_opt_dtype"
    """As FP32, unless the caller gave `dtype=`, which wins."""
    PROMOTE = "promote"
    """All to float32 if any is float32, else as they are."""
    KEEP = "unlisted"
    """Untouched: the op computes in the format its inputs have."""
    BANNED = "banned"
    """Refused inside a region, with advice."""


class Mixed(Enum):
    """What an op does with inputs of different formats, after autocast has had its say."""

    PROMOTE = "promote"
    """Cast to the common format, as PyTorch promotes: tensors with dimensions before scalars."""
    FLOAT = "float"
    """As PROMOTE; integers alone become float32."""
    SAME = "same"
    """Floating formats must agree, else an error; integers (labels, indices) are left alone."""
    KEEP = "keep"
    """Inputs are taken as they are."""


BANNED_ADVICE = {
    "binary_cross_entropy": "use binary_cross_entropy_with_logits, which is safe to autocast",
}


def compute_formats(
    rule: CastClass,
    given: Sequence[Format | None],
    low: Format,
    options: Mapping[str, Any] | None = None,
    *,
    op: str = "op",
) -> list[Format | None]:
    """Return the format that autocast asks for, one per input; None leaves an input as it is.

    Args:
        rule: the op's cast class under the policy in force.
        given: the inputs' formats; None for integers, numbers and missing inputs.
        low: the region's format.
        options: the op's keyword arguments; only `dtype` matters (SET_FP32).
        op: the op's name, for messages.

    Raises:
        FormatError: a banned op, or a promote op with a format that is neither float32 nor `low`.
    """
    eligible = [f for f in given if f in FLOATING and f is not formats.float64]
    if rule is CastClass.BANNED and eligible:
        raise FormatError("unsafe inside autocast", op=op, help=BANNED_ADVICE.get(op))
    target: Format | None = None
    if rule is CastClass.LOWER:
        target = low
    elif rule is CastClass.FP32 or (rule is CastClass.SET_FP32 and (options or {}).get("dtype") is None):
        target = formats.float32
    elif rule is CastClass.PROMOTE and eligible:
        _check_promotable(op, eligible, low)
        target = formats.float32 if formats.float32 in eligible else low
    return [target if f in FLOATING and f is not formats.float64 else None for f in given]


def _check_promotable(op: str, eligible: Sequence[Format | None], low: Format) -> None:
    for f in eligible:
        if f is not low and f is not formats.float32:
            raise FormatError(
                f"autocast promotes float32 and {low.name} only, and met {f}",
                op=op, formats=[str(f)], help=f"cast to {low.name} or float32 first",
            )  # fmt: skip


def common_format(op: str, mixed: Mixed, kinds: Sequence[tuple[Format | None, bool] | None]) -> Format | None:
    """Return the format to which the inputs of an op are brought, or None to leave them.

    Args:
        op: the op's name, for messages.
        mixed: the op's rule.
        kinds: per input (format, whether it has dimensions); None for numbers and missing inputs.

    Raises:
        FormatError: a SAME op met two floating formats.
    """
    tensors = [kind for kind in kinds if kind is not None]
    found = {f for f, _ in tensors if f in FLOATING}
    if mixed is Mixed.KEEP or (not found and mixed is not Mixed.FLOAT):
        return None
    if mixed is Mixed.SAME:
        if len(found) > 1:
            names = sorted(str(f) for f in found)
            raise FormatError(
                f"expected inputs of one format, got {' and '.join(names)}",
                op=op, formats=names, help="cast one with .to(...), or run inside mp.autocast()",
            )  # fmt: skip
        return None
    if not found:
        return formats.float32
    shaped = {f for f, has_dims in tensors if has_dims and f in FLOATING}
    return _widest(shaped or found)


def _widest(found: set[Format | None]) -> Format | None:
    """Return the one format that holds all; float16 with bfloat16 gives float32, as in PyTorch."""
    if len(found) == 1:
        return next(iter(found))
    for wide in (formats.float64, formats.float32):
        if wide in found:
            return wide
    return formats.float32


@dataclass(frozen=True)
class Policy:
    """Which cast class each op has: what the op declares, with some ops overridden.

    Attributes:
        name: the policy's name.
        overrides: op name -> class, where it differs from the op's own declaration.
        source: where the rules come from.
    """

    name: str
    overrides: Mapping[str, CastClass] = field(default_factory=dict)
    source: str = ""

    def rule(self, op: Op) -> CastClass:
        """Return the cast class of `op` under this policy."""
        return self.overrides.get(op.name, op.cast)


policies: dict[str, Policy] = {
    "torch-cuda": Policy("torch-cuda", source="PyTorch 2.13.0, AutocastCUDA registrations"),
}


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
        if self.format not in _LOW:
            raise FormatError(
                f"autocast computes in float16 or bfloat16, not in {self.format.name}",
                formats=[self.format.name], help="leave the region out to compute in float32",
            )  # fmt: skip
        if isinstance(policy, str) and policy not in policies:
            raise SettingError(unknown_name("policy", policy, policies))
        self.policy = policies[policy] if isinstance(policy, str) else policy
        self.enabled, self.cache_enabled = bool(enabled), bool(cache_enabled)

    def changes(self, now: Modes) -> dict[str, Any]:
        """Open a region; nested regions share the outermost one's cache, and it dies with that one."""
        outer = now.autocast
        if outer is None and not self.enabled:
            return {}
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
