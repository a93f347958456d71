"""Torch's tensors, modules and state in, and state out again. Nothing here imports torch before it is used.

A torch module holds its settings as attributes under the names of its arguments, and so do ours: that is how
a counterpart is made. The exceptions are rows of :data:`ARGUMENTS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np

from minimp import functional, nn
from minimp.backend import default_backend, get_backend
from minimp.errors import FormatError, MinimpError, SettingError
from minimp.nn.parameter import recast
from minimp.policy import FLOATING, format_of
from minimp.tensors import Tensor

__all__ = ["from_torch", "to_torch_state"]

Module = nn.Module
Settings = dict[str, Any]

CONTAINERS = frozenset({"Module", "Sequential", "ModuleList", "ModuleDict"})
MADE_OF_PARTS = frozenset(
    {"TransformerEncoderLayer", "TransformerDecoderLayer", "TransformerEncoder", "TransformerDecoder"}
)
"""Modules whose parts are converted one by one, since each part has settings of its own."""
OURS = frozenset({"dtype", "backend"})
"""Arguments that torch has not: values bring their format, and the backend is the caller's."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def from_torch(source: Any, *, backend: str | None = None) -> Any:
    """Return the counterpart of a torch tensor or of a torch module built from known ones.

    Values are copied, bit for bit, in their formats. A module keeps its training flags, what requires a
    gradient, and what is tied stays tied. `inplace=True` becomes False, which changes no value.

    Args:
        source: a torch.Tensor (a leaf stays one that requires a gradient, or not), or a torch.nn.Module: any
            that :mod:`minimp.nn` has, in plain containers. What is written by hand has a forward that cannot
            be read: build it with minimp.nn, and load its state.
        backend: the name of a backend; None takes the one in force.

    Raises:
        SettingError: a module without counterpart, or a setting that is not offered; the path is named.
        FormatError: a tensor in a format that the backend has no storage for.
    """
    if hasattr(source, "named_modules"):
        made = _Conversion(backend).module(source, "")
        _take_state(source, made)
        return made
    if not (hasattr(source, "detach") and hasattr(source, "is_leaf")):
        raise SettingError(
            f"expected a torch tensor or module, got {type(source).__name__}", op="from_torch",
            help="for arrays there is mp.tensor",
        )  # fmt: skip
    where = default_backend() if backend is None else get_backend(backend)
    tensor = Tensor(where.from_host(_array(source)), where)
    if tensor.format is not None:
        where.require(tensor.format)
    return tensor.requires_grad_() if source.requires_grad and source.is_leaf else tensor


def to_torch_state(module: Module) -> dict[str, Any]:
    """Return a module's state as torch tensors, to be loaded by torch's ``load_state_dict``.

    Values are copied, bit for bit, in their formats.

    Raises:
        SettingError: torch is not installed.
    """
    try:
        import torch
    except ImportError as fault:
        raise SettingError("torch is not installed", op="to_torch_state", help="pip install torch") from fault
    found = {}
    for path, leaf in module.state_dict().items():
        host = np.array(leaf.backend.to_host(leaf.array))
        if host.dtype == ml_dtypes.bfloat16:  # NumPy knows it by ml_dtypes, torch by itself
            found[path] = torch.from_numpy(host.view(np.int16)).view(torch.bfloat16)
        else:
            found[path] = torch.from_numpy(host)
    return found


# ---- settings ---------------------------------------------------------------------------------------------


def _activation(layer: Any) -> Any:
    """Return the activation of a transformer's layer: a name, or a stand-in for the module that follows."""
    if hasattr(layer.activation, "named_modules"):
        return functional.relu
    name = getattr(layer.activation, "__name__", "")
    if name not in ("relu", "gelu"):
        raise SettingError(
            f"expected an activation that is relu, gelu or a module, got {layer.activation!r}",
            op=type(layer).__name__,
        )
    return name


