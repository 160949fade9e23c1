"""Which of ATen's operators a file may name: those that capture makes, and that only compute.

They are listed by name, since what is not known is not safe: among the others are some that read
files, print, change global state, trust sizes that they do not check, or loop as often as an
argument says. Of those in the list, overloads that write to an argument are not called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from strop.compiler.util.errors import UsageError

# Element by element; sums and the like; products of matrices; layers and losses; places and shapes;
# new tensors; spectra; what is known of a tensor; what composite operators become.
_ATEN = """
    abs absolute acos acosh add addcdiv addcmul angle arccos arccosh arcsin arcsinh arctan
    arctan2 arctanh asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_not
    bitwise_or bitwise_right_shift bitwise_xor ceil celu clamp clamp_max clamp_min clip complex
    conj conj_physical copysign cos cosh deg2rad digamma div divide elu eq erf erfc erfinv exp
    exp2 expm1 fix float_power floor floor_divide fmax fmin fmod frac frexp gcd ge gelu greater
    greater_equal gt hardshrink hardsigmoid hardswish hardtanh heaviside hypot i0 igamma igammac
    imag isclose isfinite isinf isnan isneginf isposinf isreal lcm ldexp le leaky_relu lerp less
    less_equal lgamma log log10 log1p log2 log_sigmoid logaddexp logaddexp2 logical_and
    logical_not logical_or logical_xor logit lt maximum minimum mish mul multiply nan_to_num ne
    neg negative nextafter not_equal polar positive pow prelu rad2deg real reciprocal relu relu6
    remainder round rrelu rsqrt rsub selu sgn sigmoid sign signbit silu sin sinc sinh softplus
    softshrink special_airy_ai special_bessel_j0 special_bessel_j1 special_bessel_y0
    special_bessel_y1 special_digamma special_entr special_erf special_erfc special_erfcx
    special_erfinv special_exp2 special_expit special_expm1 special_gammainc special_gammaincc
    special_gammaln special_hermite_polynomial_h special_hermite_polynomial_he special_i0
    special_i0e special_i1 special_i1e special_log1p special_log_ndtr special_logit
    special_modified_bessel_i0 special_modified_bessel_i1 special_modified_bessel_k0
    special_modified_bessel_k1 special_ndtr special_ndtri special_psi special_round
    special_scaled_modified_bessel_k0 special_scaled_modified_bessel_k1 special_sinc
    special_spherical_bessel_j0 special_xlog1py special_xlogy sqrt square sub subtract tan tanh
    threshold true_divide trunc where xlogy __and__ __lshift__ __or__ __rshift__ __xor__

    all allclose amax amin aminmax any argmax argmin bincount bucketize corrcoef count_nonzero
    cov cummax cummin cumprod cumsum cumulative_trapezoid diff dist equal histc is_nonzero isin
    item kthvalue linalg_matrix_norm linalg_norm linalg_vector_norm log_softmax logcumsumexp
    logsumexp max mean median min mode msort nanmean nanmedian nanquantile nansum norm
    nuclear_norm prod quantile searchsorted softmax sort special_log_softmax special_logsumexp
    special_softmax std std_mean sum sum_to_size topk trace trapezoid trapz unique_consecutive
    unique_dim unique_dim_consecutive var var_mean argsort argwhere frobenius_norm

    addbmm addmm addmv addr baddbmm bilinear bmm cdist chain_matmul cholesky cholesky_inverse
    cholesky_solve cosine_similarity cross det dot einsum ger inner inverse kron linalg_cholesky
    linalg_cholesky_ex linalg_cross linalg_det linalg_diagonal linalg_eig linalg_eigh
    linalg_eigvals linalg_eigvalsh linalg_inv linalg_inv_ex linalg_lstsq linalg_lu
    linalg_lu_factor linalg_matmul linalg_matrix_exp linalg_multi_dot linalg_pinv linalg_qr
    linalg_slogdet linalg_solve linalg_solve_ex linalg_solve_triangular linalg_svd
    linalg_svdvals linalg_vander linalg_vecdot linear logdet matmul matrix_exp mm mv outer
    pairwise_distance pdist pinverse qr slogdet svd tensordot triangular_solve vander vdot

    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool2d adaptive_max_pool3d affine_grid_generator alpha_dropout avg_pool1d
    avg_pool2d avg_pool3d batch_norm binary_cross_entropy binary_cross_entropy_with_logits
    channel_shuffle col2im conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d
    conv_transpose3d convolution cosine_embedding_loss cross_entropy_loss dropout embedding
    embedding_bag fake_quantize_per_channel_affine fake_quantize_per_tensor_affine
    feature_alpha_dropout feature_dropout glu grid_sampler grid_sampler_2d grid_sampler_3d
    group_norm gru gru_cell hinge_embedding_loss huber_loss im2col instance_norm kl_div l1_loss
    layer_norm lstm lstm_cell margin_ranking_loss max_pool1d max_pool1d_with_indices max_pool2d
    max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d max_unpool3d
    mse_loss native_channel_shuffle native_dropout native_group_norm native_layer_norm nll_loss
    nll_loss2d nll_loss2d_forward nll_loss_forward nll_loss_nd pixel_shuffle pixel_unshuffle
    poisson_nll_loss rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell
    scaled_dot_product_attention smooth_l1_loss soft_margin_loss triplet_margin_loss
    upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d upsample_trilinear3d

    alias atleast_1d atleast_2d atleast_3d block_diag broadcast_tensors broadcast_to cat chunk
    clone column_stack concat concatenate constant_pad_nd contiguous copy detach diag diag_embed
    diagflat diagonal diagonal_copy diagonal_scatter dsplit dstack expand expand_as fill flatten
    flip fliplr flipud gather hsplit hstack index index_add index_copy index_fill index_put
    index_reduce index_select lift_fresh_copy mH mT masked_fill masked_scatter masked_select
    matrix_H meshgrid moveaxis movedim narrow narrow_copy nonzero nonzero_numpy numpy_T one_hot
    pad permute put ravel reflection_pad1d reflection_pad2d reflection_pad3d renorm repeat
    repeat_interleave replication_pad1d replication_pad2d replication_pad3d reshape reshape_as
    resolve_conj resolve_neg roll rot90 row_stack scatter scatter_add scatter_reduce select
    select_scatter slice slice_scatter split split_with_sizes squeeze stack swapaxes swapdims t
    take take_along_dim tensor_split tile to transpose tril triu type_as unbind unflatten unfold
    unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze view view_as view_as_complex
    view_as_complex_copy view_as_real view_as_real_copy view_copy vsplit vstack detach_copy
    expand_copy permute_copy select_copy slice_copy squeeze_copy t_copy transpose_copy
    unbind_copy unsqueeze_copy alias_copy unfold_copy split_copy split_with_sizes_copy
    lift_fresh cartesian_prod tril_indices triu_indices

    arange bartlett_window bernoulli blackman_window empty empty_like empty_permuted exponential
    eye full full_like hamming_window hann_window kaiser_window linspace logspace multinomial
    new_empty new_full new_ones new_zeros normal normal_functional ones ones_like poisson rand
    rand_like randint randint_like randn randn_like randperm range scalar_tensor uniform zero
    zeros zeros_like

    fft_fft fft_fft2 fft_fftfreq fft_fftn fft_fftshift fft_hfft fft_hfft2 fft_hfftn fft_ifft
    fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft fft_ihfft2 fft_ihfftn fft_irfft fft_irfft2
    fft_irfftn fft_rfft fft_rfft2 fft_rfftfreq fft_rfftn istft stft

    is_complex is_floating_point is_same_size numel result_type size stride sym_constrain_range
    sym_constrain_range_for_size sym_is_contiguous sym_numel sym_size sym_stride

    _adaptive_avg_pool2d _adaptive_avg_pool3d _assert_async _assert_scalar
    _assert_tensor_metadata _cdist_forward _conj _conj_physical _embedding_bag
    _embedding_bag_forward_only _euclidean_dist _functional_assert_async
    _functional_assert_scalar _functional_sym_constrain_range
    _functional_sym_constrain_range_for_size _is_all_true _is_any_true _linalg_det _linalg_eigh
    _linalg_slogdet _linalg_solve_ex _linalg_svd _local_scalar_dense _log_softmax
    _native_batch_norm_legit_no_training _pdist_forward _prelu_kernel _safe_softmax
    _scaled_dot_product_flash_attention_for_cpu _shape_as_tensor _softmax _to_copy _unique2
    _unsafe_index _unsafe_index_put _unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d _weight_norm
    _weight_norm_interface
