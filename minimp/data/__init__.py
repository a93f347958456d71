"""Data: the digits that ship with minimp, readers for IDX, ``.npz`` and CSV, and a DataLoader.

``load(source)`` gives ``(train, test)`` from a path or the name ``"digits"``. Everything is checked on the
way in (`DataError` says which row) and held in frozen float32 and int64 arrays; nothing is downloaded or
unpickled.
"""

from minimp.data.archive import read_npz
from minimp.data.builtin import digits
from minimp.data.dataset import ArrayDataset, Dataset, TrainTest
from minimp.data.idx import mnist, read_idx
from minimp.data.loader import DataLoader
from minimp.data.opening import load
from minimp.data.scaling import Standardize
from minimp.data.table import read_csv

__all__ = [
    "ArrayDataset",
    "DataLoader",
    "Dataset",
    "Standardize",
    "TrainTest",
    "digits",
    "load",
    "mnist",
    "read_csv",
    "read_idx",
    "read_npz",
]
