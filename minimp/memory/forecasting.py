"""The ledger before training: a whole step on the backend of shapes, which holds nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from minimp import rng
from minimp.backend import default_backend, get_backend, use_backend
from minimp.errors import SettingError, unknown_name
from minimp.formats import get
from minimp.memory.measuring import measure
from minimp.memory.records import Ledger
from minimp.nn import Module
from minimp.recipe import Recipe
from minimp.step import TrainStep
from minimp.tensors import Tensor

if TYPE_CHECKING:
    from minimp.optim import Optimizer

__all__ = ["SHAPES_OF", "forecast", "model_of", "on_shapes", "shape_of"]

SHAPES_OF = {"numpy": "shapes", "cupy": "cupy-shapes", "strict": "device-shapes"}
"""A backend that computes -> the one of the shapes that it would hold."""


def forecast(
    model: Module | Callable[[], Module],
    recipe: Recipe | str,
    optimizer: Callable[[Any], Optimizer],
    inputs: Any,
    targets: Any,
    loss_fn: Callable[[Any, Any], Tensor],
    *,
    backend: str | None = None,
    **options: Any,
) -> Ledger:
    """Return the ledger of a training step, without data, and without memory for the model.

    Two steps run on the backend of shapes: the first makes the optimizer's state, the second is counted. So
    the forecast is of any step but the first; one that is skipped holds no more. It equals what
    :func:`measure` finds, but for scratch that this process keeps already. A GPU's needs no GPU.

    >>> from minimp import functional, memory, nn, optim
    >>> held = memory.forecast(
    ...     lambda: nn.Linear(1000, 10), "mixed-fp16", optim.Adam, (64, 1000), (64,),
    ...     functional.cross_entropy)
    >>> held.logical.masters, held.logical.low_copies
    (40040, 20020)

    Args:
        model: a function that makes the model, so that not even its weights are made; or a module, which
            stays as it is.
        recipe: a Recipe, or the name of one.
        optimizer: makes the optimizer from the parameters: a class, or a function.
        inputs, targets: a batch: arrays or tensors, of which only shape and dtype are read; or a shape
            (float32 inputs, int64 targets); or a pair of a shape and a format or dtype.
        loss_fn: as for `TrainStep`.
        backend: whose memory: "numpy", which keeps float32 twins of 16-bit arrays; "cupy" or "strict", which
            keep none. None: that of the backend in force, or "numpy" where nothing is known of it.
        options: further arguments of `TrainStep`.

    Raises:
        SettingError: the function makes no module, a setting cannot act, or nothing is known of `backend`.
        DataError, ShapeError: model and batch do not fit.
        DeviceError: the step depends on values, as under a mask; measure a real step instead.
    """
    with on_shapes(backend):
        made = model_of(model)
        step = TrainStep(made, loss_fn, optimizer(made.parameters()), recipe, **options)
        x, y = shape_of(inputs, "float32"), shape_of(targets, "int64")
        measure(step, x, y)
        return measure(step, x, y)


@contextmanager
def on_shapes(backend: str | None = None) -> Iterator[None]:
    """Make new tensors shapes inside the block, and random numbers too: nothing is drawn, nothing is held.

    Args:
        backend: as of :func:`forecast`.

    >>> from minimp import nn, tensor
    >>> with on_shapes():
    ...     model = nn.Linear(10**6, 10**6)  # 4 TB in float32
    >>> model.weight.shape
    (1000000, 1000000)
    """
    if backend is None:
        shapes = SHAPES_OF.get(default_backend().name, SHAPES_OF["numpy"])
    elif backend in SHAPES_OF:
        shapes = SHAPES_OF[backend]
    else:
        raise SettingError(unknown_name("backend to forecast", backend, SHAPES_OF), op="memory.forecast")
    with use_backend(shapes), rng.drawing_from(get_backend(shapes).xp.random):
        yield


def shape_of(given: Any, usual: str) -> Any:
    """Return the shape of an array, a tensor, a (shape, dtype), or of a plain shape with the usual dtype."""
    xp = default_backend().xp
    if hasattr(given, "shape") and hasattr(given, "dtype"):
        return xp.empty(given.shape, given.dtype)
    if not isinstance(given, tuple | list):
        raise SettingError(
            f"expected an array, a shape, or a shape and a dtype, got {given!r}", op="memory.forecast"
        )
    shape, dtype = given if len(given) == 2 and isinstance(given[0], tuple | list) else (given, usual)
    return xp.empty(tuple(shape), _dtype(dtype))


def _dtype(given: Any) -> np.dtype[Any]:
    """Return the dtype of whole numbers, or the one that stores a format."""
    try:
        whole = np.dtype(given)
    except TypeError:
        return get(given).dtype
    return whole if whole.kind in "iub" else get(given).dtype


def model_of(given: Module | Callable[[], Module]) -> Module:
    """Return a model of shapes: made by the function, or a copy of the module."""
    if isinstance(given, Module):
        return _copied(given)
    made = given()
    if not isinstance(made, Module):
        raise SettingError(
            f"expected a function that makes a module, and it made a {type(made).__name__}",
            op="memory.forecast",
        )
    return made


def _copied(module: Module) -> Module:
    """Return the module with shapes in the place of its parameters and buffers."""
    shapes = default_backend()
    memo: dict[int, Any] = {}
    for leaf in (*module.parameters(), *module.buffers()):
        made = leaf.__class__.__new__(leaf.__class__)
        Tensor.__init__(made, shapes.from_host(leaf.array), shapes)
        made.requires_grad = leaf.requires_grad
        memo[id(leaf)] = made
    return copy.deepcopy(module, memo)
