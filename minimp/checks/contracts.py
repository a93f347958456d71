"""The contract of each stage of a training step, on plain arrays.

Every function takes what went into a stage and what came out, works the result out a second time on a way
of its own (the readable rounding of :mod:`minimp.formats`, float64 formulas, bit patterns), and returns
:class:`~minimp.checks.findings.Findings`. Arrays are NumPy arrays on the host.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from minimp import formats
from minimp.checks.findings import Finding, Findings, compare
from minimp.checks.host import on_host
from minimp.errors import SettingError
from minimp.formats import Format
from minimp.policy import format_of

__all__ = [
    "check_cast", "check_clipped", "check_finite", "check_loss", "check_scaled", "check_unchanged",
    "check_unscaled", "same_bits", "snapshot", "within",
]  # fmt: skip

Array = np.ndarray[Any, Any]
U32 = 2.0**-24


def check_cast(low: Any, master: Any, fmt: Any, name: str = "weights") -> Findings:
    """Check that low = round(master) to nearest even in `fmt`, bit for bit, by the readable reference.

    Args:
        low: the low copy.
        master: what it was made from.
        fmt: the format of the copy, in any spelling of `mp.formats.get`.
        name: what to call it in the findings.
    """
    low, master, fmt = on_host(low), on_host(master), formats.get(fmt)
    wrong = _of_format(low, fmt, name) + _of_shape(low, master.shape, name)
    if not wrong:
        wanted = formats.round(master, fmt).astype(np.float64)
        wrong = compare("equals round-to-nearest-even of the master", name, low, wanted, ~_alike(low, wanted))
    return Findings(f"{name} = round(master) to {fmt.name}, bit for bit", wrong, checked=low.size)


def check_loss(value: Any, fmt: Any, expected: float, bound: float, name: str = "loss") -> Findings:
    """Check the format of a loss, and its value against float64: |value - expected| <= bound.

    Args:
        value: the loss, an array of one element.
        fmt: the format it must have.
        expected: its value in float64.
        bound: how far it may be from that (:mod:`minimp.checks.bounds`).
        name: what to call it in the findings.
    """
    value, fmt = on_host(value), formats.get(fmt)
    wrong = _of_format(value, fmt, name)
    wanted, allowed = np.full(value.shape, expected, np.float64), np.full(value.shape, bound, np.float64)
    far = ~within(value, wanted, allowed)
    wrong += compare("lies within its error bound of float64", name, value, wanted, far, detail=allowed)
    notes = () if np.isfinite(value).all() else (f"{name} is not finite: {float(value.ravel()[0])}",)
    return Findings(f"{name} is {fmt.name} and within {bound:.3g} of float64", wrong, notes, value.size)


def check_scaled(scaled: Any, loss: Any, scale: float, name: str = "scaled loss") -> Findings:
    """Check that L' = S L is exact, or has overflowed (which is noted); S must be a power of two."""
    scaled, loss = on_host(scaled), on_host(loss)
    fmt = format_of(scaled.dtype)
    wrong = _power_of_two(scale, "loss scale") + _of_shape(scaled, loss.shape, name)
    notes: tuple[str, ...] = ()
    if not wrong and fmt is not None:
        with np.errstate(all="ignore"):
            wanted = loss.astype(np.float64) * scale
        rounded = formats.round(wanted, fmt).astype(np.float64)
        wrong = compare("is S times the loss, exactly", name, scaled, wanted, ~_alike(scaled, rounded))
        flown = np.isinf(rounded) & np.isfinite(loss.astype(np.float64))
        if flown.any():
            value = float(wanted[flown].ravel()[0])
            notes = (f"{name} overflows: {value:.6g} is beyond {fmt.name}'s largest, {fmt.max:.6g}",)
    return Findings(f"{name} = {scale:g} x loss, exact or overflowed", wrong, notes, scaled.size)


