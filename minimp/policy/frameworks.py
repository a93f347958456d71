"""The rules of other libraries, as documented or read in their sources, told over minimp's ops.

A table is class -> names. "linear_v2=linear" is the library's name and minimp's; a name alone is the same in
both, or that of an op which minimp lacks. What a library does layer by layer, or to a whole function, is told
as a default class and exceptions; `remarks` and `note` say where that is only nearly the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minimp.policy.catalogue import ACTING
from minimp.policy.classes import CastClass
from minimp.policy.table import Policy

__all__ = ["POLICIES"]

LOWER, FP32, PROMOTE, KEEP = CastClass.LOWER, CastClass.FP32, CastClass.PROMOTE, CastClass.KEEP
LOSSES = """
    binary_cross_entropy binary_cross_entropy_with_logits cross_entropy_loss hinge_embedding_loss huber_loss
    kl_div l1_loss margin_ranking_loss mse_loss nll_loss poisson_nll_loss smooth_l1_loss soft_margin_loss
"""
UPSAMPLING = """
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_bicubic2d
    upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d
    upsample_trilinear3d
"""
IN_CROSS_ENTROPY = "as it comes: cross entropy calls it with float32, a last layer with the low format"
LOSS_NOTE = (
    "The library casts the model's output to float32 and computes the loss in that: here the losses that are "
    "one op are in float32, and a loss of your own belongs outside the region, on output.float()."
)


def _policy(
    name: str, tables: Mapping[CastClass, str], default: CastClass, source: str, note: str,
    *, remarks: Mapping[str, str] | None = None, low: Mapping[str, Mapping[CastClass, str]] | None = None,
    library: str = "", **settings: Any,
) -> Policy:  # fmt: skip
    """Make a policy of tables that speak the library's names, and minimp's after a "="."""
    rules, names = _read(tables)
    by_format = {form: _read(each)[0] for form, each in (low or {}).items()}
    every = {*rules, *(op for each in by_format.values() for op in each)}
    renamed = {op: f"{library}'s {' and '.join(said)}" for op, said in sorted(names.items())}
    for op, remark in (remarks or {}).items():
        renamed[op] = f"{renamed[op]}; {remark}" if op in renamed else remark
    return Policy(
        name, rules, source, note, default=default, by_format=by_format,
        remarks=dict(sorted(renamed.items())), lacking=frozenset(every.difference(ACTING)), settings=settings,
    )  # fmt: skip


def _read(tables: Mapping[CastClass, str]) -> tuple[dict[str, CastClass], dict[str, list[str]]]:
    """Return op -> class, and op -> the library's names for it where they differ."""
    rules: dict[str, CastClass] = {}
    names: dict[str, list[str]] = {}
    for kind, words in tables.items():
        for word in words.split():
            theirs, _, ours = word.partition("=")
            rules[ours or theirs] = kind
            if ours:
                names.setdefault(ours, []).append(theirs)
    return dict(sorted(rules.items())), names


