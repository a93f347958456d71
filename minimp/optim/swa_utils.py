"""Averages of weights: of the last steps (EMA) or of many epochs (SWA), with torch.optim.swa_utils' names.

A weight in 16 bits cannot hold its own average: with a decay of 0.999 a step moves the average by 0.001 of
the difference, less than half an ulp of float16 or bfloat16 as a rule, and would stand still. The
averages of 16-bit parameters are therefore kept in FP32, and the averaged module holds their rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from minimp.errors import SettingError, ShapeError
from minimp.modes import no_grad
from minimp.nn import Module
from minimp.nn.states import LoadResult
from minimp.optim.optimizer import Optimizer
from minimp.optim.schedules.swa import SWALR
from minimp.optim.storage import LOW
from minimp.quiet import hush, speak
from minimp.tape import Array
from minimp.tensors import Tensor, tensor

__all__ = [
    "EMA", "SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn",
    "get_swa_multi_avg_fn", "update_bn",
]  # fmt: skip

AvgFn = Callable[[Any, Any, int], Any]
MultiAvgFn = Callable[[Sequence[Tensor], Sequence[Tensor], int], None]


def get_ema_avg_fn(decay: float = 0.999) -> AvgFn:
    """Return (averaged, current, count) -> decay averaged + (1 - decay) current (torch.optim.swa_utils 2.13).

    Raises:
        SettingError: a decay that is not from 0 to 1.
    """
    decay = _decay(decay)
    return lambda averaged, current, _: decay * averaged + (1 - decay) * current


def get_swa_avg_fn() -> AvgFn:
    """Return (averaged, current, count) -> averaged + (current - averaged) / (count + 1)."""
    return lambda averaged, current, count: averaged + (current - averaged) / (count + 1)


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAvgFn:
    """Return a function that gives each averaged tensor a + (1 - decay) (w - a) for its new array.

    The order of operations is that of torch.lerp; source: torch.optim.swa_utils 2.13.

    Raises:
        SettingError: a decay that is not from 0 to 1.
    """
    share = 1 - _decay(decay)

    def ema_update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: int) -> None:
        del count
        _lerp_all(averaged, current, share)

    return ema_update


def get_swa_multi_avg_fn() -> MultiAvgFn:
    """Return a function that gives each averaged tensor a + (w - a) / (count + 1) for its new array."""

    def swa_update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: int) -> None:
        _lerp_all(averaged, current, 1 / (count + 1))

    return swa_update


class AveragedModel(Module):
    """A copy of a model whose parameters are averages of the model's (torch.optim.swa_utils 2.13).

    Izmailov et al. 2018 (SWA, arXiv 1803.05407); Polyak and Juditsky 1992 (EMA). Call it as the model.
    Floating parameters are averaged in FP32, float64 ones in float64; buffers of integers are copied.
    torch averages 16-bit parameters in 16 bits, and integers with rounding down or not at all; it has a
    `device`. The state dict has torch's names, ``n_averaged`` and ``module.*``, and for 16-bit parameters
    ``average.*`` in float32.

    Args:
        model: what to copy; the average begins with its first :meth:`update_parameters`.
        avg_fn: (averaged, current, count) -> new average, of one parameter, all in FP32. None: equal weights.
        multi_avg_fn: (averaged ones, current ones, count) -> None, for all parameters at once; it gives each
            averaged tensor a new `.array`. Instead of `avg_fn`.
        use_buffers: average the model's floating buffers too, and do not only copy them.

    Attributes:
        module: the averaged copy, in the model's own formats.
        n_averaged: how often :meth:`update_parameters` was called, an int64 buffer.

    Raises:
        SettingError: both functions are given.
    """

    def __init__(
        self, model: Module, *, avg_fn: AvgFn | None = None, multi_avg_fn: MultiAvgFn | None = None,
        use_buffers: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise SettingError("avg_fn and multi_avg_fn cannot both act: give one", op="AveragedModel")
        self.module = copy.deepcopy(model)
        for param in self.module.parameters():
            param.grad = None
        self.register_buffer("n_averaged", tensor(0))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers
        self._wide: dict[str, Tensor] = {}
        for name, leaf in self._averaged():
            self._average_of(name, leaf)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Run the averaged module."""
        return self.module(*inputs, **options)

    def update_parameters(self, model: Module, *, optimizer: Optimizer | None = None) -> None:
        """Take the model's present weights into the average.

        Args:
            model: of the same parameters and buffers as the one that was copied.
            optimizer: average the FP32 masters that it keeps in the place of 16-bit parameters.

        Raises:
            SettingError: the model has other parameters or buffers.
            ShapeError: one of them has another shape.
        """
        pairs = self._pairs(model, optimizer)
        first = int(self.n_averaged) == 0
        token = hush()
        try:
            with no_grad():
                if first:
                    for average, current, _ in pairs:
                        average.array = current.array.copy()
                else:
                    self._average(pairs)
        finally:
            speak(token)
        for average, _, leaf in pairs:
            if average is not leaf:
                leaf.array = leaf.backend.cast(average.array, leaf.format)  # type: ignore[arg-type]  # 16 bits
        for own, theirs in self._copied(model):
            own.array = theirs.array.copy()
        self.n_averaged.array = self.n_averaged.array + 1

    def _average(self, pairs: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Give each average its new array."""
        count = int(self.n_averaged)
        if self.multi_avg_fn is not None:
            self.multi_avg_fn([a for a, _, _ in pairs], [c for _, c, _ in pairs], count)
            return
        rule = self.avg_fn or get_swa_avg_fn()
        for average, current, _ in pairs:
            new = rule(average.detach(), current, count)
            made = new.array if isinstance(new, Tensor) else average.backend.xp.asarray(new)
            average.array = made.astype(average.dtype, copy=False)

    def _pairs(self, model: Module, optimizer: Optimizer | None) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return (average, current value, leaf of the copy) for each leaf that is averaged, both wide."""
        theirs = dict(self._averaged(model))
        own = dict(self._averaged())
        buffers = ([name for name, _ in each.named_buffers()] for each in (self.module, model))
        if list(own) != list(theirs) or next(buffers) != next(buffers):
            raise SettingError(
                "the model has other parameters or buffers than the averaged one",
                op="AveragedModel.update_parameters", help="pass the model that was given at first",
            )  # fmt: skip
        pairs = []
        for name, leaf in own.items():
            source = theirs[name]
            if source.shape != leaf.shape:
                raise ShapeError(
                    f"{name}: expected shape {leaf.shape}, got {source.shape}",
                    op="AveragedModel.update_parameters", shapes=[leaf.shape, source.shape],
                )  # fmt: skip
            average = self._average_of(name, leaf)
            master = None if optimizer is None else optimizer.master_of(source)
            wide = source.backend.wide(source.array) if master is None else master
            pairs.append((average, Tensor(wide.astype(average.dtype, copy=False), source.backend), leaf))
        return pairs

    def _average_of(self, name: str, leaf: Tensor) -> Tensor:
        """Return the tensor that adds the average up: the leaf, or a float32 twin of one in 16 bits."""
        if leaf.format not in LOW:
            self._wide.pop(name, None)
            return leaf
        if name not in self._wide:
            self._wide[name] = Tensor(leaf.backend.wide(leaf.array).copy(), leaf.backend)
        return self._wide[name]

    def _averaged(self, model: Module | None = None) -> Iterator[tuple[str, Tensor]]:
        """Yield (path, leaf) of everything that is averaged."""
        module = self.module if model is None else model
        yield from module.named_parameters()
        if self.use_buffers:
            yield from ((name, each) for name, each in module.named_buffers() if each.format is not None)

    def _copied(self, model: Module) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (own, the model's) of the buffers that are copied: integers, or all."""
        for own, theirs in zip(self.module.buffers(), model.buffers(), strict=True):
            if not self.use_buffers or own.format is None:
                yield own, theirs

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> LoadResult:
        """Take over a state as :meth:`Module.load_state_dict` does.

        Where the FP32 averages are missing (strict=False, a state of torch) they begin at the 16-bit weights.
        """
        result = super().load_state_dict(state_dict, strict, assign)
        for name, leaf in self._averaged():
            if f"average.{name}" in result.missing_keys:
                self._wide[name].array = leaf.backend.wide(leaf.array).copy()
        return result

    def _saved(self) -> Iterator[tuple[str, Tensor]]:
        yield from super()._saved()
        yield from ((f"average.{name}", average) for name, average in self._wide.items())


class EMA(AveragedModel):
    """The exponential moving average of a model's weights: a <- decay a + (1 - decay) w.

    >>> ema = EMA(model, decay=0.999)  # doctest: +SKIP
    >>> for x, y in batches:  # doctest: +SKIP
    ...     if not step(x, y).skipped:
    ...         ema.update_parameters(model)
    >>> ema(x)  # doctest: +SKIP

    Args:
        model, use_buffers: see :class:`AveragedModel`.
        decay: how much of the average stays, from 0 to 1.

    Raises:
        SettingError: a decay out of range.
    """

    def __init__(self, model: Module, decay: float = 0.999, *, use_buffers: bool = False) -> None:
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=use_buffers)
        self.decay = decay

    def extra_repr(self) -> str:
        """Show the decay."""
        return f"decay={self.decay}"


def update_bn(loader: Iterable[Any], model: Module) -> None:
    """Compute the running statistics of every BatchNorm anew, with equal weight for each batch of `loader`.

    Averaged weights give other activations than any of the weights they were averaged from. Source:
    torch.optim.swa_utils.update_bn 2.13.

    Args:
        loader: batches; of a tuple or list the first element is what the model takes.
        model: it runs in training mode meanwhile, without gradients.
    """
    norms = [each for each in model.modules() if hasattr(each, "reset_running_stats")]
    if not norms:
        return
    was, momenta = model.training, [norm.momentum for norm in norms]
    try:
        model.train()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        with no_grad():
            for batch in loader:
                model(batch[0] if isinstance(batch, list | tuple) else batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(was)


def _decay(decay: Any) -> float:
    if not isinstance(decay, int | float) or not 0.0 <= decay <= 1.0:
        raise SettingError(f"expected a decay from 0 to 1, got {decay!r}", op="get_ema_multi_avg_fn")
    return float(decay)


def _lerp_all(averaged: Sequence[Tensor], current: Sequence[Tensor], share: float) -> None:
    for average, now in zip(averaged, current, strict=True):
        average.array = _lerp(average.array, now.array, share)


def _lerp(a: Array, w: Array, share: float) -> Array:
    """Return a + share (w - a), from the nearer end, as torch.lerp does."""
    return a + (w - a) * share if share < 0.5 else w - (w - a) * (1 - share)