def check_unscaled(
    unscaled: Any, scaled: Any, scale: float, micro_batches: int = 1, name: str = "gradient"
) -> Findings:
    """Check that g32 = n g16 / S in float32, rounded at most once: exact unless it leaves float32's range.

    Args:
        unscaled: g32.
        scaled: g16, a scaled gradient in any format.
        scale: S, a power of two.
        micro_batches: n; with n > 1 a product may need more than 24 bits, and is rounded once.
        name: the parameter.
    """
    unscaled, scaled = on_host(unscaled), on_host(scaled)
    wrong = _power_of_two(scale, "loss scale") + _of_shape(unscaled, scaled.shape, name)
    wrong += _of_format(unscaled, formats.float64 if scaled.dtype == np.float64 else formats.float32, name)
    notes: tuple[str, ...] = ()
    if not wrong:
        with np.errstate(all="ignore"):
            wanted = scaled.astype(np.float64) * (micro_batches / scale)
            rounded = wanted.astype(unscaled.dtype).astype(np.float64)
        wrong = compare("is the scaled gradient over S", name, unscaled, wanted, ~_alike(unscaled, rounded))
        lost = int((np.isfinite(wanted) & (rounded != wanted)).sum())
        if lost and micro_batches == 1:
            notes = (f"{name}: {lost:,} elements leave float32's range when they are unscaled",)
    return Findings(f"{name} is unscaled by {scale:g}, exactly", wrong, notes, unscaled.size)


def check_finite(found: bool | Iterable[str], named_gradients: Mapping[str, Any]) -> Findings:
    """Check the search for non-finite gradients against a count of bit patterns.

    A float is infinite or NaN exactly if all bits of its exponent are set (IEEE 754-2019, 3.4).

    Args:
        found: what the step concluded: whether there is any, or the names of the parameters.
        named_gradients: parameter -> gradient.
    """
    counted = {name: _non_finite(on_host(g)) for name, g in named_gradients.items()}
    truly = [name for name, count in counted.items() if count]
    claimed = truly if found is True and truly else [] if isinstance(found, bool) else list(found)
    wrong = [
        Finding("is named as not finite", f"{name} to be named", "finite", name)
        for name in truly if name not in claimed
    ]  # fmt: skip
    wrong += [
        Finding("is finite", "no non-finite element in it", "named as not finite", name)
        for name in claimed if not counted.get(name)
    ]  # fmt: skip
    if found is True and not truly:
        wrong.append(Finding("found_inf agrees with the bits", "False", "True", "all gradients"))
    notes = tuple(f"{name}: {counted[name]:,} non-finite elements" for name in truly)
    checked = sum(on_host(g).size for g in named_gradients.values())
    return Findings(
        f"non-finite gradients in {len(truly)} of {len(counted)} parameters", tuple(wrong), notes, checked
    )


def check_clipped(
    before: Sequence[Any], after: Sequence[Any], max_norm: float | None, eps: float = 1e-6
) -> Findings:
    """Check g <- g min(1, c / (|g| + eps)): the norm is at most c, and the direction is kept.

    Args:
        before, after: all float32 gradients, in one order.
        max_norm: c; None or a norm below it leaves every bit as it was.
        eps: what torch.nn.utils.clip_grad_norm_ adds to the norm.

    The factor is known to a few roundings, so an element may be 4 u off and the norm 4 u above c.
    """
    old, new = [on_host(g) for g in before], [on_host(g) for g in after]
    norm = _norm(old)
    checked = sum(g.size for g in old)
    claim = f"gradients of norm {norm:.6g} are clipped to {max_norm}"
    untouched = all(same_bits(a, b) for a, b in zip(old, new, strict=True))
    if max_norm is None or not math.isfinite(norm) or norm + eps <= max_norm:
        got = "every bit kept" if untouched else "changed gradients"
        wrong = (
            () if untouched else (Finding("a norm within the limit changes nothing", "the same bits", got),)
        )
        return Findings(claim, wrong, checked=checked)
    if untouched and norm <= max_norm:
        return Findings(claim, checked=checked)
    factor, slack = max_norm / (norm + eps), 4 * U32
    found = []
    if not _norm(new) <= max_norm * (1 + slack):
        found.append(Finding("the norm is at most c", f"{max_norm!r}", f"{_norm(new)!r}"))
    for index, (a, b) in enumerate(zip(old, new, strict=True)):
        wanted = a.astype(np.float64) * factor
        allowed = slack * np.abs(wanted) + formats.float32.smallest_subnormal
        far = ~within(b, wanted, allowed)
        found += compare("keeps its direction", f"gradient {index}", b, wanted, far, detail=allowed)
    return Findings(claim, tuple(found), checked=checked)


