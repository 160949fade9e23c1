"""The sum of rows of one to three tables, and a norm of it.

    total = tables[0][indices[0]] + tables[1][indices[1]] + tables[2][indices[2]]
    y = LayerNorm(total), RMSNorm(total) or total        as in ``norm``

The sum is float32; the result is rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from strop.kernels import buffers
from strop.kernels.examples import tensor
from strop.kernels.kernel import Cost, Kernel
from strop.kernels.launching import launch
from strop.kernels.limits import MOST_TABLES
from strop.kernels.normalize import affine, normalize
from strop.kernels.rows import ROW_BUCKETS, WIDTHS, row_block


@triton.jit
def _rows_of(indices, table, size, index_stride, table_stride, row, there, column, mask):
    """The rows of a table in float32; NaN for an index that is not one of the table's."""
    index = tl.load(indices + row * index_stride, mask=there, other=0).to(tl.int64)
    inside = (index >= 0) & (index < size)
    values = tl.load(table + index * table_stride + column, mask=mask & inside, other=0.0)
    return tl.where(inside, values.to(tl.float32), float("nan"))


@triton.jit
def embedding_norm_kernel(
    indices_0, table_0, size_0, index_stride_0, table_stride_0,
    indices_1, table_1, size_1, index_stride_1, table_stride_1,
    indices_2, table_2, size_2, index_stride_2, table_stride_2,
    weight, bias, y, rows, columns, eps,
    NORM: tl.constexpr, RMS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program makes ROWS rows; BLOCK is a power of two that is at least ``columns``."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    there = row < rows
    mask = there & (column < columns)
    total = _rows_of(
        indices_0, table_0, size_0, index_stride_0, table_stride_0, row, there, column, mask
    )
    if table_1 is not None:
        total += _rows_of(
            indices_1, table_1, size_1, index_stride_1, table_stride_1, row, there, column, mask
        )
    if table_2 is not None:
        total += _rows_of(
            indices_2, table_2, size_2, index_stride_2, table_stride_2, row, there, column, mask
        )
    if NORM:
        total = affine(normalize(total, mask, columns, eps, RMS), weight, bias, column, mask)
    place = y + row * columns + column
    tl.store(place, total.to(y.dtype.element_ty), mask=mask)


def _cost(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Cost:
    rows, columns = sizes["rows"], sizes["columns"]
    cells = sum(itemsizes.get(name, 0) for name in ("table_0", "table_1", "table_2", "y"))
    indices = sum(itemsizes.get(name, 0) for name in ("indices_0", "indices_1", "indices_2"))
    fixed = sum(itemsizes.get(name, 0) for name in ("weight", "bias"))
    return Cost(10 * rows * columns, (cells * rows + fixed) * columns + indices * rows)


def _example(rows: int, columns: int, count: int, norm: bool = True) -> None:
    table, weight = tensor(30_000, columns), tensor(columns)
    index = tensor(rows, dtype=torch.int64)
    embedding_norm([index] * count, [table] * count, weight, weight, 1e-5, rms=False, norm=norm)


EMBEDDING_NORM = Kernel(
    "embedding_norm",
    embedding_norm_kernel,
    grid=("cdiv(rows, ROWS)",),
    buckets=ROW_BUCKETS,
    cost=_cost,
    examples={
        **{f"LayerNorm of 3 tables, 4096 x {n}": partial(_example, 4096, n, 3) for n in WIDTHS},
        "a table, 1 x 4096": partial(_example, 1, 4096, 1, norm=False),
    },
)


def embedding_norm(
    indices: Sequence[Tensor],
    tables: Sequence[Tensor],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    rms: bool,
    norm: bool = True,
) -> Tensor:
    """Sum rows of tables and normalize the sum.

    Args:
        indices: one to three of [rows] int64 or int32, with any stride.
        tables: as many, [n, columns] float16, bfloat16 or float32, their last strides 1.
        weight: [columns] float.
        bias: [columns] float.
        eps: added to the variance.
        rms: RMSNorm instead of LayerNorm.
        norm: whether the sum is normalized; if not, weight, bias, eps and rms mean nothing.

    Returns:
        [rows, columns] of the first table's dtype. A row with an index outside of its table, which
        torch refuses, is NaN. No rows give no rows.

    Raises:
        ValueError: there are no tables or more than three, or rows are wider than ``WIDEST_ROW``.
    """
    if not 1 <= len(tables) == len(indices) <= MOST_TABLES:
        raise ValueError(
            f"{len(indices)} indices and {len(tables)} tables: one to {MOST_TABLES} of each"
        )
    columns = int(tables[0].shape[1])
    (rows,) = indices[0].shape
    y = buffers.empty(tables[0], (rows, columns))
    arguments = {
        **_table_arguments(indices, tables),
        "weight": weight, "bias": bias, "y": y,
        "rows": rows, "columns": columns, "eps": eps,
    }  # fmt: skip
    launch(EMBEDDING_NORM, arguments, {"NORM": norm, "RMS": rms, "BLOCK": row_block(columns)})
    return y


def _table_arguments(indices: Sequence[Tensor], tables: Sequence[Tensor]) -> dict[str, object]:
    found: dict[str, object] = {}
    for place in range(MOST_TABLES):
        given = place < len(tables)
        found |= {
            f"indices_{place}": indices[place] if given else None,
            f"table_{place}": tables[place] if given else None,
            f"size_{place}": tables[place].shape[0] if given else 0,
            f"index_stride_{place}": indices[place].stride(0) if given else 0,
            f"table_stride_{place}": tables[place].stride(0) if given else 0,
        }
    return found