def _layer(layer: Any) -> Settings:
    return {
        "d_model": layer.self_attn.embed_dim, "nhead": layer.self_attn.num_heads,
        "dim_feedforward": layer.linear1.out_features, "activation": _activation(layer),
        "dropout": 0.0, "layer_norm_eps": layer.norm1.eps, "batch_first": layer.self_attn.batch_first,
        "bias": layer.linear1.bias is not None,
    }  # fmt: skip


def _attention(module: Any) -> Settings:
    return {"bias": module.in_proj_bias is not None, "add_bias_kv": module.bias_k is not None}


def _buffers(module: Any) -> Settings:
    """Return zeros in the places of the weights of a loss."""
    named = ((name, getattr(module, name, None)) for name in ("weight", "pos_weight"))
    return {name: np.zeros(tuple(x.shape), np.float32) for name, x in named if x is not None}


ARGUMENTS: Mapping[str, Callable[[Any], Settings]] = MappingProxyType(
    {
        "MultiheadAttention": _attention,
        "TransformerEncoderLayer": _layer,
        "TransformerDecoderLayer": _layer,
        "TransformerEncoder": lambda _: {"encoder_layer": nn.Identity(), "norm": None},
        "TransformerDecoder": lambda _: {"decoder_layer": nn.Identity(), "norm": None},
        "PairwiseDistance": lambda m: {"p": m.norm},
        "RNN": lambda m: {"nonlinearity": m.mode.removeprefix("RNN_").lower()},
    }
)  # fmt: skip
"""Name -> the arguments that are not attributes of the same name."""


def _settings(kind: type[Module], module: Any) -> Settings:
    """Return the arguments that make a counterpart of `module`."""
    known = ARGUMENTS.get(kind.__name__, _buffers if kind.__name__.endswith("Loss") else lambda _: {})(module)
    bias = getattr(module, "bias", None)
    plain = {"inplace": False, "bias": bias if isinstance(bias, bool) else bias is not None}
    found: Settings = {}
    for name, argument in inspect.signature(kind).parameters.items():
        place = next((each for each in (known, plain) if name in each), None)
        if place is not None:
            found[name] = place[name]
        elif hasattr(module, name):
            found[name] = getattr(module, name)
        elif name not in OURS and argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            raise SettingError(f"the setting {name!r} is not where it is looked for", op="from_torch")
    return found


# ---- modules ----------------------------------------------------------------------------------------------


class _Conversion:
    """One call of :func:`from_torch`: a module that stands in two places becomes one that does."""

    def __init__(self, backend: str | None) -> None:
        self.backend = backend
        self.known: dict[int, Module] = {}

    def module(self, source: Any, path: str) -> Module:
        """Return the counterpart of a module, its values not yet taken over."""
        if id(source) in self.known:
            return self.known[id(source)]
        self._check(source, path)
        kind = type(source).__name__
        try:
            made = self._make(source, kind, path)
        except MinimpError as fault:
            if not getattr(fault, "__notes__", ()):
                fault.add_note(f"while converting {_place(path)}, a torch.nn.{kind}")
            raise
        object.__setattr__(made, "training", bool(source.training))
        self.known[id(source)] = made
        return made

    def _make(self, source: Any, kind: str, path: str) -> Module:
        if kind in CONTAINERS:
            return self._with_parts(getattr(nn, kind)(), source, path)
        if kind == "ParameterList":
            return nn.ParameterList([_blank(p, self.backend) for p in source])
        if kind == "ParameterDict":
            return nn.ParameterDict({name: _blank(p, self.backend) for name, p in source.items()})
        if kind == "Transformer":
            encoder, decoder = (
                self.module(getattr(source, n), _join(path, n)) for n in ("encoder", "decoder")
            )
            return nn.Transformer(
                source.d_model, source.nhead, custom_encoder=encoder, custom_decoder=decoder,
                batch_first=source.batch_first,
            )  # fmt: skip
        settings = _settings(getattr(nn, kind), source)
        if "backend" in inspect.signature(getattr(nn, kind)).parameters:
            settings["backend"] = self.backend
        made: Module = getattr(nn, kind)(**settings)
        return self._with_parts(made, source, path) if kind in MADE_OF_PARTS else made

    def _with_parts(self, made: Module, source: Any, path: str) -> Module:
        for name, part in source._modules.items():
            converted = None if part is None else self.module(part, _join(path, name))
            if hasattr(made, name):
                setattr(made, name, converted)
            else:
                made.add_module(name, converted)
        return made

    def _check(self, source: Any, path: str) -> None:
        kind = type(source)
        if not kind.__module__.startswith("torch.nn.modules.") or not hasattr(nn, kind.__name__):
            bases = (b.__name__ for b in kind.__mro__[1:])
            base = next((name for name in bases if name != "Module" and hasattr(nn, name)), None)
            family = f", a subclass of torch.nn.{base}" if base else ""
            raise SettingError(
                f"no counterpart of {kind.__name__}{family}, {_place(path)}: its forward is not known",
                op="from_torch",
                help="write the module with minimp.nn, then convert its parts or load its state",
            )
        if any(getattr(source, name, None) for name in HOOKS):
            raise SettingError(
                f"{_place(path)}, a torch.nn.{kind.__name__}, has hooks, which cannot be converted",
                op="from_torch", help="remove them, and register hooks on the converted module",
            )  # fmt: skip


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _place(path: str) -> str:
    return f"at {path!r}" if path else "the module itself"