def snapshot(tree: Any) -> Any:
    """Return a copy of nested mappings and sequences of arrays and plain values, to compare with later."""
    if isinstance(tree, Mapping):
        return {key: snapshot(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [snapshot(value) for value in tree]
    return tree.copy() if hasattr(tree, "dtype") else tree


def check_unchanged(before: Any, after: Any, name: str = "state") -> Findings:
    """Check that a skipped step left weights and optimizer state as they were, to the bit.

    Args:
        before: a :func:`snapshot` of nested mappings and sequences of arrays and plain values.
        after: the same, now.
        name: what to call it in the findings.
    """
    old, new = dict(_leaves(before, name)), dict(_leaves(after, name))
    wrong = [
        Finding("is still there", "the same entries", "it is gone", key) for key in old if key not in new
    ]
    wrong += [Finding("is not new", "the same entries", "a new one", key) for key in new if key not in old]
    for key in (key for key in old if key in new):
        a, b = on_host(old[key]), on_host(new[key])
        if not same_bits(a, b):
            kept = f"{a.dtype} of shape {a.shape}, every bit kept"
            wrong.append(Finding("a skipped step changes nothing", kept, _difference(a, b), key))
    checked = sum(on_host(value).size for value in old.values())
    return Findings(f"{name} is as it was, bit for bit", tuple(wrong), checked=checked)


# ---- what the checks are made of --------------------------------------------------------------------------


def within(got: Array, wanted: Array, allowed: Array) -> Array:
    """Tell for each element whether |got - wanted| <= allowed, in the format of `got`.

    A wanted NaN must be met by NaN and a wanted infinity by the same one. Where the values allowed reach
    beyond the format's largest, an infinity of that sign is right too. An infinite `allowed` allows all.
    """
    values = got.astype(np.float64)
    fmt = format_of(got.dtype)
    with np.errstate(all="ignore"):
        near = (np.abs(values - wanted) <= allowed) | (values == wanted)
        if fmt is not None:
            edge = fmt.max + formats.ulp(fmt.max, fmt) / 2  # from here on, rounding gives infinity
            near |= np.isinf(values) & (np.copysign(1.0, values) * wanted + allowed >= edge)
    return np.asarray(near | (np.isnan(values) & np.isnan(wanted)) | np.isposinf(allowed))


def same_bits(a: Any, b: Any) -> bool:
    """Tell whether two arrays have one shape, one dtype and the same bytes."""
    a, b = np.ascontiguousarray(on_host(a)), np.ascontiguousarray(on_host(b))
    return bool(a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())


def _alike(got: Array, wanted: Array) -> Array:
    """Tell where values are equal with their signs, zeros too; NaN equals NaN."""
    values = got.astype(np.float64)
    equal = (values == wanted) & (np.signbit(values) == np.signbit(wanted))
    return np.asarray(equal | (np.isnan(values) & np.isnan(wanted)))


def _of_format(array: Array, fmt: Format, name: str) -> tuple[Finding, ...]:
    if array.dtype == fmt.dtype:
        return ()
    return (Finding("has its format", fmt.name, str(array.dtype), name),)


def _of_shape(array: Array, shape: tuple[int, ...], name: str) -> tuple[Finding, ...]:
    return () if array.shape == shape else (Finding("has its shape", str(shape), str(array.shape), name),)


def _power_of_two(scale: float, name: str) -> tuple[Finding, ...]:
    fraction, _ = math.frexp(scale)
    if math.isfinite(scale) and fraction == 0.5:
        return ()
    return (Finding("is a power of two, so that scaling is exact", "2^k", repr(scale), name),)


def _non_finite(array: Array) -> int:
    """Count elements whose exponent bits are all set."""
    fmt = format_of(array.dtype)
    if fmt is None:
        raise SettingError(f"expected gradients of a floating format, got {array.dtype}")
    mask = ((1 << fmt.exponent_bits) - 1) << fmt.mantissa_bits
    bits = np.ascontiguousarray(array).view(f"u{array.itemsize}")
    return int(((bits & mask) == mask).sum())


def _norm(arrays: Iterable[Array]) -> float:
    return math.sqrt(sum(float(np.square(a.astype(np.float64)).sum()) for a in arrays))


def _leaves(tree: Any, path: str) -> Iterable[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        tree = list(tree.items())
    elif isinstance(tree, list | tuple):
        tree = list(enumerate(tree))
    else:
        yield path, tree
        return
    for key, value in tree:
        yield from _leaves(value, f"{path}.{key}")


def _difference(a: Array, b: Array) -> str:
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{b.dtype} of shape {b.shape}"
    if a.dtype.kind in "OUS":
        return str(b)
    bits = [np.ascontiguousarray(x).reshape(-1).view(np.uint8).reshape(x.size, -1) for x in (a, b)]
    return f"{int((bits[0] != bits[1]).any(axis=1).sum()):,} of {a.size:,} elements changed"
