"""Second and higher derivatives: the same gradient rules, run on tensors in the place of arrays.

A gradient rule is written once. :func:`minimp.tape.backward` runs it on raw arrays and gets numbers;
:func:`recorded_gradients` runs it on arrays that record (:class:`~minimp.higher.arrays.Recorded`) and gets
numbers that can be differentiated again: whatever the rule adds, multiplies or sums is an op on the tape.
"""

from minimp.higher.walk import recorded_gradients

__all__ = ["recorded_gradients"]
