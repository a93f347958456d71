"""The settings in force: one frozen record in one context variable.

Everything that a `with` block can change (recording, autocast, accumulation, listeners, the default
backend) is a field of :class:`Modes`. A block replaces the record and puts the old one back, also when
it is left by an exception; each thread and each async task has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import TYPE_CHECKING, Any, Protocol, Self

from minimp.errors import SettingError
from minimp.formats.accumulation.orders import parse_accumulate

if TYPE_CHECKING:
    from minimp.fp8 import Fp8Region
    from minimp.policy import Region
    from minimp.tape import Event

__all__ = [
    "DEFAULT_MODES",
    "MODES",
    "Modes",
    "Scope",
    "Watcher",
    "accumulate",
    "enable_grad",
    "is_grad_enabled",
    "listen",
    "no_grad",
    "setting",
    "watch",
]

Listener = Callable[["Event"], None]


class Watcher(Protocol):
    """What is told of the stages of a training step, besides the ops that run in them."""

    def begin_stage(self, step: Any, name: str, state: Any) -> None:
        """Take note that a stage of a :class:`minimp.TrainStep` is about to run."""

    def end_stage(self, step: Any, name: str, state: Any, tensors: Any) -> None:
        """Take note of what it made: name -> tensor, or None where it raised."""


@dataclass(frozen=True, slots=True)
class Modes:
    """What an op reads before it runs.

    Attributes:
        grad_enabled: whether ops on tensors that require a gradient are recorded.
        autocast: the autocast region in force, or None.
        accumulate: how sums are accumulated, a name of :func:`minimp.formats.matmul`.
        listeners: called with one :class:`minimp.tape.Event` for each op and each gradient.
        backend: the name of the backend on which new tensors are made.
        fp8: the FP8 region in force, or None.
        recomputing: whether a forward runs a second time, for backward (:func:`minimp.recompute`).
        watchers: told of each stage of a training step, when it begins and when it has ended.
        on_region: called with each autocast region when it is made; it may change it.
    """

    grad_enabled: bool = True
    autocast: Region | None = None
    accumulate: str = "float32"
    listeners: tuple[Listener, ...] = ()
    backend: str = "numpy"
    fp8: Fp8Region | None = None
    recomputing: bool = False
    watchers: tuple[Watcher, ...] = ()
    on_region: Callable[[Region], None] | None = None


DEFAULT_MODES = Modes()
MODES: ContextVar[Modes] = ContextVar("minimp.modes", default=DEFAULT_MODES)


class Scope(ContextDecorator):
    """A `with` block, also usable as a decorator, in which some fields of :class:`Modes` differ."""

    def __init__(self) -> None:
        self._tokens: list[Token[Modes]] = []

    def changes(self, now: Modes) -> dict[str, Any]:
        """Return the fields to change, given the record in force on entry."""
        raise NotImplementedError

    def __call__(self, function: Callable[..., Any]) -> Any:
        """Decorate a function; of a generator function, each step runs in a block of its own.

        Raises:
            SettingError: an async function: its body would run when the block has been left.
        """
        if iscoroutinefunction(function) or isasyncgenfunction(function):
            raise SettingError(
                f"{type(self).__name__} cannot decorate an async function", op=function.__name__,
                help="write the `with` block inside of it",
            )  # fmt: skip
        return self._stepwise(function) if isgeneratorfunction(function) else super().__call__(function)

    def _stepwise(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Put the record in force whenever the generator runs, and put it back whenever it waits."""

        @wraps(function)
        def run(*args: Any, **options: Any) -> Generator[Any, Any, Any]:
            generator = function(*args, **options)
            step: Callable[[Any], Any] = generator.send
            given: Any = None
            while True:
                try:
                    with self._recreate_cm():
                        found = step(given)
                except StopIteration as end:
                    return end.value
                try:
                    step, given = generator.send, (yield found)
                except GeneratorExit:
                    with self._recreate_cm():
                        generator.close()
                    raise
                except BaseException as fault:  # noqa: BLE001 - whatever is thrown in goes on to the generator
                    step, given = generator.throw, fault

        return run

    def _recreate_cm(self) -> Self:
        """Give each call of a decorated function, and so each thread, a block of its own."""
        fresh = object.__new__(type(self))  # copy() may import, which it cannot where Python is ending
        fresh.__dict__.update(self.__dict__, _tokens=[])
        return fresh

    def __enter__(self) -> Any:
        """Put the changed record in force."""
        now = MODES.get()
        self._tokens.append(MODES.set(replace(now, **self.changes(now))))
        return self

    def __exit__(self, *exc: object) -> None:
        """Put the record back that was in force on entry."""
        MODES.reset(self._tokens.pop())


class setting(Scope):  # noqa: N801 - reads as a statement: `with setting(accumulate="float64"):`
    """Put the given fields of :class:`Modes` in force, as they are."""

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        self.fields = fields

    def changes(self, now: Modes) -> dict[str, Any]:  # noqa: ARG002 - the same whatever is in force
        """Return the fields."""
        return self.fields


