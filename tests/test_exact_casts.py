"""The casts that tests of kernels put into Triton's interpreter, against the formats' definitions.

On a GPU the same tests show that the casts of the hardware are these.
"""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from kernel_cases import device, random
from torch import Tensor

pytestmark = pytest.mark.usefixtures("interpreter_casts")


@triton.jit
def cast_kernel(x, y, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at).to(y.dtype.element_ty))


@triton.jit
def dot_kernel(a, b, y, BLOCK: tl.constexpr):
    row, column = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    at = row * BLOCK + column
    tl.store(y + at, tl.dot(tl.load(a + at), tl.load(b + at)))


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x, whose size is a power of two, by a kernel."""
    y = torch.empty_like(x, dtype=dtype)
    cast_kernel[(1,)](x, y, BLOCK=x.numel())
    return y


def need_fp8() -> None:
    """Skip the test on a GPU that has no e4m3."""
    if device() == "cuda" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this GPU has no e4m3")


def e4m3_values() -> Tensor:
    """What the 256 patterns stand for: arXiv:2209.05433, table 1."""
    bits = torch.arange(256)
    sign, exponent, fraction = 1 - 2 * (bits >> 7), (bits >> 3) & 15, bits & 7
    normal = (8 + fraction) * 2.0 ** (exponent - 10)
    value = sign * torch.where(exponent > 0, normal, fraction * 2.0**-9)
    return torch.where((bits & 127) == 127, torch.nan, value).float()


def nearest(x: Tensor, grid: Tensor) -> Tensor:
    """Of an even number of sorted grid points, those nearest to x; ties to an even position."""
    distance = (x.double()[:, None] - grid.double()).abs()
    best = distance == distance.amin(1, keepdim=True)
    position = torch.arange(len(grid))
    # The even one of two that are best comes first.
    order = torch.where(best, position % 2, 2)
    return grid[order.argmin(1)]


def test_every_pattern_of_e4m3_is_read_right() -> None:
    need_fp8()
    patterns = torch.arange(256, dtype=torch.uint8, device=device()).view(torch.float8_e4m3fn)
    found = cast(patterns, torch.float32).cpu()
    assert torch.equal(found.nan_to_num(-999), e4m3_values().nan_to_num(-999))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_numbers_are_rounded_to_the_nearest_e4m3(dtype: torch.dtype) -> None:
    need_fp8()
    values = torch.linspace(-448, 448, 2048) * torch.logspace(-6, 0, 2048)
    grid = e4m3_values()[:127]
    # Halfway between neighbours, where ties are decided.
    ties = (grid[1:] + grid[:-1]) / 2
    x = torch.cat([values[: 2048 - 252], ties, -ties]).to(dtype)
    found = cast(x.to(device()), torch.float8_e4m3fn).float().cpu()
    wanted = nearest(x.abs().float(), torch.cat([grid, torch.tensor([1e9])]))
    assert torch.equal(found.abs(), wanted)
    assert torch.equal(found.sign(), torch.where(wanted == 0, 0, x.float().sign()))


def test_numbers_are_rounded_to_the_nearest_bfloat16() -> None:
    x = random(1024)
    x[:4] = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -(1 + 2**-8)])
    found = cast(x, torch.bfloat16)
    # A float32 has 16 bits more: half of the last bit kept is added, less one if it is even.
    bits = x.view(torch.int32)
    wanted = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    assert torch.equal(found.view(torch.int16).int(), wanted)
    assert torch.equal(cast(found, torch.float32).view(torch.int32), wanted << 16)


def test_products_of_bfloat16() -> None:
    a, b = (random(32, 32, seed=seed).to(torch.bfloat16) for seed in (0, 1))
    y = torch.empty(32, 32, device=device())
    dot_kernel[(1,)](a, b, y, BLOCK=32)
    assert torch.allclose(y.double(), a.double() @ b.double(), rtol=1e-5, atol=1e-5)


def test_products_of_e4m3() -> None:
    need_fp8()
    a, b = (random(32, 32, seed=seed).to(torch.float8_e4m3fn) for seed in (0, 1))
    y = torch.empty(32, 32, device=device())
    dot_kernel[(1,)](a, b, y, BLOCK=32)
    # Tensor cores of sm90 keep 14 digits of a sum.
    assert torch.allclose(y.double(), a.double() @ b.double(), rtol=1e-3, atol=1e-3)
