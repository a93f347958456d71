"""What frameworks' autocast gets wrong, by name: reproduced where it is asked for, and nowhere else.

Each row was seen live in the version that it names; `tests/parity/test_autocast_semantics.py` shows it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap

from minimp.named import Named
from minimp.policy.cast_caches import CastCache
from minimp.policy.table import Policy

__all__ = ["Defect", "Defects", "defects", "defects_in_force", "original_name"]

WIDTH = 100
CPU, CUDA = "torch-cpu", "torch-cuda"
TORCH = "PyTorch 2.13.0"


@dataclass(frozen=True, slots=True)
class Defect:
    """A way in which a framework's autocast is not what it says or what one would expect.

    Attributes:
        name: what it is called here.
        framework: whose, and the version in which it was seen.
        what: what it does.
        instead: what minimp does where nobody asked for the defect.
        source: where it is written or discussed.
        policies: the policies it belongs to; copies edited with `with_` count as what they were.
        cached: whether it is the cast cache's, and so needs one that holds casts.
        reproduced: whether `faithful=True` brings it; else minimp always does otherwise.
    """

    name: str
    framework: str
    what: str
    instead: str
    source: str
    policies: tuple[str, ...] = (CPU, CUDA)
    cached: bool = False
    reproduced: bool = True

    def __str__(self) -> str:
        """Show the row within 100 columns."""
        how = "with faithful=True" if self.reproduced else "never reproduced"
        lines = [f"{self.name}: {self.framework} ({', '.join(self.policies)}), {how}"]
        for title, text in (("it", self.what), ("minimp", self.instead), ("source", self.source)):
            lines += wrap(text, WIDTH, initial_indent=f"  {title:8}", subsequent_indent=" " * 10)
        return "\n".join(lines)


class Defects(Named[Defect]):
    """The known defects by name."""

    def __init__(self, *rows: Defect) -> None:
        super().__init__("defect", *rows)

    def __str__(self) -> str:
        """Show the rows within 100 columns."""
        return "\n".join(map(str, self.values()))


def original_name(policy: Policy) -> str:
    """Return the name of the policy that this one, or what it was edited from, had at first."""
    return policy.name.split(" (")[0]  # how Policy.with_ names a copy


def defects_in_force(policy: Policy, cache: CastCache) -> tuple[Defect, ...]:
    """Return what a faithful region of that policy and that cache reproduces."""
    return tuple(_acting(policy, cache))


def _acting(policy: Policy, cache: CastCache) -> Iterator[Defect]:
    name = original_name(policy)
    for row in defects.values():
        if row.reproduced and name in row.policies and (cache.held or not row.cached):
            yield row


defects = Defects(
    Defect(
        "cache-ignores-format", TORCH,
        "The cast cache is keyed by the tensor alone. A nested region in the other low format is handed the "
        "outer region's cast: a product of it with a fresh cast raises, and a product of two weights is "
        "computed in the outer format without a word.",
        "A cast is handed out only in the format asked for.",
        "aten/src/ATen/autocast_mode.cpp, cached_cast",
        cached=True,
    ),
    Defect(
        "cache-ignores-changes", TORCH,
        "A weight that is changed in place inside a region is still multiplied by as it was cast before.",
        "Arrays are replaced, never changed in place; a weight whose array was replaced is cast anew.",
        "aten/src/ATen/autocast_mode.cpp, cached_cast; the same of its forerunner in NVIDIA/apex#132",
        cached=True,
    ),
    Defect(
        "cache-shared-by-threads", TORCH,
        "There is one cache for the process. A thread is handed another thread's casts, in that one's "
        "format; and when any thread leaves its outermost region, the casts of all are gone: a weight used "
        "twice then adds up its gradient in float32 or in the low format, as the threads happened to run.",
        "Each outermost region has a cache of its own, which other threads and tasks never see.",
        "aten/src/ATen/autocast_mode.cpp, cached_casts and clear_cache",
        cached=True,
    ),
    Defect(
        "unsupported-dtype-switches-off", TORCH,
        "A region in float32, float64, float8 or an integer format warns and is switched off, inside another "
        "region too.",
        "FormatError.",
        "torch/amp/autocast_mode.py, autocast.__init__",
        policies=(CPU,),
    ),
    Defect(
        "dtype-unchecked", TORCH,
        "A region may be in any dtype: in float32 what is listed for the low format is computed in float32, "
        "in float64 in float64 (where promotion raises), and in an integer format in that.",
        "FormatError. (With faithful=True, too, for formats that tensors here cannot have.)",
        "torch/amp/autocast_mode.py, autocast.__init__",
        policies=(CUDA,),
    ),
    Defect(
        "promotion-goes-by-order", TORCH,
        "An op that promotes refuses formats that are neither float32 nor the region's, but only up to the "
        "first float32 input: in a bfloat16 region cat([float32, float16]) is float32, and "
        "cat([float16, float32]) raises.",
        "FormatError, in either order.",
        "aten/src/ATen/autocast_mode.h, prioritize; pytorch#132715 on what it refuses",
    ),
    Defect(
        "reentry-leaves-region-on", TORCH,
        "A region object that is entered again inside itself, as by recursion into a decorated function, "
        "forgets what was in force before: autocast stays on after the last exit.",
        "Each entry restores what it found; each call of a decorated function has a region of its own.",
        "torch/amp/autocast_mode.py, autocast.__enter__ and __exit__; the same of no_grad was pytorch#44531",
    ),
    Defect(
        "decorated-generator-runs-outside", TORCH,
        "A decorated generator function or async function runs outside of the region: it is over before the "
        "body begins.",
        "Each step of a decorated generator runs in the region; an async function raises SettingError.",
        "torch/amp/autocast_mode.py, autocast_decorator",
    ),
    Defect(
        "custom-fwd-loses-derivatives", TORCH,
        "custom_fwd(cast_inputs=...) casts where nothing is recorded, so second derivatives lack, without a "
        "word, the terms that go through what forward saves of its inputs.",
        "The casts are recorded.",
        "torch/amp/autocast_mode.py, custom_fwd; pytorch#104040 on the same of other intermediate tensors",
    ),
    Defect(
        "custom-fwd-spoils-containers", TORCH,
        "custom_fwd(cast_inputs=...) makes a generator of every iterable argument that is neither list, "
        "tuple nor dict, an iterable module included, and raises TypeError on named tuples.",
        "Named tuples stay what they are, with their tensors cast; other objects are passed on untouched.",
        "torch/amp/autocast_mode.py, _cast",
    ),
    Defect(
        "backward-obeys-region", TORCH,
        "A backward that is called inside a region is cast by it: the gradient of a float32 product made "
        "outside comes out of a product in the low format. (The manual advises against it.)",
        "Backward computes in the formats of the forward, wherever it is called.",
        "torch.amp manual, Autocasting",
        reproduced=False,
    ),
    Defect(
        "tasks-share-a-region", TORCH,
        "The region in force belongs to the thread. An async task that waits inside a region leaves it in "
        "force for all others, and what they restore on leaving may be another task's.",
        "Each task has regions of its own (contextvars).",
        "aten/src/ATen/autocast_mode.cpp, thread-local state",
        reproduced=False,
    ),
)  # fmt: skip
"""The known defects by name."""
