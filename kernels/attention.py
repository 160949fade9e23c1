"""Attention of many queries: softmax(scale * q k^T + mask) v, without the scores in memory.

The forward pass of FlashAttention-2, arXiv:2307.08691: a program keeps a block of queries, goes
over the keys block by block, and rescales its sums when a larger score comes. Key blocks that are
behind all of its queries are not read.
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
from strop.kernels.heads import (
    check_scale,
    check_sizes,
    head_block,
    load_rows,
    store_rows,
    strides,
    vector,
)
from strop.kernels.kernel import Bucket, Configuration, Cost, Kernel
from strop.kernels.launching import launch
from strop.kernels.masks import check_mask, has_own, load_mask, mask_bytes, mask_strides
from strop.kernels.online_softmax import HIDDEN, LOG2E, bound_of, bounded, fold, mean


@triton.jit
def program_place(queries, heads, BLOCK_M: tl.constexpr, CAUSAL: tl.constexpr):
    """Sample, head and block of queries of this program, blocks of a head after each other."""
    blocks = tl.cdiv(queries, BLOCK_M)
    index = tl.program_id(0) // blocks
    block = tl.program_id(0) % blocks
    if CAUSAL:
        # The last queries see the most keys: the programs that take longest start first.
        block = blocks - 1 - block
    return (index // heads).to(tl.int64), (index % heads).to(tl.int64), block


@triton.jit
def key_bounds(
    block, keys, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr
):  # fmt: skip
    """Up to which key whole blocks are seen by all queries of a block, and up to which any are."""
    seen_by_all = keys
    seen = keys
    if CAUSAL:
        seen_by_all = tl.minimum(keys, block * BLOCK_M + 1)
        seen = tl.minimum(keys, (block + 1) * BLOCK_M)
    return seen_by_all // BLOCK_N * BLOCK_N, seen


@triton.jit
def attend(
    sums, top, total, q, k, v, mask, row, rows, keys, first, last,
    k_stride, v_stride, mask_row_stride, scale, bound,
    VECTOR: tl.constexpr, SIZE: tl.constexpr, HEAD: tl.constexpr, PRECISION: tl.constexpr,
    CAUSAL: tl.constexpr, PER_QUERY: tl.constexpr, PER_KEY: tl.constexpr,
    BLOCK_N: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """Take the keys from first to last into the state; EDGE where some of them may be hidden."""
    for start in range(first, last, BLOCK_N):
        key = start + tl.arange(0, BLOCK_N)
        across = tl.trans(load_rows(k, key, keys, k_stride, VECTOR, SIZE, HEAD, EDGE))
        if mask is None:
            scores = tl.dot(q, across, input_precision=PRECISION)
            if bound is not None:
                scores = bounded(scores, bound)
        else:
            added = load_mask(
                mask, row, key, rows, keys, mask_row_stride, scale, PER_QUERY, PER_KEY, EDGE
            )
            if bound is None:
                # As the start of the sum it gets the layout of the result, without a copy of it.
                scores = tl.dot(q, across, added, input_precision=PRECISION)
            else:
                scores = bounded(tl.dot(q, across, input_precision=PRECISION), bound) + added
        if EDGE:
            visible = (key < keys)[None, :]
            if CAUSAL:
                visible = visible & (key[None, :] <= row[:, None])
            scores = tl.where(visible, scores, HIDDEN)
        weights, top, total, shrink = fold(scores, top, total, scale * LOG2E)
        values = load_rows(v, key, keys, v_stride, VECTOR, SIZE, HEAD, EDGE)
        weights = weights.to(values.dtype)
        sums = tl.dot(weights, values, sums * shrink[:, None], input_precision=PRECISION)
    return sums, top, total


@triton.jit
def attention_kernel(
    q, k, v, mask, out,
    batch, heads, group, queries, keys,
    q_batch_stride, q_head_stride, q_stride,
    k_batch_stride, k_head_stride, k_stride,
    v_batch_stride, v_head_stride, v_stride,
    mask_batch_stride, mask_head_stride, mask_row_stride,
    out_batch_stride, out_head_stride, out_stride,
    scale, bound,
    VECTOR: tl.constexpr, SIZE: tl.constexpr, HEAD: tl.constexpr, BYTES: tl.constexpr,
    CAUSAL: tl.constexpr, PER_QUERY: tl.constexpr, PER_KEY: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """A program gives BLOCK_M rows of one head; HEAD is a power of two that is at least SIZE."""
    sample, head, block = program_place(queries, heads, BLOCK_M, CAUSAL)
    whole, last = key_bounds(block, keys, BLOCK_M, BLOCK_N, CAUSAL)
    q += (sample * q_batch_stride + head * q_head_stride) * VECTOR
    k += (sample * k_batch_stride + head // group * k_head_stride) * VECTOR
    v += (sample * v_batch_stride + head // group * v_head_stride) * VECTOR
    if mask is not None:
        mask += sample * mask_batch_stride + head * mask_head_stride
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    block_q = load_rows(q, row, queries, q_stride, VECTOR, SIZE, HEAD, True)
    PRECISION: tl.constexpr = "tf32x3" if BYTES == 4 else "tf32"
    sums = tl.zeros((BLOCK_M, HEAD), tl.float32)
    top = tl.full((BLOCK_M,), HIDDEN, tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    sums, top, total = attend(
        sums, top, total, block_q, k, v, mask, row, queries, keys, 0, whole,
        k_stride, v_stride, mask_row_stride, scale, bound,
        VECTOR, SIZE, HEAD, PRECISION, CAUSAL, PER_QUERY, PER_KEY, BLOCK_N, EDGE=False,
    )  # fmt: skip
    sums, top, total = attend(
        sums, top, total, block_q, k, v, mask, row, queries, keys, whole, last,
        k_stride, v_stride, mask_row_stride, scale, bound,
        VECTOR, SIZE, HEAD, PRECISION, CAUSAL, PER_QUERY, PER_KEY, BLOCK_N, EDGE=True,
    )  # fmt: skip
    out += (sample * out_batch_stride + head * out_head_stride) * VECTOR
    store_rows(out, mean(sums, total), row, queries, out_stride, VECTOR, SIZE, HEAD)


def _cost(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Cost:
    heads, queries, keys = sizes["batch"] * sizes["heads"], sizes["queries"], sizes["keys"]
    pairs = queries * keys
    if sizes["CAUSAL"]:
        square = min(queries, keys)
        pairs = square * (square + 1) // 2 + (queries - square) * keys
    rows = heads * queries * (itemsizes["q"] + itemsizes["out"])
    shared = heads // sizes["group"] * keys * (itemsizes["k"] + itemsizes["v"])
    mask = mask_bytes(sizes, itemsizes) * (queries if sizes["PER_QUERY"] else 1)
    return Cost(4 * heads * pairs * sizes["SIZE"], (rows + shared) * sizes["SIZE"] + mask)


def _tile(queries: int, keys: int, warps: int, stages: int = 2) -> Configuration:
    return Configuration({"BLOCK_M": queries, "BLOCK_N": keys}, warps, stages)


def _example(
    heads: int,
    size: int,
    tokens: int,
    dtype: torch.dtype = torch.float16,
    mask: str = "causal",
    softcap: float = 0.0,
) -> None:
    q = tensor(4, heads, tokens, size, dtype=dtype)
    masks = {
        "padding": tensor(4, 1, 1, tokens, dtype=torch.bool),
        "bias": tensor(1, heads, tokens, tokens, dtype=dtype),
    }
    attention(q, q, q, masks.get(mask), size**-0.5, mask == "causal", True, softcap)


ATTENTION = Kernel(
    "attention",
    attention_kernel,
    grid=("cdiv(queries, BLOCK_M) * batch * heads",),
    # Tiles that fit every architecture: what they take grows with HEAD, BYTES and a mask's block.
    buckets=(
        Bucket("BYTES == 4 and HEAD <= 32", _tile(64, 32, warps=4)),
        Bucket("BYTES == 4 and HEAD <= 64", _tile(32, 32, warps=4)),
        Bucket("BYTES == 4", _tile(16, 32, warps=4)),
        Bucket("queries <= 16 and HEAD <= 128", _tile(16, 64, warps=4)),
        Bucket("queries <= 16", _tile(16, 32, warps=4)),
        Bucket("HEAD > 128", _tile(64, 32, warps=8)),
        Bucket("queries <= 64", _tile(64, 32, warps=4)),
        # Measured on an H200: 0.6 to 0.8 of the time of the tiles below.
        Bucket("HEAD == 128 and SIZE == 128 and PER_QUERY == 0", _tile(128, 128, 8, 3), since=90),
        Bucket("HEAD == 64 and PER_QUERY == 0", _tile(128, 64, 4, 3), since=90),
        Bucket("HEAD > 64 and PER_QUERY == 1", _tile(64, 32, warps=4)),
        Bucket("HEAD > 64 and SIZE < HEAD", _tile(128, 32, warps=8)),
        Bucket("HEAD <= 32", _tile(128, 32, warps=8)),
        Bucket("", _tile(128, 64, warps=8)),
    ),
    candidates=(
        _tile(128, 64, 4, 3), _tile(128, 128, 8, 3), _tile(64, 64, 4, 3),
        # For masks, and rows that begin anywhere, that leave few registers.
        _tile(32, 32, 4), _tile(16, 32, 4),
    ),
    cost=_cost,
    axis="queries",
    examples={
        **{
            f"512 tokens, heads of {n}, causal": partial(_example, 16, n, 512)
            for n in (64, 80, 128, 256)
        },
        **{
            f"512 tokens, heads of {n}, bias": partial(_example, 16, n, 512, mask="bias")
            for n in (64, 128)
        },
        **{
            f"512 tokens, heads of {n}, {mask}, bounded": partial(
                _example, 8, n, 512, mask=mask, softcap=50.0
            )
            for n in (128, 256)
            for mask in ("causal", "bias")
        },
        "128 tokens, heads of 32, padding": partial(_example, 12, 32, 128, mask="padding"),
        **{
            f"512 tokens, heads of {n}, float32": partial(_example, 16, n, 512, torch.float32)
            for n in (32, 64, 128)
        },
        **{f"16 tokens, heads of {n}": partial(_example, 32, n, 16) for n in (128, 256)},
        "4096 tokens, heads of 128": partial(_example, 32, 128, 4096),
    },
)  # fmt: skip


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float,
    causal: bool,
    packed: bool,
    softcap: float = 0.0,
) -> Tensor:
    """Attention of each query to the keys of its sample.

    Args:
        q: [batch, heads, queries, size] float16, bfloat16 or float32; its last stride is 1, as
            those of k and v. The size is at most 256, of float32 128.
        k: [batch, kv_heads, keys, size] in the same dtype; kv_heads divides heads, and a key head
            serves heads / kv_heads query heads that follow each other.
        v: the same shape and dtype as k.
        mask: broadcast to [batch, heads, queries, keys], its last stride 1: bool (True = look at),
            or float, added to the scaled scores; finite numbers below -1e30 count as -1e30.
        scale: what q k^T is multiplied by; above 0.
        causal: a query does not look at keys behind its own place, both counted from the first.
        packed: the layout of the result.
        softcap: scaled scores x become ``softcap * tanh(x / softcap)`` before the mask is added;
            0 leaves them.

    Returns:
        [batch, heads, queries, size], or packed [batch, queries, heads * size]. Queries from which
        every key is hidden, by False or by -inf, give zeros, as all do where there are no keys.

    Raises:
        ValueError: the head size or the scale is out of range, the mask's last stride is not 1, or
            keys and values have heads of another size than queries.
    """
    batch, heads, queries, size = q.shape
    out = buffers.empty(q, (batch, queries, heads, size) if packed else q.shape)
    split = out.transpose(1, 2) if packed else out
    launch_attention(q, k, v, mask, split, scale, causal, softcap)
    return out.flatten(2) if packed else out


def launch_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    out: Tensor,
    scale: float,
    causal: bool,
    softcap: float,
) -> None:
    """Write ``attention`` of these to ``out``, [batch, heads, queries, size] with any strides."""
    check_scale(scale)
    check_mask(mask)
    check_sizes(q, k, v)
    batch, heads, queries, size = q.shape
    unit = vector(q, k, v, out)
    arguments = {
        "q": q, "k": k, "v": v, "mask": mask, "out": out,
        "batch": batch, "heads": heads, "group": heads // k.shape[1],
        "queries": queries, "keys": k.shape[2],
        **strides("q", q, unit), **strides("k", k, unit), **strides("v", v, unit),
        **mask_strides(mask), **strides("out", out, unit),
        "scale": scale, "bound": bound_of(softcap, scale),
    }  # fmt: skip
    constants = {
        "VECTOR": unit, "SIZE": size, "HEAD": head_block(q), "BYTES": q.element_size(),
        "CAUSAL": causal, "PER_QUERY": has_own(mask, 2), "PER_KEY": has_own(mask, 3),
    }  # fmt: skip
    launch(ATTENTION, arguments, constants)
