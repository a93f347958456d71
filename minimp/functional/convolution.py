"""Convolutions of signals and images, and transposed ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minimp import ops
from minimp.errors import SettingError
from minimp.functional.borders import pad
from minimp.functional.common import Pair
from minimp.tensors import Tensor

__all__ = ["conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d"]


def conv1d(
    input: Any, weight: Any, bias: Any = None, stride: Pair = 1, padding: Pair | str = 0,
    dilation: Pair = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation of signals.  (N, C, L), (O, C/groups, K), (O,) -> (N, O, L'); as :func:`conv2d`."""
    return _conv("conv1d", 1, (input, weight, bias), stride, padding, dilation, groups)


def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Pair = 1, padding: Pair | str = 0,
    dilation: Pair = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation.  (N, C, H, W), (O, C/groups, kH, kW), (O,) -> (N, O, H', W').

    Args:
        input, weight, bias: tensors of one format (outside autocast).
        stride, dilation: one number or a pair, at least 1.
        padding: zeros on each side, one number or a pair; "valid" is none, "same" keeps H and W (stride 1
            only; of an odd number of zeros, one more comes at the end).
        groups: channels are split in this many independent groups.
    """
    return _conv("conv2d", 2, (input, weight, bias), stride, padding, dilation, groups)


def conv_transpose1d(
    input: Any, weight: Any, bias: Any = None, stride: Pair = 1, padding: Pair = 0,
    output_padding: Pair = 0, groups: int = 1, dilation: Pair = 1,
) -> Tensor:  # fmt: skip
    """What conv1d's gradient does.  (N, C, L), (C, O/groups, K), (O,) -> (N, O, L').

    L' = (L - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1; as :func:`conv_transpose2d`.
    """
    sizes = _sizes(1, stride=stride, padding=padding, output_padding=output_padding, dilation=dilation)
    return ops.conv_transpose1d(*_given(input, weight, bias), groups=_groups(groups), **sizes)


def conv_transpose2d(
    input: Any, weight: Any, bias: Any = None, stride: Pair = 1, padding: Pair = 0,
    output_padding: Pair = 0, groups: int = 1, dilation: Pair = 1,
) -> Tensor:  # fmt: skip
    """What conv2d's gradient does.  (N, C, H, W), (C, O/groups, kH, kW), (O,) -> (N, O, H', W').

    Args:
        input, weight, bias: tensors of one format (outside autocast).
        stride, padding, dilation: those of the convolution that it turns round.
        output_padding: rows and columns added at the end, fewer than the stride or the dilation: it chooses
            among the sizes that the stride leaves open.
        groups: channels are split in this many independent groups.
    """
    sizes = _sizes(2, stride=stride, padding=padding, output_padding=output_padding, dilation=dilation)
    return ops.conv_transpose2d(*_given(input, weight, bias), groups=_groups(groups), **sizes)


# ---- parts ------------------------------------------------------------------------------------------------


def _conv(
    name: str, axes: int, arrays: tuple[Any, ...], stride: Pair, padding: Pair | str, dilation: Pair,
    groups: int,
) -> Tensor:  # fmt: skip
    sizes = _sizes(axes, stride=stride, dilation=dilation)
    input, *rest = _given(*arrays)
    if isinstance(padding, str):
        before, after = _named_padding(name, padding, rest[0].shape[2:], sizes)
        if before != after:  # an odd number of zeros: the one more at the end comes first of all
            beyond = [b - a for a, b in zip(before, after, strict=True)]
            input = pad(input, [n for more in reversed(beyond) for n in (0, more)])
    else:
        before = _sizes(axes, padding=padding)["padding"]
    return ops.OPS[name](input, *rest, padding=before, groups=_groups(groups), **sizes)


def _named_padding(
    name: str, padding: str, kernel: Sequence[int], sizes: dict[str, tuple[int, ...]]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The zeros before and after each axis."""
    if padding == "valid":
        return (0,) * len(kernel), (0,) * len(kernel)
    if padding != "same" or any(s != 1 for s in sizes["stride"]):
        raise SettingError(
            f"{name}: padding {padding!r} cannot act with stride {sizes['stride']}",
            help="'same' needs stride 1, 'valid' is none; else give the padding as numbers",
        )
    reach = [d * (k - 1) for d, k in zip(sizes["dilation"], kernel, strict=True)]
    return tuple(r // 2 for r in reach), tuple(r - r // 2 for r in reach)


LEAST = {"stride": 1, "dilation": 1, "padding": 0, "output_padding": 0}


def _sizes(axes: int, **sizes: Pair) -> dict[str, tuple[int, ...]]:
    """Whole numbers for each axis, at least what the setting allows."""
    found = {}
    for name, value in sizes.items():
        numbers = (value,) * axes if isinstance(value, int) else tuple(value)
        numbers = numbers * axes if len(numbers) == 1 else numbers
        if len(numbers) != axes or any(type(n) is not int or n < LEAST[name] for n in numbers):
            how_many = "one whole number" if axes == 1 else "one or two whole numbers"
            raise SettingError(f"{name}: expected {how_many} of at least {LEAST[name]}, got {value!r}")
        found[name] = numbers
    return found


def _groups(groups: int) -> int:
    if type(groups) is not int or groups < 1:
        raise SettingError(f"groups: expected a whole number of at least 1, got {groups!r}")
    return groups


def _given(*arrays: Any) -> tuple[Any, ...]:
    """Leave out a bias that is not there."""
    return arrays[:2] if arrays[2] is None else arrays
