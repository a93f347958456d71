"""The `autocast` region: which policy and which low format are in force, and what becomes of casts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ContextDecorator
from dataclasses import dataclass, field, replace
from typing import Any, Self

from minimp import formats
from minimp.errors import FormatError, FrameworkWarning, SettingError
from minimp.formats import Format
from minimp.modes import MODES, Modes, Scope
from minimp.policy.cast_caches import CastCache, caches
from minimp.policy.classes import FLOATING
from minimp.policy.known_defects import Defect, defects, defects_in_force, original_name
from minimp.policy.presets import policies
from minimp.policy.table import Policy

__all__ = [
    "Region", "autocast", "clear_autocast_cache", "get_autocast_dtype", "in_region",
    "is_autocast_cache_enabled", "is_autocast_enabled",
]  # fmt: skip

LOW = (formats.float16, formats.bfloat16)
LOW_BY_DEFAULT = {"torch-cpu": formats.bfloat16}
"""A framework's own format, where it is not float16."""
DEVICES = ("cuda", "cpu")
"""What PyTorch's autocast takes first; here the policy says whose rules they are."""
SHARED: dict[Any, Any] = {}
"""The casts of all threads, as PyTorch holds them; for faithful regions alone."""


@dataclass(slots=True)
class Region:
    """An autocast region in force.

    Attributes:
        policy: which cast class each op has, as it stands in this format.
        format: the low format.
        enabled: whether it acts.
        casts: what becomes of the casts of weights.
        faithful: whether it has the defects of the policy's framework.
        cache: the casts that are held, of this region and those outside it: (tensor, its array, its cast).
    """

    policy: Policy
    format: Format
    enabled: bool = True
    casts: CastCache = caches["torch"]
    faithful: bool = False
    cache: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        told = MODES.get().on_region
        if told is not None:
            told(self)
        self.policy = self.policy.in_format(self.format)

    @property
    def defects(self) -> tuple[Defect, ...]:
        """The framework's defects that are reproduced here."""
        return defects_in_force(self.policy, self.casts) if self.faithful else ()

    def has(self, defect: str) -> bool:
        """Tell whether a defect is reproduced here."""
        return self.faithful and any(row is defects[defect] for row in self.defects)


