"""Rotary position embedding of queries and keys, and the keys and values put into a cache.

    y = rotary(q),  k_cache[positions] = rotary(k),  v_cache[positions] = v

as in ``rotary``. A cache in int8 keeps a scale for each row of a head: scale = max|row| / 127, and
round(row / scale), ties to even. Keys are rounded once, after their rotation in float32.
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
from strop.kernels.rotation import (
    ROTATION_BUCKETS,
    constants,
    load_head,
    load_rotated,
    store_head,
    strides,
)
from strop.kernels.rounding import int8_scale, magnitude, to_int8


@triton.jit
def _keep(
    first, second, rest, cache, scale, there,
    HALF: tl.constexpr, BLOCK: tl.constexpr, REST: tl.constexpr, REST_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write rows where ``cache`` points; in int8 if ``scale``, which points to theirs, is there."""
    if scale is not None:
        top = tl.maximum(tl.max(magnitude(first), 1), tl.max(magnitude(second), 1))
        top = tl.maximum(top, tl.max(magnitude(rest), 1))
        row_scale = int8_scale(top.to(tl.float32, bitcast=True)[:, None])
        tl.store(scale, row_scale, mask=there)
        first, second = to_int8(first, row_scale), to_int8(second, row_scale)
        rest = to_int8(rest, row_scale)
    store_head(cache, first, second, rest, there, HALF, BLOCK, REST, REST_BLOCK)


