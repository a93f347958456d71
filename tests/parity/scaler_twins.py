"""One GradScaler of each library, side by side: every call is compared, and all that can be seen then."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import minimp as mp
from minimp.frameworks.scalers.refusals import REFUSALS
from minimp.scaler import GradScaler
from tests.scaler.plain import PlainSGD

PARAMETERS = (("float32", 3), ("float32", 1), ("bfloat16", 2), ("float64", 2), ("float16", 2))
OPTIMIZERS = ((0, 1), (2, 3), (4, 1))
"""Which parameters each optimizer has; parameter 1 is in two of them, and float16 cannot be unscaled."""


@dataclass
class Twins:
    """Both scalers, over equal parameters in three optimizers each.

    `calls` counts what was compared; `ended` how: "stepped", "skipped", and each kind of error by its words.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    calls: int = 0
    ended: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        import torch

        self.torch = torch
        rng = np.random.default_rng(7)
        starts = [rng.standard_normal(size) for _, size in PARAMETERS]
        names = [dtype for dtype, _ in PARAMETERS]
        self.ours = [mp.tensor(a, dtype=n, requires_grad=True) for a, n in zip(starts, names, strict=True)]
        self.theirs = [
            torch.tensor(a).to(getattr(torch, n)).requires_grad_() for a, n in zip(starts, names, strict=True)
        ]
        self.our_optimizers = [PlainSGD([self.ours[i] for i in each]) for each in OPTIMIZERS]
        self.their_optimizers = [
            torch.optim.SGD([self.theirs[i] for i in each], lr=1.0) for each in OPTIMIZERS
        ]
        self.our_scaler = GradScaler(**self.settings)
        self.their_scaler = torch.amp.GradScaler("cpu", **self.settings)

    # ---- calls --------------------------------------------------------------------------------------------

    def both(self, ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[Any, Any] | None:
        """Run a call in both; compare how it ended and what can be seen then. None: both refused."""
        self.calls += 1
        mine, other = self._outcome(ours), self._outcome(theirs)
        if isinstance(mine, Exception) or isinstance(other, Exception):
            self._same_refusal(mine, other)
            self._compare()
            return None
        self._compare()
        return mine, other

    def _outcome(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as fault:  # noqa: BLE001 - the kind of fault is what is compared
            return fault

    def _same_refusal(self, mine: Any, other: Any) -> None:
        for (kind, words), (our_kind, our_words) in ((row.theirs, row.ours) for row in REFUSALS):
            if type(other).__name__ == kind and words in str(other):
                assert isinstance(mine, our_kind), f"PyTorch: {other!r}; minimp: {mine!r}"
                assert our_words in str(mine), f"PyTorch: {other!r}; minimp: {mine!r}"
                self.ended[words] += 1
                return
        raise AssertionError(f"PyTorch: {other!r}; minimp: {mine!r}")

    def scale(self, value: float, dtype: str, shape: tuple[int, ...]) -> None:
        """Scale a tensor; the products must agree to the bit."""
        array = np.full(shape, value)
        ours, theirs = mp.tensor(array, dtype=dtype), self.torch.tensor(array).to(getattr(self.torch, dtype))
        ends = self.both(lambda: self.our_scaler.scale(ours), lambda: self.their_scaler.scale(theirs))
        assert ends is not None
        assert ends[0].dtype.name == str(ends[1].dtype).removeprefix("torch.")
        same(ends[0].numpy(), ends[1])

    def scale_anything(self, outputs: Any) -> None:
        """Scale something that has no tensor in it."""
        self.both(lambda: self.our_scaler.scale(outputs), lambda: self.their_scaler.scale(outputs))

    def set_grads(self, index: int, values: list[float] | None) -> None:
        """Give a parameter a gradient in both, or none."""
        dtype, size = PARAMETERS[index]
        if values is None:
            self.ours[index].grad = self.theirs[index].grad = None
            return
        array = np.resize(np.array(values), size)
        self.ours[index].grad = mp.tensor(array, dtype=dtype)
        self.theirs[index].grad = self.torch.tensor(array).to(getattr(self.torch, dtype))

    def unscale(self, index: int) -> None:
        """Unscale one optimizer's gradients."""
        mine, other = self.our_optimizers[index], self.their_optimizers[index]
        self.both(lambda: self.our_scaler.unscale_(mine), lambda: self.their_scaler.unscale_(other))

    def step(self, index: int) -> None:
        """Step one optimizer: w <- w - g, so that the parameters tell whether it ran."""
        mine, other = self.our_optimizers[index], self.their_optimizers[index]
        ends = self.both(
            lambda: self.our_scaler.step(mine, float), lambda: self.their_scaler.step(other, float)
        )
        if ends is not None:
            record = self.their_scaler._per_optimizer_states[id(other)]
            found = sum(flag.item() for flag in record["found_inf_per_device"].values())
            assert (ends[0].skipped, ends[0].returned is None) == (found != 0, ends[1] is None)
            self.ended["skipped" if ends[0].skipped else "stepped"] += 1

    def step_with_closure(self, index: int) -> None:
        """Step with a closure given by keyword."""
        mine, other = self.our_optimizers[index], self.their_optimizers[index]
        self.both(
            lambda: self.our_scaler.step(mine, closure=float),
            lambda: self.their_scaler.step(other, closure=float),
        )

    def update(self, *value: Any) -> None:
        """Update the scale, or set it to a Python number, or to a tensor of it."""
        self.both(lambda: self.our_scaler.update(*value), lambda: self.their_scaler.update(*value))

    def update_with_tensor(self, value: float, shape: tuple[int, ...]) -> None:
        """Set the scale to the element of a tensor."""
        array = np.full(shape, value, np.float32)
        ours, theirs = mp.tensor(array), self.torch.tensor(array)
        self.both(lambda: self.our_scaler.update(ours), lambda: self.their_scaler.update(theirs))

    def load(self, state: dict[str, Any]) -> None:
        """Load a state dict."""
        self.both(
            lambda: self.our_scaler.load_state_dict(state), lambda: self.their_scaler.load_state_dict(state)
        )

    def swap_states(self) -> None:
        """Each loads what the other one saved."""
        mine, other = self.our_scaler.state_dict(), self.their_scaler.state_dict()
        self.both(
            lambda: self.our_scaler.load_state_dict(other), lambda: self.their_scaler.load_state_dict(mine)
        )

    def copy(self) -> None:
        """Go on with copies of both."""
        ends = self.both(lambda: copy.deepcopy(self.our_scaler), lambda: copy.deepcopy(self.their_scaler))
        if ends is not None:
            self.our_scaler, self.their_scaler = ends
            self._compare()

    def setting(self, name: str, value: Any) -> None:
        """Set one of the three settings that can be set."""
        self.both(
            lambda: getattr(self.our_scaler, f"set_{name}")(value),
            lambda: getattr(self.their_scaler, f"set_{name}")(value),
        )

    # ---- what can be seen ---------------------------------------------------------------------------------

    def _compare(self) -> None:
        """Compare all states: the scaler's, the optimizers' stages, parameters and gradients, bit for bit."""
        mine, other = self.our_scaler.state_dict(), self.their_scaler.state_dict()
        assert {name: repr(value) for name, value in mine.items()} == {
            name: repr(value) for name, value in other.items()
        }
        assert repr(self.our_scaler.get_scale()) == repr(self.their_scaler.get_scale())
        assert self._our_records() == self._their_records()
        for p, q in zip(self.ours, self.theirs, strict=True):
            same(p.detach().numpy(), q.detach())
            assert (p.grad is None) == (q.grad is None)
            if p.grad is not None:
                same(p.grad.numpy(), q.grad)

    def _our_records(self) -> list[tuple[str, bool, bool]]:
        held = [self.our_scaler._records.get(id(each)) for each in self.our_optimizers]
        return [
            ("READY", False, False) if r is None else (r.stage.name, bool(r.checked), bool(r.nonfinite))
            for r in held
        ]

    def _their_records(self) -> list[tuple[str, bool, bool]]:
        held = [self.their_scaler._per_optimizer_states.get(id(each)) for each in self.their_optimizers]
        seen = []
        for record in held:
            if record is None:
                seen.append(("READY", False, False))
                continue
            found = [bool(flag.item()) for flag in record["found_inf_per_device"].values()]
            seen.append((record["stage"].name, bool(found), any(found)))
        return seen


def same(ours: np.ndarray[Any, Any], theirs: Any) -> None:
    """Check that two arrays hold the same values; NaN meets NaN, and zeros have the same signs."""
    wide, other = ours.astype(np.float64), theirs.double().numpy()
    np.testing.assert_array_equal(wide, other)
    nan = np.isnan(wide)
    np.testing.assert_array_equal(np.signbit(wide) | nan, np.signbit(other) | nan)
