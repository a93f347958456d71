"""Precision blame: the smallest set of ops that must compute in FP32 for a model to agree with its FP32 self.

>>> import minimp as mp
>>> from minimp.bisecting import bisect
>>> x = mp.tensor([[300.0, 400.0]])
>>> print(bisect(lambda: (x * x).sum(), policy="torch-cpu").ops)
()
"""

from minimp.bisecting.blame import Blame, Instance
from minimp.bisecting.comparing import Agreement
from minimp.bisecting.delta import ddmin
from minimp.bisecting.memento import Memento
from minimp.bisecting.searching import bisect
from minimp.bisecting.trials import Progress

__all__ = ["Agreement", "Blame", "Instance", "Memento", "Progress", "bisect", "ddmin"]
