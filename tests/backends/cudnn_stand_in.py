"""cuDNN's frontend for a machine without a GPU: it takes the calls as made, on arrays in host memory.

A graph must be made, planned and run in the frontend's order, with the names it has (`cudnn_names.json`), of
tensors whose sizes, strides and types go together; when it runs, each address must be aligned and lie with
all its elements in one allocation, and the result and the workspace must lie apart from everything else. What
cuDNN 9.28 has no plan for (a result in another format than the operands', sums in less than float32) has none
here.

Of each graph there are several plans, the faulty first: for every note that a plan may bear one whose results
show it. The one that is taken is the first that was not deselected. The last is exact: float64 sums, rounded
once. Nothing here knows how the calls came about.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

from tests.backends.cublas_stand_in import Array, Memory, over

__all__ = ["NAMES", "STREAM", "WORKSPACE", "Frontend", "Graph", "GraphNotSupportedError"]

NAMES = json.loads((Path(__file__).parent / "cudnn_names.json").read_text())
"""What the real frontend has, of which version."""
STREAM = 0x57AE
WORKSPACE = 1000
"""Bytes that every plan asks for."""
TYPES = {
    "HALF": np.dtype(np.float16),
    "BFLOAT16": np.dtype(ml_dtypes.bfloat16),
    "FLOAT": np.dtype(np.float32),
}
ALIGNED = 16
PLANS = (
    "NONDETERMINISTIC", "REDUCED_PRECISION_REDUCTION", "DOWN_CONVERT_INPUTS", "FFT", "WINOGRAD",
    "WINOGRAD_TILE_4x4", "WINOGRAD_TILE_6x6", "WINOGRAD_TILE_13x13", "TENSOR_CORE", "",
)  # fmt: skip
"""The note that each plan bears."""
STEPS = (
    "made",
    "validate",
    "build_operation_graph",
    "create_execution_plans",
    "check_support",
    "build_plans",
)


class GraphNotSupportedError(Exception):
    """The frontend's `cudnnGraphNotSupportedError`, which is an Exception and nothing more."""


def _named(kind: str) -> SimpleNamespace:
    return SimpleNamespace(**{name: name for name in NAMES[kind]})


class Tensor:
    """One array of a graph, as it is described; the setters return it."""

    def __init__(self, kind: str, dim: Sequence[int] = (), stride: Sequence[int] = ()) -> None:
        self.kind, self.dim, self.stride, self.is_output = kind, tuple(dim), tuple(stride), False

    def set_output(self, value: bool) -> Tensor:
        """Say whether it is a result of the graph."""
        self.is_output = value
        return self

    def set_data_type(self, kind: str) -> Tensor:
        """Set the type of its elements."""
        self.kind = kind
        return self

    def set_dim(self, dim: list[int]) -> Tensor:
        """Set its sizes, which a node may have inferred already."""
        assert not self.dim or self.dim == tuple(dim), f"a node gives {self.dim}, not {dim}"
        self.dim = tuple(dim)
        return self

    def set_stride(self, stride: list[int]) -> Tensor:
        """Set its strides, in elements."""
        self.stride = tuple(stride)
        return self

    def at(self, address: int) -> Array:
        """Return the array at an address."""
        dtype = TYPES[self.kind]
        return over(address, self.dim, tuple(each * dtype.itemsize for each in self.stride), dtype)

    def reach(self) -> int:
        """Return the bytes from the first element to behind the last."""
        last = sum((length - 1) * step for length, step in zip(self.dim, self.stride, strict=True))
        return (last + 1) * TYPES[self.kind].itemsize


class Frontend:
    """The module `cudnn`, for one memory."""

    cudnnGraphNotSupportedError = GraphNotSupportedError  # noqa: N815 - the frontend's name

    def __init__(self, memory: Memory) -> None:
        self.memory, self.handle, self.stream, self.graphs = memory, object(), 0, 0
        for kind in ("data_type", "heur_mode", "numerical_note"):
            setattr(self, kind, _named(kind))

    def backend_version(self) -> int:
        """Return cuDNN's, 92800 for 9.28.0."""
        return 92800

    def create_handle(self) -> object:
        """Return the one handle."""
        return self.handle

    def set_stream(self, handle: object, stream: int) -> None:
        """Set the stream that plans run in."""
        assert handle is self.handle
        self.stream = stream

    def pygraph(
        self, *, io_data_type: str, intermediate_data_type: str, compute_data_type: str, handle: object
    ) -> Graph:
        """Return an empty graph."""
        assert handle is self.handle
        self.graphs += 1
        return Graph(self, io_data_type, (intermediate_data_type, compute_data_type))


