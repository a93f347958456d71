"""Einstein's summation as permutations, sums and one matrix product for each pair of operands.

A plain einsum kernel is ten times slower than a matrix product, so none is used: the axes of two operands
are sorted into those of both that stay (a batch), those of both that are summed over, and those of one alone;
then one matmul does the work, with the accumulation and the rounding that every matmul has.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from minimp import ops
from minimp.errors import SettingError, ShapeError
from minimp.functional.lifting import ruled, tensors_of
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = ["Part", "contract", "einsum"]

Label = Hashable
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""The labels 0 to 51 of lists, in torch's order."""


@dataclass
class Part:
    """A tensor whose axes have names: one label an axis."""

    tensor: Value
    labels: list[Any]

    def length(self, label: Label) -> int:
        """Return the length of the axis with that label."""
        return self.tensor.shape[self.labels.index(label)]


def einsum(equation: Any, *operands: Any) -> Tensor:
    """Sum of products over the labels that the output does not name (torch.einsum).

    Args:
        equation: ``"bij,bjk->bik"``: a letter an axis, operands parted by commas; spaces do not count.
            ``...`` stands for any axes, which broadcast. A letter twice in one operand takes its diagonal.
            Without ``->`` the output is the axes of ``...`` and the letters that occur once, upper case
            first, then by the alphabet.
        operands: the tensors; or, with lists for an equation, ``einsum(a, [0, 1], b, [1, 2], [0, 2])``,
            labels from 0 to 51 and Ellipsis.

    Operands are contracted from left to right, each product rounded to its format; lengths of 1 broadcast.
    Under the policy torch-cuda all operands go to the region's format first.

    Raises:
        SettingError: the equation cannot be read. ShapeError: it does not fit the operands.
    """
    terms, output, arrays = _read(equation, operands)
    given, block = ruled("einsum", tensors_of(*arrays), composite=True)
    parts, dots = _labelled(terms, given)
    names = _output_labels(terms, output, dots)
    known = {label for part in parts for label in part.labels}
    for label in names:
        if label not in known:
            raise SettingError(f"einsum: the output names {label!r}, which no operand has")
    if len(set(names)) != len(names):
        raise SettingError("einsum: the output names an axis twice")
    _check_lengths(parts)
    with block:
        return contract([_diagonal(part) for part in parts], names)


def contract(parts: Sequence[Part], output: Sequence[Label]) -> Tensor:
    """Multiply the parts from left to right, summing over what `output` does not name."""
    rest = list(parts)
    first = rest.pop(0)
    while rest:
        second = rest.pop(0)
        later = {label for part in rest for label in part.labels} | set(output)
        first = _pair(first, second, later)
    first = _summed(first, set(output))
    return _ordered(first, list(output)).tensor  # type: ignore[return-value]  # what ops return is a Tensor


def _pair(a: Part, b: Part, later: set[Label]) -> Part:
    """Contract two parts: the labels of both that nobody needs later are summed over."""
    a, b = _without_ones(a, b), _without_ones(b, a)
    a, b = _summed(a, later | set(b.labels)), _summed(b, later | set(a.labels))
    batch = [label for label in a.labels if label in b.labels and label in later]
    inner = [label for label in a.labels if label in b.labels and label not in later]
    left = [label for label in a.labels if label not in b.labels]
    right = [label for label in b.labels if label not in a.labels]
    if not inner:
        return _multiplied(a, b, batch, left, right)
    rows = _grouped(a, batch, left, inner)
    columns = _grouped(b, batch, inner, right)
    product = ops.matmul(rows, columns)
    lengths = [a.length(n) for n in batch + left] + [b.length(n) for n in right]
    return Part(ops.reshape(product, shape=tuple(lengths)), batch + left + right)


def _multiplied(a: Part, b: Part, batch: list[Any], left: list[Any], right: list[Any]) -> Part:
    """Nothing is summed: an elementwise product, broadcast."""
    x = _ordered(a, batch + left).tensor
    y = _ordered(b, batch + right).tensor
    lengths = [b.length(n) for n in batch] + [1] * len(left) + [b.length(n) for n in right]
    x = ops.reshape(x, shape=(*x.shape, *(1,) * len(right))) if right else x
    y = ops.reshape(y, shape=tuple(lengths)) if left else y
    return Part(ops.mul(x, y), batch + left + right)


def _grouped(part: Part, batch: list[Any], rows: list[Any], columns: list[Any]) -> Value:
    """Return the axes as (batch..., rows, columns), each of the last two made one axis.

    BLAS reads a matrix if neighbours along one of its axes are neighbours in memory: where the operand's last
    axis has become a batch axis, it is copied.
    """
    moved = _ordered(part, batch + rows + columns).tensor
    if part.labels and part.labels[-1] in batch:
        moved = ops.clone(moved)
    if len(rows) == len(columns) == 1:
        return moved
    lengths = [part.length(n) for n in batch]
    counts = [_product(part.length(n) for n in group) for group in (rows, columns)]
    return ops.reshape(moved, shape=(*lengths, *counts))


def _product(lengths: Any) -> int:
    count = 1
    for n in lengths:
        count *= n
    return count


def _without_ones(a: Part, b: Part) -> Part:
    """Drop axes of length 1 where the other part has the same label: they broadcast."""
    gone = [n for n in a.labels if n in b.labels and a.length(n) == 1 and b.length(n) != 1]
    if not gone:
        return a
    kept = [n for n in a.labels if n not in gone]
    return Part(ops.reshape(a.tensor, shape=tuple(a.length(n) for n in kept)), kept)


