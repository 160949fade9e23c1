"""Torch's dtypes in ONNX."""

from __future__ import annotations

import onnx_ir as ir
import torch

from strop.compiler.lower.onnx.refusal import NotLowered

DTYPES: dict[torch.dtype, ir.DataType] = {
    torch.float32: ir.DataType.FLOAT,
    torch.float64: ir.DataType.DOUBLE,
    torch.float16: ir.DataType.FLOAT16,
    torch.bfloat16: ir.DataType.BFLOAT16,
    torch.int64: ir.DataType.INT64,
    torch.int32: ir.DataType.INT32,
    torch.int16: ir.DataType.INT16,
    torch.int8: ir.DataType.INT8,
    torch.uint8: ir.DataType.UINT8,
    torch.bool: ir.DataType.BOOL,
}


def onnx_dtype(dtype: torch.dtype) -> ir.DataType:
    """ONNX's counterpart of a dtype.

    Raises:
        NotLowered: strop writes none.
    """
    if dtype not in DTYPES:
        raise NotLowered(f"strop writes no {dtype}")
    return DTYPES[dtype]