KERAS = _policy(
    "keras", {FP32: LOSSES, KEEP: "batch_norm group_norm layer_norm log_softmax"}, LOWER,
    "Keras 3.15.1, dtype policies mixed_float16 and mixed_bfloat16",
    "Keras casts layer by layer: a layer's floating inputs and its variables go to the compute dtype. "
    + LOSS_NOTE,
    remarks={
        "batch_norm": "Keras casts the input to the low format, computes in float32 with float32 variables, "
                      "and casts the result back; so does minimp's op with a low input and float32 weights",
        "layer_norm": "as batch_norm, but the layer leaves a float32 input as it is",
        "group_norm": "as layer_norm",
        "log_softmax": IN_CROSS_ENTROPY,
        "embedding": "Keras looks up in float32 and casts the rows: the same values",
    },
    param_dtype="float32", output_dtype="the compute dtype", losses="float32 (keras.config.floatx)",
    loss_scale="LossScaleOptimizer, from 32768, which compile() adds for mixed_float16",
)  # fmt: skip
JMP = _policy(
    "jmp", {FP32: LOSSES, KEEP: "log_softmax"}, LOWER,
    'jmp 0.0.4, get_policy("params=float32,compute=<low>,output=float32")',
    "jmp casts at a function's borders, not op by op: parameters and inputs to the compute dtype, results to "
    "the output dtype. Inside, ops follow JAX's promotion, and so a float32 constant array raises what it "
    "meets; here each op's inputs are cast. " + LOSS_NOTE,
    remarks={"log_softmax": IN_CROSS_ENTROPY},
    param_dtype="float32", output_dtype="float32", loss_scale="by hand: NoOp-, Static- or DynamicLossScale",
)  # fmt: skip
PADDLE_O1 = _policy(
    "paddle-o1",
    {
        LOWER: """
            conv2d conv2d=conv1d einsum matmul matmul_v2=matmul linear_v2=linear max_pool2d_with_index
            mul=mul_of_matrices fused_gemm_epilogue fused_rotary_position_embedding
            flash_attn=scaled_dot_product_attention
        """,
        FP32: """
            tan acos asin sinh cosh atanh tanh_shrink erfinv exp expm1 log log10 log2 reciprocal rsqrt pow
            square reduce_sum=sum mean reduce_mean=mean reduce_prod=prod cumprod cumsum dist
            pnorm=linalg_vector_norm frobenius_norm renorm group_norm layer_norm softmax softmin softplus
            log_softmax
            softmax_with_cross_entropy=cross_entropy_loss
            sigmoid_cross_entropy_with_logits=binary_cross_entropy_with_logits c_softmax_with_cross_entropy
            c_softmax_with_multi_label_cross_entropy cross_entropy cross_entropy2 nll_loss huber_loss
            triplet_margin_loss log_loss hsigmoid_loss margin_cross_entropy
            linear_interp_v2=upsample_linear1d nearest_interp_v2=upsample_nearest1d
            nearest_interp_v2=upsample_nearest2d nearest_interp_v2=upsample_nearest3d
            bilinear_interp_v2=upsample_bilinear2d bicubic_interp_v2=upsample_bicubic2d
            trilinear_interp_v2=upsample_trilinear3d lookup_table lookup_table_v2=embedding scatter=index_copy
        """,
    },
    PROMOTE,
    "PaddlePaddle 3.3.1, paddle.amp.auto_cast(level='O1'): paddle/amp/amp_lists.py",
    "White ops compute in the low format, black ones in float32, the rest (grey) in float32 if an input has "
    "it. custom_white_list and custom_black_list are with_(op='lower') and with_(op='fp32'); an op on both "
    "is refused here as there. A grey op that meets the other 16-bit format is refused here. On a CPU Paddle "
    "warns and switches AMP off.",
    low={"float16": {
        KEEP: "batch_norm",
        LOWER: "fake_quantize_dequantize_abs_max fake_quantize_dequantize_moving_average_abs_max "
               "fused_attention fused_feedforward",
    }},
    remarks={
        "batch_norm": "in float16 x alone decides, and weights stay float32 (paddle/fluid/eager/amp_utils.h)",
        "conv1d": "which Paddle runs for it; depthwise ones are another op there, and grey",
        "index_copy": "writes whole rows",
        "scaled_dot_product_attention": "the flash kernel; made of matmul and softmax it follows those",
        "mul_of_matrices": "a product; elementwise it is elementwise_mul, and grey",
    },
    library="Paddle", param_dtype="float32", master_weights="the parameters themselves",
    loss_scale="paddle.amp.GradScaler, from 65536",
)  # fmt: skip
MINDSPORE_O2 = _policy(
    "mindspore-o2", {FP32: LOSSES, KEEP: "batch_norm layer_norm log_softmax"}, LOWER,
    "MindSpore 2.10.0, auto_mixed_precision(net, 'O2'): mindspore/train/amp.py",
    "Every cell goes to the low format but those of the black list (BatchNorm1d, 2d, 3d and LayerNorm). "
    + LOSS_NOTE,
    remarks={
        "batch_norm": "MindSpore computes the cell in float32 and casts its result back to the low format; "
                      "so does minimp's op with a low input and float32 weights",
        "layer_norm": "as batch_norm",
        "log_softmax": IN_CROSS_ENTROPY,
    },
    param_dtype="float32", keep_batchnorm_fp32=True, output_dtype="float32",
    loss_scale="DynamicLossScaleManager, from 2^24",
)  # fmt: skip
CHAINER_MIXED16 = _policy(
    "chainer-mixed16", {KEEP: "batch_norm group_norm"}, LOWER,
    "Chainer 7.8.1, chainer.config.dtype = chainer.mixed16",
    "Parameters and data are float16, those of batch and group normalisation float32; a function computes in "
    "its input's format, losses and softmax too. Told as casts of float32 parameters, which here are the "
    "masters. Chainer has float16 alone.",
    remarks={
        "batch_norm": "float32 gamma, beta and statistics, the result in the input's format",
        "group_norm": "as batch_norm",
        "cross_entropy_loss": "summed in float32, the result in float16",
    },
    param_dtype="float16", norm_param_dtype="float32",
    master_weights="with optimizer.use_fp32_update()", output_dtype="float16",
    loss_scale="with optimizer.loss_scaling(), from 1, in [1, 65504]",
)  # fmt: skip

