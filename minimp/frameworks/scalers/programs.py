"""What a GradScaler does, rule by rule: small programs that run in both libraries and say what they saw."""

from __future__ import annotations

import warnings
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from minimp.frameworks.scalers.workbench import Workbench
from minimp.frameworks.sides import Side

__all__ = ["INF", "MAKING", "NAN", "SCALING", "Program"]

INF, NAN = float("inf"), float("nan")


@dataclass(frozen=True, slots=True)
class Program:
    """One rule: what it is about, which case of it, and a program that returns what it saw."""

    subject: str
    case: str
    run: Callable[[Workbench], str]

    def outcome(self, side: Side) -> str:
        """Run it in one library; a refusal is an outcome."""
        bench = Workbench(side)
        return bench.tried(lambda: self.run(bench))


# ---- making one -------------------------------------------------------------------------------------------


def _two_iterations(**settings: Any) -> Callable[[Workbench], str]:
    """A good step and a bad one, from these settings."""

    def run(b: Workbench) -> str:
        scaler = b.scaler(**settings)
        return f"{b.iteration(scaler, 4.0)}; {b.iteration(scaler, INF)}"

    return run


def _made(**settings: Any) -> Callable[[Workbench], str]:
    """Whether it can be made."""
    return lambda b: str(b.side.scaler(**settings).get_scale())


def _rounded_later(b: Workbench) -> str:
    return f"{b.side.scaler(init_scale=0.1).get_scale()!r}, then {b.scaler(0.1).get_scale()!r}"


def _without_cuda(b: Workbench) -> str:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        scaler = b.side.scaler(device="cuda")
    return f"{'enabled' if scaler.is_enabled() else 'disabled'}, {len(told)} warning"


MAKING = (
    Program("constructor", "growth_factor=1", _made(growth_factor=1.0)),
    Program("constructor", "backoff_factor=1", _made(backoff_factor=1.0)),
    Program("constructor", "factors of a disabled one", _made(growth_factor=0.5, enabled=False)),
    Program("constructor", "backoff_factor=0", _two_iterations(backoff_factor=0.0)),
    Program("constructor", "backoff_factor=-0.5", _two_iterations(backoff_factor=-0.5)),
    Program("constructor", "growth_interval=0", _two_iterations(growth_interval=0)),
    Program("constructor", "growth_interval=1", _two_iterations(growth_interval=1)),
    Program("constructor", "init_scale=0", _two_iterations(scale=0.0)),
    Program("constructor", "init_scale=-4", _two_iterations(scale=-4.0)),
    Program("constructor", "init_scale=inf", _two_iterations(scale=INF)),
    Program("constructor", "init_scale=0.1, rounded by the first scale()", _rounded_later),
    Program("constructor", "init_scale=nan", _made(init_scale=NAN)),
    Program("constructor", "device='cuda' without CUDA", _without_cuda),
)  # fmt: skip

# ---- scale ------------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - a container whose fields have no types to give


def _scaled(
    value: float, shape: tuple[int, ...], dtype: str, scale: float = 2.0**16
) -> Callable[[Workbench], str]:
    return lambda b: b.tensor(b.scaler(scale).scale(b.full(value, shape, dtype)))


def _container(make: Callable[[Any, Any], Any]) -> Callable[[Workbench], str]:
    """Scale a container of two tensors; the type that comes back, and the second product."""

    def run(b: Workbench) -> str:
        scaled = b.scaler().scale(make(b.full(1.0, (2,)), b.full(3.0, ())))
        inner = scaled[-1][-1] if isinstance(scaled[-1], list) else scaled[-1]
        return f"{type(scaled).__name__}, {b.tensor(inner)}"

    return run


def _generator(b: Workbench) -> str:
    asked: list[int] = []

    def outputs() -> Iterator[Any]:
        asked.append(1)
        yield b.full(3.0, ())

    scaled = b.scaler().scale(outputs())
    before = len(asked)
    return f"{before} taken at first; {b.tensor(next(iter(scaled)))}"


def _nothing_scaled(b: Workbench) -> str:
    scaler = b.side.scaler()
    scaler.scale([])
    return b.tried(scaler.update)


SCALING = (
    Program("scale", "float16 vector at 2^16", _scaled(1.0, (1,), "float16")),
    Program("scale", "float16 without axes at 2^16", _scaled(1.0, (), "float16")),
    Program("scale", "bfloat16 vector", _scaled(1.0, (1,), "bfloat16")),
    Program("scale", "bfloat16 without axes", _scaled(1.0, (), "bfloat16")),
    Program("scale", "bfloat16 vector at 3.7", _scaled(1.1, (1,), "bfloat16", 3.7)),
    Program("scale", "float64", _scaled(1.1, (1,), "float64", 3.7)),
    Program("scale", "whole numbers", _scaled(3, (1,), "int64", 3.7)),
    Program("scale", "infinity by 0", _scaled(INF, (1,), "float32", 0.0)),
    Program("scale", "a list", _container(lambda x, y: [x, y])),
    Program("scale", "a tuple", _container(lambda x, y: (x, y))),
    Program("scale", "nested", _container(lambda x, y: (x, [x, y]))),
    Program("scale", "a named tuple", _container(Pair)),
    Program("scale", "a generator", _generator),
    Program("scale", "an empty list starts nothing", _nothing_scaled),
    Program("scale", "a Python float", lambda b: str(b.scaler().scale(2.0))),
    Program("scale", "None", lambda b: str(b.scaler().scale(None))),
    Program("scale", "a list with a float in it", lambda b: str(b.scaler().scale([2.0]))),
    Program("scale", "a dict", lambda b: type(b.scaler().scale({"loss": b.full(1.0, ())})).__name__),
    Program("scale", "a string", lambda b: type(b.scaler().scale("loss")).__name__),
)  # fmt: skip
