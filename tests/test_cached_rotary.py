"""Rotary positions inside the file's attention over a cache: which angles a table can hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from cache_tools import file_of, padded, program_of, run_shared
from program_tools import run_passes
from torch import Tensor

from strop.passes import CommonSubexpressions, FoldConstants

strop = torch.ops.strop
HEADS, KV_HEADS = 4, 2
CACHES = {"past_k": "present_k", "past_v": "present_v"}
Angles = Callable[[Tensor, Tensor], Tensor]


def frequencies(half: int) -> Tensor:
    return 100.0 ** (-torch.arange(half) / half)


def plain(positions: Tensor, mask: Tensor) -> Tensor:
    return positions.unsqueeze(-1).float() * frequencies(8)


def between_rows(positions: Tensor, mask: Tensor) -> Tensor:
    """As Llama makes them where tables lie beside heads."""
    angles = positions[:, None, :, None] / 4.0 * frequencies(8)
    return torch.cat([angles, angles], -1).squeeze(1)[..., :8]


def inputs(batch: int, seq: int, past: int, size: int, padding: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seq)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "q": drawn(batch, seq, HEADS * size),
        "k": drawn(batch, seq, KV_HEADS * size),
        "v": drawn(batch, seq, KV_HEADS * size),
        "mask": padded(batch, past + seq, padding),
        "past_k": drawn(batch, KV_HEADS, past, size),
        "past_v": drawn(batch, KV_HEADS, past, size),
    }


def attend(angles: Angles, **given: Tensor) -> dict[str, Tensor]:
    mask, seq = given["mask"], given["q"].shape[1]
    made = angles(strop.cache_positions(mask, seq), mask)
    cos, sin = made.cos() * 1.5, made.sin() * 1.5
    q, k = (strop.rotary(given[n], cos, sin, h) for n, h in (("q", HEADS), ("k", KV_HEADS)))
    caches = given["past_k"], given["past_v"], strop.cache_mask(mask, seq, None)
    out, keys, values = strop.cached_attention(q, k, given["v"], *caches, HEADS, KV_HEADS, 0.2, 0.0)
    return {"out": out, "present_k": keys, "present_v": values}


def built(angles: Angles, size: int, most: int | None = 32) -> tuple[Any, bool]:
    """A session, and whether its attention turns queries and keys itself."""
    new: dict[int, Any] = {0: "batch", 1: ("seq", 1, most) if most else "seq"}
    cache: dict[int, Any] = {0: "batch", 2: ("past", 0, 32)}
    axes = dict.fromkeys("qkv", new) | dict.fromkeys(CACHES, cache)
    mask: dict[int, Any] = {0: "batch", 1: "past + seq"}
    function = partial(attend, angles)
    program = program_of(function, inputs(2, 5, 7, size, "left"), axes | {"mask": mask})
    session, model = file_of(run_passes(program, FoldConstants(), CommonSubexpressions()))
    grouped = [n for n in model.graph.all_nodes() if n.op_type == "GroupQueryAttention"]
    return session, all("do_rotary" in n.attributes for n in grouped)


SIZES = [(3, 4, 6), (3, 4, 0), (1, 1, 0), (3, 1, 6), (1, 4, 6), (1, 4, 0)]


def assert_same(session: Any, angles: Angles, size: int, several: Any = SIZES) -> None:
    for sizes in several:
        for padding in ("none", "left", "middle", "right"):
            given = inputs(*sizes, size, padding)
            made, expected = run_shared(session, given, CACHES), attend(angles, **given)
            total = sum(sizes[1:])
            for name, want in expected.items():
                got = torch.tensor(made[name])
                got = got if name == "out" else got[:, :, :total]
                torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("angles", "size"), [(plain, 16), (between_rows, 48)])
def test_attention_turns_by_a_table_what_lies_at_any_position(angles: Angles, size: int) -> None:
    session, turns = built(angles, size)
    assert turns
    assert_same(session, angles, size)


APART: list[tuple[Angles, int, int | None, str]] = [
    (plain, 24, 32, "heads that are no multiple of 16"),
    (plain, 16, None, "texts of any length"),
    (lambda p, m: p.unsqueeze(-1).float() * frequencies(4), 16, 32, "4 of 16 channels"),
    (lambda p, m: p.cumsum(1).unsqueeze(-1).float() * frequencies(8), 16, 32, "sums of positions"),
    (
        lambda p, m: p.unsqueeze(-1).float() * frequencies(8) / m.sum(),
        16,
        32,
        "angles that depend on the length",
    ),
]


@pytest.mark.parametrize(("angles", "size", "most", "why"), APART, ids=[a[-1] for a in APART])
def test_other_angles_are_turned_before(
    angles: Angles, size: int, most: int | None, why: str
) -> None:
    session, turns = built(angles, size, most)
    assert not turns, why
    assert_same(session, angles, size, SIZES[:2])
