"""Known differences in values: where PyTorch's CPU kernels round more often, or compute something else.

How the case of a row begins tells what kind of difference it is (:mod:`minimp.frameworks.ops.torch_values`):
"float16, gradients" is torch outside the op's bound, and its own float64 result inside; "in float64 too" is
torch computing something else; "no bound holds" is where a sum overflows on the way, or 0 is divided by 0.
minimp is within the bounds in all of them: a row in which it is not can not be a known difference.
"""

from __future__ import annotations

from minimp.frameworks.documented.difference import Difference

__all__ = ["VALUE_DIFFERENCES"]

ANY = "[bf]*16, *"
RESULTS = "[bf]*16, result*"
GRADIENTS = "[bf]*16, gradients*"
FLOAT64 = "in float64 too: *"
UNBOUND = "no bound holds: *"
MEASURED = "torch 2.13.0, CPU: bit for bit the same as "


def _values(name: str, subjects: str, cases: str, reason: str, source: str) -> Difference:
    return Difference(name, "torch", "values", tuple(subjects.split()), cases, reason, source)


ROUNDED_MORE_OFTEN = (
    _values(
        "gradients-of-several-16-bit-ops",
        """acos addcdiv asin atan atan2 cos cosh cumprod div erf expm1 lerp linalg_vector_norm log10
        log1p log2 logsumexp pow reciprocal remainder rms_norm rsqrt sin sinh std tan var""",
        GRADIENTS,
        "torch's autograd writes these gradients as several ops, and each rounds to 16 bits; here a "
        "gradient is computed in float32 and rounded once",
        MEASURED + "the formulas of tools/autograd/derivatives.yaml in separate 16-bit ops",
    ),
    _values(
        "losses-of-several-16-bit-ops",
        """binary_cross_entropy binary_cross_entropy_with_logits hinge_embedding_loss huber_loss kl_div
        l1_loss margin_ranking_loss mse_loss poisson_nll_loss smooth_l1_loss soft_margin_loss""",
        ANY,
        "torch computes these losses term by term in 16 bits, and rounds between the steps and before the"
        " mean; here a loss is one op, computed in float32",
        MEASURED + "the loss's formula in separate 16-bit ops (aten/src/ATen/native/Loss.cpp)",
    ),
    _values(
        "log-softmax-rounds-the-sum",
        "log_softmax",
        ANY,
        "torch rounds the sum of exponentials to 16 bits, and its logarithm again, before it is "
        "subtracted; the gradient is made from that",
        MEASURED + "x - max - ln(sum), with the sum and its logarithm rounded to 16 bits",
    ),
    _values(
        "cross-entropy-rounds-the-sum",
        "mul nll_loss",
        "[bf]*16, *, cross_entropy",
        "torch's log_softmax, of which cross_entropy is made, rounds the sum and its logarithm to 16 bits",
        "torch 2.13.0, CPU: as log_softmax",
    ),
    _values(
        "terms-in-16-bits",
        "nll_loss prelu prod",
        ANY,
        "torch rounds the terms of these, the running product, or the sum before it is divided, to 16 "
        "bits; here they stay in float32 until the result",
        MEASURED
        + ("products x g rounded before they are added (prelu), and a running product in 16 bits (prod)"),
    ),
    _values(
        "gates-saved-in-16-bits",
        "glu log_sigmoid",
        GRADIENTS,
        "torch's kernels keep the sigmoid or the exponential in 16 bits, and compute the gradient from that",
        MEASURED
        + ("the gradient in float32 from a sigmoid (glu) or e^-|x| (log_sigmoid) rounded to 16 bits"),
    ),
    _values(
        "gradient-cast-before-it-is-added",
        "cumsum",
        "[bf]*16, gradients, dtype",
        "torch casts the gradient to the input's format before it adds it up; here it is added up first",
        "torch 2.13.0, tools/autograd/derivatives.yaml: cumsum_backward(grad.to(self.scalar_type()), dim)",
    ),
    _values(
        "logsumexp-in-several-ops",
        "logsumexp",
        RESULTS,
        "torch computes x - max, its exponential, the sum, the logarithm and the last sum as ops of their"
        " own, each rounded to 16 bits",
        MEASURED + "(x - max).exp().sum().log() + max",
    ),
    _values(
        "bilinear-in-several-ops",
        "matmul",
        "[bf]*16, gradients, bilinear",
        "torch and minimp both make bilinear of several products; torch's gradient has other ones, whose "
        "results are rounded to 16 bits elsewhere",
        "torch 2.13.0: tools/autograd/derivatives.yaml, _trilinear",
    ),
    _values(
        "vecdot-rounds-products",
        "matmul",
        "[bf]*16, result, vecdot",
        "torch's vecdot multiplies, rounds the products to 16 bits, and adds them up",
        MEASURED + "(x * y).sum(-1)",
    ),
    _values(
        "sigmoid-gradient-in-16-bits",
        "sigmoid",
        "float16, gradients*",
        "torch's float16 kernel computes g (1 - y) y in float16, a rounding at each step",
        MEASURED + "g * (1 - y) * y in float16",
    ),
    _values(
        "statistics-saved-in-16-bits",
        "layer_norm group_norm batch_norm",
        ANY,
        "torch saves the mean and 1 / std in 16 bits, and computes gradients from those (batch_norm its "
        "result too); here they are float32",
        "torch 2.13.0, CPU: native_layer_norm returns float16 statistics; batch_norm has the bits of the "
        "formula with 16-bit statistics",
    ),
    _values(
        "attention-rounds-weights-and-hides-nan",
        "scaled_dot_product_attention",
        ANY,
        "torch's fused CPU kernel rounds the exponentials of the scores to 16 bits before they meet the "
        "values, and its gradients go through 16-bit scores; for a query that holds NaN it gives 0, which"
        " hides the NaN",
        "torch 2.13.0, CPU: 99.9% of the results are exp(scores) rounded to 16 bits, times the values, "
        "over the sum; 0 from NaN in float32 too",
    ),
    _values(
        "gradients-meet-in-16-bits",
        "reflection_pad* replication_pad* _pad_circular upsample_* _upsample_*",
        GRADIENTS,
        "torch adds the gradients that meet in one element up in 16 bits, one after the other; here in "
        "float32",
        MEASURED + "such sums, in the kernel's order (replication_pad3d)",
    ),
    _values(
        "pools-divide-twice",
        "adaptive_avg_pool2d",
        GRADIENTS,
        "torch divides the gradient by the window's height and then by its width, in 16 bits, which near "
        "the smallest number rounds twice",
        MEASURED + "g / height / width in 16-bit steps",
    ),
    _values(
        "convolution-columns-in-16-bits",
        "conv1d conv2d conv_transpose1d conv_transpose2d",
        ANY,
        "torch's float16 convolutions write columns of float16 products and add them up in float16; "
        "oneDNN's bfloat16 ones take subnormal numbers for 0",
        MEASURED + "sums of float16 columns (conv_transpose2d); bfloat16 numbers below 2^-126 act as 0",
    ),
    _values(
        "subnormals-are-0",
        "baddbmm matmul gelu",
        "bfloat16, *",
        "oneDNN, which torch uses for these in bfloat16, takes numbers below 2^-126 for 0; here they count",
        "torch 2.13.0, CPU: gelu(1.8e-40) is 0; products of bfloat16 subnormals are missing from the sums"
        " of bmm",
    ),
    _values(
        "exponentials-overflow",
        "sigmoid silu mish glu cosh sinh hardswish",
        "bfloat16, *",
        "torch computes 1 / (1 + e^-x), (e^x + e^-x) / 2 and x relu6(x + 3) / 6 as they are written: "
        "beyond |x| = 88.7, or for large x, a part overflows float32 while the result does not",
        "torch 2.13.0, CPU: sigmoid(-89) is 0, cosh(89) is inf in bfloat16; both are numbers of bfloat16",
    ),
    _values(
        "erf-is-absolute",
        "erf gelu",
        "[bf]*16, *",
        "torch's vectorised erf has an absolute error of up to 4e-7 in 16 bits, which near 0 is a large "
        "relative one, and elsewhere turns a rounding; below 1.8e-7 it is 0",
        "torch 2.13.0, CPU: float16 and bfloat16 erf of all numbers beside erf in float64",
    ),
    _values(
        "rsqrt-in-two-roundings",
        "rsqrt",
        "[bf]*16, result*",
        "without vector instructions, torch's rsqrt in 16 bits divides 1 by a square root that is rounded"
        " to 16 bits",
        "torch 2.13.0, CPU, ATEN_CPU_CAPABILITY=default: bit for bit the same as 1 / x.sqrt()",
    ),
    _values(
        "remainder-overflows",
        "remainder",
        RESULTS,
        "torch's remainder is NaN where the quotient is beyond float32, and rounds to 16 bits before the "
        "divisor is added; here it is NumPy's, exact and rounded once",
        "torch 2.13.0, CPU: 2441216 % 9.45e-36 is NaN in bfloat16",
    ),
)
"""torch is outside the op's bound, and its own float64 result is inside."""

