"""Known differences of quantised numbers and integer layers.

A case begins with the rule that was tried, and that gave every code of the framework's.
"""

from __future__ import annotations

from minimp.frameworks.documented.difference import Difference

__all__ = ["INTEGER_DIFFERENCES"]


def _torch(name: str, subjects: tuple[str, ...], cases: str, reason: str, source: str) -> Difference:
    return Difference(name, "torch", "integers", subjects, cases, reason, source)


ROUNDINGS = (
    _torch(
        "searches-that-stop",
        ("HistogramObserver",),
        "in float64: *",
        "the search stops when the error that it predicts rises. torch adds this error up in float32, whose "
        "noise may stop it early, in about one of 2,000 searches; in float64 it gives the range that is "
        "chosen here",
        "torch 2.13.0, torch/ao/quantization/observer.py: _non_linear_param_search",
    ),
    _torch(
        "sums-cut-off-at-int16",
        ("sums",),
        "cut off at int16: *, codes 0..255, *",
        "without VNNI, engines for x86 add neighbouring products of bytes in int16, where 2 * 255 * 127 "
        "does not fit, and cut them off; FBGEMM's depthwise kernel does so on all processors. Here sums "
        "are exact, and accumulate='int16-saturating' gives the engines' codes",
        "torch 2.13.0, CPU, FBGEMM and oneDNN; microsoft/onnxruntime#12088; VPMADDUBSW in Intel's manual, "
        "volume 2",
    ),
    _torch(
        "bias-in-floats",
        ("requantising",),
        "bias in floats: *",
        "FBGEMM adds b / (s_x s_w) to the sum in float32; here, as in QNNPACK, the bias is rounded to "
        "int32 first, which at ties gives the next code, in about one of 2,000 outputs",
        "torch 2.13.0, CPU, engine fbgemm: the formula's codes; engine qnnpack: ours",
    ),
    _torch(
        "scales-in-another-order",
        ("requantising",),
        "nearest codes: *",
        "oneDNN multiplies by the scales one after the other, and may add the bias between: a few "
        "roundings of float32 in another order, which at ties give the next code",
        "torch 2.13.0, CPU, engines onednn and x86: all codes are nearest ones, to 2^-20 of the number",
    ),
    _torch(
        "sums-of-two-scales",
        ("add", "cat"),
        "nearest codes: qnnpack, *",
        "QNNPACK adds with multipliers in fixed point, torch's own kernels read codes back as floats; "
        "here each code is scaled by float32(s_i / s). Where that meets a tie, in about one of 200,000, the "
        "next code comes out",
        "torch 2.13.0, CPU, engine qnnpack: all codes are nearest ones, to 2^-20 of the number",
    ),
    _torch(
        "fused-multiply-add",
        ("dynamic linear",),
        "fused multiply-add: fbgemm, *",
        "FBGEMM scales a sum and adds the bias in one fused step, rounded once; here, as in QNNPACK, the "
        "product is rounded too",
        "torch 2.13.0, CPU, engine fbgemm: the bits of sum * scale + bias, rounded once",
    ),
    _torch(
        "channels-round-twice",
        ("quantize_per_channel",),
        "rounded twice: *",
        "torch's kernel for channels rounds x / s before it adds z, its kernel for tensors does not; here "
        "both round once, so that a channel is quantised as a tensor of its own would be",
        "torch 2.13.0, CPU: quantize_per_channel beside quantize_per_tensor, at ties where z is not 0",
    ),
    _torch(
        "channels-in-64-bits",
        ("fake_quantize_per_channel_affine",),
        "the least code: *, beyond 2^63: *",
        "torch's kernel for channels casts x / s to 64-bit integers, where what does not fit becomes the "
        "least one, so that large numbers get the smallest code; here, as in its kernel for tensors, they "
        "are clamped",
        "torch 2.13.0, CPU: fake_quantize_per_channel_affine of 1e30 and of infinity",
    ),
    _torch(
        "means-at-ties",
        ("avg_pool2d", "adaptive_avg_pool2d"),
        "ties: *",
        "a mean halfway between two codes goes to the even code in torch's own kernel, and to the even "
        "distance from the zero point in QNNPACK and here",
        "torch 2.13.0, CPU: avg_pool2d of quint8 (QNNPACK) and of qint8 (torch's kernel)",
    ),
    _torch(
        "padding-is-counted",
        ("avg_pool2d",),
        "padding counted: *",
        "QNNPACK divides by the whole window also where count_include_pad=False asks it not to",
        "torch 2.13.0, CPU, engine qnnpack: avg_pool2d of quint8 gives the codes of count_include_pad=True",
    ),
)
"""Codes that are others than ours."""

