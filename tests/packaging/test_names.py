"""The public names; oracle: the table below, which is the plan's list of pinned names."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys

import pytest

import minimp

PINNED = {
    "formats": (
        "formats float64 float32 tfloat32 float16 bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz "
        "float8_e5m2fnuz float6_e2m3fn float6_e3m2fn float4_e2m1fn int8"
    ),
    "tensor": "tensor Tensor from_dlpack no_grad grad functional Function",
    "backends": "use_backend available_backends",
    "autocast": "autocast is_autocast_enabled get_autocast_dtype custom_fwd custom_bwd policies",
    "scaling": "GradScaler",
    "training": "nn optim data Recipe recipes TrainStep accumulate",
    "tools": "trace memory save load debug",
}
NAMES = {name for group in PINNED.values() for name in group.split()}
LATER: set[str] = set()
"""Pinned names that do not exist yet; each leaves this set in the change that brings it."""

ADDED = {
    "errors": "the exception tree, to catch from",
    "enable_grad is_grad_enabled": "torch's partners of no_grad",
    "manual_seed get_rng_state set_rng_state": "torch's names; a run can be repeated and resumed",
    "cast op Op OPS": "what an operation of one's own is declared with, and the table of those there are",
    "Policy": "the class of what mp.policies holds",
    "from_torch": "a torch module, or a tensor, as one of ours",
    "arange eye full full_like linspace ones ones_like": "tensors to begin with, as torch makes them",
    "rand rand_like randn randn_like zeros zeros_like": "more of them",
    "recompute": "activation checkpointing (torch.utils.checkpoint)",
    "Trainer": "the loop around a TrainStep",
    "models": "models by name, as the trainer and the commands make them",
    "evaluate": "loss and accuracy, computed as a recipe says; the Trainer calls it",
    "fp8 fp8_autocast": "FP8 recipes, and the region in which nn.Linear computes by one",
    "quant": "integers: numbers, observers, fusion, static and dynamic quantisation",
    "LossScalers LayerwiseScaler": "a loss scale for each of several losses, and for each layer",
    "stepper": "a training step walked forward and back: what `minimp step` shows",
    "labs": "what the labs of tutorials/ are written with: exercise, NotAnswered, show",
    "detect_anomaly": "torch's name, forward and backward, infinities and NaN",
    "bisect": "the least set of operations that must compute in FP32",
    "checks": "the contracts, callable on arrays of any framework",
}
"""Names beyond the plan, each with what it is for."""


def test_exported_names_are_the_pinned_ones() -> None:
    """Oracle: PINNED less LATER plus ADDED, name for name; a name that came must leave LATER."""
    added = {name for group in ADDED for name in group.split()}
    assert set(minimp.__all__) - {"__version__"} == (NAMES - LATER) | added
    assert not [name for name in LATER if name in vars(minimp)]


@pytest.mark.parametrize("name", sorted(NAMES - LATER))
def test_each_exported_name_is_there(name: str) -> None:
    """Oracle: attribute access; a lazy name must load and appear in dir() too."""
    assert getattr(minimp, name) is not None
    assert name in dir(minimp)


def test_no_exported_name_hides_a_module() -> None:
    """Oracle: the files beside minimp/__init__.py: a name equal to a module's must be that module."""
    modules = {found.name for found in pkgutil.iter_modules(minimp.__path__)}
    for name in modules.intersection(dir(minimp)):
        assert getattr(minimp, name) is importlib.import_module(f"minimp.{name}")


def test_the_formats_are_the_ones_of_the_table() -> None:
    """Oracle: minimp.formats.get, which must return the very object of that name."""
    for name in PINNED["formats"].split()[1:]:
        assert getattr(minimp, name) is minimp.formats.get(name)


def test_what_is_heavy_loads_on_first_use() -> None:
    """Oracle: sys.modules of a fresh interpreter: only the engine at first, and each name brings its own."""
    code = (
        "import sys, minimp\n"
        "names = 'nn optim data checks step trainer scaler functional memory'\n"
        "upper = {'minimp.' + name for name in names.split()}\n"
        "others = {'torch', 'rich', 'matplotlib', 'safetensors', 'einops', 'PIL', 'numkong'}\n"
        "assert not (upper | others) & set(sys.modules), (upper | others) & set(sys.modules)\n"
        "for name, module in minimp.ON_FIRST_USE.items():\n"
        "    assert name in dir(minimp)\n"
        "    assert getattr(minimp, name) is getattr(minimp, name)\n"
        "    assert module in sys.modules, module\n"
        "    assert name in vars(minimp)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=dict(os.environ))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """Oracle: Python's data model."""
    with pytest.raises(AttributeError, match="module 'minimp' has no attribute 'tensro'"):
        _ = minimp.tensro  # type: ignore[attr-defined]  # that is the point
