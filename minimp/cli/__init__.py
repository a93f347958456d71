"""The ``minimp`` command.

=====  ========================================================================================
exit   when
=====  ========================================================================================
0      the work was done; a run that diverges is a result too
1      the work was done, and its answer is no: a check that failed
2      it could not be done: an unknown option, a bad file, no such backend; one line says why
130    Ctrl-C
141    the reader of the output went away, as in ``minimp inspect 0.1 | head -1``
=====  ========================================================================================

``MINIMP_TRACEBACK=1`` shows where an error came from; ``NO_COLOR=1`` switches colours off.
"""

from minimp.cli.entry import main

__all__ = ["main"]
