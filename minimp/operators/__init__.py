"""Python's operators and torch's methods on tensors: each only names the op that does the work."""

from minimp.operators.arithmetic import Arithmetic
from minimp.operators.mathematics import Mathematics
from minimp.operators.ordering import MaxResult, MinResult, Ordering, SortResult, TopkResult
from minimp.operators.pairs import Pairs
from minimp.operators.reductions import Reductions
from minimp.operators.shaping import Shaping

__all__ = ["MaxResult", "MinResult", "Operators", "SortResult", "TopkResult"]


class Operators(Arithmetic, Mathematics, Pairs, Reductions, Ordering, Shaping):
    """What can be written with a tensor: ``x @ w + b``, ``x.sum(dim=1)``, ``x[0]``.

    torch's methods that change a tensor in place (``add_``, ``zero_``) are not offered: arrays may be shared
    with the tape, and are never changed once others can see them. ``x += y`` binds x to a new tensor.
    """

    __slots__ = ()