ANOTHER_MEANING = (
    _values(
        "sign-of-nan",
        "abs l1_loss linalg_vector_norm sign",
        FLOAT64,
        "sign(NaN) is 0 in torch, and so are the gradients made from it; here, as in NumPy, NaN",
        "torch 2.13.0: torch.sign(nan) is 0",
    ),
    _values(
        "a-clamp-holds-nan-back",
        "hinge_embedding_loss margin_ranking_loss",
        FLOAT64,
        "where a term is NaN, torch's gradient is 0, since NaN is not above the margin; here it flows",
        "torch 2.13.0: margin_ranking_loss of inf and inf, or of NaN",
    ),
    _values(
        "dtype-casts-the-input",
        "softmax sum cumsum",
        "in float64 too: *, dtype",
        "with dtype=, torch casts the input first, which a narrower format rounds or overflows; here the "
        "result is rounded, and the input is not",
        "torch 2.13.0, torch.nn.functional.softmax: with dtype, 'the input tensor is casted to dtype before'",
    ),
    _values(
        "soft-margin-overflows",
        "soft_margin_loss",
        FLOAT64,
        "torch computes ln(1 + e^(-t x)) as it is written: for -t x beyond the logarithm of the largest "
        "number the loss is infinite and the gradient NaN; here both are finite",
        "torch 2.13.0, aten/src/ATen/native/Loss.cpp: log1p(exp(-target * input))",
    ),
    _values(
        "infinite-terms",
        "kl_div poisson_nll_loss",
        FLOAT64,
        "torch adds the parts of these gradients one by one, and infinities among them give NaN: the "
        "derivative of t (ln t - x) by t, ln t + 1 - x, is minus infinity at t = 0, and NaN in torch",
        "torch 2.13.0: kl_div's gradient by a target of 0; poisson_nll_loss's at infinity",
    ),
    _values(
        "logarithms-held-in-the-result-alone",
        "binary_cross_entropy",
        FLOAT64,
        "torch holds ln p above -100 in the loss and not in its gradient by the target, which at p = 0 "
        "and 1 is infinite; here it is the derivative of the loss that is computed",
        "torch 2.13.0: binary_cross_entropy's gradient by the target at p = 0",
    ),
    _values(
        "atan2-at-the-origin",
        "atan2",
        "*: *",
        "where a^2 + b^2 is 0, torch sets the gradient to 0; here it is 0 / 0. Where that sum leaves the "
        "range, so does the gradient, in torch's 16-bit squares elsewhere than in float32",
        "torch 2.13.0: atan2's gradient at (0, 0)",
    ),
    _values(
        "order-among-equals",
        "argsort",
        "in float64 too: *, result",
        "torch's argsort may put equal elements in any order (stable=False); here they keep the order they "
        "had, so indices may be of another of them",
        "torch 2.13.0: torch.argsort is not stable unless asked",
    ),
    _values(
        "gradients-among-equals",
        "getitem",
        "in float64 too: *, gradients, [st]o*",
        "torch's sort and topk may put equal elements in any order; here they keep the order they had, so a "
        "gradient may fall on another of them",
        "torch 2.13.0: torch.sort and torch.topk are not stable unless asked",
    ),
    _values(
        "max-among-nan",
        "amax",
        "in float64 too: *, gradients, max",
        "the gradient of x.max() goes to the NaN elements in torch; here, as in torch's amax, NaN is "
        "equal to nothing and every element gets NaN",
        "torch 2.13.0: the gradients of max() and of amax() beside NaN",
    ),
    _values(
        "power-of-0",
        "pow",
        FLOAT64,
        "by the exponent, at base 0, the gradient is 0 here whatever arrives; torch multiplies what "
        "arrives by 0, which for an infinity or NaN is NaN",
        "torch 2.13.0: pow's gradient by the exponent at base 0, from an infinite gradient",
    ),
    _values(
        "products-after-0",
        "cumprod",
        FLOAT64,
        "after the first 0, torch's gradient takes every product for 0; here 0 times an infinity or NaN "
        "is NaN, as in the result",
        "torch 2.13.0: cumprod's gradient beside 0 and infinity",
    ),
)
"""torch's float64 result is another than ours."""

