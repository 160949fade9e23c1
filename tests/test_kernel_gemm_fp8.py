"""The kernels of e4m3 rows against their formula in torch, and against products in float64.

Where they are interpreted, casts are those of ``exact_casts``. A GPU needs e4m3: sm89 or later.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import close, device, guarded, random, strided
from matrix_cases import HALVES, SHAPES, activated, apart, only
from torch import Tensor

from strop.kernels import gemm_fp8 as gemm_module
from strop.kernels import quantize_rows as rows_module
from strop.kernels.gemm_fp8 import GEMM_FP8, gemm_fp8, quantize_rows_fp8
from strop.kernels.kernel import Configuration

pytestmark = pytest.mark.usefixtures("interpreter_casts")
E4M3 = torch.float8_e4m3fn
# Tensor cores of sm90 keep 14 digits of the sum of a step and cut the rest off, in every step.
SUMS = 2.0**-12 if device() == "cuda" else 1e-6


@pytest.fixture(autouse=True)
def need_e4m3() -> None:
    """Skip tests on a GPU that has no e4m3."""
    if device() == "cuda" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this GPU has no e4m3")


def reference(x: Tensor) -> tuple[Tensor, Tensor]:
    """scale = max|row| / 448, or 1; q = row / scale to the nearest e4m3."""
    wide = x.float().cpu()
    scale = wide.abs().amax(1) / 448
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (wide / scale[:, None]).clamp(-448, 448).to(E4M3), scale


def same(x: Tensor) -> None:
    q, scale = quantize_rows_fp8(x)
    wanted_q, wanted_scale = reference(x)
    assert q.dtype == E4M3
    assert torch.equal(scale.cpu(), wanted_scale)
    assert torch.equal(q.cpu().view(torch.uint8), wanted_q.view(torch.uint8))


def e4m3(*shape: int, seed: int = 0) -> Tensor:
    """Values of a normal distribution."""
    return random(*shape, seed=seed).to(E4M3)


def positive(size: int, seed: int = 0) -> Tensor:
    """Scales."""
    return random(size, seed=seed).abs() + 0.1


def linear(
    q: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None
) -> Tensor:
    """The product of the numbers that e4m3 and scales stand for, in float64."""
    x, w = q.double() * scale.double()[:, None], weight.double() * weight_scale.double()[:, None]
    return F.linear(x, w, None if bias is None else bias.double())


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("columns", [1, 5, 123, 1025])
def test_rows_are_rounded_exactly(
    dtype: torch.dtype, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with guarded(monkeypatch):
        same(strided(random(5, columns, dtype=dtype)))


def test_a_wide_row_is_rounded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "WIDEST_ROW", 8)
    monkeypatch.setattr(rows_module, "PIECE", 8)
    x = random(3, 21, dtype=torch.float16)
    x[0, -1] = 50.0
    same(x)


def test_extreme_rows() -> None:
    x = torch.zeros(5, 8, device=device())
    x[1, 3], x[2] = 2.0**-149, torch.finfo(torch.float32).max
    x[3, 0], x[4, 0] = math.inf, math.nan
    q, scale = quantize_rows_fp8(x)
    assert scale[:2].tolist() == [1, 1]
    assert not q[:2].float().any()
    assert torch.equal(q[2].float(), torch.full_like(x[2], 448))
    assert scale[3] == math.inf
    assert scale[4].isnan()


@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products(
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    activation: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, columns, depth = shape
    q, weight = apart(e4m3(rows, depth)), apart(e4m3(columns, depth, seed=1))
    scale, weight_scale = positive(rows), positive(columns, seed=1)
    bias = random(columns, dtype=dtype, seed=2)
    residual = apart(random(rows, columns, dtype=dtype, seed=3))
    with guarded(monkeypatch):
        y = gemm_fp8(q, scale, weight, weight_scale, bias, residual, activation, dtype)
    assert y.dtype == dtype
    before = linear(q, scale, weight, weight_scale, bias)
    rounding = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    close(y, activated(before, activation) + residual.double(), max(SUMS, rounding))


def test_small_whole_numbers_are_summed_exactly() -> None:
    # Products of whole numbers up to 4: sums of 128 of them have 12 digits.
    q = torch.randint(-4, 5, (65, 256), generator=torch.Generator().manual_seed(0))
    q = q.float().to(E4M3).to(device())
    one = torch.ones(65, device=device())
    y = gemm_fp8(q, one, q, one, None, None, "none", torch.float32)
    assert torch.equal(y.double(), q.double() @ q.double().T)


def test_long_sums_keep_small_terms() -> None:
    # A sum of 14 digits that has come to 4096 would lose every term of 1 / 512.
    one, weight = torch.ones(65, 8192, device=device()), torch.ones(1, 8192, device=device())
    weight[0, 4096:] = 2.0**-9
    scale = one[:, 0].contiguous()
    y = gemm_fp8(one.to(E4M3), scale, weight.to(E4M3), scale[:1], None, None, "none", torch.float32)
    assert torch.equal(y, torch.full_like(y, 4096 + 8))


@pytest.mark.slow
@pytest.mark.parametrize("depth", [123, 512])
@pytest.mark.parametrize("configuration", GEMM_FP8.configurations(), ids=str)
def test_every_tile(
    configuration: Configuration, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gemm_module, "GEMM_FP8", only(GEMM_FP8, configuration))
    q, weight = e4m3(140, depth), e4m3(270, depth, seed=1)
    scale, weight_scale = positive(140), positive(270, seed=1)
    with guarded(monkeypatch):
        y = gemm_fp8(q, scale, weight, weight_scale, None, None, "none", torch.float32)
    close(y, linear(q, scale, weight, weight_scale, None), SUMS)


def test_no_rows_and_no_depth() -> None:
    bias, one = random(5), torch.ones(5, device=device())
    y = gemm_fp8(e4m3(0, 8), one[:0], e4m3(5, 8), one, None, None, "none", torch.float16)
    assert y.shape == (0, 5)
    y = gemm_fp8(e4m3(3, 0), one[:3], e4m3(5, 0), one, bias, None, "none", torch.float32)
    assert torch.equal(y, bias.expand(3, 5))
    q, scale = quantize_rows_fp8(random(0, 8))
    assert q.shape == (0, 8)
    assert scale.shape == (0,)


def test_refusals() -> None:
    q, one = e4m3(2, 8), torch.ones(2, device=device())
    with pytest.raises(ValueError, match="no activation 'tanh'"):
        gemm_fp8(q, one, q, one, None, None, "tanh", torch.float16)
    with pytest.raises(TypeError, match="an operand is torch.float8_e5m2"):
        gemm_fp8(q, one, q.to(torch.float8_e5m2), one, None, None, "none", torch.float16)