class Graph:
    """A convolution or one of its gradients, and a bias behind it at most."""

    def __init__(self, frontend: Frontend, kind: str, between: tuple[str, str]) -> None:
        self.frontend, self.kind, self.step, self.runs = frontend, kind, 0, 0
        self.between, self.barred = between, set[str]()
        self.inputs: list[Tensor] = []
        self.op, self.sizes = "", {}
        self.sums = self.result = Tensor("NOT_SET")

    # ---- what it is made of -----------------------------------------------------------------------------

    def tensor(self, *, dim: list[int], stride: list[int], data_type: str, name: str) -> Tensor:
        """Add an operand."""
        assert self.step == 0
        assert len(dim) == len(stride) == 4
        assert name
        self.inputs.append(Tensor(data_type, dim, stride))
        return self.inputs[-1]

    def conv_fprop(self, *, image: Tensor, weight: Tensor, **sizes: list[int]) -> Tensor:
        """Cross-correlation."""
        return self._node("conv_fprop", (image, weight), sizes, _out_shape(image.dim, weight.dim, sizes))

    def conv_dgrad(self, *, loss: Tensor, filter: Tensor, **sizes: list[int]) -> Tensor:  # noqa: A002 - the frontend's name
        """Its gradient by the image, whose sizes are to be set."""
        return self._node("conv_dgrad", (loss, filter), sizes, ())

    def conv_wgrad(self, *, image: Tensor, loss: Tensor, **sizes: list[int]) -> Tensor:
        """Its gradient by the weights, whose sizes are to be set."""
        return self._node("conv_wgrad", (image, loss), sizes, ())

    def add(self, *, a: Tensor, b: Tensor) -> Tensor:
        """Add a bias to the sums."""
        assert a is self.sums, "a bias is added to what a convolution gives"
        assert self.inputs[2:] == [b]
        assert b.dim == (1, a.dim[1], 1, 1)
        self.result = Tensor("NOT_SET", a.dim)
        return self.result

    def _node(self, op: str, given: tuple[Tensor, ...], sizes: dict[str, Any], dim: Sequence[int]) -> Tensor:
        assert not self.op, "one convolution a graph"
        assert list(given) == self.inputs[:2]
        assert sizes.keys() == {"pre_padding", "post_padding", "stride", "dilation"}
        self.op, self.sizes = op, sizes
        self.sums = self.result = Tensor("NOT_SET", dim)
        return self.sums

    # ---- how it is planned ------------------------------------------------------------------------------

    def _after(self, name: str) -> None:
        assert STEPS[self.step + 1] == name, f"{name} after {STEPS[self.step]}"
        self.step += 1

    def validate(self) -> None:
        """Look at what was described."""
        self._after("validate")
        assert self.result.is_output
        assert len(self.inputs) == (2 if self.result is self.sums else 3), "an operand that nothing reads"
        image, weight, out = self._roles()
        assert _out_shape(image.dim, weight.dim, self.sizes) == out.dim
        assert image.dim[1] % weight.dim[1] == 0
        assert weight.dim[0] % (image.dim[1] // weight.dim[1]) == 0, "groups"
        assert min(min(each.dim) for each in (*self.inputs, self.result)) > 0

    def build_operation_graph(self) -> None:
        """Refuse what cuDNN has no engine for."""
        self._after("build_operation_graph")
        kinds = {each.kind for each in (*self.inputs, self.result)}
        if kinds != {self.kind} or self.kind not in TYPES or self.between != ("FLOAT", "FLOAT"):
            raise GraphNotSupportedError("No valid engine configs")

    def create_execution_plans(self, heuristics: list[str]) -> None:
        """List the plans."""
        self._after("create_execution_plans")
        assert heuristics == ["A", "FALLBACK"]

    def deselect_numeric_notes(self, notes: list[str]) -> None:
        """Take no plan with one of the notes."""
        assert STEPS[self.step] == "create_execution_plans", "there must be plans, and none that is built"
        assert set(notes) <= set(NAMES["numerical_note"])
        self.barred |= set(notes)

    def check_support(self) -> None:
        """Refuse where nothing is left."""
        self._after("check_support")

    def build_plans(self) -> None:
        """Build the first plan that is left."""
        self._after("build_plans")
        self.note = next(note for note in PLANS if note not in self.barred)

    def get_workspace_size(self) -> int:
        """Return the bytes that the plan needs."""
        assert STEPS[self.step] == "build_plans"
        return WORKSPACE

    # ---- how it runs ------------------------------------------------------------------------------------

    def execute(self, arrays: dict[Tensor, int], workspace: int, handle: object) -> None:
        """Run the plan on arrays at addresses."""
        assert handle is self.frontend.handle
        assert self.frontend.stream == STREAM, "arrays are made in another stream"
        assert STEPS[self.step] == "build_plans"
        assert arrays.keys() == {*self.inputs, self.result}
        self._check_memory(arrays, workspace)
        self.runs += 1
        given = [each.at(arrays[each]).astype(np.float64) for each in self.inputs]
        with np.errstate(all="ignore"):
            made = self._worked_out(given)
            self.result.at(arrays[self.result])[...] = made

    def _check_memory(self, arrays: dict[Tensor, int], workspace: int) -> None:
        spans = [(arrays[each], arrays[each] + each.reach()) for each in (*self.inputs, self.result)]
        assert all(type(start) is int and start % ALIGNED == 0 for start, _ in spans), (
            "an address not aligned"
        )
        spans.append((workspace, workspace + WORKSPACE))
        for start, end in spans:
            inside = (x.start <= start and end <= x.start + x.size for x in self.frontend.memory.blocks)
            assert any(inside), "out of bounds"
        (low, high), work = spans[-2], spans[-1]
        for start, end in (*spans[:-2], work):
            assert end <= low or high <= start, "the result lies on something else"
        assert all(end <= work[0] or work[1] <= start for start, end in spans[:-2])

    def _worked_out(self, given: list[Array]) -> Array:
        """Return what the plan gives, its note showing."""
        exact = TYPES[self.kind] != np.float32
        if self.note == "DOWN_CONVERT_INPUTS":
            given = [each.astype(ml_dtypes.float8_e4m3fn).astype(np.float64) for each in given]
        elif self.note == "TENSOR_CORE" and not exact:
            given = [_tf32(each) for each in given]
        sums = _convolved(self.op, given, self.sizes, self.result.dim)
        if self.note == "NONDETERMINISTIC":
            sums = sums * (1 + 0.125 * (self.runs % 2))
        elif self.note == "REDUCED_PRECISION_REDUCTION":
            sums = sums.astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
        elif self.note.startswith(("WINOGRAD", "FFT")):
            sums = sums + 0.125 * np.abs(sums).max()
        sums = sums.astype(np.float32)
        return sums + given[2].astype(np.float32) if len(given) > 2 else sums

    def _roles(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return image, weight and output, or what has their sizes."""
        first, second, made = self.inputs[0], self.inputs[1], self.result
        if self.op == "conv_fprop":
            return first, second, made
        return (made, second, first) if self.op == "conv_dgrad" else (first, made, second)


def _tf32(wide: Array) -> Array:
    """Round to 11 bits."""
    mantissa, exponent = np.frexp(wide)
    return np.ldexp(np.round(mantissa * 2048) / 2048, exponent)


def _out_shape(image: Sequence[int], weight: Sequence[int], sizes: dict[str, Any]) -> tuple[int, ...]:
    lengths = (
        (size + before + after - apart * (kernel - 1) - 1) // step + 1
        for size, kernel, before, after, step, apart in zip(
            image[2:], weight[2:], sizes["pre_padding"], sizes["post_padding"], sizes["stride"],
            sizes["dilation"], strict=True,
        )
    )  # fmt: skip
    return (image[0], weight[0], *lengths)


def _taps(kernel: Sequence[int], out: Sequence[int], sizes: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield each place of the kernel, and where in the padded image it reads."""
    (sh, sw), (dh, dw) = sizes["stride"], sizes["dilation"]
    for u, v in np.ndindex(*kernel):
        down = slice(u * dh, u * dh + (out[0] - 1) * sh + 1, sh)
        yield u, v, (..., down, slice(v * dw, v * dw + (out[1] - 1) * sw + 1, sw))


def _convolved(op: str, given: list[Array], sizes: dict[str, Any], made: tuple[int, ...]) -> Array:
    """Work out a convolution or a gradient of it in float64, group by group and tap by tap."""
    first, second = given[:2]
    shapes = {"conv_fprop": (first.shape, second.shape), "conv_dgrad": (made, second.shape)}
    image, weight = shapes.get(op, (first.shape, made))
    n, groups = image[0], image[1] // weight[1]
    (top, left), (bottom, right) = sizes["pre_padding"], sizes["post_padding"]
    whole = (n, groups, weight[1], image[2] + top + bottom, image[3] + left + right)
    inside = (..., slice(top, top + image[2]), slice(left, left + image[3]))
    x, w = np.zeros(whole), np.zeros((groups, weight[0] // groups, *weight[1:]))
    out = _out_shape(image, weight, sizes)
    y = np.zeros((n, groups, weight[0] // groups, *out[2:]))
    if op != "conv_dgrad":
        x[inside] = first.reshape(n, groups, weight[1], *image[2:])
    if op != "conv_wgrad":
        w[...] = second.reshape(w.shape)
    if op != "conv_fprop":
        y[...] = (first if op == "conv_dgrad" else second).reshape(y.shape)
    for u, v, place in _taps(weight[2:], out[2:], sizes):
        if op == "conv_fprop":
            y += np.einsum("ngcij,goc->ngoij", x[place], w[..., u, v])
        elif op == "conv_dgrad":
            x[place] += np.einsum("ngoij,goc->ngcij", y, w[..., u, v])
        else:
            w[..., u, v] = np.einsum("ngoij,ngcij->goc", y, x[place])
    return (y if op == "conv_fprop" else x[inside] if op == "conv_dgrad" else w).reshape(made)
