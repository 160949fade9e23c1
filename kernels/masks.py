"""Masks of attention: what they add to scores, and how kernels are told where they lie.

A mask is broadcast to [batch, heads, queries, keys]: bool (True = look at), or float, added to the
scaled scores.
"""

from __future__ import annotations

from collections.abc import Mapping

import triton
import triton.language as tl
from torch import Tensor

from strop.kernels.online_softmax import HIDDEN

# Float masks below count as this, so that they stay finite in units of the scores.
LOWEST_MASK: tl.constexpr = tl.constexpr(-1e30)


@triton.jit
def load_mask(
    mask, row, key, rows, keys, row_stride, scale,
    PER_QUERY: tl.constexpr, PER_KEY: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """What a mask adds to q k^T: 0 or -inf if it is bool, mask / scale if it is float.

    Rows and keys that are not there get another's mask: they are stored nowhere, or hidden later.
    """
    at = tl.zeros((1, 1), tl.int64)
    if PER_QUERY:
        at += tl.minimum(row, rows - 1).to(tl.int64)[:, None] * row_stride
    if PER_KEY:
        at += (tl.minimum(key, keys - 1) if EDGE else key)[None, :]
    values = tl.broadcast_to(tl.load(mask + at), (row.shape[0], key.shape[0]))
    if mask.dtype.element_ty == tl.int1:
        added = tl.where(values, 0.0, HIDDEN)
    else:
        values = values.to(tl.float32)
        added = tl.where(values == HIDDEN, HIDDEN, tl.maximum(values, LOWEST_MASK) * (1 / scale))
    return added


def check_mask(mask: Tensor | None) -> None:
    """Raise ValueError for a mask whose last stride is not 1, unless it is broadcast there."""
    if has_own(mask, 3) and mask is not None and mask.stride(-1) != 1:
        raise ValueError("the numbers of a mask for keys that follow each other have to do so too")


def mask_strides(mask: Tensor | None) -> dict[str, int]:
    """Arguments for the strides of a mask; 0 where one is for all, or there is none."""
    return {
        f"mask_{axis}_stride": 0 if mask is None or _broadcast(mask, i) else mask.stride(i - 4)
        for i, axis in enumerate(("batch", "head", "row"))
    }


def mask_bytes(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> int:
    """Bytes of a row of the mask for each sample and head that has its own; 0 without a mask."""
    read = itemsizes.get("mask", 0)
    read *= sizes["batch"] if sizes["mask_batch_stride"] else 1
    read *= sizes["heads"] if sizes["mask_head_stride"] else 1
    return read * (sizes["keys"] if sizes["PER_KEY"] else 1)


def has_own(mask: Tensor | None, axis: int) -> bool:
    """Whether a mask has numbers of their own along an axis of the four."""
    return mask is not None and not _broadcast(mask, axis)


def _broadcast(mask: Tensor, axis: int) -> bool:
    """Whether one mask is for all along an axis of the four; a symbolic size is no such one."""
    place = axis - 4 + mask.dim()
    return place < 0 or (isinstance(mask.shape[place], int) and mask.shape[place] == 1)