@triton.jit
def rotary_cache_kernel(
    q, k, v, cos, sin, positions, y, k_cache, v_cache, k_scale, v_scale,
    batches, sequence, capacity,
    q_batch, q_head, q_token, k_batch, k_head, k_token, v_batch, v_head, v_token,
    cos_batch, cos_token, sin_batch, sin_token, positions_batch, positions_token,
    y_batch, y_head, y_token, k_cache_batch, k_cache_head, k_cache_token,
    v_cache_batch, v_cache_head, v_cache_token,
    k_scale_batch, k_scale_head, k_scale_token, v_scale_batch, v_scale_head, v_scale_token,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
    REST: tl.constexpr, REST_BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program takes ROWS heads of one sequence: of the queries, or of the keys and values.

    ``batches`` is for the grid alone.
    """
    of_queries = tl.cdiv(sequence * HEADS, ROWS)
    programs = of_queries + tl.cdiv(sequence * KV_HEADS, ROWS)
    batch = (tl.program_id(0) // programs).to(tl.int64)
    tile = tl.program_id(0) % programs
    cos_start, sin_start = cos + batch * cos_batch, sin + batch * sin_batch
    if tile < of_queries:
        row = tile * ROWS + tl.arange(0, ROWS)[:, None]
        token, head = (row // HEADS).to(tl.int64), (row % HEADS).to(tl.int64)
        there = token < sequence
        read = q + batch * q_batch + head * q_head + token * q_token
        first, second, rest = load_rotated(
            read, cos_start + token * cos_token, sin_start + token * sin_token,
            there, HALF, BLOCK, REST, REST_BLOCK,
        )  # fmt: skip
        written = y + batch * y_batch + head * y_head + token * y_token
        store_head(written, first, second, rest, there, HALF, BLOCK, REST, REST_BLOCK)
    else:
        row = (tile - of_queries) * ROWS + tl.arange(0, ROWS)[:, None]
        token, head = (row // KV_HEADS).to(tl.int64), (row % KV_HEADS).to(tl.int64)
        there = token < sequence
        read = k + batch * k_batch + head * k_head + token * k_token
        first, second, rest = load_rotated(
            read, cos_start + token * cos_token, sin_start + token * sin_token,
            there, HALF, BLOCK, REST, REST_BLOCK,
        )  # fmt: skip
        read = v + batch * v_batch + head * v_head + token * v_token
        v_first, v_second, v_rest = load_head(read, there, HALF, BLOCK, REST, REST_BLOCK)
        known = positions + batch * positions_batch + token * positions_token
        place = tl.load(known, mask=there, other=-1).to(tl.int64)
        there = (place >= 0) & (place < capacity)
        k_kept, v_kept = None, None
        if k_scale is not None:
            k_kept = k_scale + batch * k_scale_batch + head * k_scale_head + place * k_scale_token
            v_kept = v_scale + batch * v_scale_batch + head * v_scale_head + place * v_scale_token
        kept = k_cache + batch * k_cache_batch + head * k_cache_head + place * k_cache_token
        _keep(first, second, rest, kept, k_kept, there, HALF, BLOCK, REST, REST_BLOCK)
        kept = v_cache + batch * v_cache_batch + head * v_cache_head + place * v_cache_token
        _keep(v_first, v_second, v_rest, kept, v_kept, there, HALF, BLOCK, REST, REST_BLOCK)


def _cost(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Cost:
    tokens = sizes["batches"] * sizes["sequence"]
    channels = 2 * sizes["HALF"] + sizes["REST"]
    of_queries = (itemsizes["q"] + itemsizes["y"]) * sizes["HEADS"] * channels
    of_others = sum(itemsizes[name] for name in ("k", "v", "k_cache", "v_cache")) * channels
    scales = itemsizes.get("k_scale", 0) + itemsizes.get("v_scale", 0)
    angles = sum(
        itemsizes[name] * (tokens if sizes[f"{name}_batch"] else sizes["sequence"])
        for name in ("cos", "sin")
    )
    rows = of_queries + (of_others + scales) * sizes["KV_HEADS"] + itemsizes["positions"]
    heads = sizes["HEADS"] + sizes["KV_HEADS"]
    return Cost(6 * tokens * heads * sizes["HALF"], rows * tokens + angles * sizes["HALF"])


def _example(batch: int, sequence: int, size: int, half: int, whole: bool = False) -> None:
    q = tensor(batch, sequence, 32, size).transpose(1, 2)
    k = tensor(batch, sequence, 8, size).transpose(1, 2)
    cos = tensor(1, sequence, half, dtype=torch.float32)
    cache = tensor(batch, 8, 4096, size, dtype=torch.int8 if whole else torch.float16)
    scale = tensor(batch, 8, 4096, dtype=torch.float32) if whole else None
    positions = tensor(batch, sequence, dtype=torch.int64)
    rotary_cache(q, k, k, cos, cos, cache, cache, positions, scale, scale)


ROTARY_CACHE = Kernel(
    "rotary_cache",
    rotary_cache_kernel,
    grid=("batches * (cdiv(sequence * HEADS, ROWS) + cdiv(sequence * KV_HEADS, ROWS))",),
    buckets=ROTATION_BUCKETS,
    cost=_cost,
    examples={
        "1 x 4096, 32 and 8 heads of 128": partial(_example, 1, 4096, 128, 64),
        "16 x 1, heads of 128": partial(_example, 16, 1, 128, 64),
        "16 x 1, heads of 128, int8": partial(_example, 16, 1, 128, 64, whole=True),
        "16 x 1, heads of 64": partial(_example, 16, 1, 64, 32),
        "16 x 1, heads of 32": partial(_example, 16, 1, 32, 16),
        "16 x 1, heads of 256, int8": partial(_example, 16, 1, 256, 128, whole=True),
        "16 x 1, heads of 80, 32 channels of each, int8": partial(
            _example, 16, 1, 80, 16, whole=True
        ),
    },
)


def rotary_cache(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    positions: Tensor,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
) -> Tensor:
    """Rotate q and k, and write k and v to the cache in place.

    Args:
        q: [batch, heads, sequence, size] float16, bfloat16 or float32. The last stride of this and
            of all others is 1, or 0 where a tensor is shared, except where said.
        k: [batch, kv_heads, sequence, size] of the same dtype.
        v: the same.
        cos: [batch or 1, sequence, half] float.
        sin: the same.
        k_cache: [batch, kv_heads, capacity, size], float or int8.
        v_cache: the same.
        positions: [batch, sequence] int64 or int32, with any strides: the rows of the cache that
            are written. A token whose position is not one of the cache's is left out; which of two
            tokens with one position is kept is not defined.
        k_scale: [batch, kv_heads, capacity] float32, with any strides: for a cache in int8 alone.
        v_scale: the same.

    Returns:
        q as rotated, [batch, heads, sequence, size]; computed in float32 and rounded once.

    Raises:
        ValueError: more channels are to be rotated than a head has, or a cache in int8 has no
            scales, or another has some.
    """
    whole = k_cache.dtype == torch.int8
    if (k_scale is not None, v_scale is not None) != (whole, whole):
        raise ValueError("scales go with a cache in int8, and with no other")
    batch, heads, sequence, size = q.shape
    y = buffers.empty(q, (batch, heads, sequence, size))
    cos, sin = (t.expand(batch, sequence, t.shape[-1]) for t in (cos, sin))
    arguments = {
        "q": q, "k": k, "v": v, "cos": cos, "sin": sin, "positions": positions, "y": y,
        "k_cache": k_cache, "v_cache": v_cache, "k_scale": k_scale, "v_scale": v_scale,
        "batches": batch, "sequence": sequence, "capacity": k_cache.shape[2],
        **strides("q", q, "batch head token"), **strides("k", k, "batch head token"),
        **strides("v", v, "batch head token"), **strides("cos", cos, "batch token"),
        **strides("sin", sin, "batch token"), **strides("positions", positions, "batch token"),
        **strides("y", y, "batch head token"),
        **strides("k_cache", k_cache, "batch head token"),
        **strides("v_cache", v_cache, "batch head token"),
        **strides("k_scale", k_scale, "batch head token"),
        **strides("v_scale", v_scale, "batch head token"),
    }  # fmt: skip
    sizes = {"HEADS": int(heads), "KV_HEADS": int(k.shape[1]), **constants(q, cos)}
    launch(ROTARY_CACHE, arguments, sizes)
    return y
