"""The same steps in mygrad 2 (Soklaski 2020), NumPy's other tape with torch-like tensors.

Its memory guard, which locks arrays, is off, as its manual advises for speed. Numbers beside tensors are
float32: Python's would take mygrad to float64.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minimp.benchmarks.workloads import DEPTH, HEADS, LEARNING_RATE, WIDTH, Workload, batch_of, weights_of

__all__ = ["mygrad_is_there", "mygrad_step"]

Array = np.ndarray[Any, Any]
f32 = np.float32


def mygrad_is_there() -> bool:
    """Tell whether mygrad is installed, without importing it."""
    return importlib.util.find_spec("mygrad") is not None


def mygrad_step(workload: Workload) -> Callable[[], float]:
    """Return a function that runs one float32 training step of a CNN or a GPT, and gives its loss.

    Raises:
        ImportError: mygrad is not installed.
        KeyError: it has no such workload.
    """
    import mygrad
    from mygrad.nnet.losses import softmax_crossentropy

    scores = {"cnn": _cnn, "gpt": _gpt}[workload.name]
    weights = {name: mygrad.tensor(value) for name, value in weights_of(workload).items()}
    x, labels = batch_of(workload)

    def run() -> float:
        with mygrad.mem_guard_off:
            loss = softmax_crossentropy(scores(mygrad, weights, x), labels.reshape(-1))
            loss.backward()
        for w in weights.values():
            w.data -= f32(LEARNING_RATE) * w.grad
        return float(loss)

    return run


def _linear(mg: Any, w: Mapping[str, Any], name: str, x: Any) -> Any:
    return mg.matmul(x, w[f"{name}.weight"].T) + w[f"{name}.bias"]


def _cnn(mg: Any, w: Mapping[str, Any], x: Array) -> Any:
    from mygrad.nnet.activations import relu
    from mygrad.nnet.layers import conv_nd, max_pool

    h: Any = x
    for name in ("0", "2"):
        h = relu(conv_nd(h, w[f"{name}.weight"], stride=1) + w[f"{name}.bias"].reshape(1, -1, 1, 1))
    h = max_pool(h, (2, 2), 2).reshape(len(x), -1)
    return _linear(mg, w, "8", relu(_linear(mg, w, "6", h)))


def _gpt(mg: Any, w: Mapping[str, Any], indices: Array) -> Any:
    from mygrad.nnet.activations import softmax

    count, length = indices.shape
    late = np.triu(np.full((length, length), -np.inf, f32), 1)
    x = w["tokens.weight"][indices] + w["places.weight"]
    for name in (f"blocks.{i}." for i in range(DEPTH)):
        h = _norm(mg, w, name + "norm1", x)
        q, k, v = (_heads(_linear(mg, w, name + part, h)) for part in "qkv")  # (B, H, T, C/H)
        scores = mg.matmul(q, k.transpose(0, 1, 3, 2)) * f32(1 / math.sqrt(WIDTH // HEADS)) + late
        y = mg.matmul(softmax(scores, axis=-1), v).transpose(0, 2, 1, 3).reshape(count, length, WIDTH)
        x = x + _linear(mg, w, name + "out", y)
        hidden = _gelu(mg, _linear(mg, w, name + "up", _norm(mg, w, name + "norm2", x)))
        x = x + _linear(mg, w, name + "down", hidden)
    return _linear(mg, w, "head", _norm(mg, w, "norm", x)).reshape(count * length, -1)


def _heads(x: Any) -> Any:
    """(B, T, C) -> (B, H, T, C/H)."""
    return x.reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)


def _norm(mg: Any, w: Mapping[str, Any], name: str, x: Any) -> Any:
    centred = x - mg.mean(x, axis=-1, keepdims=True)
    scale = mg.sqrt(mg.mean(centred * centred, axis=-1, keepdims=True) + f32(1e-5))
    return centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"]


def _gelu(mg: Any, x: Any) -> Any:
    inner = f32(math.sqrt(2 / math.pi)) * (x + f32(0.044715) * x * x * x)
    return f32(0.5) * x * (f32(1) + mg.tanh(inner))
