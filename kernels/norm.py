"""LayerNorm and RMSNorm of rows, with a residual sum before and int8 rounding behind.

    total = x + residual
    y = (total - mean) / sqrt(variance + eps) * weight + bias      LayerNorm, arXiv:1607.06450
    y = total / sqrt(mean(total^2) + eps) * weight                 RMSNorm, arXiv:1910.07467
    scale = max|y| / 127,  q = round(y / scale)

A row is read once and kept in registers: the bytes moved are those of the inputs and outputs.
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
from strop.kernels.normalize import affine, normalize
from strop.kernels.rounding import int8_scale, largest, magnitude, to_int8
from strop.kernels.rows import ROW_BUCKETS, WIDTHS, row_block


@triton.jit
def norm_kernel(
    x, residual, weight, bias, y, total, q, scale,
    rows, columns, x_stride, residual_stride, eps,
    RMS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program normalizes ROWS rows; BLOCK is a power of two that is at least ``columns``."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    mask = (row < rows) & (column < columns)
    values = tl.load(x + row * x_stride + column, mask=mask, other=0.0).to(tl.float32)
    if residual is not None:
        more = tl.load(residual + row * residual_stride + column, mask=mask, other=0.0)
        # The sum is rounded as it is stored, so that its norm is that of what others read.
        values = (values + more.to(tl.float32)).to(x.dtype.element_ty).to(tl.float32)
    if total is not None:
        tl.store(total + row * columns + column, values.to(total.dtype.element_ty), mask=mask)
    normed = normalize(values, mask, columns, eps, RMS)
    rounded = affine(normed, weight, bias, column, mask).to(x.dtype.element_ty)
    if y is not None:
        tl.store(y + row * columns + column, rounded, mask=mask)
    if q is not None:
        exact = rounded.to(tl.float32)
        row_scale = int8_scale(largest(magnitude(exact), 1)[:, None])
        tl.store(q + row * columns + column, to_int8(exact, row_scale), mask=mask)
        tl.store(scale + row, row_scale, mask=row < rows)


def _cost(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Cost:
    cells = sizes["rows"] * sizes["columns"]
    moved = sum(itemsizes.get(name, 0) for name in ("x", "residual", "y", "total", "q"))
    fixed = sum(itemsizes.get(name, 0) for name in ("weight", "bias")) * sizes["columns"]
    return Cost(8 * cells, moved * cells + fixed + itemsizes.get("scale", 0) * sizes["rows"])


def _example(
    rows: int, columns: int, *, rms: bool = True, residual: bool = True, quantize: bool = False
) -> None:
    x, weight = tensor(rows, columns), tensor(columns)
    more, bias = x if residual else None, None if rms else weight
    norm(x, more, weight, bias, 1e-5, rms=rms, total=residual, quantize=quantize, keep=not quantize)


NORM = Kernel(
    "norm",
    norm_kernel,
    grid=("cdiv(rows, ROWS)",),
    buckets=ROW_BUCKETS,
    cost=_cost,
    examples={
        **{f"RMSNorm of 4096 x {n}": partial(_example, 4096, n, residual=False) for n in WIDTHS},
        "LayerNorm of 1024 x 384, residual": partial(_example, 1024, 384, rms=False),
        "RMSNorm of 4096 x 2048, residual": partial(_example, 4096, 2048),
        "RMSNorm of 1 x 4096, residual": partial(_example, 1, 4096),
        "RMSNorm of 4096 x 4096, residual": partial(_example, 4096, 4096),
        **{
            f"RMSNorm of 4096 x {n}, residual, int8": partial(_example, 4096, n, quantize=True)
            for n in WIDTHS
        },
    },
)


def norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    rms: bool,
    total: bool = False,
    quantize: bool = False,
    keep: bool = True,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Normalize the rows of x + residual.

    Args:
        x: [rows, columns] float16, bfloat16 or float32, its last stride 1.
        residual: the same shape and dtype.
        weight: [columns] float.
        bias: [columns] float.
        eps: added to the variance.
        rms: RMSNorm instead of LayerNorm.
        total: whether the sum x + residual is wanted.
        quantize: whether the result is wanted in int8, with a scale for each row.
        keep: whether the result is wanted in x's dtype.

    Returns:
        (y, total, q, scale), None for what is not wanted: y and total like x, q [rows, columns]
        int8, scale [rows] float32. No rows give no rows.

    Raises:
        ValueError: rows are wider than ``WIDEST_ROW``.
    """
    rows, columns = x.shape
    y = buffers.empty(x, (rows, columns)) if keep else None
    sums = buffers.empty(x, (rows, columns)) if total else None
    q = buffers.empty(x, (rows, columns), torch.int8) if quantize else None
    scale = buffers.empty(x, (rows,), torch.float32) if quantize else None
    arguments = {
        "x": x, "residual": residual, "weight": weight, "bias": bias,
        "y": y, "total": sums, "q": q, "scale": scale,
        "rows": rows, "columns": columns,
        "x_stride": x.stride(0), "residual_stride": 0 if residual is None else residual.stride(0),
        "eps": eps,
    }  # fmt: skip
    launch(NORM, arguments, {"RMS": rms, "BLOCK": row_block(int(columns))})
    return y, sums, q, scale
