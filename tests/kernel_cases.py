"""What tests of kernels share: where they run, guarded buffers, and tolerances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from triton.runtime.interpreter import _interpreter as interpreter

from strop.kernels import buffers

# Odd sizes, and powers of two with their neighbours.
SIZES = (1, 5, 64, 65, 123)
# Relative to the largest value: rounding of the result, and of sums in another order.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
_GUARD, _CANARY = 64, -77


def device() -> str:
    """Where kernels run: on a GPU, or interpreted on the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def need_gpu(why: str) -> None:
    """Skip the test where kernels are interpreted."""
    if device() == "cpu":
        pytest.skip(f"{why}: needs a GPU")


def need_fused_products() -> None:
    """Skip the test where a product and its sum are rounded apart, as no GPU does."""
    if device() == "cpu" and not hasattr(interpreter, "fma_fp32"):
        pytest.skip("the interpreter of this version of Triton rounds products and sums apart")


def float_dtypes() -> list[torch.dtype]:
    """Of activations; the interpreter computes bfloat16 wrongly, so it is tested on a GPU alone."""
    return [torch.float32, torch.float16] + ([torch.bfloat16] if device() == "cuda" else [])


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Values of a normal distribution, the same on every device."""
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return made.to(dtype).to(device())


def strided(x: Tensor, gap: int = 3) -> Tensor:
    """The same values with rows that lie further apart than they are long."""
    between = float("nan") if x.is_floating_point() else 77
    wide = x.new_full((*x.shape[:-1], x.shape[-1] + gap), between)
    wide[..., : x.shape[-1]] = x
    return wide[..., : x.shape[-1]]


def close(found: Tensor, wanted: Tensor, tolerance: float | None = None) -> None:
    """Compare with a reference in float64, relative to its largest value."""
    assert found.shape == wanted.shape
    allowed = TOLERANCE[found.dtype] if tolerance is None else tolerance
    if not wanted.numel():
        return
    assert torch.isfinite(found).all()
    error = (found.double() - wanted.double()).abs().max().item()
    assert error <= allowed * max(wanted.abs().max().item(), 1e-30), f"off by {error}"


@contextmanager
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every buffer that a launcher makes lies between guards, and nothing may be written there."""
    made: list[tuple[Tensor, int]] = []

    def empty(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
        size = torch.Size(shape).numel()
        whole = torch.full(
            (size + 2 * _GUARD,), _CANARY, dtype=dtype or like.dtype, device=like.device
        )
        made.append((whole, size))
        return whole[_GUARD : _GUARD + size].view(shape)

    with monkeypatch.context() as patched:
        patched.setattr(buffers, "empty", empty)
        yield
    for whole, size in made:
        assert (whole[:_GUARD] == _CANARY).all(), "written before the buffer"
        assert (whole[_GUARD + size :] == _CANARY).all(), "written behind the buffer"
