"""The kernels of matrix products in float16 and bfloat16 against products in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import close, device, guarded, random
from matrix_cases import HALVES, SHAPES, activated, apart, linear, only

from strop.kernels import gemm as gemm_module
from strop.kernels.activation import NAMES
from strop.kernels.gemm import GATED_GEMM, GEMM, gated_gemm, gemm
from strop.kernels.kernel import Configuration
from strop.kernels.tiles import depth_divisor

pytestmark = pytest.mark.usefixtures("interpreter_casts")


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_product_with_bias_and_residual(
    shape: tuple[int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, columns, depth = shape
    x = apart(random(rows, depth, dtype=dtype))
    weight = apart(random(columns, depth, dtype=dtype, seed=1))
    bias = random(columns, dtype=dtype, seed=2)
    residual = apart(random(rows, columns, dtype=dtype, seed=3))
    with guarded(monkeypatch):
        y = gemm(x, weight, bias, residual, "none")
    assert y.dtype == dtype
    close(y, linear(x, weight, bias) + residual.double())


@pytest.mark.parametrize("activation", NAMES)
def test_activations(activation: str) -> None:
    x, weight = random(9, 64, dtype=torch.float16), random(33, 64, dtype=torch.float16, seed=1)
    close(gemm(x, weight, None, None, activation), activated(linear(x, weight, None), activation))


@pytest.mark.parametrize("activation", NAMES)
def test_activations_of_extreme_values(activation: str) -> None:
    values = [0.0, -0.0, 6e-8, -6e-8, 1.0, -1.0, 5.5, -5.5, 11.0, -11.0, 6e4, -6e4]
    x = torch.tensor(values, dtype=torch.float16, device=device())[:, None]
    one = torch.ones(1, 1, dtype=torch.float16, device=device())
    found = gemm(x, one, None, None, activation)
    wanted = activated(x.double(), activation)
    # A half keeps 11 digits; float32 keeps 24 of 1 + erf(x), which is near 0 for -5.5.
    assert torch.allclose(found.double(), wanted, rtol=1e-3, atol=2e-7)


@pytest.mark.parametrize("activation", NAMES)
def test_what_is_no_number_stays_none(activation: str) -> None:
    x = torch.tensor([[float("nan")], [1.0]], dtype=torch.float16, device=device())
    one = torch.ones(1, 1, dtype=torch.float16, device=device())
    assert gemm(x, one, None, None, activation).isnan().flatten().tolist() == [True, False]


def test_the_sum_is_rounded_once() -> None:
    # 2048 + 1 is no half: a sum of halves would lose the bias and the residual.
    x = torch.full((1, 1), 2048.0, dtype=torch.float16, device=device())
    one = torch.ones(1, 1, dtype=torch.float16, device=device())
    assert gemm(x, one, one[0], one, "none").item() == 2050.0


def test_sums_may_pass_the_largest_half() -> None:
    x = torch.full((1, 4), 60000.0, dtype=torch.float16, device=device())
    signs = torch.tensor([[1.0, 1.0, -1.0, -0.5]], dtype=torch.float16, device=device())
    assert gemm(x, signs, None, None, "none").item() == 30000.0


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("shape", [(1, 64, 65), (5, 123, 64), (65, 5, 123)], ids=str)
def test_gated_products(
    shape: tuple[int, int, int],
    activation: str,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, columns, depth = shape
    x = apart(random(rows, depth, dtype=dtype))
    gate = apart(random(columns, depth, dtype=dtype, seed=1))
    up = random(columns, depth, dtype=dtype, seed=2)
    bias = random(columns, dtype=dtype, seed=3)
    with guarded(monkeypatch):
        y = gated_gemm(x, gate, up, bias, None, activation)
        z = gated_gemm(x, gate, up, None, bias, activation)
    assert y.dtype == dtype
    close(y, activated(linear(x, gate, bias), activation) * linear(x, up, None))
    close(z, activated(linear(x, gate, None), activation) * linear(x, up, bias))


@pytest.mark.slow
@pytest.mark.parametrize("depth", [123, 512])
@pytest.mark.parametrize("configuration", GEMM.configurations(), ids=str)
def test_every_tile(
    configuration: Configuration, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gemm_module, "GEMM", only(GEMM, configuration))
    x = random(140, depth, dtype=torch.float16)
    weight = random(270, depth, dtype=torch.float16, seed=1)
    with guarded(monkeypatch):
        y = gemm(x, weight, None, x[:, :1].expand(140, 270).contiguous(), "relu")
    close(y, F.relu(linear(x, weight, None)) + x[:, :1].double())


@pytest.mark.slow
@pytest.mark.parametrize("depth", [123, 512])
@pytest.mark.parametrize("configuration", GATED_GEMM.configurations(), ids=str)
def test_every_gated_tile(
    configuration: Configuration, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gemm_module, "GATED_GEMM", only(GATED_GEMM, configuration))
    x = random(140, depth, dtype=torch.float16)
    gate, up = (random(270, depth, dtype=torch.float16, seed=seed) / depth for seed in (1, 2))
    with guarded(monkeypatch):
        y = gated_gemm(x, gate, up, None, None, "silu")
    close(y, F.silu(linear(x, gate, None)) * linear(x, up, None))


@pytest.mark.parametrize(
    ("depth", "divisor"), [(0, 512), (1, 1), (123, 1), (64, 64), (576, 64), (4096, 512)]
)
def test_the_divisor_of_a_depth(depth: int, divisor: int) -> None:
    assert depth_divisor(depth) == divisor


def test_no_rows_and_no_depth() -> None:
    x, weight = random(0, 8, dtype=torch.float16), random(5, 8, dtype=torch.float16)
    assert gemm(x, weight, None, None, "none").shape == (0, 5)
    assert gated_gemm(x, weight, weight, None, None, "silu").shape == (0, 5)
    bias = random(5, dtype=torch.float16)
    y = gemm(x.new_empty(3, 0), x.new_empty(5, 0), bias, None, "none")
    assert torch.equal(y, bias.expand(3, 5))


def test_refusals() -> None:
    x = random(2, 8, dtype=torch.float16)
    with pytest.raises(ValueError, match="no activation 'tanh'"):
        gemm(x, x, None, None, "tanh")
    with pytest.raises(TypeError, match="x is torch.float32"):
        gemm(x.float(), x.float(), None, None, "none")
    with pytest.raises(TypeError, match="a weight is torch.float32"):
        gated_gemm(x, x, x.float(), None, None, "silu")
