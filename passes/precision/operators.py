"""Which operators compute in 16 bits, and why others keep float32: one table.

What the table does not name keeps float32 too: it was not tried in 16 bits.
"""

from __future__ import annotations

import operator
from enum import Enum, auto
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx.node import Node

from strop.compiler.ir.families import (
    CASTS,
    CONVOLUTIONS,
    COPIES,
    DROPOUTS,
    EXPANSIONS,
    PADS,
    PRODUCTS,
    TRANSPOSED_CONVOLUTIONS,
    VIEWS,
    ZEROS,
)
from strop.compiler.ir.nodes import arguments, dtype_of, has_floats, input_node

aten = torch.ops.aten
strop = torch.ops.strop


class Kind(Enum):
    """How an operator behaves in 16 bits.

    Attributes:
        HEAVY: sums of products, and norms: kernels take 16 bits and sum in float32.
        LIGHT: moves values, or computes each from few others: as its neighbours do.
        WIDE: keeps float32.
    """

    HEAVY = auto()
    LIGHT = auto()
    WIDE = auto()


_HEAVY = frozenset((
    *PRODUCTS, *CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS, aten.addmm.default, aten.baddbmm.default,
    aten.einsum.default, aten.embedding.default, aten.group_norm.default, aten.layer_norm.default,
    aten.linear.default, aten.rms_norm.default, aten.scaled_dot_product_attention.default,
    strop.attention.default, strop.cached_attention.default, strop.grouped_matmul.default,
    strop.linear_fp8.default, strop.linear_nbits.default, strop.linear_w8a8.default,
    strop.linear_w8a8_rows.default, strop.padded_conv.default, strop.skip_layer_norm.default,
    strop.skip_rms_norm.default,
))  # fmt: skip
_LIGHT = frozenset((
    *CASTS, *COPIES, *DROPOUTS, *EXPANSIONS, *PADS, *VIEWS, *ZEROS,
    strop.bias_gelu.default, strop.gated.default, strop.last_token.default, strop.rotary.default,
))  # fmt: skip
_LIGHT_PACKETS = frozenset((
    aten.abs, aten.add, aten.cat, aten.chunk, aten.clamp, aten.clamp_max, aten.clamp_min,
    aten.concat, aten.elu, aten.flip, aten.full, aten.full_like, aten.gather, aten.gelu, aten.glu,
    aten.hardsigmoid, aten.hardswish, aten.hardtanh, aten.index, aten.index_select,
    aten.leaky_relu, aten.masked_fill, aten.max_pool1d, aten.max_pool2d, aten.maximum,
    aten.minimum, aten.movedim, aten.mul, aten.narrow, aten.neg, aten.new_full, aten.new_ones,
    aten.ones, aten.ones_like, aten.permute, aten.pixel_shuffle, aten.relu, aten.relu6, aten.repeat,
    aten.roll, aten.rsub, aten.scalar_tensor, aten.select, aten.sigmoid, aten.silu, aten.slice,
    aten.split, aten.split_with_sizes, aten.squeeze, aten.stack, aten.sub, aten.t, aten.tanh,
    aten.transpose, aten.tril, aten.triu, aten.unbind, aten.unsqueeze, aten.where,
))  # fmt: skip

# Their results stay within a few units, whatever they take.
_BOUNDED = (aten.hardsigmoid, aten.hardtanh, aten.relu6, aten.sigmoid, aten.tanh)
# Inputs of operators on packed weights that stay float32: kernels take scales in it, or round
# them when a file is written, and whole numbers come from weights over scales.
_STORED_INPUTS = ("weight", "scale", "zero_point")
_ON_STORED = (
    strop.linear_fp8.default, strop.linear_nbits.default, strop.linear_w8a8.default,
    strop.linear_w8a8_rows.default,
)  # fmt: skip

_MASKS = {
    aten.scaled_dot_product_attention.default: "attn_mask",
    strop.attention.default: "mask",
    strop.cached_attention.default: "mask",
}

