"""Launchers of kernels on fake tensors whose numbers of rows and tokens are not known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
)

from strop.kernels.attention import attention
from strop.kernels.decode_attention import decode_attention
from strop.kernels.embedding_norm import embedding_norm
from strop.kernels.gemm import gated_gemm, gemm
from strop.kernels.gemm_fp8 import gemm_fp8, quantize_rows_fp8
from strop.kernels.gemm_int8 import gated_gemm_int8, gemm_int8
from strop.kernels.kernel import Launch
from strop.kernels.launching import recording
from strop.kernels.norm import norm
from strop.kernels.quantize_rows import quantize_rows
from strop.kernels.rotary import rotary
from strop.kernels.rotary_cache import rotary_cache
from strop.kernels.softmax import softmax

Fake = Callable[..., Tensor]
INT8, E4M3, FLOAT = torch.int8, torch.float8_e4m3fn, torch.float32


def _norm(fake: Fake) -> Tensor:
    y, _, _, _ = norm(
        fake(-3, 64), fake(-3, 64), fake(64), None, 1e-5, rms=True, total=True, quantize=True
    )
    assert y is not None
    return y


def _rotary(fake: Fake) -> Tensor:
    x = fake(-2, -5, 4, 16).transpose(1, 2)
    return rotary(x, fake(1, -5, 8), fake(1, -5, 8), packed=True)


def _rotary_cache(fake: Fake) -> Tensor:
    cache, positions = fake(-2, 2, -9, 16), fake(-2, -5, dtype=torch.int64)
    q, k = fake(-2, -5, 4, 16).transpose(1, 2), fake(-2, -5, 2, 16).transpose(1, 2)
    cos = fake(-2, -5, 8)
    return rotary_cache(q, k, k, cos, cos, cache, cache, positions)


def _embedding_norm(fake: Fake) -> Tensor:
    index = fake(-3, dtype=torch.int64)
    return embedding_norm([index] * 2, [fake(9, 64)] * 2, fake(64), None, 1e-5, rms=True)


def _gemm(fake: Fake) -> Tensor:
    return gemm(fake(-3, 64), fake(48, 64), fake(48), fake(-3, 48), "gelu")


def _gated_gemm(fake: Fake) -> Tensor:
    return gated_gemm(fake(-3, 64), fake(48, 64), fake(48, 64), None, None, "silu")


def _scaled(fake: Fake, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows and a weight of 8 bits, each with its scales."""
    scales = fake(-3, dtype=FLOAT), fake(48, dtype=FLOAT)
    return fake(-3, 64, dtype=dtype), scales[0], fake(48, 64, dtype=dtype), scales[1]


def _gemm_int8(fake: Fake) -> Tensor:
    return gemm_int8(*_scaled(fake, INT8), None, None, "none", torch.float16)


def _gated_gemm_int8(fake: Fake) -> Tensor:
    q, scale, weight, by = _scaled(fake, INT8)
    return gated_gemm_int8(q, scale, weight, by, weight, by, None, None, "silu", torch.float16)


def _gemm_fp8(fake: Fake) -> Tensor:
    return gemm_fp8(*_scaled(fake, E4M3), None, None, "none", torch.float16)


def _attention(fake: Fake) -> Tensor:
    q, k = fake(-2, -5, 4, 16).transpose(1, 2), fake(-2, 2, -9, 16)
    padding = fake(-2, 1, 1, -9, dtype=torch.bool)
    return attention(q, k, k, padding, 0.2, causal=False, packed=True)


def _decode_attention(fake: Fake) -> Tensor:
    cache = fake(-2, 2, -9, 16)
    return decode_attention(fake(-2, 4, 16), cache, cache, fake(-2, dtype=torch.int32), 0.2)


CALLS: dict[str, tuple[Callable[[Fake], Tensor], str, tuple[object, ...]]] = {
    "norm": (_norm, "rows", (-3, 64)),
    "quantize_rows": (lambda fake: quantize_rows(fake(-3, 64))[0], "rows", (-3, 64)),
    "softmax": (lambda fake: softmax(fake(-3, 64)), "rows", (-3, 64)),
    "embedding_norm": (_embedding_norm, "rows", (-3, 64)),
    "gemm": (_gemm, "rows", (-3, 48)),
    "gated_gemm": (_gated_gemm, "rows", (-3, 48)),
    "gemm_int8": (_gemm_int8, "rows", (-3, 48)),
    "gated_gemm_int8": (_gated_gemm_int8, "rows", (-3, 48)),
    "gemm_fp8": (_gemm_fp8, "rows", (-3, 48)),
    "quantize_rows_fp8": (lambda fake: quantize_rows_fp8(fake(-3, 64))[0], "rows", (-3, 64)),
    "attention": (_attention, "queries", (-2, -5, 64)),
    "decode_attention": (_decode_attention, "splits", (-2, 4, 16)),
    "rotary": (_rotary, "batches", (-2, -5, 64)),
    "rotary_cache": (_rotary_cache, "batches", (-2, 4, -5, 16)),
}


@pytest.mark.parametrize("name", CALLS)
def test_sizes_that_are_not_known_stay_so(name: str) -> None:
    """A size is negative where it is not known; equal ones are the same number."""
    env = ShapeEnv()
    mode = FakeTensorMode(shape_env=env)
    call, size, shape = CALLS[name]
    symbols: dict[int, torch.SymInt] = {}

    def fake(*sizes: int, dtype: torch.dtype = torch.float16) -> Tensor:
        with mode:
            return torch.empty([symbols[n] if n < 0 else n for n in sizes], dtype=dtype)

    for n in (-2, -3, -5, -9):
        context = StatelessSymbolicContext([DimDynamic.DYNAMIC])
        symbols[n] = mode.from_tensor(torch.empty(-n), symbolic_context=context).shape[0]
    with recording() as kept, mode:
        result = call(fake)
    assert [str(s) for s in result.shape] == [str(symbols.get(n, n)) for n in shape]
    made, *_ = kept
    assert isinstance(made, Launch) and made.kernel.name == name
    assert isinstance(made.arguments[size], torch.SymInt)
    assert not env.guards
