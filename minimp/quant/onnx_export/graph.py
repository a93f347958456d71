"""A graph while it is written: nodes, constants, and the names that values have in it.

Names are the paths of modules: ``conv1/codes`` is what conv1 gives, ``conv1/values`` these codes as numbers,
``conv1.weight`` the codes of its weight. Constants carry the names that they have in the model's state_dict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError
from minimp.quant.affine import Affine
from minimp.quant.onnx_export.tracing import Site, Value, key_of
from minimp.quant.qtensor import QTensor

__all__ = ["Codes", "Graph"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Codes:
    """Where the codes of a value are, by their names in the graph.

    Attributes:
        name: the tensor.
        scale, zero_point: the constants by which it is read.
        affine: what these hold.
    """

    name: str
    scale: str
    zero_point: str
    affine: Affine


class Graph:
    """Nodes and constants in order; a name is given once.

    Args:
        onnx: the library.
        opset: of the operators.
        floats: key of a float result of the model -> its name.

    Attributes:
        nodes: the nodes.
        constants: name -> array.
    """

    def __init__(self, onnx: Any, opset: int, floats: dict[int, str]) -> None:
        self.onnx, self.opset = onnx, opset
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self._results = floats
        self._floats: dict[int, str] = {}
        self._codes: dict[int, Codes] = {}
        self._made: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._kinds: dict[str, str] = {}

    # ---- parts ------------------------------------------------------------------------------------------

    def _claim(self, name: str, kind: str) -> None:
        """Note what a name stands for: a module called "output" has a weight, and so may a model's result."""
        if self._kinds.setdefault(name, kind) != kind:
            raise SettingError(
                f"a constant and a result would both be called {name!r}", op="export_onnx",
                help="give the module, or the entry of the model's result, another name",
            )  # fmt: skip

    def constant(self, name: str, array: Any) -> str:
        """Hold an array under a name, which must be new or hold the same."""
        self._claim(name, "constant")
        value = np.ascontiguousarray(array).reshape(np.shape(array))
        before = self.constants.setdefault(name, value)
        if before is not value and (before.dtype != value.dtype or not np.array_equal(before, value)):
            raise SettingError(f"two constants would be called {name!r}", op="export_onnx")
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node of one output, once, and return the output's name."""
        self._claim(output, "result")
        said = op, tuple(inputs)
        before = self._made.get(output, said)
        if before != said:
            raise SettingError(f"two results would be called {output!r}", op="export_onnx")
        if output not in self._made:
            self._made[output] = said
            made = self.onnx.helper.make_node(op, list(inputs), [output], name=output)
            for name in sorted(attributes):
                made.attribute.append(self.onnx.helper.make_attribute(name, attributes[name]))
            self.nodes.append(made)
        return output

    # ---- values -----------------------------------------------------------------------------------------

    def knows(self, value: Value) -> bool:
        """Tell whether a value is in the graph."""
        return key_of(value) in (self._codes if isinstance(value, QTensor) else self._floats)

    def put_floats(self, value: Value, name: str) -> None:
        """Note where floats are."""
        self._claim(name, "result")
        self._floats[key_of(value)] = name

    def put_codes(self, value: Value, codes: Codes) -> None:
        """Note where codes are."""
        self._codes[key_of(value)] = codes

    def codes(self, value: Value) -> Codes:
        """Return where codes are."""
        return self._codes[key_of(value)]

    def floats(self, value: Value) -> str:
        """Return the name of floats."""
        return self._floats[key_of(value)]

    def result_name(self, site: Site, what: str) -> str:
        """Return the name of what a call gives: that of the model's result, or the call's own."""
        return self._results.get(key_of(site.output), f"{site.name}/{what}")

    # ---- codes and numbers ------------------------------------------------------------------------------

    def numbers(self, path: str, name: str, affine: Affine) -> tuple[str, str]:
        """Hold a scale and a zero point as `{path}.{name}scale` and `...zero_point`, and return the names."""
        zero = self.constant(f"{path}.{name}zero_point", affine.zero_point.astype(affine.storage))
        return self.constant(f"{path}.{name}scale", affine.scale), zero

    def values(self, value: Value) -> str:
        """Return the name of codes as numbers, s (q - z)."""
        codes = self.codes(value)
        stem = codes.name.removesuffix("/codes")
        return self.node("DequantizeLinear", [codes.name, codes.scale, codes.zero_point], f"{stem}/values")

    def steps(self, value: Value, scale: Any = 1.0, name: str = "one", stem: str = "") -> str:
        """Return the name of codes as whole numbers of steps, q - z, or a factor times these."""
        codes = self.codes(value)
        factor = self.constant(name, np.float32(scale))
        output = f"{stem or codes.name.removesuffix('/codes')}/steps"
        return self.node("DequantizeLinear", [codes.name, factor, codes.zero_point], output)

    def quantize(self, source: str, site: Site, *, unit: bool = False) -> None:
        """Add what makes codes of a call's output, clamped to their range.

        Args:
            source: the name of its numbers.
            site: the call.
            unit: whether they are numbers of steps, to be rounded as they are.
        """
        assert isinstance(site.output, QTensor)
        affine = site.output.affine
        scale, zero = self.numbers(site.path, "", affine)
        divisor = self.constant("one", np.float32(1)) if unit else scale
        self.put_codes(site.output, Codes(f"{site.name}/codes", scale, zero, affine))
        self._rounded(source, site, divisor, zero, affine)

    def requantize(self, source: str, site: Site) -> None:
        """Add what makes codes of numbers of steps, of the scale and zero point of the call's first input."""
        before = self.codes(site.inputs[0])
        self.back(source, site, before, self.constant("one", np.float32(1)))

    def back(self, source: str, site: Site, before: Codes, divisor: str = "") -> None:
        """Add what makes codes of numbers, of the scale and zero point that the codes `before` have."""
        codes = Codes(f"{site.name}/codes", before.scale, before.zero_point, before.affine)
        self.put_codes(site.output, codes)
        self._rounded(source, site, divisor or codes.scale, codes.zero_point, codes.affine)

    def _rounded(self, source: str, site: Site, divisor: str, zero: str, affine: Affine) -> None:
        """Add the codes of a call."""
        self.clamped(source, f"{site.name}/codes", zero, affine, divisor)

    def clamped(self, source: str, output: str, zero: str, affine: Affine, divisor: str = "") -> str:
        """Add QuantizeLinear, by scale 1 if not told, and Clip where fewer codes are used than a byte has."""
        limits = np.iinfo(affine.storage)
        divisor = divisor or self.constant("one", np.float32(1))
        if (affine.quant_min, affine.quant_max) == (limits.min, limits.max):
            return self.node("QuantizeLinear", [source, divisor, zero], output)
        ends = [
            self.constant(f"{np.dtype(affine.storage).name}:{end}", np.array(end, affine.storage))
            for end in (affine.quant_min, affine.quant_max)
        ]
        byte = self.node("QuantizeLinear", [source, divisor, zero], f"{output.removesuffix('/codes')}/byte")
        return self.node("Clip", [byte, *ends], output)
