"""The debug ladder: one line on stderr for each thing that happens, from little to much.

>>> import minimp as mp
>>> with mp.debug(2):  # doctest: +SKIP
...     step(inputs, targets)

====== ==================================================================================================
level  lines
====== ==================================================================================================
0      none
1      ``step`` each training step: loss, loss scale, gradient norm; where the update was left out: ``why``,
       and ``skip`` the parameters whose gradient was not finite; ``scale`` each move of the loss scale
2      ``cast`` each cast, forward and backward, and the zeros and infinities that it made
3      each op, forward and backward: formats, shapes, the largest magnitude of its results, the zeros and
       infinities that its rounding made, its module; ``stage`` the stages of a step
4      the first values of each result, and the line of code that called the op
====== ==================================================================================================

``MINIMP_DEBUG=2`` in the environment does the same for a whole program, all of its threads and the `minimp`
command. Each line begins with ``minimp`` and its level, so that ``grep "^minimp 1"`` finds the steps again,
and has at most 100 columns.
"""

from minimp.ladder.blocks import begin, debug
from minimp.ladder.ladder import Ladder
from minimp.ladder.levels import LEVELS

__all__ = ["LEVELS", "Ladder", "begin", "debug"]
