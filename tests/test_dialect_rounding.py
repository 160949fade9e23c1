"""Where operators on floats of 16 bits round: where kernels do."""

from __future__ import annotations

import math

import pytest
import torch
from kernel_cases import device, random

import strop.compiler.ir.dialect  # noqa: F401  (registers the strop:: operators)
from strop.kernels.attention import attention
from strop.kernels.rotary import rotary

strop = torch.ops.strop
HALF = torch.float16


def test_rotated_halves_are_rounded_once() -> None:
    x, angles = random(2, 9, 32, dtype=HALF), random(1, 9, 8)
    cos, sin = angles.cos().to(HALF), angles.sin().to(HALF)
    found = strop.rotary(x, cos, sin, 2)
    assert found.dtype == HALF
    assert torch.equal(found, strop.rotary(x.double(), cos.double(), sin.double(), 2).to(HALF))
    heads = x.unflatten(-1, (2, 16)).transpose(1, 2)
    torch.testing.assert_close(
        rotary(heads, cos, sin, packed=True), found, rtol=0 if device() == "cpu" else 1e-3, atol=0
    )


@pytest.mark.parametrize("dtype", [HALF, torch.bfloat16])
def test_weights_are_rounded_before_they_are_divided_by_their_sum(dtype: torch.dtype) -> None:
    q = torch.linspace(-2, 2, 41).to(dtype)[:, None]
    k, v = torch.tensor([[0.0], [1.0]], dtype=dtype), torch.tensor([[0.0], [1.0]], dtype=dtype)
    found = strop.attention(*(x[None] for x in (q, k, v)), None, 1, 1, 1.0, False)[0]
    scores = torch.stack([torch.zeros(41), q[:, 0].float()], 1)
    weights = (scores - scores.amax(1, keepdim=True)).exp()
    rounded = weights.to(dtype).float()[:, 1:]
    assert torch.equal(found, (rounded / weights.sum(1, keepdim=True)).to(dtype))
    assert not torch.equal(found, scores.softmax(1)[:, 1:].to(dtype))


@pytest.mark.parametrize("causal", [False, True])
def test_kernel_and_operator_give_the_same_where_all_keys_are_one_block(causal: bool) -> None:
    q, k, v = (random(1, 2, 13, 16, dtype=HALF, seed=n) for n in range(3))
    found = attention(q, k, v, None, 0.25, causal, False)
    wanted = strop.attention(q, k, v, None, 2, 2, 0.25, causal)
    torch.testing.assert_close(found, wanted, rtol=0 if device() == "cpu" else 2e-3, atol=1e-4)


@pytest.mark.parametrize("mask", ["bool", "float", "lowest"])
def test_masks_mean_the_same_in_16_bits(mask: str) -> None:
    q, k, v = (random(2, 2, 5, 8, seed=n) for n in range(3))
    seen = torch.tensor([[True, True, False, True, False], [False] * 5], device=device())
    shown = seen[:, None, None]
    hidden = -math.inf if mask == "float" else torch.finfo(torch.float32).min
    given = shown if mask == "bool" else torch.where(shown, 0.5, hidden)
    found, wanted = (
        strop.attention(*(x.to(dtype) for x in (q, k, v)), given, 2, 2, 0.3, False)
        for dtype in (HALF, torch.float32)
    )
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=4e-3)


@pytest.mark.parametrize(("queries", "keys"), [(3, 0), (0, 3)])
def test_without_queries_or_keys_attention_in_16_bits_gives_nothing_or_zeros(
    queries: int, keys: int
) -> None:
    q, k = torch.ones(1, queries, 8, dtype=HALF), torch.ones(1, keys, 8, dtype=HALF)
    found = strop.attention(q, k, k, None, 2, 2, 1.0, False)
    assert torch.equal(found, torch.zeros(1, queries, 8, dtype=HALF))