APEX = "NVIDIA apex, apex/amp: frontend.py, opt_level "
APEX_O0 = _policy(
    "apex-o0", {}, FP32, APEX + "O0",
    "The model is cast to float32, its inputs too, and nothing else happens: the baseline.",
    param_dtype="float32", patch_torch_functions=False, keep_batchnorm_fp32=None, master_weights=False,
    loss_scale=1.0,
)  # fmt: skip
APEX_O1 = _policy(
    "apex-o1",
    {
        LOWER: """
            conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d conv_tbc prelu addmm
            addmv addr matmul mm mv addbmm baddbmm bmm linear lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell
        """,
        FP32: """
            acos asin cosh erfinv exp expm1 log log10 log2 reciprocal rsqrt sinh tan pow cumprod cumsum dist
            norm=linalg_vector_norm prod std sum var renorm softplus softmin log_softmax softmax layer_norm
            group_norm local_response_norm normalize cosine_similarity poisson_nll_loss cosine_embedding_loss
            cross_entropy=cross_entropy_loss hinge_embedding_loss kl_div l1_loss mse_loss margin_ranking_loss
            multilabel_margin_loss multilabel_soft_margin_loss multi_margin_loss nll_loss
            binary_cross_entropy_with_logits smooth_l1_loss soft_margin_loss triplet_margin_loss
        """ + " ".join(f"interpolate={op}" for op in UPSAMPLING.split()),
        PROMOTE: """
            addcdiv addcmul atan2 cross bilinear dot add sub div mul eq equal ge gt le lt ne cat stack
        """,
        CastClass.BANNED: "binary_cross_entropy",
    },
    KEEP, APEX + "O1, lists/{torch,functional,tensor}_overrides.py",
    "Functions of PyTorch are patched: FP16_FUNCS, FP32_FUNCS, CASTS and SEQUENCE_CASTS are the classes "
    "below. Apex has float16 alone.",
    remarks={
        "binary_cross_entropy": "apex refuses float16 inputs alone",
        "lstm_cell": "the cells and whole recurrences are cast by amp.py",
    },
    library="apex", param_dtype="float32", patch_torch_functions=True, keep_batchnorm_fp32=None,
    master_weights=None, loss_scale="dynamic",
)  # fmt: skip
APEX_O2 = _policy(
    "apex-o2", {FP32: LOSSES, KEEP: "batch_norm log_softmax"}, LOWER, APEX + "O2",
    "The model is cast to float16 but for batch normalisation, its inputs too. " + LOSS_NOTE,
    remarks={
        "batch_norm": "weights and statistics stay float32, the result has the input's format",
        "log_softmax": IN_CROSS_ENTROPY,
    },
    param_dtype="float16", patch_torch_functions=False, keep_batchnorm_fp32=True, master_weights=True,
    output_dtype="float32", loss_scale="dynamic",
)  # fmt: skip
APEX_O3 = _policy(
    "apex-o3", {FP32: LOSSES, KEEP: "log_softmax"}, LOWER, APEX + "O3",
    "The model is cast to float16, its inputs too. " + LOSS_NOTE,
    remarks={"log_softmax": IN_CROSS_ENTROPY},
    param_dtype="float16", patch_torch_functions=False, keep_batchnorm_fp32=False, master_weights=False,
    output_dtype="float32", loss_scale=1.0,
)  # fmt: skip

POLICIES = (KERAS, JMP, PADDLE_O1, MINDSPORE_O2, APEX_O0, APEX_O1, APEX_O2, APEX_O3, CHAINER_MIXED16)
"""Them all."""
