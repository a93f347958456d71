"""Linear layers and convolutions on codes: int8 products, int32 sums and bias, one rounding at the end.

With x = s_x (q - z_x) and w = s_w (p - z_w), the sum over products of codes stands for s_x s_w times itself,
and so does the bias, rint(b (1 / (s_x s_w))) in int32. The output's code is

    z + round((sum (q - z_x)(p - z_w) + bias) M),   M = s_x s_w / s,

clamped to the codes, and with a ReLU to z from below (Jacob et al. 2018, arXiv 1712.05877, sections 2.2 and
2.4; QNNPACK in torch 2.13.0).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError, ShapeError, unknown_name
from minimp.quant.affine import Affine, floats_of
from minimp.quant.modules.base import QuantizedModule, buffer_of, one_scale, usable
from minimp.quant.observers import Observer
from minimp.quant.qtensor import QTensor

__all__ = [
    "MODES", "QuantizedConv1d", "QuantizedConv2d", "QuantizedConvTranspose1d", "QuantizedConvTranspose2d",
    "QuantizedLinear", "turned", "weight_of",
]  # fmt: skip

Array = npt.NDArray[Any]
MODES = ("float", "fixed-point")
MOST_BIAS = 2.0**30
"""The largest bias in int32 that leaves a bit for the sum."""
INT32 = np.iinfo(np.int32)
LEAST_NORMAL = 2.0**-126


def weight_of(weight: Any, bias: Any, x_scale: Array, observer: Observer) -> QTensor:
    """Return the codes of a weight, (O, ...), with scales by which its bias fits in int32.

    Where |b| > 2^30 s_x s_w, as of a channel of zeros that has a bias alone, s_w becomes |b| / (2^30 s_x).
    QNNPACK cuts the bias off at int32, and gives another number.

    Raises:
        DataError, SettingError: as the observer: NaN or infinities in the weight above all.
    """
    numbers = floats_of(weight, "weight_of")
    observer.observe(numbers)
    chosen = observer.affine()
    if bias is not None:
        least = np.abs(floats_of(bias, "weight_of")).astype(np.float64) / (MOST_BIAS * np.float64(x_scale))
        least = least if chosen.per_channel else least.max()
        if (least > chosen.scale).any():
            with np.errstate(over="ignore"):  # Affine refuses an infinite scale in words
                wider = np.nextafter(np.asarray(least, np.float32), np.float32(np.inf))
            scale = np.where(least > chosen.scale, wider, chosen.scale)
            rest = chosen.quant_min, chosen.quant_max, chosen.axis, chosen.rule
            chosen = Affine(np.asarray(scale, np.float32), chosen.zero_point, *rest)
    return QTensor.of(numbers, chosen)


class _Requantizing(QuantizedModule):
    """What both share: codes of weights, an int32 bias, and the way back to codes.

    Args:
        weight: int8 or uint8 codes, (O, ...), with one scale or one for each of the O.
        bias: (O,) floating-point numbers, or None.
        input, output: the affine numbers of what comes in and goes out, one scale each.
        relu: whether a ReLU follows.
        mode: ``"float"`` or ``"fixed-point"``, how sums become codes
            (:mod:`minimp_backends.requantizing`).

    Raises:
        SettingError: channels of the input or output, or of the weight on another axis than 0; an unknown
            mode; a bias beyond int32 in steps of s_x s_w; M of 2^31 or more.
        ShapeError: a bias of another length.

    Attributes:
        accumulate: ``"int32"``, exact; ``"int16-saturating"`` shows what some engines do
            (:mod:`minimp.quant.sensitivity`), not of transposed convolutions.
    """

    accumulate: str = "int32"

    def __init__(
        self, weight: QTensor, bias: Any, input: Affine, output: Affine, *, relu: bool = False,
        mode: str = "float",
    ) -> None:  # fmt: skip
        super().__init__()
        op = self._name()
        if mode not in MODES:
            raise SettingError(unknown_name("mode", mode, MODES), op=op)
        if weight.affine.axis not in (None, 0, -len(weight.shape)):
            raise SettingError(
                f"the channels of a weight are on axis 0, got {weight.affine.axis}", op=op,
                help="give the weight's observer ch_axis=0",
            )  # fmt: skip
        self.relu, self.mode = relu, mode
        self.register_buffer("weight", buffer_of(weight.codes))
        self.keep("weight_", weight.affine)
        self.keep("input_", one_scale(input, "the input", op))
        self.keep("", one_scale(output, "the output", op))
        usable(self.multiplier(), op)
        rounded = None if bias is None else self._bias(floats_of(bias, op), weight)
        self.register_buffer("bias", None if rounded is None else buffer_of(rounded))

    def _bias(self, bias: Array, weight: QTensor) -> Array:
        """Return rint(b (1 / (s_x s_w))) in int32, each step in float32, as QNNPACK."""
        op, count = self._name(), weight.shape[0]
        if bias.shape != (count,):
            raise ShapeError(f"expected a bias of {count}, got {bias.shape}", op=op, shapes=[bias.shape])
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
            steps: Array = np.rint(bias * (np.float32(1) / (weight.affine.scale * self.kept("input_").scale)))
        wrong = ~(np.abs(steps) <= MOST_BIAS)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise SettingError(
                f"the bias {bias[at]:g} of channel {at} is {steps[at]:g} steps of s_x s_w, and int32 has "
                "room for 2^30",
                op=op, help="look at the bias; weight_of finds scales for which a finite one fits",
            )  # fmt: skip
        return np.asarray(steps, np.int32)

    def multiplier(self) -> Array:
        """Return M, () or (O,): s_x s_w / s in float64 for ``"fixed-point"``, else QNNPACK's.

        That is s_x s_w (1 / s), each step in float32; where s_x s_w is too large or too small for all of
        float32's digits, it is worked out in float64 and rounded once (QNNPACK is left with fewer digits).
        """
        s_w, s_x, s = (self.kept(name).scale for name in ("weight_", "input_", ""))
        exact = s_w.astype(np.float64) * s_x / s
        if self.mode == "fixed-point":
            return np.asarray(exact)
        with np.errstate(over="ignore", under="ignore"):
            steps = s_w * s_x
            made = np.where(
                (steps >= LEAST_NORMAL) & np.isfinite(steps),
                steps * (np.float32(1) / s),
                exact.astype(np.float32),
            )
        return np.asarray(made, np.float32)

    def finished(self, sums: Array, axis: int) -> QTensor:
        """Add the bias to int32 sums, and make them codes; `axis` is that of the O channels."""
        output, acc = self.kept(""), sums
        if self.bias is not None:
            acc = self._with_bias(sums, axis)
        rest = {"axis": axis, "relu": self.relu, "dtype": output.storage}
        codes = self.weight.backend.requantize(
            acc, self.multiplier(), int(output.zero_point), output.quant_min, output.quant_max, self.mode,
            **rest,
        )  # fmt: skip
        return QTensor(self.weight.backend.to_host(codes), output)

    def _with_bias(self, sums: Array, axis: int) -> Array:
        """Add the bias: in int32 where K products cannot fill it, else in int64, and checked."""
        shape = [1] * sums.ndim
        shape[axis] = -1
        bias = self.bias.backend.to_host(self.bias.array).reshape(shape)
        depth = self.weight.array[0].size
        if depth * 255 * 255 < MOST_BIAS:
            return np.asarray(sums + bias)
        wide = sums.astype(np.int64) + bias
        if wide.size and (wide.min() < INT32.min or wide.max() > INT32.max):
            raise SettingError(
                f"{self.label}: a sum of {depth} products and its bias leaves int32", op=self._name(),
                help="keep this layer in floats: convert(..., keep_float=[its path])",
            )  # fmt: skip
        return np.asarray(wide, np.int32)

    def _shown(self) -> str:
        """Show what each repr ends with."""
        scale, zero = self.kept("").scale.item(), self.kept("").zero_point.item()
        last = f"scale={scale:.6g}, zero_point={zero}, bias={self.bias is not None}"
        return last + (", relu=True" if self.relu else "")


class QuantizedLinear(_Requantizing):
    """Codes of x W^T + b.  (..., in_features) -> (..., out_features).

    Arguments and errors: those of the module's head, `weight` (out_features, in_features).
    """

    def forward(self, input: Any) -> QTensor:
        """Return the codes."""
        affine = self.kept("input_")
        x, w = self.taken(input, affine), self.weight.backend.to_host(self.weight.array)
        rows = x.codes if x.codes.ndim > 1 else x.codes[np.newaxis]
        sums = self.weight.backend.integer_matmul(
            rows, w.T, int(affine.zero_point), self.kept("weight_").zero_point, accumulate=self.accumulate
        )
        made = self.finished(sums, -1)
        return made if x.codes.ndim > 1 else QTensor(made.codes[0], made.affine)

    def extra_repr(self) -> str:
        """Show lengths and the output's numbers."""
        out_features, in_features = self.weight.shape
        return f"in_features={in_features}, out_features={out_features}, {self._shown()}"