class autocast(Scope):  # noqa: N801 - torch's name
    """Run ops in the formats that a policy gives them; context manager and decorator (torch.autocast).

    Eligible are tensors in float32, float16 and bfloat16; float64 and integers stay as they are. An op that
    is listed for the low format and meets float64 beside it raises. Regions nest, the innermost one rules,
    and what a region computed stays as it is when the region ends. Each thread and each async task has
    regions of its own. A thread starts outside; what starts with a copy of the context (a task,
    `asyncio.to_thread`) starts in the region, and with the casts, that were in force there. (A generator that
    waits inside a `with` block leaves the region in force for who called it: decorate the generator.)

    minimp has no ops in place and no `out=`, which PyTorch leaves out of autocast: `w += x` is `w = w + x`.
    An op's `dtype=`, where it has one, wins over a rule that asks for float32.

    **The cast cache.** Casts of float32 leaves that require a gradient to the region's format may be kept,
    and die with the outermost region, which may be a disabled one. Nested regions share what is kept with
    those of the same choice: `cache=` rules the look-ups of its own region, and two choices never see each
    other's casts. The choice changes gradients. A kept cast is one node, in whose format gradients add up:

    >>> def gradient(cache):
    ...     w = mp.tensor([[1.0]], requires_grad=True)
    ...     with mp.autocast("bfloat16", cache=cache):
    ...         y = mp.tensor([[256.0]]) @ w + mp.tensor([[1.0]]) @ w
    ...     y.sum().backward()
    ...     return w.grad.item()
    >>> gradient("torch"), gradient("none")  # 256 + 1, rounded to bfloat16's 8 bits, and in float32
    (256.0, 257.0)

    and before PyTorch 2.13 a cast first made under no_grad was kept without a gradient:

    >>> def gradient_after_a_look(cache):
    ...     w = mp.tensor([[2.0]], requires_grad=True)
    ...     b = mp.tensor([[0.0]], requires_grad=True)
    ...     with mp.autocast("bfloat16", cache=cache):
    ...         with mp.no_grad():
    ...             mp.tensor([[1.0]]) @ w
    ...         y = mp.tensor([[3.0]]) @ w + b
    ...     y.sum().backward()
    ...     return w.grad and w.grad.item()
    >>> gradient_after_a_look("torch"), gradient_after_a_look("torch-before-2.13")
    (3.0, None)

    Args:
        dtype: the region's low format: float16 or bfloat16, in any spelling that `mp.formats.get` takes.
            None: as PyTorch's default, that of the region in force where this object is made, else the one
            that the policy's framework has by itself (float16; bfloat16 for torch-cpu).
        enabled: False leaves every op as if there were no region, also inside another region.
        cache_enabled: PyTorch's switch: True is `cache="torch"`, False is `cache="none"`; None takes, as
            PyTorch's default, the choice in force where this object is made, `"torch"` outside.
        policy: a name in `mp.policies`, or a Policy.
        cache: a name in `minimp.policy.caches`, which says what each does: ``"torch"``, ``"none"``,
            ``"torch-before-2.13"`` or ``"per-dtype"``.
        faithful: reproduce the defects of the policy's framework, those of `minimp.policy.defects` that
            :attr:`defects` lists.

    Attributes:
        policy, format, enabled, cache_enabled, faithful: as settled from the arguments.
        casts: the row of `minimp.policy.caches` that was chosen.
        defects: what is reproduced: () unless `faithful`.

    Raises:
        FormatError: `dtype` is neither float16 nor bfloat16.
        SettingError: an unknown policy or cache; `cache_enabled` and `cache` contradict each other;
            `faithful` where no defect is known, or with a cache that its framework does not have.

    Warns:
        FrameworkWarning: faithful to torch-cpu, in another format: the region is switched off.
    """

    def __init__(
        self,
        dtype: Any = formats.float16,
        enabled: bool = True,
        cache_enabled: bool | None = True,
        policy: str | Policy = "torch-cuda",
        *,
        cache: str | None = None,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(policy, str | Policy):
            raise SettingError(f"policy: expected a name or a Policy, got {type(policy).__name__}")
        self.policy = policies[policy] if isinstance(policy, str) else policy
        casts = _casts(cache_enabled, cache)
        self.defects = _reproduced(self.policy, casts) if faithful else ()
        self.casts = replace(casts, checked=False) if faithful else casts
        self.cache_enabled, self.faithful = casts.held, bool(faithful)
        self.format = _low(dtype, self.policy)
        self.enabled = bool(enabled)
        if self.format not in LOW:
            self.enabled = self.enabled and self._unsupported()
        self._found: Region | None = None

    def _unsupported(self) -> bool:
        """Refuse a format, or do with it what the framework does; return whether the region is on."""
        acting = {row.name for row in self.defects}
        if "unsupported-dtype-switches-off" in acting:
            warnings.warn(
                f"autocast of torch-cpu computes in float16 or bfloat16, not in {self.format.name}: "
                "switched off", FrameworkWarning, stacklevel=3,
            )  # fmt: skip
            return False
        if "dtype-unchecked" in acting and self.format in FLOATING:
            return True
        raise FormatError(
            f"autocast computes in float16 or bfloat16, not in {self.format.name}",
            formats=[self.format.name], help="leave the region out to compute in float32",
        )  # fmt: skip

    def changes(self, now: Modes) -> dict[str, Any]:
        """Open a region; nested regions share the outermost one's casts, and they die with that one."""
        outer = now.autocast
        if self.faithful:
            self._found = outer
        held = outer.cache if outer is not None else SHARED if self.faithful else {}
        return {"autocast": Region(self.policy, self.format, self.enabled, self.casts, self.faithful, held)}

    def __exit__(self, *exc: object) -> None:
        """Put back what was in force on entry (faithful: on the last entry, reentry-leaves-region-on)."""
        super().__exit__(*exc)
        if self.faithful:
            now = MODES.get()
            if now.autocast is None:
                SHARED.clear()  # whoever else is using it: cache-shared-by-threads
            if now.autocast is not self._found:
                MODES.set(replace(now, autocast=self._found))

    def __call__(self, function: Callable[..., Any]) -> Any:
        """Decorate a function; see :class:`minimp.modes.Scope` (faithful: generators run outside of it)."""
        return ContextDecorator.__call__(self, function) if self.faithful else super().__call__(function)

    def _recreate_cm(self) -> Self:
        return self if self.faithful else super()._recreate_cm()


class in_region(Scope):  # noqa: N801 - reads as a statement: `with in_region(region):`
    """Put a region in force that was made before, with what its cache holds; None: no region."""

    def __init__(self, region: Region | None) -> None:
        super().__init__()
        self.region = region

    def changes(self, now: Modes) -> dict[str, Any]:  # noqa: ARG002 - the same whatever is in force
        """Name the region."""
        return {"autocast": self.region}


def is_autocast_enabled() -> bool:
    """Tell whether an enabled autocast region is in force (torch.is_autocast_enabled of a device)."""
    region = MODES.get().autocast
    return region is not None and region.enabled


def get_autocast_dtype() -> Format:
    """Return the low format of the region in force, float16 outside (torch.get_autocast_dtype("cuda"))."""
    region = MODES.get().autocast
    return formats.float16 if region is None else region.format


def is_autocast_cache_enabled() -> bool:
    """Tell whether casts of weights are kept here, True outside (torch.is_autocast_cache_enabled)."""
    region = MODES.get().autocast
    return region is None or region.casts.held


def clear_autocast_cache() -> None:
    """Let go of the casts that are kept here (torch.clear_autocast_cache)."""
    region = MODES.get().autocast
    if region is not None:
        region.cache.clear()


def _casts(enabled: bool | None, name: str | None) -> CastCache:
    """Settle the two ways of naming a cast cache."""
    if name is not None and enabled is False and caches[name].held:
        raise SettingError(
            f"cache_enabled=False and cache={name!r} contradict each other", op="autocast",
            help="give one of them",
        )  # fmt: skip
    if name is not None:
        return caches[name]
    if enabled is None:
        region = MODES.get().autocast  # a faithful one's row is not the table's, so it goes by the name
        return caches["torch" if region is None else region.casts.name]
    return caches["torch" if enabled else "none"]


def _reproduced(policy: Policy, casts: CastCache) -> tuple[Defect, ...]:
    """Return the defects of a policy's framework, or say that there is nothing to be faithful to."""
    found = defects_in_force(policy, casts)
    if not found:
        raise SettingError(
            f"faithful: no defect is known of policy {policy.name!r}", op="autocast",
            help="leave it out; minimp.policy.defects lists what is known",
        )  # fmt: skip
    if casts.per_format:
        raise SettingError(
            f"faithful: PyTorch has no cast cache {casts.name!r}", op="autocast",
            help="use cache='torch', 'torch-before-2.13' or 'none'",
        )  # fmt: skip
    return found


def _low(dtype: Any, policy: Policy) -> Format:
    """Return the format of a region, also of one that names none."""
    if isinstance(dtype, str) and dtype in DEVICES:
        raise FormatError(
            f"expected a format, got the device {dtype!r}", op="autocast",
            help=f"name the format, and the device's rules: mp.autocast('bfloat16', policy='torch-{dtype}')",
        )  # fmt: skip
    if dtype is not None:
        return formats.get(dtype)
    region = MODES.get().autocast
    if region is not None:
        return region.format
    return LOW_BY_DEFAULT.get(original_name(policy).partition("@")[0], formats.float16)
