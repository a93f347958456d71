"""What was written, in text of at most 100 columns."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LayerNodes", "OnnxReport"]


@dataclass(frozen=True)
class LayerNodes:
    """One call of a module.

    Attributes:
        name: the module's path; with ``:2`` the second call of it.
        kind: the module's class.
        ops: the operators that stand for it, in order, without those that it shares with others before it.
        bytes: of the constants that it brought.
    """

    name: str
    kind: str
    ops: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class OnnxReport:
    """What :func:`export_onnx` wrote; iterable over the layers.

    Attributes:
        path: the file.
        form, opset: as asked for.
        layers: one row a call of a module.
        inputs, outputs: name -> shape, the first axis being the batch.
        bytes: of the file.
        bytes_float32: what weights and biases would take in float32, alone.
        bytes_in_floats: of weights that are in the file in float32 (of modules that stay in floats).
        notes: what to know about the codes of this model.
    """

    path: str
    form: str
    opset: int
    layers: tuple[LayerNodes, ...]
    inputs: dict[str, tuple[int | str, ...]]
    outputs: dict[str, tuple[int | str, ...]]
    bytes: int
    bytes_float32: int
    bytes_in_floats: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Show a line for each layer, and sizes."""
        lines = [f"{self.path}: ONNX opset {self.opset}, form {self.form}"]
        lines += [f"  {name} {_shape(shape)}" for name, shape in {**self.inputs, **self.outputs}.items()]
        wide = max((len(each.name) for each in self.layers), default=5)
        wide = min(max(wide, 5), 32)
        lines.append(f"{'layer':<{wide}}  {'bytes':>9}  operators")
        for each in self.layers:
            name = each.name if len(each.name) <= wide else "…" + each.name[1 - wide :]
            room = 100 - wide - 13
            ops = " ".join(each.ops)
            ops = ops if len(ops) <= room else ops[: room - 1] + "…"
            lines.append(f"{name:<{wide}}  {each.bytes:>9,}  {ops}")
        ratio = f", {self.bytes / self.bytes_float32:.3f} of them" if self.bytes_float32 else ""
        lines.append(
            f"{self.bytes:,} bytes; weights and biases in float32 take {self.bytes_float32:,}{ratio}"
        )
        if self.bytes_in_floats:
            lines.append(f"{self.bytes_in_floats:,} bytes of weights stay in float32")
        return "\n".join([*lines, *(f"note: {each}" for each in self.notes)])


def _shape(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
