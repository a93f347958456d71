"""Convolution by cuDNN: its graph interface, one graph a convolution, with the types spelled out.

Each of the three kernels, the convolution and its gradients by the image and by the weights, is a graph of
one node; a bias is a second node behind the first, its sum in float32 between them. cuDNN chooses among its
*plans* for a graph; plans are kept, by geometry and format.

What a graph is allowed to be (cuDNN 9.28, cudnnBackendNumericalNote_t; nvidia-cudnn-frontend 1.32):

- Products are summed in float32 (``compute_data_type=FLOAT``), and the result is rounded once. It has the
  format of the operands: for 16-bit operands cuDNN has no plan with a float32 result.
- Plans that bear one of the notes of :data:`REFUSED` are not taken: those whose results differ from run to
  run, that sum in less than float32, that round the operands first, and those by another algorithm (Winograd,
  FFT), which has another bound of error. PyTorch leaves out the third of these, and the first where
  ``torch.backends.cudnn.deterministic`` is set (Conv_v8.cpp).
- Of float32 operands no plan on matrix units is taken, for they round these to TF32; it is what PyTorch
  leaves out without ``torch.backends.cudnn.allow_tf32``.

So results keep the bound of a dot product with float32 sums, in an order of cuDNN's, the same each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.errors import DeviceError, FormatError
from minimp_backends.columns import Geometry

__all__ = ["ON_MATRIX_UNITS", "REFUSED", "TYPES", "Convolution", "CudnnConvolution"]

Array = Any
TYPES = MappingProxyType({"float16": "HALF", "bfloat16": "BFLOAT16", "float32": "FLOAT"})
"""dtype -> name in the frontend's `data_type`."""
REFUSED = (
    "NONDETERMINISTIC", "REDUCED_PRECISION_REDUCTION", "DOWN_CONVERT_INPUTS", "FFT", "WINOGRAD",
    "WINOGRAD_TILE_4x4", "WINOGRAD_TILE_6x6", "WINOGRAD_TILE_13x13",
)  # fmt: skip
"""Names in the frontend's `numerical_note`, of plans that are never taken."""
ON_MATRIX_UNITS = "TENSOR_CORE"
"""The note of plans on matrix units, which take float32 operands as TF32."""
ALIGNED = 16
"""Bytes: the frontend says of each array that its address is a multiple of them."""
MOST_PLANS = 1024
"""Kept at a time; the oldest goes first."""


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution, as plans are kept by.

    Attributes:
        kind: "forward", or whose gradient it is: "input", "weight".
        geometry: all sizes.
        dtype: of operands and result, by name.
        bias: whether one is added to the sums.
        tf32: whether float32 operands may be rounded to TF32.
    """

    kind: str
    geometry: Geometry
    dtype: str
    bias: bool = False
    tf32: bool = False

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of the operands, as cuDNN has them, and of the result."""
        g = self.geometry
        x, y = (g.images, g.in_channels, *g.size), g.out_shape
        weight = (g.out_channels, g.in_channels // g.groups, *g.kernel)
        if self.kind == "forward":
            return (x, weight, *([(1, g.out_channels, 1, 1)] if self.bias else []), y)
        return (y, weight, x) if self.kind == "input" else (x, y, weight)


@dataclass(frozen=True, slots=True)
class Plan:
    """A graph that is ready to run.

    Attributes:
        graph: the frontend's.
        tensors: the operands' and the result's, which name them when it runs.
        workspace: bytes that it needs for itself while it runs.
    """

    graph: Any
    tensors: tuple[Any, ...]
    workspace: int


class CudnnConvolution:
    """cuDNN's convolutions on one device.

    Args:
        xp: the array library: CuPy, or what stands in for it.
        cudnn: the frontend, the module `cudnn`.
        handle: the handle of the current device.
        stream: returns the address of the stream that arrays are made in.
    """

    def __init__(self, xp: Any, cudnn: Any, handle: Any, stream: Callable[[], int]) -> None:
        self.xp, self.cudnn, self.handle, self.stream = xp, cudnn, handle, stream
        self._faults = (RuntimeError, cudnn.cudnnGraphNotSupportedError)  # the second is not one of the first
        self._plans: dict[Convolution, Plan] = {}

    def forward(
        self, x: Array, weight: Array, bias: Array | None, geometry: Geometry, *, tf32: bool = False
    ) -> Array:
        """(N, C, H, W), (O, C/G, kh, kw), (O,) -> (N, O, OH, OW): sums and bias, rounded once.

        All arrays are of one dtype of :data:`TYPES`, and so is the result; no size may be 0. The same holds
        of the gradients.

        Raises:
            FormatError: other dtypes.
            DeviceError: cuDNN has no plan for it, or failed.
        """
        operands = (x, weight) if bias is None else (x, weight, bias)
        return self._run("forward", operands, geometry, tf32)

    def input_gradient(self, grad: Array, weight: Array, geometry: Geometry, *, tf32: bool = False) -> Array:
        """(N, O, OH, OW), (O, C/G, kh, kw) -> (N, C, H, W), rounded once; as :meth:`forward`."""
        return self._run("input", (grad, weight), geometry, tf32)

    def weight_gradient(self, x: Array, grad: Array, geometry: Geometry, *, tf32: bool = False) -> Array:
        """(N, C, H, W), (N, O, OH, OW) -> (O, C/G, kh, kw), rounded once; as :meth:`forward`."""
        return self._run("weight", (x, grad), geometry, tf32)

    def _run(self, kind: str, operands: Sequence[Array], geometry: Geometry, tf32: bool) -> Array:
        names = {np.dtype(each.dtype).name for each in operands}
        if len(names) != 1 or not names <= TYPES.keys():
            raise FormatError(
                "expected arrays of one format that cuDNN convolves with float32 sums",
                op="conv2d", formats=tuple(sorted(names)), help=f"use {', '.join(TYPES)}",
            )  # fmt: skip
        name = names.pop()
        asked = Convolution(kind, geometry, name, len(operands) > 2, tf32 and name == "float32")
        plan = self._plan(asked)
        made = self.xp.empty(asked.shapes()[-1], operands[0].dtype)
        workspace = self.xp.empty(max(1, plan.workspace), "uint8")  # the pool's, in the order of the stream
        self._execute(asked, plan, (*(self._placed(each) for each in operands), made), workspace)
        return made

    def _placed(self, array: Array) -> Array:
        """Return the array as graphs have it: in C order, from an aligned address on."""
        laid = self.xp.ascontiguousarray(array)
        return laid if laid.data.ptr % ALIGNED == 0 else laid.copy()

    def _execute(self, asked: Convolution, plan: Plan, arrays: tuple[Array, ...], workspace: Array) -> None:
        """Give the work to the device, without waiting for it."""
        pointers = {tensor: each.data.ptr for tensor, each in zip(plan.tensors, arrays, strict=True)}
        try:
            self.cudnn.set_stream(handle=self.handle, stream=self.stream())
            plan.graph.execute(pointers, workspace.data.ptr, handle=self.handle)
        except self._faults as fault:
            raise _explained(asked, fault) from fault

    # ---- plans ------------------------------------------------------------------------------------------

    def _plan(self, asked: Convolution) -> Plan:
        plan = self._plans.get(asked)
        if plan is None:
            try:
                plan = self._made(asked)
            except self._faults as fault:
                raise _explained(asked, fault) from fault
            while len(self._plans) >= MOST_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[asked] = plan
        return plan

    def _made(self, asked: Convolution) -> Plan:
        """Describe the graph, and let cuDNN choose a plan among those that are allowed."""
        cudnn, kinds = self.cudnn, self.cudnn.data_type
        graph = cudnn.pygraph(
            io_data_type=getattr(kinds, TYPES[asked.dtype]), intermediate_data_type=kinds.FLOAT,
            compute_data_type=kinds.FLOAT, handle=self.handle,
        )  # fmt: skip
        tensors = self._described(graph, asked)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        notes = cudnn.numerical_note
        exact = asked.dtype == "float32" and not asked.tf32
        refused = (*REFUSED, ON_MATRIX_UNITS) if exact else REFUSED
        graph.deselect_numeric_notes([getattr(notes, name) for name in refused])
        graph.check_support()
        graph.build_plans()
        return Plan(graph, tensors, int(graph.get_workspace_size()))

    def _described(self, graph: Any, asked: Convolution) -> tuple[Any, ...]:
        """Add the nodes; return the tensors of the operands and of the result."""
        *shapes, made = asked.shapes()
        kind = getattr(self.cudnn.data_type, TYPES[asked.dtype])
        inputs = [
            graph.tensor(dim=list(shape), stride=_strides(shape), data_type=kind, name=f"operand {number}")
            for number, shape in enumerate(shapes)
        ]
        g = asked.geometry
        sizes = {
            "pre_padding": list(g.padding), "post_padding": list(g.padding), "stride": list(g.stride),
            "dilation": list(g.dilation),
        }  # fmt: skip
        if asked.kind == "forward":
            result = graph.conv_fprop(image=inputs[0], weight=inputs[1], **sizes)
        elif asked.kind == "input":
            result = graph.conv_dgrad(loss=inputs[0], filter=inputs[1], **sizes)
        else:
            result = graph.conv_wgrad(image=inputs[0], loss=inputs[1], **sizes)
        if asked.bias:
            result = graph.add(a=result, b=inputs[2])
        result.set_output(True).set_data_type(kind).set_dim(list(made)).set_stride(_strides(made))
        return (*inputs, result)


def _strides(shape: Sequence[int]) -> list[int]:
    """Return the strides of C order, in elements."""
    found = [1]
    for length in reversed(shape[1:]):
        found.insert(0, found[0] * length)
    return found


def _explained(asked: Convolution, fault: Exception) -> DeviceError:
    """Say what was asked of cuDNN where it refuses."""
    what = {"forward": "this convolution", "input": "the gradient by the image", "weight": "the gradient by "
            "the weights"}[asked.kind]  # fmt: skip
    said = " ".join(str(fault).split())[:300]
    return DeviceError(
        f"cuDNN does not do {what} with float32 sums, the same each time: {said}", op="conv2d",
        shapes=asked.shapes(), formats=(asked.dtype,), help="use backend.convolving('columns') for it",
    )  # fmt: skip
