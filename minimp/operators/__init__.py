"""Python's operators and torch's methods on tensors: each only names the op that does the work."""

import sys

from minimp.operators import einops_backend
from minimp.operators.arithmetic import Arithmetic
from minimp.operators.in_place import InPlace
from minimp.operators.mathematics import Mathematics
from minimp.operators.ordering import MaxResult, MinResult, Ordering, SortResult, TopkResult
from minimp.operators.pairs import Pairs
from minimp.operators.reductions import Reductions
from minimp.operators.shaping import Shaping

__all__ = ["MaxResult", "MinResult", "Operators", "SortResult", "TopkResult"]


class Operators(Arithmetic, Mathematics, Pairs, Reductions, Ordering, Shaping, InPlace):
    """What can be written with a tensor: ``x @ w + b``, ``x.sum(dim=1)``, ``x[0]``.

    torch's methods that change a tensor in place (``add_``, ``zero_``) are not offered: arrays may be shared
    with the tape, and are never changed once others can see them. ``x += y`` binds x to a new tensor.
    """

    __slots__ = ()


if "einops" in sys.modules:  # only then: nothing is imported that the user did not import
    einops_backend.register()