class no_grad(Scope):  # noqa: N801 - torch's name
    """Run a block, or a function, without recording it for backward (torch.no_grad)."""

    def changes(self, now: Modes) -> dict[str, Any]:  # noqa: ARG002 - the same whatever is in force
        """Switch recording off."""
        return {"grad_enabled": False}


class enable_grad(Scope):  # noqa: N801 - torch's name
    """Record again inside a :class:`no_grad` block (torch.enable_grad)."""

    def changes(self, now: Modes) -> dict[str, Any]:  # noqa: ARG002 - the same whatever is in force
        """Switch recording on."""
        return {"grad_enabled": True}


class listen(Scope):  # noqa: N801 - reads as a statement: `with listen(f):`
    """Call `listener` with an :class:`minimp.tape.Event` for each op and gradient run in the block."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self.listener = listener

    def changes(self, now: Modes) -> dict[str, Any]:
        """Add the listener after those in force."""
        return {"listeners": (*now.listeners, self.listener)}


class watch(Scope):  # noqa: N801 - reads as a statement: `with watch(w):`
    """Tell `watcher` of the stages of each training step that is run in the block."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__()
        self.watcher = watcher

    def changes(self, now: Modes) -> dict[str, Any]:
        """Add the watcher after those in force."""
        return {"watchers": (*now.watchers, self.watcher)}


def is_grad_enabled() -> bool:
    """Tell whether ops are being recorded."""
    return MODES.get().grad_enabled


class accumulate(Scope):  # noqa: N801 - reads as a statement: `with accumulate("float64"):`
    """Accumulate every sum, product and convolution in the block as `name` says, in both directions.

    The names are those of :func:`minimp.formats.matmul`: ``"float32"`` (the default: any order, within its
    bound), ``"float32:sequential"``, ``"float64"``, ``"exact"``, ``"float16"``, ``"float16:fma"``,
    ``"bfloat16"``, ``"chunked:B"``, ``"pairwise"``, ``"kahan"``, ``"splitk:S"``, ``"tensorcore:UNIT"``. A
    gradient is accumulated as its op was, wherever backward runs.

    What is a sum, and the order of its terms k = 0, 1, 2, ... (C order means the last index moves fastest):

    * **products**, matmul and linear: y[m, n] = sum over k of a[m, k] b[k, n], k ascending; their gradients
      are such products too, over n and over m.
    * **conv2d**: over (c, u, v) in C order, c within the group. The weight's gradient: over (n, i, j) in C
      order, images and output positions. The input's: over (o, u, v) in C order, o within the group, of the
      full correlation: w[o, c, u, v] times the gradient at the output position that read the element through
      tap (u, v), or times 0 where there is none. conv1d is conv2d on images of height 1; a transposed
      convolution sums as conv2d's gradient by its input, and its gradients as conv2d and conv2d's weight
      gradient.
    * **recurrences** (LSTM, GRU, RNN): each step's products as matmul's, over the inputs or over the states;
      the gradients of weights over steps and rows in C order.
    * **sums of terms**, over the axes summed in C order: sum, mean, softmax and log_softmax, the losses (over
      classes, over rows, and of the weights), layer_norm, rms_norm, vector_norm, batch_norm and group_norm
      (over images and places, their gradients too), average pooling (over a window's elements; its gradient,
      and that of overlapping maxima, over taps), interpolation (over the taps of all axes, the first axis
      slowest; its gradient, and that of borders that repeat elements, over the positions that read one), the
      gradients of biases and of broadcasts, and elements that indexing took several times. A term is what the
      op computes, in float32 (float64 for float64 tensors); under ``"float16"`` it is rounded to float16
      first, as a product is.

    Zeros of padding count as terms. A term of 0 changes no running sum, but it has its place: it moves the
    borders of chunks, of split runs, of pairs and of a matrix unit's blocks.

    A finished sum is a float32 number (float64 for ``"float64"`` and ``"exact"``); what follows (a bias, a
    division, a logarithm) is computed in that, and rounded once to the op's format. An exact sum to which
    nothing is added is rounded nowhere before.

    ``tensorcore:UNIT`` names a matrix unit. It rules products and convolutions; sums of terms are then
    float32's, in any order, as on the vector units beside a matrix unit. Two gradients that meet in one
    tensor are added in its format, and optimizers, clipping and the scaler's checks sum in ways of their own,
    whatever the name.

    float64 tensors are accumulated in float64 under ``"float32"`` and ``"float64"``.

    Raises:
        SettingError: the name is unknown; later, from an op: it cannot act there. A matrix unit does not
            multiply the op's format (tensorcore:volta and float32), or the tensors are float64 and the name
            is another than ``"float32"``, ``"float64"`` and ``"exact"`` (or, for sums, a matrix unit's).
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = parse_accumulate(name).name

    def changes(self, now: Modes) -> dict[str, Any]:  # noqa: ARG002 - the same whatever is in force
        """Name the accumulation."""
        return {"accumulate": self.name}
