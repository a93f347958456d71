"""Finding the arrays that a step holds, each memory once, and the cause of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from minimp.fp8 import states
from minimp.memory.records import Bytes
from minimp.recipe import Recipe
from minimp.rerun import FromTwin
from minimp.step import StepState, TrainStep
from minimp.tape import Array, Node, Value

if TYPE_CHECKING:
    from minimp_backends.array_backend import ArrayBackend as Backend

__all__ = ["distinct_bytes", "held_by", "logical_of", "saved_arrays", "saved_of", "scratch_bytes"]

Owned = dict[int, Array]
"""id of an array that owns its memory -> the array."""


def saved_arrays(nodes: Iterable[Node]) -> Owned:
    """Return the arrays that nodes keep for backward, each memory once: id of the owner -> owner."""
    holders = [each for node in nodes for each in _with_twins(node)]
    return _owners(array for node in holders for array in (*node.saved, *_kept_to_run_again(node)))


def _with_twins(node: Node) -> Iterator[Node]:
    """Yield a node, and those of second runs that hold for it what it saved."""
    yield node
    rerun = getattr(node, "rerun", None)
    if isinstance(rerun, FromTwin):
        yield from _with_twins(rerun.twin)


def _kept_to_run_again(node: Node) -> Iterator[Any]:
    """Yield what a part under `recompute` keeps in the place of what its nodes saved."""
    part = getattr(getattr(node, "rerun", None), "__self__", None)
    for argument in getattr(part, "args", ()):
        if isinstance(argument, Value):
            yield argument.array


def _nodes_behind(results: Iterable[Any]) -> list[Node]:
    """Return every recorded op that results depend on."""
    stack = [each.node for each in _tensors(results) if each.node is not None]
    seen = set(stack)
    while stack:
        for source in stack.pop().inputs:
            if isinstance(source, Node) and source not in seen:
                seen.add(source)
                stack.append(source)
    return list(seen)


def saved_of(step: TrainStep, state: StepState) -> tuple[int, int]:
    """Return the bytes that are saved for backward, without weights and their low copies; and of some copies.

    Those are FP8 copies, and what a second run under `recompute` has made anew.
    """
    cached = state.region.cache.values() if state.region else ()
    nodes = _nodes_behind((state.output, state.loss))
    weights = [*(p.array for p in step.model.parameters()), *(cast.array for _, _, cast in cached)]
    copies = [*fp8_copies(nodes), *_casts_of(step.model.parameters(), nodes)]
    saved = saved_arrays(nodes)
    here = distinct_bytes(saved.values(), without=[*weights, *copies])
    return here, distinct_bytes(copies, without=weights)


def _casts_of(parameters: Iterable[Value], nodes: Iterable[Node]) -> Iterator[Array]:
    """Yield the casts of weights that nodes keep."""
    leaves = {id(each) for each in parameters}
    for holder in (each for node in nodes for each in _with_twins(node) if each.saved):
        for edge, known in zip(holder.inputs, holder.ids, strict=False):  # the result's identity comes last
            if isinstance(edge, Node) and edge.op.name == "cast" and id(edge.inputs[0]) in leaves:
                yield from (array for array in holder.saved if id(array) == known)


def fp8_copies(nodes: Iterable[Node]) -> list[Array]:
    """Return the weights in FP8, and the scales of their blocks, that nodes keep for backward."""
    return [
        array
        for node in nodes
        if node.op.name == "linear_fp8"
        for array in node.saved[2:]
        if array is not None
    ]


def logical_of(step: TrainStep, state: StepState, saved: tuple[int, int]) -> Bytes:
    """Return the logical column after a backward; what was saved for it was counted before."""
    parameters = [*step.model.parameters()]
    held = sum(p.array.nbytes for p in parameters)
    buffers = sum(b.array.nbytes for b in step.model.buffers())
    kept, region = step.optimizer.nbytes(), state.region
    under = _are_masters(step)
    return Bytes(
        parameters=buffers + fp8_state_bytes(step) + (0 if under else held),
        masters=kept["master"] + (held if under else 0),
        low_copies=saved[1]
        + (sum(cast.array.nbytes for _, _, cast in region.cache.values()) if region else 0),
        gradients=sum(p.grad.array.nbytes for p in parameters if p.grad is not None),
        optimizer=kept["state"],
        activations=saved[0],
    )


def fp8_state_bytes(step: TrainStep) -> int:
    """Return the bytes of FP8 scales and histories."""
    return sum(state.nbytes for _, state in states(step.model))


def _are_masters(step: TrainStep) -> bool:
    """Tell whether the parameters themselves are what low copies are made of."""
    return step.recipe.master_weights and not Recipe.low(step.recipe.param_dtype)


def held_by(step: TrainStep, state: StepState) -> Bytes:
    """Return what the process holds now, by cause: each memory once, twins with what they are twins of."""
    causes = dict(_causes(step, state))
    seen: set[int] = set()
    found = {}
    for cause, arrays in causes.items():
        mine = {key: array for key, array in _owners(arrays).items() if key not in seen}
        seen |= mine.keys()
        found[cause] = mine
    cause_of = {key: cause for cause, mine in found.items() for key in mine}
    counts = {cause: sum(array.nbytes for array in mine.values()) for cause, mine in found.items()}
    for low, wide in getattr(state.backend, "twins", ()):
        twin, held = _owner(wide), cause_of.get(id(_owner(low)))
        if held is not None and id(twin) not in seen:  # others belong to other models
            seen.add(id(twin))
            counts[held] += twin.nbytes
    counts["workspaces"] += scratch_bytes(state.backend)
    counts["parameters"] += fp8_state_bytes(step)
    return Bytes(**counts)


def scratch_bytes(backend: Backend) -> int:
    """Return the bytes of work space that a backend keeps for its next call, on the host in this thread."""
    return backend.scratch_bytes()


def _causes(step: TrainStep, state: StepState) -> Iterator[tuple[str, list[Array]]]:
    """Yield (cause, arrays); an array that comes twice counts where it comes first."""
    parameters = [*step.model.parameters()]
    cached = list(state.region.cache.values()) if state.region else []
    weights = [p.array for p in parameters] + [before for _, before, _ in cached]
    buffers = [b.array for b in step.model.buffers()]
    under = _are_masters(step)
    kept = [(name, value) for each in step.optimizer.state.values() for name, value in each.items()]
    results = [*_tensors((state.output, state.loss, state.scaled))]
    nodes = _nodes_behind(results)
    yield "masters", [v for name, v in kept if name == "master"] + (weights if under else [])
    yield "parameters", buffers + ([] if under else weights)
    yield "low_copies", [*(cast.array for _, _, cast in cached), *fp8_copies(nodes)]
    yield "optimizer", [v for name, v in kept if name != "master"]
    yield "gradients", [*(p.grad.array for p in parameters if p.grad is not None), *state.gradients.values()]
    yield "activations", [*saved_arrays(nodes).values()]
    yield "workspaces", [each.array for each in (*results, *_tensors((state.inputs, state.targets)))]


def _tensors(results: Any) -> Iterator[Any]:
    """Yield the tensors among results, also those in tuples, lists and dicts."""
    if isinstance(results, Value):
        yield results
    elif isinstance(results, tuple | list):
        for each in results:
            yield from _tensors(each)
    elif isinstance(results, dict):
        yield from _tensors(list(results.values()))


def distinct_bytes(arrays: Iterable[Any], *, without: Iterable[Any] = ()) -> int:
    """Return the bytes of arrays, each memory once, and none of those `without`."""
    known = _owners(without)
    return sum(array.nbytes for key, array in _owners(arrays).items() if key not in known)


def _owners(arrays: Iterable[Any]) -> Owned:
    return {id(_owner(array)): _owner(array) for array in arrays if hasattr(array, "nbytes")}


def _owner(array: Array) -> Array:
    """Return the array that owns the memory of a view."""
    while hasattr(getattr(array, "base", None), "nbytes"):
        array = array.base
    return array