EDGES = (
    _torch(
        "nothing-observed",
        ("MinMaxObserver",),
        "nothing observed",
        "torch warns and gives scale 1 and zero point 0, with which a layer computes nonsense; here "
        "asking an observer that has seen nothing is refused",
        "torch 2.13.0: torch/ao/quantization/observer.py",
    ),
    _torch(
        "infinite-ranges",
        ("MinMaxObserver",),
        "an infinity",
        "torch takes an infinity into the range, and the scale is infinite; here it is refused",
        "torch 2.13.0: torch/ao/quantization/observer.py",
    ),
    _torch(
        "ranges-of-nan",
        ("MinMaxObserver",),
        "NaN*",
        "torch takes NaN into the range, and the scale is NaN; here it is refused, and the message says "
        "where it stands",
        "torch 2.13.0: torch/ao/quantization/observer.py",
    ),
    _torch(
        "empty-batches",
        ("MinMaxObserver",),
        "an empty batch",
        "torch passes over a batch of no numbers; here it is refused, as a sign that a loader is broken",
        "torch 2.13.0: torch/ao/quantization/observer.py",
    ),
    _torch(
        "scales-that-cannot-be",
        ("quantize_per_tensor", "fake_quantize_per_tensor_affine"),
        "a* scale*",
        "torch computes with scales that are 0, negative, infinite or NaN; here a scale is positive and "
        "finite",
        "torch 2.13.0, CPU: quantize_per_tensor of 0.4 with a scale of 0 gives code 255",
    ),
    _torch(
        "bias-beyond-int32",
        ("linear",),
        "a bias beyond int32",
        "QNNPACK casts a bias that int32 has not, and the output is another number; here it is refused, "
        "and conversion chooses scales for which it fits (weight_of)",
        "torch 2.13.0, CPU, engine qnnpack: a weight of 0 and a bias of 1, s_x = 1e-5, give 0",
    ),
)
"""What torch computes with, and is refused here."""


def _onnx(name: str, subjects: tuple[str, ...], cases: str, reason: str, source: str) -> Difference:
    return Difference(name, "onnx", "integers", subjects, cases, reason, source)


OF_ONNX = (
    _onnx(
        "codes-cast-to-int32",
        ("QuantizeLinear",),
        "cast to int32: *",
        "the reference casts x / s to int32 before it clamps, so that infinities and other numbers beyond "
        "2^31 steps wrap round; here they are clamped, as the operator's text has it",
        "onnx 1.23.2, onnx/reference/ops/op_quantize_linear.py",
    ),
    _onnx(
        "dynamic-scales-in-float32",
        ("DynamicQuantizeLinear",),
        "in float32: *",
        "the reference computes the scale in float32, and takes 1 / 255 where all numbers are 0; the rule "
        "'onnx' is onnxruntime's for calibration, which computes in float64 and takes 1",
        "onnx 1.23.2, onnx/reference/ops/op_dynamic_quantize_linear.py; onnxruntime 1.32, compute_scale_zp",
    ),
    _onnx(
        "products-in-float64",
        ("QLinearMatMul", "QLinearConv"),
        "nearest codes: *",
        "the reference multiplies sums by the scales in float64 and rounds after it has added the zero "
        "point; here, as in QNNPACK, in float32 and before. At ties the next code may come out",
        "onnx 1.23.2, onnx/reference/ops/op_qlinear_matmul.py and op_qlinear_conv.py",
    ),
)
"""Where onnx.reference is another than our rule of that name."""

INTEGER_DIFFERENCES: tuple[Difference, ...] = (*ROUNDINGS, *EDGES, *OF_ONNX)
