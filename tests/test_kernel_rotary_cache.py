"""The kernel that rotates and fills a cache, against the dialect's operator in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch
from kernel_cases import close, device, float_dtypes, guarded, random, strided
from torch import Tensor

from strop.compiler.ir.dialect.rotary import rotary as operator
from strop.kernels.rotary_cache import rotary_cache

CANARY = -77


@dataclass
class Step:
    """Queries, keys and values of some tokens, and a cache that holds nothing but canaries."""

    batch: int = 2
    heads: int = 6
    kv_heads: int = 3
    sequence: int = 3
    size: int = 16
    half: int = 8
    dtype: torch.dtype = torch.float16
    kept: torch.dtype = torch.float16
    capacity: int = 7
    positions: Tensor = field(init=False)

    def __post_init__(self) -> None:
        # No two of them have the same strides.
        def tokens(heads: int, gap: int) -> Tensor:
            packed = random(self.batch, self.sequence, heads * self.size, seed=gap).to(self.dtype)
            return strided(packed, gap).unflatten(2, (heads, self.size)).transpose(1, 2)

        def angles(gap: int) -> Tensor:
            return strided(3 * random(self.batch, self.sequence, self.half, seed=9), gap)

        self.q, self.k = tokens(self.heads, 1), tokens(self.kv_heads, 2)
        self.v = strided(random(*self.k.shape, dtype=self.dtype, seed=3), 3)
        self.cos, self.sin = angles(4).cos_(), angles(5).sin_()
        shape = (self.batch, self.kv_heads, self.capacity, self.size)
        self.k_cache, self.v_cache = (self.empty(shape, self.kept, gap) for gap in (1, 2))
        self.k_scale = self.v_scale = None
        if self.kept == torch.int8:
            self.k_scale, self.v_scale = (
                self.empty((*shape[:3], 1), torch.float32, gap)[..., 0] for gap in (1, 2)
            )
        starts = torch.arange(self.batch, device=device())[:, None]
        self.positions = starts + torch.arange(self.sequence, device=device())

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, gap: int) -> Tensor:
        """Part of a larger buffer; all of it holds canaries."""
        wide = (*shape[:2], shape[2] + 1 + gap, *(n + gap for n in shape[3:]))
        whole = torch.full(wide, CANARY, dtype=dtype, device=device())
        return whole[:, :, 1:][tuple(slice(n) for n in shape)]

    def run(self) -> Tensor:
        return rotary_cache(
            self.q, self.k, self.v, self.cos, self.sin, self.k_cache, self.v_cache,
            self.positions, self.k_scale, self.v_scale,
        )  # fmt: skip

    def rotated(self, x: Tensor) -> Tensor:
        """In float64."""
        return operator(x.double(), self.cos.double(), self.sin.double(), x.shape[1])

    def written(self, cache: Tensor) -> Tensor:
        """The rows at the positions, [batch, kv_heads, sequence, ...]."""
        return torch.stack(
            [rows[:, at] for rows, at in zip(cache, self.positions.long(), strict=True)]
        )

    def untouched(self, cache: Tensor) -> None:
        """Everything but the rows at the positions still holds canaries."""
        base = cache._base
        assert base is not None
        rest = base.clone()
        view = rest.as_strided(cache.shape, cache.stride(), cache.storage_offset())
        for rows, at in zip(view, self.positions.long(), strict=True):
            rows[:, at] = CANARY
        assert (rest == CANARY).all()


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
@pytest.mark.parametrize("kept", float_dtypes(), ids=str)
@pytest.mark.parametrize(("size", "half"), [(2, 1), (16, 8), (20, 6), (64, 32), (128, 64)])
def test_queries_are_rotated_and_keys_and_values_kept(
    dtype: torch.dtype, kept: torch.dtype, size: int, half: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Step(dtype=dtype, kept=kept, size=size, half=half)
    with guarded(monkeypatch):
        y = step.run()
    assert y.dtype == dtype and y.is_contiguous()
    close(y, step.rotated(step.q))
    close(step.written(step.k_cache), step.rotated(step.k))
    assert torch.equal(step.written(step.v_cache), step.v.to(kept))
    step.untouched(step.k_cache)
    step.untouched(step.v_cache)


def int8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """q and scale of float32 rows."""
    scale = rows.abs().amax(-1) / 127
    return (rows / scale[..., None]).round().to(torch.int8), scale


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
@pytest.mark.parametrize(("size", "half"), [(2, 1), (20, 6), (64, 32)])
def test_a_cache_in_int8_keeps_a_scale_for_each_row(
    dtype: torch.dtype, size: int, half: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Step(dtype=dtype, kept=torch.int8, size=size, half=half)
    with guarded(monkeypatch):
        step.run()
    assert step.k_scale is not None and step.v_scale is not None
    q, scale = int8(step.v.float().cpu())
    assert torch.equal(step.written(step.v_cache).cpu(), q)
    assert torch.equal(step.written(step.v_scale).cpu(), scale)
    exact = step.rotated(step.k)
    scale = step.written(step.k_scale).double()
    close(scale, exact.abs().amax(-1) / 127, tolerance=1e-6)
    error = step.written(step.k_cache).double() * scale[..., None] - exact
    # Half a step, and the rounding of the rotation.
    assert (error.abs() <= 0.5001 * scale[..., None]).all()
    for cache in (step.k_cache, step.v_cache, step.k_scale, step.v_scale):
        step.untouched(cache)


@pytest.mark.parametrize(
    ("batch", "heads", "kv_heads", "sequence"),
    [(1, 1, 1, 1), (3, 4, 1, 1), (1, 33, 11, 2), (2, 8, 8, 5)],
)
@pytest.mark.parametrize("kept", [torch.float32, torch.int8])
def test_programs_that_are_filled_in_part(
    batch: int, heads: int, kv_heads: int, sequence: int, kept: torch.dtype
) -> None:
    step = Step(batch, heads, kv_heads, sequence, dtype=torch.float32, kept=kept)
    close(step.run(), step.rotated(step.q))
    wanted, scale = step.rotated(step.k), step.k_scale
    found = step.written(step.k_cache).double()
    if scale is not None:
        found *= step.written(scale)[..., None]
    close(found.float(), wanted, tolerance=2e-6 if scale is None else 0.004)
    step.untouched(step.k_cache)
    step.untouched(step.v_cache)


def test_positions_in_any_order_and_in_32_bits() -> None:
    step = Step()
    step.positions = (
        torch.tensor([[6, 0, 3], [1, 5, 4]], dtype=torch.int32, device=device()).mT.contiguous().mT
    )
    step.run()
    close(step.written(step.k_cache), step.rotated(step.k))
    assert torch.equal(step.written(step.v_cache), step.v)
    step.untouched(step.k_cache)


@pytest.mark.parametrize("kept", [torch.float16, torch.int8])
@pytest.mark.parametrize("outside", [-1, 7, 2**40])
def test_a_token_with_a_position_outside_of_the_cache_is_left_out(
    outside: int, kept: torch.dtype
) -> None:
    step = Step(kept=kept)
    step.positions[:, 1] = outside
    close(step.run(), step.rotated(step.q))
    step.positions = step.positions[:, ::2]
    for cache in (step.k_cache, step.v_cache, step.k_scale, step.v_scale):
        if cache is not None:
            step.untouched(cache)
            assert (step.written(cache) != CANARY).any()


def test_nan_and_infinity_show_in_the_scale_of_their_row() -> None:
    step = Step(kept=torch.int8)
    step.v[0, 0, 0, 5], step.v[1, 2, 1, 9] = math.nan, math.inf
    step.run()
    assert step.v_scale is not None
    scale = step.written(step.v_scale)
    assert scale[0, 0, 0].isnan() and scale[1, 2, 1] == math.inf
    assert scale.isfinite().sum() == scale.numel() - 2


@pytest.mark.parametrize(("batch", "sequence"), [(0, 3), (2, 0)])
def test_no_tokens_change_nothing(batch: int, sequence: int) -> None:
    step = Step(batch=batch, sequence=sequence)
    assert step.run().shape == (batch, 6, sequence, 16)
    step.untouched(step.k_cache)


@pytest.mark.parametrize("kept", [torch.float16, torch.int8])
def test_scales_go_with_int8_alone(kept: torch.dtype) -> None:
    step = Step(kept=kept)
    step.v_scale = None if kept == torch.int8 else random(2, 3, 7)
    with pytest.raises(ValueError, match="scales go with a cache in int8, and with no other"):
        step.run()