class _Convolution(_Requantizing):
    """What convolutions share: `axes`, the number of axes that the kernel moves over, and the geometry."""

    axes: ClassVar[int] = 2
    shown: ClassVar[tuple[str, ...]] = ("stride", "padding", "dilation", "groups")
    groups: int

    def sums(self, codes: Array, affine: Affine) -> Array:
        """Return int32 sums of products.  (N, C, ...) -> (N, O, ...)."""
        raise NotImplementedError

    def forward(self, input: Any) -> QTensor:
        """Return the codes; (C, ...) is a batch of one."""
        affine = self.kept("input_")
        x = self.taken(input, affine)
        lone = x.codes.ndim == self.axes + 1
        made = self.finished(self.sums(x.codes[np.newaxis] if lone else x.codes, affine), 1)
        return QTensor(made.codes[0], made.affine) if lone else made

    def extra_repr(self) -> str:
        """Show the geometry and the output's numbers."""
        filters, channels, *kernel = self.weight.shape
        settings = ", ".join(f"{name}={getattr(self, name)}" for name in self.shown)
        return (
            f"{channels * self.groups}, {filters}, kernel_size={tuple(kernel)}, {settings}, {self._shown()}"
        )


class QuantizedConv2d(_Convolution):
    """Codes of a convolution, padded with the code of 0.  (N, C, H, W) -> (N, O, H', W').

    Args:
        weight: codes, (O, C/groups, kH, kW).
        stride, padding, dilation: one whole number or a pair.
        groups: a divisor of C and O.
        bias, input, output, relu, mode: those of :class:`QuantizedLinear`.

    Raises:
        SettingError, ShapeError: as :class:`QuantizedLinear`.
    """

    def __init__(
        self, weight: QTensor, bias: Any, input: Affine, output: Affine, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1, *, relu: bool = False, mode: str = "float",
    ) -> None:  # fmt: skip
        super().__init__(weight, bias, input, output, relu=relu, mode=mode)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def sums(self, codes: Array, affine: Affine) -> Array:
        """Return int32 sums of products.  (N, C, ...) -> (N, O, ...)."""
        backend = self.weight.backend
        convolve = backend.integer_conv2d if self.axes == 2 else backend.integer_conv1d
        made: Array = convolve(
            codes, backend.to_host(self.weight.array), self.stride, self.padding, self.dilation, self.groups,
            int(affine.zero_point), self.kept("weight_").zero_point, accumulate=self.accumulate,
        )  # fmt: skip
        return made