_RANGE = "its results, or those of its steps, leave the range of 16 bits"
_SUMS = "rounding adds up over a sum of many"
_TURNS = "16 bits have too few digits for whole turns"
_WHOLE = "16 bits hold no whole numbers above 2048"
_STATISTICS = "variances may leave the range of 16 bits"
_UNPACKS = "it unpacks a weight whose scales are float32"
_OTHER = "it was not tried in 16 bits"
_REASONS: dict[str, tuple[Any, ...]] = {
    _RANGE: (
        aten.div, aten.exp, aten.exp2, aten.expm1, aten.log, aten.log10, aten.log1p, aten.log2,
        aten.pow, aten.reciprocal, aten.rsqrt, aten.sqrt, aten.square,
    ),
    _SUMS: (
        aten.adaptive_avg_pool1d, aten.adaptive_avg_pool2d, aten.avg_pool1d, aten.avg_pool2d,
        aten.cumprod, aten.cumsum, aten.linalg_vector_norm, aten.log_softmax, aten.logsumexp,
        aten.mean, aten.norm, aten.prod, aten.softmax, aten.std, aten.sum, aten.var,
    ),
    _TURNS: (aten.cos, aten.sin, aten.tan),
    _WHOLE: (aten.arange, aten.linspace, *(cast.overloadpacket for cast in CASTS)),
    _STATISTICS: (aten.batch_norm, aten.instance_norm),
    _UNPACKS: (
        strop.embedding_int8, strop.embedding_nbits, strop.fake_quantize, strop.stored_int8,
    ),
}  # fmt: skip
_REASON_OF = {packet: reason for reason, packets in _REASONS.items() for packet in packets}


def kind_of(node: Node) -> Kind:
    """How a call behaves in 16 bits."""
    target = node.target
    if target is operator.getitem:  # one of several results, as it was made
        return Kind.LIGHT
    if not isinstance(target, OpOverload) or not has_floats(node):
        return Kind.WIDE
    if target is strop.cached_attention.default and arguments(node)["k_scale"] is not None:
        return Kind.WIDE  # scales of its caches are float32
    if target in _HEAVY:
        return Kind.HEAVY
    return Kind.LIGHT if _is_light(node, target) else Kind.WIDE


def _is_light(node: Node, target: OpOverload[Any, Any]) -> bool:
    if target in CASTS:
        return _holds_all(dtype_of(input_node(node)))
    if target in (aten.div.Tensor, aten.div.Scalar):
        return not isinstance(node.args[1], Node)
    return target in _LIGHT or target.overloadpacket in _LIGHT_PACKETS


def _holds_all(source: torch.dtype) -> bool:
    """Whether a cast of such values to 16 bits loses no more than rounding."""
    return source == torch.bool or source.is_floating_point


def computes_turns(node: Node) -> bool:
    """Whether a call's result depends on the part of its argument that is left of whole turns."""
    return isinstance(node.target, OpOverload) and (
        _REASON_OF.get(node.target.overloadpacket) == _TURNS
    )


def is_softmax(node: Node) -> bool:
    """Whether a call is a softmax or its logarithm."""
    return isinstance(node.target, OpOverload) and (
        node.target.overloadpacket in (aten.softmax, aten.log_softmax)
    )


def widens(node: Node, dtype: torch.dtype) -> bool:
    """Whether a call is a cast of values of 16 bits to float32."""
    if node.target not in CASTS or dtype_of(node) != torch.float32:
        return False
    return dtype_of(input_node(node)) == dtype


def reason_of(node: Node) -> str:
    """Why a wide operator keeps float32."""
    assert isinstance(node.target, OpOverload)
    return _REASON_OF.get(node.target.overloadpacket, _OTHER)


def is_bounded(node: Node) -> bool:
    """Whether a call's results stay within a few units."""
    return isinstance(node.target, OpOverload) and node.target.overloadpacket in _BOUNDED


def mask_of(node: Node) -> Node | None:
    """The float mask that a call of attention adds to its scores."""
    if node.target not in _MASKS:
        return None
    mask = arguments(node)[_MASKS[node.target]]
    return mask if isinstance(mask, Node) and has_floats(mask) else None


def stays_stored(node: Node, name: str) -> bool:
    """Whether an input of a call, by its name in the schema, stays in float32."""
    return node.target in _ON_STORED and name in _STORED_INPUTS
