"""Products and look-ups on packed weights of a few bits."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.ir.nodes import dtype_of, shape_of
from strop.compiler.lower.onnx.emitter import MICROSOFT, Emitter
from strop.compiler.lower.onnx.packing import packed
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import lowers

strop = torch.ops.strop

# MatMulNBits' accuracy_level: the dtype that it may round activations to, block by block.
_FLOAT32, _INT8 = 1, 4
# Bits of numbers whose products in float are the faster ones at many rows. Those of 8 bits are
# unpacked slowly: a whole SmolLM2 takes 4.0, 1.7 and 1.2 times as long for 32, 128 and 256 tokens.
FAST_IN_FLOAT = 4


@lowers(strop.linear_nbits.default, variant="int8")
def linear_int8(
    on: Emitter, x: Any, weight: Any, scale: Any, zero_point: Any, bias: Any, bits: int
) -> Any:
    """The kernel rounds activations to 8 bits, with a scale for each block of each row."""
    kept = packed(on, weight, scale, zero_point, bits, dtype_of(x))
    return _product(on, x, kept, weight, bias, _INT8)


@lowers(strop.linear_nbits.default, variant="float")
def linear_float(
    on: Emitter, x: Any, weight: Any, scale: Any, zero_point: Any, bias: Any, bits: int
) -> Any:
    """In float where this is faster at many rows; see ``FAST_IN_FLOAT``."""
    kept = packed(on, weight, scale, zero_point, bits, dtype_of(x))
    level = _FLOAT32 if kept.bits <= FAST_IN_FLOAT else _INT8
    return _product(on, x, kept, weight, bias, level)


def _product(on: Emitter, x: Any, kept: Any, weight: Any, bias: Any, level: int) -> Any:
    if not on.target.fuses(dtype_of(on.node)):
        raise NotLowered(f"the runtime has no product with packed weights in {dtype_of(on.node)}")
    rows, size = shape_of(weight)
    inside = bias if on.target.packed_biases else None
    product = on.op(
        "MatMulNBits",
        on.value(x),
        kept.values,
        kept.scales,
        kept.zero_points,
        None,
        on.value(inside),
        domain=MICROSOFT,
        K=int(size),
        N=int(rows),
        bits=kept.bits,
        block_size=kept.block,
        accuracy_level=level,
    )
    return product if bias is inside else on.op("Add", product, on.value(bias))


@lowers(strop.embedding_nbits.default)
def embedding_nbits(
    on: Emitter, weight: Any, scale: Any, zero_point: Any, indices: Any, bits: int
) -> Any:
    """The table lies as ``MatMulNBits`` wants it: a head that is tied to it shares its values."""
    if dtype_of(on.node) != torch.float32:
        raise NotLowered("the runtime's look-up in packed weights is one of float32")
    kept = packed(on, weight, scale, zero_point, bits, dtype_of(on.node))
    rows, size = (int(s) for s in shape_of(weight))
    if size % kept.block:
        raise NotLowered(f"its rows of {size} values are no multiple of {kept.block}")
    # The runtime does this once, when it loads.
    table = on.op("Reshape", kept.values, on.constant([rows, size * kept.bits // 8]))
    return on.op(
        "GatherBlockQuantized",
        table,
        on.value(indices),
        kept.scales,
        kept.zero_points,
        domain=MICROSOFT,
        bits=kept.bits,
        block_size=kept.block,
        gather_axis=0,
        quantize_axis=1,
    )