class QuantizedConv1d(QuantizedConv2d):
    """Codes of a convolution of signals, padded with the code of 0.  (N, C, L) -> (N, O, L').

    `weight` is (O, C/groups, K). Arguments and errors as :class:`QuantizedConv2d`, one number for a pair.
    """

    axes = 1


class QuantizedConvTranspose2d(_Convolution):
    """Codes of a transposed convolution.  (N, C, H, W) -> (N, O, H', W').

    H' = (H - 1) stride - 2 padding + dilation (kH - 1) + output_padding + 1.

    Args:
        weight: codes, (O, C/groups, kH, kW): :func:`turned` of what :class:`minimp.nn.ConvTranspose2d` holds,
            so that the channels of the output, which may each have a scale, are on axis 0. torch 2.13.0 has
            one scale for all of a transposed convolution.
        stride, padding, output_padding, dilation: one whole number or a pair.
        groups: a divisor of C and O.
        bias, input, output, relu, mode: those of :class:`QuantizedLinear`.

    Raises:
        SettingError, ShapeError: as :class:`QuantizedLinear`.
    """

    shown = ("stride", "padding", "output_padding", "dilation", "groups")

    def __init__(
        self, weight: QTensor, bias: Any, input: Affine, output: Affine, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, dilation: Any = 1, *, relu: bool = False,
        mode: str = "float",
    ) -> None:  # fmt: skip
        super().__init__(weight, bias, input, output, relu=relu, mode=mode)
        self.stride, self.padding, self.output_padding = stride, padding, output_padding
        self.groups, self.dilation = groups, dilation

    def sums(self, codes: Array, affine: Affine) -> Array:
        """Return int32 sums of products.  (N, C, ...) -> (N, O, ...).

        Raises:
            SettingError: another accumulation than int32.
        """
        if self.accumulate != "int32":
            raise SettingError(
                f"{self.label} adds up in int32 alone, got accumulate={self.accumulate!r}", op=self._name()
            )
        backend = self.weight.backend
        spread = backend.integer_conv_transpose2d if self.axes == 2 else backend.integer_conv_transpose1d
        made: Array = spread(
            codes, turned(backend.to_host(self.weight.array), self.groups), self.stride, self.padding,
            self.output_padding, self.groups, self.dilation, int(affine.zero_point),
            self.kept("weight_").zero_point,
        )  # fmt: skip
        return made


class QuantizedConvTranspose1d(QuantizedConvTranspose2d):
    """Codes of a transposed convolution of signals.  (N, C, L) -> (N, O, L').

    `weight` is (O, C/groups, K). Arguments and errors as :class:`QuantizedConvTranspose2d`, one number for a
    pair.
    """

    axes = 1


def turned(weight: Array, groups: int) -> Array:
    """Return a weight with its first two axes exchanged in each group.  (C, O/G, ...) <-> (O, C/G, ...)."""
    first, second, *kernel = weight.shape
    made = weight.reshape(groups, first // groups, second, *kernel).swapaxes(1, 2)
    return made.reshape(groups * second, first // groups, *kernel)
