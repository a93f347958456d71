"""Activation checkpointing: keep nothing of a part of the forward, and run it again in backward.

Source: Chen, Xu, Zhang and Guestrin 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any
from weakref import ref

from minimp import rng
from minimp.door import cast
from minimp.errors import GradientError
from minimp.modes import MODES, Modes, listen, setting
from minimp.policy.region import Region, in_region
from minimp.tape import Array, Event, Node, Value, require_saved

__all__ = ["after_each_rerun", "is_recomputing", "recompute"]

_told: ContextVar[tuple[Callable[[], None], ...]] = ContextVar("minimp_told_of_reruns", default=())


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
        GradientError: in backward: the second run recorded other ops than the first, or of other shapes, or
            with other leaves; a leaf that the first run used has another array now; or the scales of an FP8
            region that the function opens have moved. (Arguments that need no gradient keep the numbers of
            the first run; what the function finds elsewhere must stay as it is.)
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
        region = modes.autocast
        self.region = None if region is None else replace(region, cache={})
        self.modes, self.state = replace(modes, autocast=None), state
        self.cached = () if region is None else tuple(_cached(region))
        self.nodes: list[tuple[ref[Node], str, tuple[int, ...], tuple[int, ...]]] = []
        given = [x for x in (*args, *options.values()) if isinstance(x, Value) and not x.requires_grad]
        self.given = {id(x): x.array for x in given}
        for x in given:
            x.backend.freeze((x.array,))  # so that writing to it makes another
        self.leaves: dict[int, tuple[Value, Array]] = {id(w): (w, w.array) for _, w, *_ in self.cached}

    def strip(self, event: Event) -> None:
        """Let go of what an op has just saved (a listener)."""
        node = event.node
        if event.phase != "forward" or not node.recording:
            return
        self.nodes.append((ref(node), node.op.name, node.shape, _leaves(node)))
        for edge, array in zip(node.inputs, event.inputs, strict=True):
            if isinstance(edge, Value):
                self.leaves.setdefault(id(edge), (edge, array))
        if node.saved:
            node.saved, node.recording, node.rerun = (), False, self.run_again

    def run_again(self) -> None:
        """Run the function a second time and give each node what its twin saved."""
        self._refuse_new_leaves()
        twins: list[Node] = []

        def collect(event: Event) -> None:
            if event.phase == "forward" and event.node.recording:
                twins.append(event.node)

        now = rng.get_rng_state()
        if self.state is not None:
            rng.set_rng_state(self.state)
        try:
            with (
                setting(
                    grad_enabled=True,
                    accumulate=self.modes.accumulate,
                    backend=self.modes.backend,
                    fp8=self.modes.fp8,
                    recomputing=True,
                ),  # fmt: skip
                in_region(self._filled_region()),
                listen(collect),
            ):
                options = {key: self._as_it_was(x) for key, x in self.options.items()}
                self.function(*map(self._as_it_was, self.args), **options)
        finally:
            rng.set_rng_state(now)
        self._hand_over(twins)
        for call in _told.get():
            call()

    def _hand_over(self, twins: list[Node]) -> None:
        ran = [(twin.op.name, twin.shape) for twin in twins]
        wanted = [(name, shape) for _, name, shape, _ in self.nodes]
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
        for (_, name, shape, leaves), twin in zip(self.nodes, twins, strict=True):
            if leaves != _leaves(twin):  # they are held, so that no other can have their identity
                raise GradientError(
                    f"the function did not do the same when it ran again: {name} {shape} read another leaf",
                    op="recompute",
                    help="a function made in a loop sees the loop's last value: bind it (layer=layer)",
                )  # fmt: skip
        for (held, *_), twin in zip(self.nodes, twins, strict=True):
            node = held()
            if node is not None and getattr(node, "rerun", None) is not None:
                _refuse_new_scales(node, twin)
                _take(node, twin)

    def _filled_region(self) -> Region | None:
        """Return the region of the first run, with those weights cast that it had found cast."""
        if self.region is None:
            return None
        fresh = replace(self.region, cache={})
        for key, weight, low, recorded in self.cached:
            with setting(grad_enabled=recorded):
                fresh.cache[key] = (weight, weight.array, cast(weight, format=low))
        return fresh

    def _as_it_was(self, x: Any) -> Any:
        """Return an argument with the array that it had in the first run."""
        array = self.given.get(id(x))
        return x if array is None or x.array is array else Value.make(array, x.backend)

    def _refuse_new_leaves(self) -> None:
        """Refuse a second run on other weights: its results would belong to no forward that there was."""
        for leaf, array in self.leaves.values():
            if leaf.array is not array:
                raise GradientError(
                    f"a leaf of shape {leaf.shape} was given another array between forward and backward",
                    op="recompute", help="call backward before the optimizer's step",
                )  # fmt: skip


def _leaves(node: Node) -> tuple[int, ...]:
    """Return the identities of the leaves that an op reads, by itself or cast; 0 for what is no leaf."""
    edges = (
        edge.inputs[0] if isinstance(edge, Node) and edge.op.name == "cast" else edge for edge in node.inputs
    )
    return tuple(id(edge) if isinstance(edge, Value) else 0 for edge in edges)


def _refuse_new_scales(node: Node, twin: Node) -> None:
    """Refuse FP8 numbers that were scaled otherwise than the node reads them."""
    if node.options.get("scales") != twin.options.get("scales"):
        raise GradientError(
            f"the scales of {node.op.name} have moved between forward and backward", op="recompute",
            help="open the FP8 region around recompute, or call backward before the next region",
        )  # fmt: skip


def _take(node: Node, twin: Node) -> None:
    """Give a node what its twin saved; if that was let go too (a part inside a part), when it is needed."""
    node.ids = twin.ids
    if twin.recording:
        node.saved, node.recording, node.rerun = twin.saved, True, None
        return

    node.rerun = FromTwin(node, twin)


@dataclass(frozen=True, slots=True)
class FromTwin:
    """What brings back what a node saved, from its twin in the second run.

    Attributes:
        node: the node.
        twin: has it, or gets it by a run of its own.
    """

    node: Node
    twin: Node

    def __call__(self) -> None:
        """Give the node what its twin saved."""
        require_saved(self.twin)
        _take(self.node, self.twin)


@contextmanager
def after_each_rerun(call: Callable[[], None]) -> Iterator[None]:
    """Call `call` inside the block whenever a part has run again, and its nodes have what they saved."""
    token = _told.set((*_told.get(), call))
    try:
        yield
    finally:
        _told.reset(token)


def _cached(region: Region) -> Any:
    """Yield (key, weight, its format, whether recorded) for each cast that a region holds and would use."""
    for key, (weight, array, held) in region.cache.items():
        if weight.array is array:
            yield key, weight, held.format, held.requires_grad


def is_recomputing() -> bool:
    """Tell whether this is the second run of a function under :func:`recompute`."""
    return MODES.get().recomputing