BEYOND_THE_RANGE = (
    _values(
        "order-of-addition",
        """matmul linear scaled_dot_product_attention conv1d conv2d conv_transpose1d conv_transpose2d
        addmm baddbmm mul sum cumsum cumprod prod prelu nll_loss adaptive_avg_pool2d reflection_pad*
        replication_pad* upsample_* _upsample_* hinge_embedding_loss""",
        UNBOUND,
        "where partial sums or products leave the range, whether a number, an infinity or NaN comes out "
        "depends on the order, and torch's kernels add in another one, or in 16 bits",
        "IEEE 754-2019, 9.4: reductions may be done in any order",
    ),
    _values(
        "cubes-beyond-the-range",
        "rsqrt",
        "no bound holds: [bf]*16, gradients",
        "torch's gradient takes the cube of a result that its kernel without vector instructions has "
        "rounded twice",
        "torch 2.13.0, CPU, ATEN_CPU_CAPABILITY=default",
    ),
    _values(
        "squares-beyond-the-range",
        "batch_norm layer_norm rms_norm group_norm linalg_vector_norm gelu",
        UNBOUND,
        "where squares or cubes overflow float32, both are wrong: torch mostly NaN, here what the formula"
        " gives",
        "torch 2.13.0, CPU: layer_norm, and gelu's gradient (tanh), of numbers above 1e19",
    ),
    _values(
        "variance-in-float64",
        "std var",
        "no bound holds: [bf]*16, result*",
        "torch's CPU kernel of std and var adds up in float64, and has a value where squares overflow "
        "float32",
        "torch 2.13.0, CPU: std of numbers near 1e38",
    ),
    _values(
        "gradient-of-a-variance-in-float64",
        "std var",
        "no bound holds: [bf]*16, gradients",
        "where squares or products with a gradient overflow float32, torch's float64 has values all the same",
        "torch 2.13.0, CPU: the gradient of std and var of numbers near 1e38",
    ),
    _values(
        "exponent-less-1-in-16-bits",
        "pow",
        UNBOUND,
        "torch's gradient by the base takes p - 1 in 16 bits, which for a small p is the whole number -1,"
        " so that a negative base has one; here it is NaN, as the result is",
        MEASURED + "g * (p * x.pow(p - 1)) in 16-bit ops",
    ),
    _values(
        "formulas-beyond-the-range",
        "addcdiv addcmul lerp poisson_nll_loss kl_div",
        UNBOUND,
        "where a product or an exponential leaves the range, the order of the factors decides",
        "torch 2.13.0, CPU: at infinities and at the largest numbers",
    ),
)
"""No bound holds."""

VALUE_DIFFERENCES: tuple[Difference, ...] = (*ROUNDED_MORE_OFTEN, *ANOTHER_MEANING, *BEYOND_THE_RANGE)