"""
_LISTED = frozenset(_ATEN.split())
# What the schema of an operator calls them; given as a number, one is an index into a table.
_KINDS = {
    "ScalarType": torch.dtype,
    "Layout": torch.layout,
    "MemoryFormat": torch.memory_format,
    "Device": torch.device,
}


def listed_operator(name: str) -> OpOverload[..., object] | None:
    """The operator that ``aten.add.Tensor`` names; None where a file may not name it."""
    namespace, _, rest = name.partition(".")
    operation, _, overload = rest.rpartition(".")
    if namespace != "aten" or operation not in _LISTED:
        return None
    return pure_operator(namespace, operation, overload)


def pure_operator(namespace: str, operation: str, overload: str) -> OpOverload[..., object] | None:
    """An operator by its three names; None where there is none, or it does more than compute."""
    packet = getattr(getattr(torch.ops, namespace), operation, None)
    target = getattr(packet, overload, None)
    # What the dispatcher does not know is TorchScript's.
    if (
        isinstance(target, OpOverload)
        and not target._schema.is_mutable
        and torch._C._dispatch_has_kernel(target.name())
    ):
        return target
    return None


def require_kinds(
    target: OpOverload[..., object], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Refuse a number, a truth value or a text for a dtype, layout, format or device.

    Raises:
        UsageError: there is one: torch would take the number for what it means inside it.
    """
    arguments = target._schema.arguments
    given = dict(zip((a.name for a in arguments), args)) | dict(kwargs)
    for argument in arguments:
        kind = str(argument.real_type).removeprefix("Optional[").removesuffix("]")
        value = given.get(argument.name)
        if kind in _KINDS and value is not None and not isinstance(value, _KINDS[kind]):
            raise UsageError(f"the argument '{argument.name}' of {target} is no {kind}")
