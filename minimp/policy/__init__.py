"""Which format an op computes in: cast classes, policies, and the `autocast` region.

The rule is a pure function of the op's cast class, the formats of its inputs, and the region's format:
:func:`compute_formats`. A :class:`Policy` says which class each op has; an op that the policy does not
name follows its own declaration, which for minimp's ops is that of ``policies["torch-cuda"]``. What a policy
does to one call, and why, :func:`explain` tells.
"""

from minimp.policy.cast_caches import CastCache, caches
from minimp.policy.classes import (
    BANNED_ADVICE,
    FLOATING,
    CastClass,
    Mixed,
    common_format,
    compute_formats,
    format_of,
)
from minimp.policy.explaining import Explanation, InputExplanation, explain
from minimp.policy.history import Change, History
from minimp.policy.known_defects import Defect, defects
from minimp.policy.presets import policies
from minimp.policy.region import (
    Region,
    autocast,
    clear_autocast_cache,
    get_autocast_dtype,
    in_region,
    is_autocast_cache_enabled,
    is_autocast_enabled,
)
from minimp.policy.table import Policies, Policy, PolicyDiff

__all__ = [
    "BANNED_ADVICE", "FLOATING", "CastCache", "CastClass", "Change", "Defect", "Explanation", "History",
    "InputExplanation", "Mixed", "Policies", "Policy", "PolicyDiff", "Region", "autocast", "caches",
    "clear_autocast_cache", "common_format", "compute_formats", "defects", "explain", "format_of",
    "get_autocast_dtype", "in_region", "is_autocast_cache_enabled", "is_autocast_enabled", "policies",
]  # fmt: skip
