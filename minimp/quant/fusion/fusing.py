"""Fusing by name, by pattern, and by what a forward shows."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from minimp.errors import MinimpError, SettingError, plain
from minimp.nn import ReLU
from minimp.nn.module import Module
from minimp.quant.fusion.checks import NORMS, group_fault
from minimp.quant.fusion.flow import Flow, follow, listed
from minimp.quant.fusion.folding import values
from minimp.quant.fusion.intrinsic import WithReLU
from minimp.quant.fusion.patterns import PATTERNS, Classes, Pattern, chosen, name_of
from minimp.quant.fusion.reports import Changed, FusionReport, FusionRow, difference, far

__all__ = ["check_tolerance", "fuse", "fuse_modules", "held_to"]

_Patterns = Mapping[Classes, Pattern]
SHARES = (int, float, np.integer, np.floating)


@dataclass(frozen=True)
class Group:
    """Modules to fuse: their paths in the order of running, and the pattern that they fit."""

    paths: tuple[str, ...]
    pattern: Pattern


# ---- by name ----------------------------------------------------------------------------------------------


def fuse_modules(model: Module, modules_to_fuse: Sequence[Any], inplace: bool = False) -> Module:
    """Fuse modules that are named (torch.ao.quantization.fuse_modules, 2.13).

    The first module of each row is replaced by the fused one, each other by an Identity. That the output of
    each goes into the next, and nowhere else, is taken on trust; :func:`fuse` finds it out.

    Args:
        model: the model.
        modules_to_fuse: one list of paths, ``["conv", "bn", "relu"]``, or a list of such lists. The classes
            must be a row of :data:`PATTERNS`.
        inplace: change `model` itself. By default it stays as it is, and a copy is changed; in place, its
            fused layers have new parameters, so that an optimizer must be made anew.

    Returns:
        The model that was changed.

    Raises:
        SettingError: a path that is not there or is named twice, classes that fit no pattern, or modules that
            cannot be fused: a batch norm in training mode, without running statistics or over other channels,
            parameters shared with another module, hooks (torch moves some of them and drops the others), a
            folded weight that its format cannot hold. Nothing has changed then.
    """
    rows = _named_rows(modules_to_fuse)
    changed = model if inplace else copy.deepcopy(model)
    groups = [_named_group(changed, row) for row in rows]
    twice = [path for path, count in _counted(path for row in rows for path in row) if count > 1]
    if twice:
        raise SettingError(f"{listed(map(repr, twice))} is named more than once", op="fuse_modules")
    _replace(changed, _built(changed, groups))
    return changed


def _named_rows(given: Any) -> list[tuple[str, ...]]:
    """Return the rows of paths, of one list or of a list of lists."""
    lists = (list, tuple)
    rows = [given]
    if isinstance(given, lists) and not (given and all(isinstance(each, str) for each in given)):
        rows = list(given)
    for row in rows:
        if not isinstance(row, lists) or not row or not all(isinstance(each, str) for each in row):
            raise SettingError(
                f"expected lists of paths, got {row!r}", op="fuse_modules",
                help='write fuse_modules(model, [["conv", "bn"], ["fc", "relu"]])',
            )  # fmt: skip
    return [tuple(row) for row in rows]


def _named_group(model: Module, paths: tuple[str, ...]) -> Group:
    modules = [model.get_submodule(path) for path in paths]
    classes = tuple(type(each) for each in modules)
    shown = " + ".join(map(repr, paths))
    pattern = PATTERNS.get(classes)
    if pattern is None:
        known = ", ".join(each.name for each in PATTERNS.values())
        raise SettingError(
            f"{shown} are {name_of(classes)}, for which there is no pattern",
            op="fuse_modules", help=f"the patterns are {known}",
        )  # fmt: skip
    why = group_fault(model, pattern, modules)
    if why:
        raise SettingError(f"{shown} cannot be fused: {why}", op="fuse_modules")
    return Group(paths, pattern)


def _counted(paths: Iterable[str]) -> list[tuple[str, int]]:
    found: dict[str, int] = {}
    for path in paths:
        found[path] = found.get(path, 0) + 1
    return list(found.items())


# ---- by what a forward shows ------------------------------------------------------------------------------


def fuse(
    model: Module, *example: Any, patterns: Iterable[Classes] | None = None, inplace: bool = False,
    tolerance: float | None = None,
) -> tuple[Module, FusionReport]:  # fmt: skip
    """Fuse everything that fits a pattern, and say what was fused and what was not, and why.

    A forward of a copy on the example shows which module's output goes into which. A row is fused if the
    output of each of its modules goes into the next and nowhere else, in every call; the longest pattern
    wins. Then the fused model runs on the example too, and its results must be those of before.

    Args:
        model: the model, in evaluation mode if batch norms are to be folded.
        example: what the model is called with; a few rows are enough.
        patterns: tuples of classes, rows of :data:`PATTERNS`; None allows all.
        inplace: change `model` itself, not a copy; see :func:`fuse_modules`.
        tolerance: how far the results on the example may move, as a share of the largest of them; None is
            the square root of the unit of their format: half of its digits.

    Returns:
        (the model that was changed, the report)

    Raises:
        SettingError: no example, an unknown pattern, a tolerance that is no share, or results that moved
            further than `tolerance` because something uses a fused module in a way that the engine does not
            see. `model` is as it was then.
        MinimpError: as the model's forward.
    """
    allowed = chosen(patterns, "fuse")
    check_tolerance(tolerance, "fuse")
    before = follow(model, example, "fuse")
    groups = _found(before, allowed)
    trial = copy.deepcopy(model)
    _replace(trial, _built(trial, groups))
    after = follow(trial, example, "fuse")
    changed = held_to(before, after, tolerance, "fuse")
    fused = {each.paths[0]: _row(before, after, each) for each in groups}
    changing = model if inplace else copy.deepcopy(model)
    _replace(changing, _built(changing, groups))
    return changing, FusionReport(_in_order(before, groups, fused, allowed), changed)


def check_tolerance(tolerance: Any, op: str) -> None:
    """Refuse a tolerance that is no share."""
    if tolerance is not None and not (isinstance(tolerance, SHARES) and 0 <= tolerance < np.inf):
        raise SettingError(
            f"tolerance must be a share of at least 0, got {tolerance!r}", op=op,
            help="None takes half of the digits of the results",
        )  # fmt: skip


def held_to(before: Flow, after: Flow, tolerance: float | None, op: str) -> Changed:
    """Return how far results moved, which must not be further than `tolerance` of the largest."""
    changed = difference(before, after)
    units = [float(ml_dtypes.finfo(each.dtype).eps) for each in before.outputs if each.format is not None]
    share = max(units, default=0.0) ** 0.5 if tolerance is None else tolerance
    if not changed.difference <= share * changed.peak:
        raise SettingError(
            f"{changed}: more than {share:.2g} of it", op=op,
            help="something uses an output between two modules unseen, or the model is very sensitive; name "
            "what can be trusted with fuse_modules, or give a tolerance",
        )  # fmt: skip
    return changed


def _found(flow: Flow, allowed: _Patterns) -> list[Group]:
    """Return the rows of modules to fuse, in the order of running; no module is in two of them."""
    taken = _fused_before(flow.model)
    groups: list[Group] = []
    for module in _in_running_order(flow):
        row: list[Module] = [module]
        best: list[Module] = []
        while any(each[: len(row)] == _classes(row) for each in allowed):
            fits = allowed.get(_classes(row))
            if fits is not None and not group_fault(flow.model, fits, row, flow):
                best = list(row)
            after = flow.next_of(row[-1]).module
            if after is None or after in row or id(after) in taken:
                break
            row.append(after)
        if best and id(module) not in taken:
            taken.update(map(id, best))
            paths = tuple(flow.paths[id(each)][0] for each in best)
            groups.append(Group(paths, allowed[_classes(best)]))
    return groups


def _fused_before(model: Module) -> set[int]:
    """Return the ids of modules that are halves of a pair already."""
    return {id(each) for pair in model.modules() if isinstance(pair, WithReLU) for each in pair}


def _classes(row: Sequence[Module]) -> Classes:
    return tuple(type(each) for each in row)


def _in_running_order(flow: Flow) -> list[Module]:
    return list({id(each.module): each.module for each in flow.calls}.values())


# ---- the report -------------------------------------------------------------------------------------------


def _in_order(
    flow: Flow, groups: list[Group], fused: dict[str, FusionRow], allowed: _Patterns
) -> tuple[FusionRow, ...]:
    """Return the rows of the report: what was fused, and each batch norm and ReLU that was not."""
    inside = {path: group for group in groups for path in group.paths}
    ran = _in_running_order(flow)
    others = [each for each in flow.model.modules() if not flow.calls_of(each)]
    before = _fused_before(flow.model)
    rows: list[FusionRow] = []
    for module in [*ran, *others]:
        path = flow.paths[id(module)][0]
        if path in fused:
            rows.append(fused[path])
        headless = path not in inside and id(module) not in before and _follows(module, allowed)
        if headless or (path in fused and _could_fold(flow, module, allowed)):
            rows.append(FusionRow((path,), type(module).__name__, _why(flow, module, inside, allowed)))
    return tuple(rows)


def _follows(module: Module, allowed: _Patterns) -> bool:
    """Tell whether a module could be the second or third of a pattern, were it not for something."""
    kinds = {kind for classes in allowed for kind in classes[1:]}
    return any(kind in kinds and isinstance(module, kind) for kind in (*NORMS, ReLU))


def _could_fold(flow: Flow, module: Module, allowed: _Patterns) -> bool:
    """Tell whether a batch norm that begins a row could be folded, were it not for something."""
    before, _ = flow.origin(module)
    return type(module) in NORMS and before is not None and _classes([before, module]) in allowed


def _why(flow: Flow, module: Module, inside: Mapping[str, Group], allowed: _Patterns) -> str:
    """Say why a batch norm or a ReLU was not fused with what comes before it."""
    if not flow.calls_of(module):
        return "it does not run on the example"
    before, words = flow.origin(module)
    if before is None:
        return f"its input comes from {words}, not from one module"
    path = flow.paths[id(before)][0]
    group = inside.get(path)
    row = [before, module] if group is None else [*map(flow.model.get_submodule, group.paths), module]
    pattern = allowed.get(_classes(row))
    if pattern is None:
        held = f", fused as {group.pattern.name}" if group else ""
        return f"it follows {words}{held}: there is no pattern {name_of(_classes(row))} among those asked for"
    after = flow.next_of(before)
    return after.why if after.module is None else group_fault(flow.model, pattern, row, flow)


def _row(before: Flow, after: Flow, group: Group) -> FusionRow:
    """Return the row of the report on modules that were fused."""
    old = [before.model.get_submodule(path) for path in group.paths]
    new = after.model.get_submodule(group.paths[0])
    first, then = before.calls_of(old[-1]), after.calls_of(new)
    if len(first) != len(then):
        raise SettingError(
            f"what stands at {group.paths[0]!r} now does not run: the model holds the module elsewhere too",
            op="fuse", help="keep modules in attributes, Sequential or ModuleList alone",
        )  # fmt: skip
    apart = [far(values(a.outputs[0]), values(b.outputs[0])) for a, b in zip(first, then, strict=True)]
    saved = sum(_bytes(each) for each in old) - _bytes(new)
    return FusionRow(group.paths, group.pattern.name, difference=float(np.max(apart)), bytes_saved=saved)


def _bytes(module: Module) -> int:
    return sum(each.nbytes for each in [*module.parameters(), *module.buffers()])


# ---- the change -------------------------------------------------------------------------------------------


def _built(model: Module, groups: Iterable[Group]) -> dict[str, Module]:
    """Return path -> what is to stand there, and change nothing."""
    made: dict[str, Module] = {}
    for group in groups:
        modules = [model.get_submodule(path) for path in group.paths]
        try:
            built = group.pattern.build(modules)
        except MinimpError as fault:
            said = f"{' + '.join(group.paths)} cannot be fused: {plain(fault)}"
            raise SettingError(said, help=fault.help) from fault
        made.update(zip(group.paths, built, strict=True))
    return made


def _replace(model: Module, made: Mapping[str, Module]) -> None:
    for path, module in made.items():
        model.set_submodule(path, module)
