"""The same work done by our launchers and by those of other packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

HEADS = 16


@dataclass(frozen=True)
class Work:
    """What is computed.

    Attributes:
        ours: the call of our launcher, by the size in the name.
        peer: the call of the peer's launcher.
        module: where the peer's kernel is.
        kernel: what it is called there.
        package: what has to be installed.
        sizes: of the calls that are compiled.
        counted: of those whose bytes are counted, by the interpreter; smaller.
        elements: of the result, for given sizes.
        formula: bytes that the peer asks for, by its configuration and the sizes, where the
            interpreter does not run it.
    """

    name: str
    ours: Callable[..., Any]
    peer: Callable[..., Any]
    module: str
    kernel: str
    package: str
    sizes: tuple[int, ...]
    counted: tuple[int, ...]
    elements: Callable[..., int]
    formula: Callable[..., int] | None = None


def half(*shape: int) -> Tensor:
    """Zeros in float16."""
    return torch.zeros(shape, dtype=torch.float16)


def our_norm(rows: int, columns: int) -> None:
    """RMSNorm with a weight."""
    from strop.kernels.norm import norm

    norm(half(rows, columns), None, half(columns), None, 1e-6, rms=True)


def liger_norm(rows: int, columns: int) -> None:
    """The same by Liger, as it computes it for Llama."""
    from liger_kernel.ops.rms_norm import rms_norm_forward

    rms_norm_forward(half(rows, columns), half(columns), 1e-6, 0.0, "llama", True)


def our_attention(tokens: int, size: int, heads: int) -> None:
    """Causal attention, heads side by side in memory."""
    from strop.kernels.attention import attention

    q = half(1, heads, tokens, size)
    attention(q, q.clone(), q.clone(), None, size**-0.5, True, False)


def flag_gems_attention(tokens: int, size: int, heads: int) -> None:
    """The same by FlagGems."""
    from flag_gems.ops.attention import scaled_dot_product_attention_forward

    q = half(1, heads, tokens, size)
    scaled_dot_product_attention_forward(q, q.clone(), q.clone(), is_causal=True)


def flag_gems_bytes(configuration: Mapping[str, Any], tokens: int, size: int, heads: int) -> int:
    """A program reads its queries, all keys and values up to its last one, and writes its rows."""
    block = int(configuration["BLOCK_M"])
    programs = -(-tokens // block)
    keys = sum(min((number + 1) * block, tokens) for number in range(programs))
    rows = 2 * tokens * size * 2
    return heads * (rows + keys * size * 2 * 2 + tokens * 4)


def our_packed(rows: int, columns: int, depth: int) -> None:
    """A product with a weight of 4 bits, in groups of 128 with zero points."""
    from strop.kernels.gemm_packed import gemm_packed

    groups = depth // 128
    weight = torch.zeros(columns, depth // 2, dtype=torch.uint8)
    zeros = torch.zeros(columns, groups, dtype=torch.uint8)
    scale = half(columns, groups)
    gemm_packed(half(rows, depth), weight, scale, zeros, None, None, 4, "none")


def _gemlite(forward: Callable[..., Any], rows: int, columns: int, depth: int) -> None:
    from gemlite.dtypes import DType

    groups = depth // 128
    fp16, fp32 = DType.FP16.value, DType.FP32.value
    forward(
        half(rows, depth),
        torch.zeros(depth // 8, columns, dtype=torch.int32),
        half(groups, columns),
        half(groups, columns),
        None,
        4, 128, 15, 8,
        fp16, fp16, fp32, fp16,
        # Groups with zero points, the data contiguous along the columns; by the last number
        # gemlite finds the configuration that its authors measured on the GPU.
        0, 3, True, 100 * fp16 + 4,
    )  # fmt: skip


def gemlite_gemm_bytes(
    configuration: Mapping[str, Any], rows: int, columns: int, depth: int
) -> int:
    """A program reads rows, columns of 4 bits, their scales and zeros at each step; writes once."""
    block, width = int(configuration["BLOCK_SIZE_M"]), int(configuration["BLOCK_SIZE_N"])
    steps = depth // int(configuration["BLOCK_SIZE_K"])
    packed = depth * width // 2 + steps * width * 2 * 2
    read = min(block, rows) * depth * 2 + packed
    return -(-rows // block) * -(-columns // width) * read + rows * columns * 2


def gemlite_gemm(rows: int, columns: int, depth: int) -> None:
    """The same by gemlite, for many rows."""
    from gemlite.triton_kernels.gemm_kernels import gemm_forward

    _gemlite(gemm_forward, rows, columns, depth)


def gemlite_gemv(rows: int, columns: int, depth: int) -> None:
    """The same by gemlite, for one row."""
    from gemlite.triton_kernels.gemv_revsplitK_kernels import gemv_revsplitK_forward

    _gemlite(gemv_revsplitK_forward, rows, columns, depth)


def _norm(columns: int) -> Work:
    return Work(
        f"RMSNorm of rows of {columns}", our_norm, liger_norm,
        "liger_kernel.ops.rms_norm", "_rms_norm_forward_kernel", "liger-kernel",
        (4096, columns), (4, columns), lambda rows, columns: rows * columns,
    )  # fmt: skip


def _attention(size: int) -> Work:
    return Work(
        f"causal attention, 512 tokens, heads of {size}", our_attention, flag_gems_attention,
        "flag_gems.ops.attention", "_attn_fwd", "flag-gems",
        (512, size, HEADS), (512, size, 1), lambda tokens, size, heads: tokens * size * heads,
        flag_gems_bytes,
    )  # fmt: skip


WORKS = (
    _norm(4096),
    _norm(2048),
    _attention(64),
    _attention(128),
    Work(
        "4-bit weights, 4096 rows", our_packed, gemlite_gemm,
        "gemlite.triton_kernels.gemm_kernels", "gemm_INT_kernel", "gemlite",
        (4096, 4096, 4096), (256, 256, 512), lambda rows, columns, depth: rows * columns,
        gemlite_gemm_bytes,
    ),
    Work(
        "4-bit weights, 1 row", our_packed, gemlite_gemv,
        "gemlite.triton_kernels.gemv_revsplitK_kernels", "gemv_INT_revsplitK_kernel", "gemlite",
        (1, 4096, 4096), (1, 256, 4096), lambda rows, columns, depth: rows * columns,
    ),
)  # fmt: skip
