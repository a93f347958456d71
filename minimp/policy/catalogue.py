"""The names that policies speak of: what PyTorch 2.13.0 registers for autocast, and minimp's ops beside it.

CUDA: the lists AT_FORALL_* of torch/include/ATen/autocast_mode.h, and the registrations of CUDA alone in
aten/src/ATen/autocast_mode.cpp (cudnn_convolution, cudnn_convolution_transpose, binary_cross_entropy).
CPU: aten/src/ATen/autocast_mode.cpp. Both equal what the dispatcher of the installed build has under
AutocastCUDA and AutocastCPU. The overloads of an op share one class, so one name stands for all of them.
"""

from __future__ import annotations

from minimp.policy.classes import CastClass

__all__ = ["ACTING", "CPU", "CUDA", "LACKING", "REMARKS", "UNLISTED", "Table", "classes_of"]

Table = dict[CastClass, str]

# norm is registered as fp32_append_dtype: PyTorch calls its overload with dtype=float32 in place of the one
# without a dtype. That comes to the same as fp32_set_opt_dtype, under which it stands here.
CUDA: Table = {
    CastClass.LOWER: """
        _convolution _scaled_dot_product_flash_attention _thnn_fused_gru_cell _thnn_fused_lstm_cell
        addbmm addmm addmv addr baddbmm bmm chain_matmul conv1d conv2d conv3d conv_tbc
        conv_transpose1d conv_transpose2d conv_transpose3d convolution cudnn_convolution
        cudnn_convolution_transpose einsum gru_cell linalg_multi_dot linalg_vecdot linear lstm_cell
        matmul mm mv prelu rnn_relu_cell rnn_tanh_cell scaled_dot_product_attention
    """,
    CastClass.FP32: """
        _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d
        _upsample_nearest_exact2d _upsample_nearest_exact3d acos asin
        binary_cross_entropy_with_logits cdist cosh cosine_embedding_loss cosine_similarity dist
        erfinv exp expm1 frobenius_norm group_norm hinge_embedding_loss huber_loss kl_div l1_loss
        layer_norm log log10 log1p log2 logsumexp margin_ranking_loss mse_loss multi_margin_loss
        multilabel_margin_loss native_layer_norm nll_loss nll_loss2d nuclear_norm pdist
        poisson_nll_loss pow reciprocal renorm rms_norm rsqrt sinh smooth_l1_loss soft_margin_loss
        softplus tan triplet_margin_loss upsample_bicubic2d upsample_bilinear2d upsample_linear1d
        upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
    """,
    CastClass.SET_FP32: """
        cumprod cumsum linalg_matrix_norm linalg_vector_norm log_softmax norm prod softmax sum
    """,
    CastClass.PROMOTE: """
        addcdiv addcmul atan2 bilinear cross dot grid_sampler index_put scatter_add tensordot vdot
    """,
    CastClass.BANNED: """
        binary_cross_entropy
    """,
}
CPU: Table = {
    CastClass.LOWER: """
        _addmm_activation _convolution _native_multi_head_attention addbmm addmm baddbmm bmm conv1d
        conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d linalg_vecdot
        linear matmul mkldnn_rnn_layer mm prelu scaled_dot_product_attention
    """,
    CastClass.FP32: """
        _grid_sampler_2d_cpu_fallback _lu_with_info adaptive_avg_pool3d adaptive_max_pool3d
        avg_pool3d binary_cross_entropy binary_cross_entropy_with_logits cdist cholesky
        cholesky_inverse cholesky_solve cosine_embedding_loss cross_entropy_loss ctc_loss
        fake_quantize_per_tensor_affine fft_fft fft_fft2 fft_fftn fft_hfft fft_ifft fft_ifft2
        fft_ifftn fft_ihfft fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftn
        fractional_max_pool2d fractional_max_pool3d geqrf grid_sampler grid_sampler_2d
        grid_sampler_3d hinge_embedding_loss huber_loss inverse kl_div l1_loss linalg_cholesky
        linalg_cholesky_ex linalg_cond linalg_eig linalg_eigh linalg_eigvals linalg_eigvalsh
        linalg_householder_product linalg_inv linalg_inv_ex linalg_lstsq linalg_matrix_rank
        linalg_qr linalg_solve linalg_svd linalg_svdvals linalg_tensorinv linalg_tensorsolve
        lu_solve margin_ranking_loss max_pool3d max_unpool2d max_unpool3d mse_loss multi_margin_loss
        multilabel_margin_loss multilabel_margin_loss_forward nanquantile nll_loss nll_loss2d orgqr
        ormqr pinverse poisson_nll_loss polar prod qr quantile reflection_pad1d reflection_pad2d
        replication_pad1d replication_pad2d replication_pad3d smooth_l1_loss soft_margin_loss stft
        svd trace triangular_solve triplet_margin_loss view_as_complex
    """,
    CastClass.PROMOTE: """
        cat index_copy stack
    """,
}
# In neither list: ops of minimp, and common ones of PyTorch, measured to compute in the formats they get.
UNLISTED = """
    _pad_circular abs adaptive_avg_pool2d adaptive_avg_pool2d_input adaptive_max_pool2d add all amax
    amin any argmax argmin argsort atan avg_pool1d avg_pool2d avg_pool2d_input batch_norm bincount
    bitwise_and bitwise_not bitwise_or bitwise_xor cast ceil clamp clone complex constant_pad_nd
    conv2d_input conv2d_weight cos count_nonzero div dropout elu embedding eq erf expand
    fake_quantize_per_channel_affine floor
    gather ge gelu getitem glu gru gt hardsigmoid hardswish hardtanh index_add index_select
    instance_norm isfinite isinf isnan le leaky_relu lerp linear_fp8 log_sigmoid logical_and logical_not
    logical_or logical_xor lstm lt masked_fill max max_pool1d max_pool2d max_pool2d_input maximum
    mean minimum mish mul ne neg nll_loss_nd outer permute reflection_pad3d relu remainder resample
    resample_input reshape rnn_relu rnn_tanh round scatter sigmoid sign silu sin sqrt std sub tanh
    tril triu trunc unindex var where
"""
_LACKING = """
    _addmm_activation _convolution _grid_sampler_2d_cpu_fallback _lu_with_info
    _native_multi_head_attention _scaled_dot_product_flash_attention _thnn_fused_gru_cell
    _thnn_fused_lstm_cell _upsample_bicubic2d_aa _upsample_bilinear2d_aa adaptive_avg_pool3d
    adaptive_max_pool3d addbmm addmv addr avg_pool1d avg_pool3d bincount bmm cdist chain_matmul
    cholesky cholesky_inverse cholesky_solve complex conv3d conv_tbc conv_transpose3d convolution
    cosine_embedding_loss cross ctc_loss cudnn_convolution cudnn_convolution_transpose dist dot
    erfinv fft_fft fft_fft2 fft_fftn fft_hfft fft_ifft fft_ifft2
    fft_ifftn fft_ihfft fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftn
    fractional_max_pool2d fractional_max_pool3d frobenius_norm geqrf grid_sampler grid_sampler_2d
    grid_sampler_3d instance_norm inverse linalg_cholesky linalg_cholesky_ex linalg_cond linalg_eig
    linalg_eigh linalg_eigvals linalg_eigvalsh linalg_householder_product linalg_inv linalg_inv_ex
    linalg_lstsq linalg_matrix_norm linalg_matrix_rank linalg_multi_dot linalg_qr linalg_solve
    linalg_svd linalg_svdvals linalg_tensorinv linalg_tensorsolve lu_solve max max_pool1d max_pool3d
    max_unpool3d mm multi_margin_loss multilabel_margin_loss
    multilabel_margin_loss_forward mv nanquantile native_layer_norm nll_loss2d nll_loss_nd norm
    nuclear_norm orgqr ormqr outer pdist pinverse polar qr quantile renorm stft svd trace
    triangular_solve triplet_margin_loss vdot view_as_complex
"""
LACKING = frozenset(_LACKING.split())
"""Names of PyTorch under which minimp runs nothing: a rule for them is told, and rules nothing here.

Some are functions of minimp that are made of ops of other names (mm is matmul); those names rule.
"""


def classes_of(table: Table) -> dict[str, CastClass]:
    """Return op -> class of a table."""
    return {op: kind for kind, ops in table.items() for op in ops.split()}


ACTING = tuple(sorted({*classes_of(CUDA), *classes_of(CPU), *UNLISTED.split()} - LACKING))
"""The names that rule something here: minimp's ops, and functions that ask the policy by name."""
REMARKS = {"norm": "PyTorch registers it as fp32_append_dtype: the overload with dtype=float32 is called"}
"""What PyTorch does otherwise than the class says, to the same effect."""
