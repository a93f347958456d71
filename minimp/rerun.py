"""Activation checkpointing: keep nothing of a part of the forward, and run it again in backward.

Source: Chen, Xu, Zhang and Guestrin 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import ref

from minimp import rng
from minimp.door import cast_in_region
from minimp.errors import GradientError
from minimp.modes import MODES, Modes, listen, setting
from minimp.policy.region import Region, in_region
from minimp.tape import Event, Node, Value, require_saved

__all__ = ["is_recomputing", "recompute"]


def recompute(
    function: Callable[..., Any], *args: Any, preserve_rng_state: bool = True, **options: Any
) -> Any:
    """Run `function` now, keep nothing that it saves for backward, and run it again when backward needs it.

    The nodes on the tape are those of an ordinary run; only what they save is let go, and fetched by a second
    run under the settings of the first: autocast with its policy and format, accumulation, random numbers. So
    the gradients are the same bits as without it, and second derivatives work (torch.utils.checkpoint with
    use_reentrant=False, which it equals but in this: statistics of batches are not updated a second time).

    >>> x = mp.tensor([[1.0, 2.0]], requires_grad=True)
    >>> w = mp.tensor([[3.0], [4.0]], requires_grad=True)
    >>> mp.recompute(lambda x: (x @ w).tanh(), x).backward()

    Args:
        function: from the arguments to a result; called twice, so it must do the same both times. Layers that
            update statistics while they run can ask :func:`is_recomputing`.
        args, options: its arguments.
        preserve_rng_state: give the second run the random numbers of the first (dropout); False saves
            keeping the generator's state, for functions that draw none.

    Returns:
        What the function returned.

    Raises:
        GradientError: in backward: the second run recorded other ops than the first, or of other shapes.
    """
    modes = MODES.get()
    if not modes.grad_enabled:
        return function(*args, **options)
    part = _Part(function, args, options, modes, rng.get_rng_state() if preserve_rng_state else None)
    with listen(part.strip):
        return function(*args, **options)


class _Part:
    """A part of the forward that can be run again.

    It is held by its nodes, and holds them weakly: what backward never reaches can go.
    """

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], modes: Modes,
        state: Any,
    ) -> None:  # fmt: skip
        self.function, self.args, self.options = function, args, options
        self.modes, self.state = modes, state
        self.cached = () if modes.autocast is None else tuple(_cached(modes.autocast))
        self.nodes: list[tuple[ref[Node], str, tuple[int, ...]]] = []

    def strip(self, event: Event) -> None:
        """Let go of what an op has just saved (a listener)."""
        node = event.node
        if event.phase != "forward" or not node.recording:
            return
        self.nodes.append((ref(node), node.op.name, node.shape))
        if node.saved:
            node.saved, node.recording, node.rerun = (), False, self.run_again

    def run_again(self) -> None:
        """Run the function a second time and give each node what its twin saved."""
        twins: list[Node] = []

        def collect(event: Event) -> None:
            if event.phase == "forward" and event.node.recording:
                twins.append(event.node)

        now = rng.get_rng_state()
        if self.state is not None:
            rng.set_rng_state(self.state)
        try:
            with (
                setting(grad_enabled=True, accumulate=self.modes.accumulate, recomputing=True),
                in_region(self._region()),
                listen(collect),
            ):
                self.function(*self.args, **self.options)
        finally:
            rng.set_rng_state(now)
        self._hand_over(twins)

    def _hand_over(self, twins: list[Node]) -> None:
        ran = [(twin.op.name, twin.shape) for twin in twins]
        wanted = [(name, shape) for _, name, shape in self.nodes]
        if ran != wanted:
            what = f"{len(wanted)} ops were recorded, now {len(ran)}"
            for i, (before, now) in enumerate(zip(wanted, ran, strict=False)):
                if before != now:
                    what = f"op {i} was {before[0]} of {before[1]}, now {now[0]} of {now[1]}"
                    break
            raise GradientError(
                f"the function did not do the same when it ran again: {what}", op="recompute",
                help="it must depend on its arguments and on minimp's random numbers alone",
            )  # fmt: skip
        for (held, _, _), twin in zip(self.nodes, twins, strict=True):
            node = held()
            if node is not None and getattr(node, "rerun", None) is not None:
                _refuse_new_leaves(node, twin)
                _take(node, twin)

    def _region(self) -> Region | None:
        """Return the region of the first run, with those weights cast that it had found cast."""
        region = self.modes.autocast
        if region is None:
            return None
        fresh = replace(region, cache={})
        with in_region(fresh):
            for weight, target in self.cached:
                cast_in_region(weight, target, fresh)
        return fresh


def _refuse_new_leaves(node: Node, twin: Node) -> None:
    """Refuse a second run on other weights: its results would belong to no forward that there was."""
    for edge, before, now in zip(node.inputs, node.ids, twin.ids, strict=False):
        if isinstance(edge, Value) and before != now:
            raise GradientError(
                f"a leaf of shape {edge.shape} was given another array between forward and backward",
                op="recompute", help="call backward before the optimizer's step",
            )  # fmt: skip


def _take(node: Node, twin: Node) -> None:
    """Give a node what its twin saved; if that was let go too (a part inside a part), when it is needed."""
    node.ids = twin.ids
    if twin.recording:
        node.saved, node.recording, node.rerun = twin.saved, True, None
        return

    def fetch() -> None:
        require_saved(twin)
        _take(node, twin)

    node.rerun = fetch


def _cached(region: Region) -> Any:
    """Yield (weight, format) for each cast that a region holds."""
    for weight, _, cast in region.cache.values():
        yield weight, cast.format


def is_recomputing() -> bool:
    """Tell whether this is the second run of a function under :func:`recompute`."""
    return MODES.get().recomputing