# ---- values -----------------------------------------------------------------------------------------------


def _array(tensor: Any) -> np.ndarray[Any, Any]:
    """Return a copy of a torch tensor's values on the host, in its own format."""
    host = tensor.detach().cpu()
    name = str(tensor.dtype).removeprefix("torch.")
    try:
        array = np.array(
            host.float().numpy().astype(ml_dtypes.bfloat16) if name == "bfloat16" else host.numpy()
        )
    except TypeError as fault:
        raise FormatError(
            f"tensors of {name} have no counterpart", op="from_torch", formats=[name]
        ) from fault
    if array.dtype.kind == "c":
        raise FormatError(f"tensors of {name} have no counterpart", op="from_torch", formats=[name])
    return array


def _blank(tensor: Any, backend: str | None) -> nn.Parameter:
    return nn.Parameter(from_torch(tensor.detach(), backend=backend), bool(tensor.requires_grad))


def _leaves(module: Any) -> Iterator[tuple[str, str, Any, str]]:
    """Yield (registry, path of the owner, tensor, name) of all parameters and buffers, under each path."""
    for path, owner in module.named_modules(remove_duplicate=False):
        for registry in ("_parameters", "_buffers"):
            for name, leaf in getattr(owner, registry).items():
                if leaf is not None:
                    yield registry, path, leaf, name


def _take_state(source: Any, made: Module) -> None:
    """Give each leaf the format and the values of its counterpart; tie what is tied."""
    ours = {(registry, path, name): leaf for registry, path, leaf, name in _leaves(made)}
    theirs = {(registry, path, name): leaf for registry, path, leaf, name in _leaves(source)}
    odd = sorted(_join(path, name) for _, path, name in set(ours) ^ set(theirs))
    if odd:
        raise SettingError(f"the two modules do not have the same members: {', '.join(odd)}", op="from_torch")
    taken: dict[int, Any] = {}
    for key, tensor in theirs.items():
        registry, path, name = key
        if id(tensor) in taken:
            getattr(made.get_submodule(path), registry)[name] = taken[id(tensor)]
            continue
        leaf = taken[id(tensor)] = ours[key]
        array = _array(tensor)
        form = format_of(array.dtype)
        if form in FLOATING and form is not None:
            leaf.backend.require(form)
            recast(leaf, form)
        leaf.array = leaf.backend.from_host(array)
        leaf.format = form
        if registry == "_parameters":
            leaf.requires_grad = bool(tensor.requires_grad)