def _summed(part: Part, wanted: set[Label]) -> Part:
    """Sum over the axes that nobody wants."""
    gone = tuple(i for i, label in enumerate(part.labels) if label not in wanted)
    if not gone:
        return part
    return Part(ops.sum_(part.tensor, dim=gone), [n for n in part.labels if n in wanted])


def _ordered(part: Part, labels: list[Any]) -> Part:
    """Put the axes in the order of `labels`."""
    if part.labels == labels:
        return part
    dims = tuple(part.labels.index(label) for label in labels)
    return Part(ops.permute(part.tensor, dims=dims), labels)


def _diagonal(part: Part) -> Part:
    """Take the diagonal over axes with one label; the axis comes to the front."""
    for label in part.labels:
        where = [i for i, other in enumerate(part.labels) if other == label]
        if len(where) > 1:
            rest = [i for i in range(len(part.labels)) if i not in where]
            moved = ops.permute(part.tensor, dims=(*where, *rest))
            steps = part.tensor.backend.xp.arange(moved.shape[0])
            taken = ops.getitem(moved, index=(steps,) * len(where))
            return _diagonal(Part(taken, [label, *(part.labels[i] for i in rest)]))
    return part


# ---- reading ------------------------------------------------------------------------------------------


def _read(equation: Any, operands: tuple[Any, ...]) -> tuple[list[list[Any]], list[Any] | None, list[Any]]:
    """Return the labels of each operand, those of the output if it is named, and the operands."""
    if not isinstance(equation, str):
        return _read_lists((equation, *operands))
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = [_letters(term, equation) for term in left.split(",")]
    if len(terms) != len(operands):
        raise SettingError(f"einsum: {equation!r} names {len(terms)} operands, got {len(operands)}")
    return terms, _letters(right, equation) if arrow else None, list(operands)


def _letters(term: str, equation: str) -> list[Any]:
    """Return the labels of one term: letters, and Ellipsis for the dots."""
    before, dots, after = term.partition("...")
    if not all(each in LETTERS for each in before + after):
        raise SettingError(
            f"einsum: cannot read {term!r} in {equation!r}",
            help="write letters, at most one ... an operand, commas between them and -> before the output",
        )
    return [*before, *([...] if dots else []), *after]


def _read_lists(given: tuple[Any, ...]) -> tuple[list[list[Any]], list[Any] | None, list[Any]]:
    """Read einsum(a, [0, 1], b, [1, 2], [0, 2])."""
    pairs = len(given) // 2
    if not pairs:
        raise SettingError("einsum: expected an equation, or operands with a list of labels each")
    terms = [_numbers(each) for each in given[1 : 2 * pairs : 2]]
    return terms, _numbers(given[-1]) if len(given) % 2 else None, list(given[: 2 * pairs : 2])


def _numbers(labels: Any) -> list[Any]:
    good = isinstance(labels, list | tuple) and all(
        n is ... or (isinstance(n, int) and 0 <= n < len(LETTERS)) for n in labels
    )
    if not good:
        raise SettingError(f"einsum: expected a list of labels from 0 to 51 and Ellipsis, got {labels!r}")
    return [n if n is ... else LETTERS[n] for n in labels]


def _labelled(terms: list[list[Any]], given: list[Value]) -> tuple[list[Part], list[Any]]:
    """Name every axis; the axes of ... are numbered from the right, so that they broadcast as NumPy's do."""
    parts, most = [], 0
    for term, x in zip(terms, given, strict=True):
        named = [n for n in term if n is not ...]
        spare = len(x.shape) - len(named)
        if term.count(...) > 1 or spare < 0 or (spare and ... not in term):
            raise ShapeError(
                f"expected an operand of {len(named)} axes{' or more' if ... in term else ''} for "
                f"{_text(term)!r}, got {x.shape}",
                op="einsum", shapes=[v.shape for v in given],
            )  # fmt: skip
        most = max(most, spare)
        dots = list(range(spare - 1, -1, -1))
        at = term.index(...) if ... in term else len(term)
        parts.append(Part(x, [*term[:at], *dots, *term[at + 1 :]]))
    return parts, list(range(most - 1, -1, -1))


def _output_labels(terms: list[list[Any]], output: list[Any] | None, dots: list[Any]) -> list[Any]:
    """Return the output's labels; the axes of ... in their place, or in front."""
    if output is None:
        every = [n for term in terms for n in term if n is not ...]
        return dots + sorted({n for n in every if every.count(n) == 1})
    if output.count(...) > 1:
        raise SettingError("einsum: the output has ... twice")
    return [n for label in output for n in (dots if label is ... else [label])]


def _check_lengths(parts: Sequence[Part]) -> None:
    """Refuse a label whose axes differ in length, but for 1, which broadcasts between operands."""
    shapes = [part.tensor.shape for part in parts]
    lengths: dict[Any, int] = {}
    for part in parts:
        own: dict[Any, int] = {}
        for label, n in zip(part.labels, part.tensor.shape, strict=True):
            if own.setdefault(label, n) != n or (lengths.get(label, 1) not in (1, n) and n != 1):
                known = own[label] if own[label] != n else lengths[label]
                raise ShapeError(
                    f"the axes called {_text([label])!r} have lengths {known} and {n}",
                    op="einsum",
                    shapes=shapes,
                )
            lengths[label] = n if n != 1 else lengths.get(label, 1)


def _text(term: list[Any]) -> str:
    return "".join("..." if n is ... or isinstance(n, int) else n for n in term)
