"""Data: digits and a text always at hand, readers for IDX, ``.npz``, CSV, pictures and text, a DataLoader.

``load(source)`` gives ``(train, test)`` from a path or the name ``"digits"``; ``load_text(source)`` gives a
text in windows of characters, from a file or from ``"stdlib"``, the source of Python's own standard library.
Everything is checked on the way in (`DataError` says which row) and held in frozen arrays; nothing is
downloaded or unpickled.
"""

from minimp.data.archive import read_npz
from minimp.data.builtin import digits
from minimp.data.corpus import read_text, stdlib, stdlib_source
from minimp.data.dataset import ArrayDataset, Dataset, TrainTest
from minimp.data.idx import mnist, read_idx
from minimp.data.loader import DataLoader
from minimp.data.opening import load, load_text
from minimp.data.pictures import image_folder
from minimp.data.scaling import Standardize
from minimp.data.table import read_csv
from minimp.data.text import AnyDataset, AnyParts, TextDataset, TextParts, Vocabulary, split_text

__all__ = [
    "AnyDataset", "AnyParts", "ArrayDataset", "DataLoader", "Dataset", "Standardize", "TextDataset",
    "TextParts", "TrainTest", "Vocabulary", "digits", "image_folder", "load", "load_text", "mnist",
    "read_csv", "read_idx", "read_npz", "read_text", "split_text", "stdlib", "stdlib_source",
]  # fmt: skip
