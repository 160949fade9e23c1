"""Rotary position embedding, half-rotated form (arXiv:2104.09864).

    y = (a cos - b sin, b cos + a sin, rest)

a and b are the halves of the first 2 * half channels of a head.
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
    load_rotated,
    store_head,
    strides,
)


@triton.jit
def rotary_kernel(
    x, cos, sin, y, batches, sequence,
    x_batch, x_head, x_token, y_batch, y_head, y_token,
    cos_batch, cos_token, sin_batch, sin_token,
    HEADS: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
    REST: tl.constexpr, REST_BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program rotates ROWS heads of one sequence, all heads of a token before the next token.

    ``batches`` is for the grid alone.
    """
    tiles = tl.cdiv(sequence * HEADS, ROWS)
    batch = (tl.program_id(0) // tiles).to(tl.int64)
    row = (tl.program_id(0) % tiles) * ROWS + tl.arange(0, ROWS)[:, None]
    token, head = (row // HEADS).to(tl.int64), (row % HEADS).to(tl.int64)
    there = token < sequence
    read = x + batch * x_batch + head * x_head + token * x_token
    written = y + batch * y_batch + head * y_head + token * y_token
    cos += batch * cos_batch + token * cos_token
    sin += batch * sin_batch + token * sin_token
    first, second, rest = load_rotated(read, cos, sin, there, HALF, BLOCK, REST, REST_BLOCK)
    store_head(written, first, second, rest, there, HALF, BLOCK, REST, REST_BLOCK)


def _cost(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Cost:
    tokens = sizes["batches"] * sizes["sequence"]
    channels = 2 * sizes["HALF"] + sizes["REST"]
    moved = (itemsizes["x"] + itemsizes["y"]) * tokens * sizes["HEADS"] * channels
    angles = sum(
        itemsizes[name] * (tokens if sizes[f"{name}_batch"] else sizes["sequence"])
        for name in ("cos", "sin")
    )
    return Cost(6 * tokens * sizes["HEADS"] * sizes["HALF"], moved + angles * sizes["HALF"])


def _example(batch: int, sequence: int, size: int, half: int) -> None:
    x = tensor(batch, sequence, 32, size).transpose(1, 2)
    cos = tensor(1, sequence, half, dtype=torch.float32)
    rotary(x, cos, cos, packed=True)


ROTARY = Kernel(
    "rotary",
    rotary_kernel,
    grid=("batches * cdiv(sequence * HEADS, ROWS)",),
    buckets=ROTATION_BUCKETS,
    cost=_cost,
    examples={
        "1 x 4096, 32 heads of 128": partial(_example, 1, 4096, 128, 64),
        "8 x 512, 32 heads of 64": partial(_example, 8, 512, 64, 32),
        "8 x 512, 32 of 32": partial(_example, 8, 512, 32, 16),
        "8 x 512, 32 of 256": partial(_example, 8, 512, 256, 128),
        "8 x 512, 32 of 80, 32 channels of each": partial(_example, 8, 512, 80, 16),
    },
)


def rotary(x: Tensor, cos: Tensor, sin: Tensor, packed: bool) -> Tensor:
    """Rotate the first 2 * half channels of every head; the others pass through.

    Args:
        x: [batch, heads, sequence, size] float16, bfloat16 or float32, its last stride 1 and the
            others any, such as a view of [batch, sequence, heads * size].
        cos: [batch or 1, sequence, half] float, its last stride 1.
        sin: the same.
        packed: whether the result is laid out by tokens.

    Returns:
        [batch, heads, sequence, size], or [batch, sequence, heads * size] if packed, of x's dtype;
        computed in float32 and rounded once. No tokens give no tokens.

    Raises:
        ValueError: more channels are to be rotated than a head has.
    """
    batch, heads, sequence, size = x.shape
    shape = (batch, sequence, heads, size) if packed else (batch, heads, sequence, size)
    made = buffers.empty(x, shape)
    y = made.transpose(1, 2) if packed else made
    cos, sin = (t.expand(batch, sequence, t.shape[-1]) for t in (cos, sin))
    arguments = {
        "x": x, "cos": cos, "sin": sin, "y": y, "batches": batch, "sequence": sequence,
        **strides("x", x, "batch head token"), **strides("y", y, "batch head token"),
        **strides("cos", cos, "batch token"), **strides("sin", sin, "batch token"),
    }  # fmt: skip
    launch(ROTARY, arguments, {"HEADS": int(heads), **constants(x, cos)})
    return made.flatten(2) if packed else made
