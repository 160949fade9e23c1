"""Attention of one query a sample to a cache of keys: softmax(scale * q k^T + mask) v.

Flash-decoding (https://crfm.stanford.edu/2023/10/12/flashdecoding.html): a single query gives too
few programs, so the keys of a head are split among several. Each leaves the largest score, the sum
of its weights and its weighted sum of values, all in float32; a second kernel merges them in the
order of the splits. The query heads that share a key head are the rows of one product, so the cache
is read once, past the registers.
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
from strop.kernels.expression import cdiv, next_power_of_2
from strop.kernels.heads import (
    LEAST,
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
from strop.kernels.online_softmax import HIDDEN, LOG2E, bound_of, bounded, fold


@triton.jit
def sample_length(lengths, sample, keys):
    """How many keys a sample looks at: all where no lengths are given."""
    length = keys
    if lengths is not None:
        length = tl.minimum(tl.load(lengths + sample), keys)
    return length


@triton.jit
def decode_attention_kernel(
    q, k_cache, v_cache, k_scale, v_scale, mask, lengths, sums, tops, totals,
    batch, heads, group, keys, splits, split_keys,
    q_batch_stride, q_stride,
    k_batch_stride, k_head_stride, k_stride,
    v_batch_stride, v_head_stride, v_stride,
    mask_batch_stride, mask_head_stride,
    scale, bound,
    VECTOR: tl.constexpr, SIZE: tl.constexpr, HEAD: tl.constexpr, ROWS: tl.constexpr,
    BYTES: tl.constexpr, PER_HEAD: tl.constexpr, PER_KEY: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """A program takes ``split_keys`` keys for the ``group`` query heads of a key head."""
    split = tl.program_id(0) % splits
    index = (tl.program_id(0) // splits).to(tl.int64)
    shared_heads = heads // group
    sample = index // shared_heads
    shared_head = index % shared_heads
    first = split * split_keys
    last = tl.minimum(sample_length(lengths, sample, keys), first + split_keys)
    k_cache += (sample * k_batch_stride + shared_head * k_head_stride) * VECTOR
    v_cache += (sample * v_batch_stride + shared_head * v_head_stride) * VECTOR
    if k_scale is not None:
        k_scale += index * keys
        v_scale += index * keys
    if mask is not None:
        mask += sample * mask_batch_stride + shared_head * group * mask_head_stride
    row = tl.arange(0, ROWS)
    q += (sample * q_batch_stride + shared_head * group * q_stride) * VECTOR
    rows = load_rows(q, row, group, q_stride, VECTOR, SIZE, HEAD, True)
    PRECISION: tl.constexpr = "tf32x3" if BYTES == 4 else "tf32"
    gathered = tl.zeros((ROWS, HEAD), tl.float32)
    top = tl.full((ROWS,), HIDDEN, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    for start in range(first, last, BLOCK_N):
        key = start + tl.arange(0, BLOCK_N)
        block = load_rows(k_cache, key, last, k_stride, VECTOR, SIZE, HEAD, True).to(rows.dtype)
        scores = tl.dot(rows, tl.trans(block), input_precision=PRECISION)
        if k_scale is not None:
            scores *= tl.load(k_scale + key, mask=key < last, other=0.0)[None, :]
        if bound is not None:
            scores = bounded(scores, bound)
        if mask is not None:
            scores += load_mask(
                mask, row, key, group, keys, mask_head_stride, scale, PER_HEAD, PER_KEY, EDGE=True
            )
        scores = tl.where((key < last)[None, :], scores, HIDDEN)
        weights, top, total, shrink = fold(scores, top, total, scale * LOG2E)
        values = load_rows(v_cache, key, last, v_stride, VECTOR, SIZE, HEAD, True)
        if v_scale is not None:
            values *= tl.load(v_scale + key, mask=key < last, other=0.0)[:, None]
        values = values.to(rows.dtype)
        weights = weights.to(rows.dtype)
        gathered = tl.dot(weights, values, gathered * shrink[:, None], input_precision=PRECISION)
    # Splits behind the sample's length leave nothing: they are not merged.
    there = tl.where(first < last, group, 0)
    at = (index * group + row) * splits + split
    tl.store(tops + at, top, mask=row < there)
    tl.store(totals + at, total, mask=row < there)
    sums += (index * group * splits + split) * SIZE
    store_rows(sums, gathered, row, there, splits * SIZE, 1, SIZE, HEAD)


@triton.jit
def merge_splits_kernel(
    sums, tops, totals, lengths, out,
    batch, heads, group, keys, splits, split_keys,
    SIZE: tl.constexpr, HEAD: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """A program merges the splits of a head, SPLITS at a time."""
    index = tl.program_id(0).to(tl.int64)
    length = sample_length(lengths, index // heads, keys)
    used = tl.cdiv(tl.maximum(length, 0), split_keys)
    sums += index * splits * SIZE
    gathered = tl.zeros((HEAD,), tl.float32)
    top = tl.full((), HIDDEN, tl.float32)
    total = tl.full((), 0.0, tl.float32)
    for start in range(0, used, SPLITS):
        split = start + tl.arange(0, SPLITS)
        at = index * splits + split
        tops_here = tl.load(tops + at, mask=split < used, other=HIDDEN)
        totals_here = tl.load(totals + at, mask=split < used, other=0.0)
        new = tl.maximum(top, tl.max(tops_here, 0))
        # Where a mask hides every key so far, both are -inf.
        base = tl.where(new == HIDDEN, 0.0, new)
        shrink = tl.exp2(top - base)
        weights = tl.exp2(tops_here - base)
        total = total * shrink + tl.sum(weights * totals_here, 0)
        block = load_rows(sums, split, used, SIZE, 1, SIZE, HEAD, True)
        gathered = gathered * shrink + tl.sum(weights[:, None] * block, 0)
        top = new
    column = tl.arange(0, HEAD)
    result = gathered / tl.where(total == 0, 1.0, total)
    tl.store(out + index * SIZE + column, result.to(out.dtype.element_ty), mask=column < SIZE)


def _decode_cost(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Cost:
    """Of caches that are full: the lengths are not known before the launch."""
    heads, size = sizes["batch"] * sizes["heads"], sizes["SIZE"]
    cached = heads // sizes["group"] * sizes["keys"]
    moved = cached * size * (itemsizes["k_cache"] + itemsizes["v_cache"])
    moved += cached * (itemsizes.get("k_scale", 0) + itemsizes.get("v_scale", 0))
    moved += heads * size * itemsizes["q"] + sizes["batch"] * itemsizes.get("lengths", 0)
    moved += mask_bytes(sizes, itemsizes)
    return Cost(4 * heads * sizes["keys"] * size, moved + 4 * heads * sizes["splits"] * (size + 2))


def _merge_cost(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Cost:
    heads, size = sizes["batch"] * sizes["heads"], sizes["SIZE"]
    parts = heads * sizes["splits"] * (size + 2)
    lengths = sizes["batch"] * itemsizes.get("lengths", 0)
    return Cost(2 * parts, 4 * parts + heads * size * itemsizes["out"] + lengths)


def _example(
    heads: int,
    shared: int,
    size: int,
    keys: int = 4096,
    cache: torch.dtype = torch.float16,
    mask: torch.dtype | None = None,
    softcap: float = 0.0,
) -> None:
    q = tensor(8, heads, size)
    k = tensor(8, shared, keys, size, dtype=cache)
    scale = tensor(8, shared, keys, dtype=torch.float32) if cache == torch.int8 else None
    if mask is None:
        lengths = tensor(8, dtype=torch.int32)
        decode_attention(q, k, k, lengths, size**-0.5, k_scale=scale, v_scale=scale)
    else:
        hidden = tensor(8, 1, 1, keys, dtype=mask)
        decode_attention(q, k, k, None, size**-0.5, mask=hidden, softcap=softcap)


_EXAMPLES = {
    **{f"8 x 4096 keys, 32 heads of {n}": partial(_example, 32, 32, n) for n in (32, 64, 128)},
    **{f"8 x 4096 keys, 8 for 32 heads of {n}": partial(_example, 32, 8, n) for n in (80, 128)},
    "8 x 4096 keys, 1 for 8 heads of 256": partial(_example, 8, 1, 256),
    "8 x 4096 keys, 1 for 64 heads of 128": partial(_example, 64, 1, 128),
    "8 x 4096 keys in int8, 8 for 32 heads of 128": partial(_example, 32, 8, 128, cache=torch.int8),
    **{
        f"8 x 4096 keys, 8 for 32 heads of {n}, mask": partial(_example, 32, 8, n, mask=torch.bool)
        for n in (64, 128)
    },
    **{
        f"8 x 4096 keys, 4 for 8 heads of {n}, mask, bounded": partial(
            _example, 8, 4, n, mask=torch.bool, softcap=50.0
        )
        for n in (128, 256)
    },
    "8 x 4096 keys, 8 for 32 heads of 128, float mask": partial(
        _example, 32, 8, 128, mask=torch.float16
    ),
}


def _tile(keys: int) -> Configuration:
    return Configuration({"BLOCK_N": keys}, num_warps=4, num_stages=2)


DECODE_ATTENTION = Kernel(
    "decode_attention",
    decode_attention_kernel,
    grid=("splits * batch * (heads // group)",),
    buckets=(
        Bucket("HEAD * BYTES <= 128", _tile(128)),
        Bucket("HEAD * BYTES <= 256", _tile(64)),
        Bucket("", _tile(32)),
    ),
    cost=_decode_cost,
    examples=_EXAMPLES,
)
MERGE_SPLITS = Kernel(
    "merge_splits",
    merge_splits_kernel,
    grid=("batch * heads",),
    buckets=(Bucket("", Configuration({"SPLITS": 16}, num_warps=4)),),
    cost=_merge_cost,
    examples=_EXAMPLES,
)


def decode_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor | None,
    scale: float,
    *,
    mask: Tensor | None = None,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    softcap: float = 0.0,
) -> Tensor:
    """Attention of one query for each sample to the keys of its cache.

    Args:
        q: [batch, heads, size] float16, bfloat16 or float32; its last stride is 1, as those of the
            caches. The size is at most 256, of float32 128.
        k_cache: [batch, kv_heads, keys, size] in q's dtype, or int8 with ``k_scale``; kv_heads
            divides heads, and a key head serves heads / kv_heads query heads that follow each
            other.
        v_cache: the same shape and dtype, its scales are ``v_scale``.
        lengths: [batch] int32, how many keys each sample has, the first ones; at most ``keys`` are
            looked at. None for all of them.
        scale: what q k^T is multiplied by; above 0.
        mask: broadcast to [batch, heads, 1, keys], its last stride 1: bool (True = look at), or
            float, added to the scaled scores; finite numbers below -1e30 count as -1e30.
        k_scale: [batch, kv_heads, keys] float32, contiguous: a key is its int8 numbers times this.
        v_scale: the same for values.
        softcap: scaled scores x become ``softcap * tanh(x / softcap)`` before the mask is added;
            0 leaves them.

    Returns:
        [batch, heads, size], the same bits each time. Queries from which every key is hidden, by
        a length of 0, by False or by -inf, give zeros.

    Raises:
        ValueError: the head size or the scale is out of range, or the mask's last stride is not 1.
    """
    out = buffers.empty(q, q.shape)
    scales = k_scale, v_scale
    launch_decode(q[:, :, None], k_cache, v_cache, lengths, mask, out, scale, softcap, *scales)
    return out


def launch_decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor | None,
    mask: Tensor | None,
    out: Tensor,
    scale: float,
    softcap: float,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
) -> None:
    """Write ``decode_attention`` to ``out``; q is [batch, heads, 1, size], and ``out`` contiguous.

    Of the third axis of q and of a mask only the first is read, also where its size is not known.
    """
    check_scale(scale)
    check_mask(mask)
    check_sizes(q, k_cache, v_cache)
    batch, heads, _, size = q.shape
    shared, keys = k_cache.shape[1:3]
    group = heads // shared
    # Long enough that the splits' sums are a few hundredths of the bytes of the keys and values.
    split_keys = 256 if group <= 4 else 512
    splits = cdiv(keys, split_keys)
    sums = buffers.empty(q, (batch, heads, splits, size), torch.float32)
    tops = buffers.empty(q, (batch, heads, splits), torch.float32)
    totals = buffers.empty(q, (batch, heads, splits), torch.float32)
    unit = vector(q, k_cache, v_cache)
    masked = mask_strides(mask)
    common = {
        "batch": batch, "heads": heads, "group": group,
        "keys": keys, "splits": splits, "split_keys": split_keys,
    }  # fmt: skip
    arguments = {
        "q": q, "k_cache": k_cache, "v_cache": v_cache, "k_scale": k_scale, "v_scale": v_scale,
        "mask": mask, "lengths": lengths, "sums": sums, "tops": tops, "totals": totals,
        **common,
        "q_batch_stride": q.stride(0) // unit, "q_stride": q.stride(1) // unit,
        **strides("k", k_cache, unit), **strides("v", v_cache, unit),
        "mask_batch_stride": masked["mask_batch_stride"],
        "mask_head_stride": masked["mask_head_stride"],
        "scale": scale, "bound": bound_of(softcap, scale),
    }  # fmt: skip
    sizes = {"SIZE": int(size), "HEAD": head_block(q)}
    rows = max(LEAST, next_power_of_2(int(group)))
    constants = {
        **sizes, "VECTOR": unit, "ROWS": rows, "BYTES": q.element_size(),
        "PER_HEAD": has_own(mask, 1), "PER_KEY": has_own(mask, 3),
    }  # fmt: skip
    launch(DECODE_ATTENTION, arguments, constants)
    parts = {"sums": sums, "tops": tops, "totals": totals, "lengths": lengths, "out": out}
    launch(MERGE_SPLITS, parts | common, sizes)
