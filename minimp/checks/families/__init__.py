"""What is known of the ops, one file a family: REFERENCE, BOUNDS and GRADIENTS.

========== =============================================================================================
REFERENCE  op name -> its forward in plain NumPy float64, from the definition, sharing no code with the op
BOUNDS     name of a family of bounds -> op name -> its forward over running numbers (nothing for "exact")
GRADIENTS  op name -> for each input, its gradient over running numbers
FORMATLESS names of ops whose results are booleans or indices (may be left out)
NO_DERIVATIVE  op name -> options -> whether its gradient is another than the derivative by definition (may be
           left out)
TURNS      op name -> inputs -> whether the result turns within a small relative step (may be left out)
========== =============================================================================================

The files :mod:`~minimp.checks.reference`, :mod:`~minimp.checks.bounds` and :mod:`~minimp.checks.gradients`
hold the same three tables for the ops that every network has; :mod:`~minimp.checks.tables` joins all.
"""
