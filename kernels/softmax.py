"""Softmax of rows.

    y = exp(x - max x) / sum exp(x - max x)

A row of up to ``WIDEST_ROW`` columns is read once. A wider one is read twice in pieces: the first
time for its maximum and its sum together (online normalizer, arXiv:1805.02867), each column of a
piece with a maximum and a sum of its own until the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import triton
import triton.language as tl
from torch import Tensor

from strop.kernels import buffers
from strop.kernels.examples import tensor
from strop.kernels.kernel import Cost, Kernel
from strop.kernels.launching import launch
from strop.kernels.limits import WIDEST_ROW
from strop.kernels.rows import PIECE, ROW_BUCKETS, WIDTHS, row_block


@triton.jit
def softmax_kernel(
    x, y, rows, columns, x_stride,
    WIDE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program makes ROWS rows, at once or, if WIDE, in pieces of BLOCK columns."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    there = row < rows
    read = x + row * x_stride
    written = y + row * columns
    column = tl.arange(0, BLOCK)[None, :]
    if WIDE:
        top, total = _online(read, columns, column, there, BLOCK, ROWS)
        inverse = tl.div_rn(1.0, total)
        for start in range(0, columns, BLOCK):
            piece = start + column
            mask = there & (piece < columns)
            values = tl.load(read + piece, mask=mask, other=0.0).to(tl.float32)
            result = tl.exp(values - top) * inverse
            tl.store(written + piece, result.to(y.dtype.element_ty), mask=mask)
    else:
        mask = there & (column < columns)
        values = tl.load(read + column, mask=mask, other=float("-inf")).to(tl.float32)
        raised = tl.exp(values - tl.max(values, 1)[:, None])
        result = raised * tl.div_rn(1.0, tl.sum(raised, 1)[:, None])
        tl.store(written + column, result.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _online(read, columns, column, there, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    """The maximum of each row, and the sum of exp(x - maximum)."""
    tops = tl.full((ROWS, BLOCK), float("-inf"), tl.float32)
    totals = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, columns, BLOCK):
        piece = start + column
        values = tl.load(read + piece, mask=there & (piece < columns), other=float("-inf"))
        values = values.to(tl.float32)
        higher = tl.maximum(tops, values)
        # Where only -inf was seen so far, -inf - (-inf) would be NaN.
        base = tl.where(higher == float("-inf"), 0.0, higher)
        totals = totals * tl.exp(tops - base) + tl.exp(values - base)
        tops = higher
    top = tl.max(tops, 1)[:, None]
    return top, tl.sum(totals * tl.exp(tops - top), 1)[:, None]


def _cost(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Cost:
    cells = sizes["rows"] * sizes["columns"]
    return Cost(5 * cells, (itemsizes["x"] + itemsizes["y"]) * cells)


def _example(rows: int, columns: int) -> None:
    softmax(tensor(rows, columns))


SOFTMAX = Kernel(
    "softmax",
    softmax_kernel,
    grid=("cdiv(rows, ROWS)",),
    buckets=ROW_BUCKETS,
    cost=_cost,
    examples={f"4096 x {n}": partial(_example, 4096, n) for n in (*WIDTHS, 128256)},
)


def softmax(x: Tensor) -> Tensor:
    """Softmax of each row, in float32 and rounded once.

    Args:
        x: [rows, columns] float16, bfloat16 or float32, its last stride 1.

    Returns:
        Like x, contiguous. As in torch a row is NaN throughout where all of it is -inf, or where it
        holds NaN or +inf. No rows give no rows.
    """
    rows, columns = x.shape
    y = buffers.empty(x, (rows, columns))
    wide = int(columns) > WIDEST_ROW
    launch(
        SOFTMAX,
        {"x": x, "y": y, "rows": rows, "columns": columns, "x_stride": x.stride(0)},
        {"WIDE": wide, "BLOCK": PIECE if wide else row_block(int(columns))},
    )
    return y
