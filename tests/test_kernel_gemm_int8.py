"""The kernels of int8 matrix products against products of whole numbers, and in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import close, device, guarded, random
from matrix_cases import HALVES, SHAPES, activated, apart, only
from torch import Tensor

from strop.kernels import gemm_int8 as gemm_module
from strop.kernels.gemm_int8 import (
    DEEPEST,
    GATED_GEMM_INT8,
    GEMM_INT8,
    gated_gemm_int8,
    gemm_int8,
)
from strop.kernels.kernel import Configuration

pytestmark = pytest.mark.usefixtures("interpreter_casts")


def whole(*shape: int, seed: int = 0) -> Tensor:
    """All int8 values, at random."""
    made = torch.randint(-128, 128, shape, generator=torch.Generator().manual_seed(seed))
    return made.to(torch.int8).to(device())


def positive(size: int, seed: int = 0) -> Tensor:
    """Scales."""
    return random(size, seed=seed).abs() / 100 + 1e-4


def ones(size: int) -> Tensor:
    """Scales that change nothing."""
    return torch.ones(size, device=device())


def linear(
    q: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None
) -> Tensor:
    """The product of the numbers that int8 and scales stand for, in float64."""
    x, w = q.double() * scale.double()[:, None], weight.double() * weight_scale.double()[:, None]
    return F.linear(x, w, None if bias is None else bias.double())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_are_exact(shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    rows, columns, depth = shape
    q, weight = apart(whole(rows, depth)), apart(whole(columns, depth, seed=1))
    with guarded(monkeypatch):
        y = gemm_int8(q, ones(rows), weight, ones(columns), None, None, "none", torch.float32)
    # Whole numbers below 2^24 are exact in float32; products of doubles are exact too.
    assert y.dtype == torch.float32
    assert torch.equal(y.double(), q.double() @ weight.double().T)


def test_the_largest_sums_are_exact() -> None:
    q = torch.full((1, 1024), -128, dtype=torch.int8, device=device())
    found = [
        gemm_int8(q, ones(1), w, ones(1), None, None, "none", torch.float32).item()
        for w in (q, torch.full_like(q, 127))
    ]
    assert found == [1024 * 128 * 128, -1024 * 128 * 127]


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("activation", ["none", "gelu", "relu"])
@pytest.mark.parametrize("shape", [(5, 123, 64), (65, 5, 123)], ids=str)
def test_scales_bias_activation_and_residual(
    shape: tuple[int, int, int],
    activation: str,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, columns, depth = shape
    q, weight = whole(rows, depth), whole(columns, depth, seed=1)
    scale, weight_scale = positive(rows), positive(columns, seed=1)
    bias = random(columns, dtype=dtype, seed=2)
    residual = apart(random(rows, columns, dtype=dtype, seed=3))
    with guarded(monkeypatch):
        y = gemm_int8(q, scale, weight, weight_scale, bias, residual, activation, dtype)
    assert y.dtype == dtype
    before = linear(q, scale, weight, weight_scale, bias)
    close(y, activated(before, activation) + residual.double())


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
@pytest.mark.parametrize("shape", [(1, 64, 65), (5, 123, 64), (65, 5, 123)], ids=str)
def test_gated_products(
    shape: tuple[int, int, int],
    activation: str,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, columns, depth = shape
    q, scale = apart(whole(rows, depth)), positive(rows)
    gate, by = apart(whole(columns, depth, seed=1)), positive(columns, seed=1)
    up, up_by = whole(columns, depth, seed=2), positive(columns, seed=2)
    bias = random(columns, dtype=dtype, seed=3)
    with guarded(monkeypatch):
        y = gated_gemm_int8(q, scale, gate, by, up, up_by, bias, None, activation, dtype)
        z = gated_gemm_int8(q, scale, gate, by, up, up_by, None, bias, activation, dtype)
    assert y.dtype == dtype
    gates, ups = linear(q, scale, gate, by, bias), linear(q, scale, up, up_by, None)
    close(y, activated(gates, activation) * ups)
    gates, ups = linear(q, scale, gate, by, None), linear(q, scale, up, up_by, bias)
    close(z, activated(gates, activation) * ups)


def test_scales_at_both_ends_of_float32() -> None:
    q = torch.tensor([[127], [127], [0]], dtype=torch.int8, device=device())
    scale = torch.tensor([1e-38, 1e30, 1.0], device=device())
    by = torch.tensor([1e3], device=device())
    y = gemm_int8(q, scale, q[:1], by, None, None, "none", torch.float32)
    assert torch.allclose(y.double(), linear(q, scale, q[:1], by, None), rtol=1e-6, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [123, 512])
@pytest.mark.parametrize("configuration", GEMM_INT8.configurations(), ids=str)
def test_every_tile(
    configuration: Configuration, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gemm_module, "GEMM_INT8", only(GEMM_INT8, configuration))
    q, weight = whole(140, depth), whole(270, depth, seed=1)
    with guarded(monkeypatch):
        y = gemm_int8(q, ones(140), weight, ones(270), None, None, "none", torch.float32)
    assert torch.equal(y.double(), q.double() @ weight.double().T)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [123, 512])
@pytest.mark.parametrize("configuration", GATED_GEMM_INT8.configurations(), ids=str)
def test_every_gated_tile(
    configuration: Configuration, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gemm_module, "GATED_GEMM_INT8", only(GATED_GEMM_INT8, configuration))
    q, scale = whole(140, depth), positive(140)
    (gate, by), (up, up_by) = ((whole(270, depth, seed=s), positive(270, seed=s)) for s in (1, 2))
    with guarded(monkeypatch):
        y = gated_gemm_int8(q, scale, gate, by, up, up_by, None, None, "silu", torch.float32)
    close(y, F.silu(linear(q, scale, gate, by, None)) * linear(q, scale, up, up_by, None))


def test_no_rows_and_no_depth() -> None:
    q, weight = whole(0, 8), whole(5, 8)
    y = gemm_int8(q, ones(0), weight, ones(5), None, None, "none", torch.float16)
    z = gated_gemm_int8(
        q, ones(0), weight, ones(5), weight, ones(5), None, None, "silu", torch.float16
    )
    assert y.shape == z.shape == (0, 5)
    bias = random(5)
    empty = q.new_empty(3, 0)
    y = gemm_int8(empty, ones(3), q.new_empty(5, 0), ones(5), bias, None, "none", torch.float32)
    assert torch.equal(y, bias.expand(3, 5))


def test_refusals() -> None:
    q, one = whole(2, 8), ones(2)
    with pytest.raises(ValueError, match="no activation 'tanh'"):
        gemm_int8(q, one, q, one, None, None, "tanh", torch.float16)
    with pytest.raises(TypeError, match="an operand is torch.uint8"):
        gated_gemm_int8(q, one, q, one, q.to(torch.uint8), one, None, None, "silu", torch.float16)
    deep = q[:, :1].expand(2, DEEPEST + 1)
    with pytest.raises(ValueError, match="may not fit 32 bits"):
        gemm_int8(deep, one, deep, one, None, None, "none", torch.float16)
