"""What the kernels with rotary position embeddings share.

A row is one head of one token: HALF channels, HALF more that they are rotated with, and REST that
pass through. BLOCK is a power of two that is at least HALF, REST_BLOCK one that is at least REST.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from strop.kernels.expression import next_power_of_2
from strop.kernels.kernel import Bucket, Configuration, Constant

# Each thread holds 8 numbers of either half, which is one load of 16 bytes in float16, and at most
# 16 of the rest.
ROTATION_BUCKETS = (
    Bucket("max(BLOCK, REST_BLOCK // 2) <= 16", Configuration({"ROWS": 64}, num_warps=4)),
    Bucket("max(BLOCK, REST_BLOCK // 2) <= 32", Configuration({"ROWS": 32}, num_warps=4)),
    Bucket("max(BLOCK, REST_BLOCK // 2) <= 64", Configuration({"ROWS": 16}, num_warps=4)),
    Bucket("", Configuration({"ROWS": 8}, num_warps=4)),
)


def constants(x: Tensor, cos: Tensor) -> dict[str, Constant]:
    """HALF, REST and their blocks for heads [..., size] and cos [..., half].

    Raises:
        ValueError: more channels are to be rotated than a head has, or none.
    """
    half, size = int(cos.shape[-1]), int(x.shape[-1])
    if not 1 <= half <= size // 2:
        raise ValueError(f"{2 * half} channels cannot be rotated in heads of {size}")
    rest = size - 2 * half
    return {
        "HALF": half,
        "BLOCK": next_power_of_2(half),
        "REST": rest,
        "REST_BLOCK": next_power_of_2(rest),
    }


def strides(name: str, x: Tensor | None, axes: str) -> dict[str, int]:
    """The strides of a tensor as arguments of a kernel, by the names of its first axes.

    Those of a tensor that is not there are 0.
    """
    return {
        f"{name}_{axis}": 0 if x is None else x.stride(i) for i, axis in enumerate(axes.split())
    }


@triton.jit
def load_row(start, there, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """The first WIDTH numbers of rows, float32 [ROWS, BLOCK]; ``start`` points to [ROWS, 1]."""
    column = tl.arange(0, BLOCK)[None, :]
    return tl.load(start + column, mask=there & (column < WIDTH), other=0.0).to(tl.float32)


@triton.jit
def store_row(start, values, there, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Write the first WIDTH numbers of rows."""
    column = tl.arange(0, BLOCK)[None, :]
    mask = there & (column < WIDTH)
    tl.store(start + column, values.to(start.dtype.element_ty), mask=mask)


@triton.jit
def load_head(
    start, there,
    HALF: tl.constexpr, BLOCK: tl.constexpr, REST: tl.constexpr, REST_BLOCK: tl.constexpr,
):  # fmt: skip
    """Both halves of rows, and the rest."""
    first = load_row(start, there, HALF, BLOCK)
    second = load_row(start + HALF, there, HALF, BLOCK)
    return first, second, load_row(start + 2 * HALF, there, REST, REST_BLOCK)


@triton.jit
def store_head(
    start, first, second, rest, there,
    HALF: tl.constexpr, BLOCK: tl.constexpr, REST: tl.constexpr, REST_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write both halves of rows, and the rest."""
    store_row(start, first, there, HALF, BLOCK)
    store_row(start + HALF, second, there, HALF, BLOCK)
    store_row(start + 2 * HALF, rest, there, REST, REST_BLOCK)


@triton.jit
def load_rotated(
    start, cos, sin, there,
    HALF: tl.constexpr, BLOCK: tl.constexpr, REST: tl.constexpr, REST_BLOCK: tl.constexpr,
):  # fmt: skip
    """As ``load_head``, with (a cos - b sin, b cos + a sin) for the halves a and b."""
    first, second, rest = load_head(start, there, HALF, BLOCK, REST, REST_BLOCK)
    cosine, sine = load_row(cos, there, HALF, BLOCK), load_row(sin, there, HALF, BLOCK)
    return first * cosine - second * sine, second * cosine + first * sine, rest
