"""Rows of attention heads: how they are loaded, and how large they may be.

Strides are told to kernels in units of VECTOR numbers, so that the compiler knows that rows begin
at multiples of 16 bytes also where a stride is no multiple of 16 numbers, such as for heads of 72.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from strop.kernels.expression import next_power_of_2
from strop.kernels.limits import largest_head

# A product on tensor cores has at least as many rows and columns.
LEAST = 16
_LOAD_BYTES = 16


def head_block(x: Tensor) -> int:
    """HEAD for tensors [..., size] in x's dtype: the power of two that is at least their size.

    Raises:
        ValueError: the heads are too large for the registers of one program.
    """
    size = int(x.shape[-1])
    most = largest_head(x.element_size())
    if size > most:
        raise ValueError(f"heads of {size} numbers of {x.dtype} are too large: at most {most}")
    return max(LEAST, next_power_of_2(size))


def check_scale(scale: float) -> None:
    """Raise ValueError for what ``online_softmax.fold`` cannot multiply scores by."""
    if scale <= 0:
        raise ValueError(f"scores are multiplied by {scale}, and this has to be above 0")


def check_sizes(*heads: Tensor) -> None:
    """Raise ValueError for heads [..., size] of several sizes."""
    if len({int(x.shape[-1]) for x in heads}) > 1:
        sizes = ", ".join(str(int(x.shape[-1])) for x in heads)
        raise ValueError(f"heads of queries, keys and values have {sizes} numbers")


def vector(*tensors: Tensor) -> int:
    """The most numbers, up to 16 bytes, of which every stride but the last is a multiple."""
    found = _LOAD_BYTES // min(x.element_size() for x in tensors)
    steps = [step for x in tensors for step in x.stride()[:-1]]
    while not all(statically_known_true(step % found == 0) for step in steps):
        found //= 2
    return found


def strides(name: str, x: Tensor, unit: int) -> dict[str, int]:
    """Arguments for the strides of [batch, head, row, column], in units of so many numbers."""
    batch, head, row = (step // unit for step in x.stride()[:3])
    return {f"{name}_batch_stride": batch, f"{name}_head_stride": head, f"{name}_stride": row}


@triton.jit
def load_rows(
    base, row, rows, stride,
    VECTOR: tl.constexpr, SIZE: tl.constexpr, HEAD: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """[row, HEAD] values; 0 beyond SIZE columns, and, with EDGE, for rows that are not there."""
    column = tl.arange(0, HEAD)
    there = tl.full((row.shape[0], HEAD), True, tl.int1)
    if EDGE:
        there = there & (row < rows)[:, None]
    if SIZE < HEAD:
        there = there & (column < SIZE)[None, :]
    at = base + row.to(tl.int64)[:, None] * stride * VECTOR + column[None, :]
    return tl.load(at, mask=there, other=0)


@triton.jit
def store_rows(
    base, values, row, rows, stride,
    VECTOR: tl.constexpr, SIZE: tl.constexpr, HEAD: tl.constexpr,
):  # fmt: skip
    """Store [row, HEAD] values where there are such rows and columns."""
    column = tl.arange(0, HEAD)
    at = base + row.to(tl.int64)[:, None] * stride * VECTOR + column[None, :]
    there = (row < rows)[:, None] & (column < SIZE)[None, :]
    tl.store(at, values.to(base.dtype.element_ty), mask=there)
