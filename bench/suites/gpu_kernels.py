"""Launches of strop's kernels at sizes of a 7B decoder, each beside what torch does for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from strop.kernels.attention import attention
from strop.kernels.decode_attention import decode_attention
from strop.kernels.examples import taken_launches
from strop.kernels.gemm import gated_gemm, gemm
from strop.kernels.gemm_fp8 import gemm_fp8, quantize_rows_fp8
from strop.kernels.gemm_int8 import gemm_int8
from strop.kernels.gemm_packed import gemm_packed
from strop.kernels.kernel import Cost, Launch
from strop.kernels.launching import recording
from strop.kernels.norm import norm
from strop.kernels.quantize_rows import quantize_rows
from strop.kernels.softmax import softmax

Run = Callable[[], object]
WIDTH, FFN, HEADS, KV_HEADS, HEAD = 4096, 11008, 32, 8, 128


@dataclass(frozen=True)
class Case:
    """One launch to time.

    Attributes:
        name: the kernel and the sizes.
        run: the kernel.
        torch: the same by torch, in float16.
        rate: which tensor-core rate bounds the operations: "float16", "int8" or "fp8".
    """

    name: str
    run: Run
    torch: Run
    rate: str = "float16"

    def cost(self) -> Cost:
        """What its launches have to do, as their kernels say; nothing is launched."""
        with recording() as recorded:
            self.run()
        costs = [_cost(one) for one in taken_launches(recorded)]
        return Cost(sum(one.operations for one in costs), sum(one.bytes for one in costs))


def _cost(launch: Launch) -> Cost:
    sizes = launch.sizes()
    chosen = launch.kernel.configuration(sizes)
    return launch.kernel.cost({**sizes, **chosen.constants}, launch.itemsizes())


def cases() -> Iterator[Case]:
    """All cases; their tensors live as long as the case."""
    yield from _rows(8192)
    for rows in (1, 16, 4096):
        yield from _products(rows)
    yield from _packed()
    yield from _attention()


def _half(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.float16)


def _int8(*shape: int) -> Tensor:
    return torch.randint(-127, 128, shape, device="cuda", dtype=torch.int8)


def _rows(rows: int) -> Iterator[Case]:
    x, more, weight = _half(rows, WIDTH), _half(rows, WIDTH), _half(WIDTH)
    size = f"{rows}×{WIDTH}"

    def skip_norm() -> tuple[Tensor, Tensor]:
        total = x + more
        return F.rms_norm(total, (WIDTH,), weight, 1e-5), total

    def quantized() -> tuple[Tensor, Tensor]:
        scale = x.abs().amax(-1, keepdim=True).float() / 127
        return (x / scale).round().to(torch.int8), scale

    yield Case(
        f"sum and RMSNorm {size}",
        lambda: norm(x, more, weight, None, 1e-5, rms=True, total=True),
        skip_norm,
    )
    yield Case(
        f"LayerNorm {size}",
        lambda: norm(x, None, weight, weight, 1e-5, rms=False),
        lambda: F.layer_norm(x, (WIDTH,), weight, weight),
    )
    yield Case(f"int8 rows {size}", lambda: quantize_rows(x), quantized)
    yield Case(f"softmax {size}", lambda: softmax(x), lambda: torch.softmax(x, -1))


def _products(rows: int) -> Iterator[Case]:
    x, weight, bias = _half(rows, WIDTH), _half(FFN, WIDTH) / 64, _half(FFN)
    up = _half(FFN, WIDTH) / 64
    q, numbers = _int8(rows, WIDTH), _int8(FFN, WIDTH)
    row_scale = torch.rand(rows, device="cuda") / 127
    scale = torch.rand(FFN, device="cuda") / 127
    size = f"{rows}×{WIDTH}×{FFN}"

    def gelu() -> Tensor:
        return F.gelu(F.linear(x, weight, bias))

    yield Case(
        f"float16 linear and GELU {size}",
        lambda: gemm(x, weight, bias, None, "gelu"),
        gelu,
    )
    yield Case(
        f"float16 gated linear {size}",
        lambda: gated_gemm(x, weight, up, None, None, "silu"),
        lambda: F.silu(F.linear(x, weight)) * F.linear(x, up),
    )
    yield Case(
        f"int8 linear and GELU {size}",
        lambda: gemm_int8(q, row_scale, numbers, scale, bias, None, "gelu", torch.float16),
        gelu,
        "int8",
    )
    if torch.cuda.get_device_capability() >= (8, 9):
        q8, s8 = quantize_rows_fp8(x)
        w8, ws8 = quantize_rows_fp8(weight)
        yield Case(
            f"fp8 linear and GELU {size}",
            lambda: gemm_fp8(q8, s8, w8, ws8, bias, None, "gelu", torch.float16),
            gelu,
            "fp8",
        )


def _packed() -> Iterator[Case]:
    for bits in (4, 8):
        weight = torch.randint(0, 256, (FFN, WIDTH * bits // 8), device="cuda", dtype=torch.uint8)
        scale = _half(FFN, WIDTH // 128).abs() / 64
        dense = _half(FFN, WIDTH) / 64
        for rows in (1, 16, 4096):
            x = _half(rows, WIDTH)
            yield Case(
                f"int{bits} g128 weights {rows}×{WIDTH}×{FFN}",
                lambda x=x, w=weight, s=scale, b=bits: gemm_packed(  # type: ignore[misc]
                    x, w, s, None, None, None, b, "none"
                ),
                lambda x=x, d=dense: F.linear(x, d),  # type: ignore[misc]
            )


def _attention() -> Iterator[Case]:
    batch, seq, cached = 4, 2048, 8192
    q, k, v = (_half(batch, HEADS, seq, HEAD) for _ in range(3))
    yield Case(
        f"causal attention {batch}×{HEADS}×{seq}×{HEAD}",
        lambda: attention(q, k, v, None, HEAD**-0.5, True, False),
        lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    )
    for rows in (1, 16):
        one = _half(rows, HEADS, HEAD)
        keys, values = (_half(rows, KV_HEADS, cached, HEAD) for _ in range(2))
        lengths = torch.full((rows,), cached, device="cuda", dtype=torch.int32)
        yield Case(
            f"decode attention {rows}×{HEADS}/{KV_HEADS}×{cached}×{HEAD}",
            lambda q=one, k=keys, v=values, n=lengths: decode_attention(  # type: ignore[misc]
                q, k, v, n, HEAD**-0.5
            ),
            lambda q=one, k=keys, v=values: F.scaled_dot_product_attention(  # type: ignore[misc]
                q[:, :, None], k, v, enable_gqa=True
            ),
        )
