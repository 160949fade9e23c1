"""Rounding of rows to int8 or to e4m3, each row with its own scale.

    scale = max|x| / 127,  q = round(x / scale), ties to even       int8
    scale = max|x| / 448,  q = x / scale to the nearest e4m3, ties to even

A row of up to ``WIDEST_ROW`` columns is read once. A wider one is read twice in pieces, the second
time from the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from strop.kernels import buffers
from strop.kernels.examples import tensor
from strop.kernels.kernel import Cost, Kernel
from strop.kernels.launching import launch
from strop.kernels.limits import WIDEST_ROW
from strop.kernels.rounding import largest, magnitude, rounded, row_scale
from strop.kernels.rows import PIECE, ROW_BUCKETS, WIDTHS, row_block


@triton.jit
def quantize_rows_kernel(
    x, q, scale, rows, columns, x_stride,
    WIDE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program rounds ROWS rows, at once or, if WIDE, in pieces of BLOCK columns."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    there = row < rows
    KIND: tl.constexpr = q.dtype.element_ty
    read = x + row * x_stride
    written = q + row * columns
    column = tl.arange(0, BLOCK)[None, :]
    if WIDE:
        tops = tl.zeros((ROWS, BLOCK), tl.int32)
        for start in range(0, columns, BLOCK):
            piece = start + column
            values = tl.load(read + piece, mask=there & (piece < columns), other=0.0)
            tops = tl.maximum(tops, magnitude(values.to(tl.float32)))
        divisor = row_scale(largest(tops, 1)[:, None], KIND)
        for start in range(0, columns, BLOCK):
            piece = start + column
            mask = there & (piece < columns)
            values = tl.load(read + piece, mask=mask, other=0.0).to(tl.float32)
            tl.store(written + piece, rounded(values, divisor, KIND), mask=mask)
    else:
        mask = there & (column < columns)
        values = tl.load(read + column, mask=mask, other=0.0).to(tl.float32)
        divisor = row_scale(largest(magnitude(values), 1)[:, None], KIND)
        tl.store(written + column, rounded(values, divisor, KIND), mask=mask)
    tl.store(scale + row, divisor, mask=there)


def row_cost(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Cost:
    """A row is read once; its numbers and its scale are written."""
    cells = sizes["rows"] * sizes["columns"]
    return Cost(
        4 * cells, (itemsizes["x"] + itemsizes["q"]) * cells + itemsizes["scale"] * sizes["rows"]
    )


def _example(rows: int, columns: int) -> None:
    quantize_rows(tensor(rows, columns))


QUANTIZE_ROWS = Kernel(
    "quantize_rows",
    quantize_rows_kernel,
    grid=("cdiv(rows, ROWS)",),
    buckets=ROW_BUCKETS,
    cost=row_cost,
    examples={f"4096 x {n}": partial(_example, 4096, n) for n in (*WIDTHS, 28672)},
)


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round rows to int8.

    Args:
        x: [rows, columns] float16, bfloat16 or float32, its last stride 1.

    Returns:
        (q, scale): q [rows, columns] int8, scale [rows] float32. The scale of a row of zeros is 1,
        and so it is for a row so small that its scale would be below the least normal float32. The
        scale of a row that holds infinity or NaN is infinity or NaN.
    """
    return quantized(QUANTIZE_ROWS, x, torch.int8)


def quantized(kernel: Kernel, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Round rows to int8 or e4m3 by a kernel made of ``quantize_rows_kernel``.

    Args:
        kernel: what is launched.
        x: as for ``quantize_rows``.
        dtype: of q.

    Returns:
        (q, scale), as ``quantize_rows``.
    """
    rows, columns = x.shape
    q = buffers.empty(x, (rows, columns), dtype)
    scale = buffers.empty(x, (rows,), torch.float32)
    wide = int(columns) > WIDEST_ROW
    launch(
        kernel,
        {
            "x": x, "q": q, "scale": scale,
            "rows": rows, "columns": columns, "x_stride": x.stride(0),
        },
        {"WIDE": wide, "BLOCK": PIECE if wide else row_block(int(columns))},
    )  # fmt: skip
    return q, scale
