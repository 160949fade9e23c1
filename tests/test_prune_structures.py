"""Axes that are cut, joined and moved at random: slicing always equals zeroing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from strop.passes.prune.dependency import dependencies
from strop.passes.prune.dims import Dim, DoNotFit, cut, leaf, leaves, product, slices, total, unify
from strop.passes.prune.groups import groups
from strop.passes.prune.places import places, spread

from program_tools import program_of  # isort: skip
from prune_tools import assert_pruned_as_masked  # isort: skip

WIDTH = 24
# Each takes and gives [2, 3, n]; ``k`` is a number from 0 on.
MOVES = {
    "split and swap": lambda v, k: _swapped(v, v.shape[-1] // (2 + k)),
    "chunks, summed": lambda v, k: sum(v.chunk(2, -1)) if v.shape[-1] % 2 == 0 else v,
    "heads, moved": lambda v, k: _by_heads(v, 2 + k),
    "joined with itself": lambda v, k: torch.cat([v, torch.relu(v)], -1) if v.shape[-1] < 50 else v,
    "a slice": lambda v, k: v[..., k : max(k + 2, v.shape[-1] - k)],
    "repeated": lambda v, k: v.repeat_interleave(2, -1) if v.shape[-1] < 50 else v,
    "added to a slice": lambda v, k: v[..., : v.shape[-1] // 2] + v[..., -(v.shape[-1] // 2) :],
    "activation": lambda v, k: torch.sigmoid(v),
    "gate": lambda v, k: v * torch.tanh(v),
}  # fmt: skip


def _swapped(v: Tensor, first: int) -> Tensor:
    """The two parts of the last axis, exchanged."""
    return torch.cat(v.split([first, v.shape[-1] - first], -1)[::-1], -1)


def _by_heads(v: Tensor, count: int) -> Tensor:
    """Cut the last axis, exchange both halves, and put it together again."""
    if v.shape[-1] % count:
        return v
    return v.unflatten(-1, (count, -1)).transpose(-1, -2).flatten(-2)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(MOVES)), st.integers(0, 2)), min_size=1, max_size=5),
    st.sampled_from([0.25, 0.5, 0.75]),
)
def test_whatever_happens_between_two_layers(moves: list[tuple[str, int]], share: float) -> None:
    generator = torch.Generator().manual_seed(len(moves))
    x = torch.randn(2, 3, 5, generator=generator)
    up = torch.randn(WIDTH, 5, generator=generator) / 2

    def moved(v: Tensor) -> Tensor:
        for name, k in moves:
            v = MOVES[name](v, k)
        return v

    width = moved(F.linear(x, up)).shape[-1]
    down = torch.randn(3, width, generator=generator) / width**0.5

    def forward(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        return F.linear(moved(F.linear(x, up)), down)

    program = program_of(forward, x, up=up, down=down)
    free = [g for g in groups(dependencies(program)) if not g.frozen]
    assume(free)
    assert_pruned_as_masked(program, {"input_0": x}, lambda g: True, share)


def shapes(of: int) -> st.SearchStrategy[Dim]:
    """Structures of one size."""
    whole = st.builds(lambda: leaf(of))
    divisors = [d for d in range(2, of) if of % d == 0]
    cases = [whole]
    if divisors:
        cases.append(
            st.sampled_from(divisors).flatmap(
                lambda d: st.tuples(shapes(d), shapes(of // d)).map(product)
            )
        )
    if of > 3:
        cases.append(
            st.integers(1, of - 1).flatmap(
                lambda n: st.tuples(shapes(n), shapes(of - n)).map(total)
            )
        )
    return st.one_of(cases)


@given(shapes(12), shapes(12))
def test_unified_axes_have_the_same_leaves_at_the_same_positions(a: Dim, b: Dim) -> None:
    try:
        unify(a, b)
    except DoNotFit:
        return
    assert a.size == b.size == 12
    for one in {id(found): found for found in leaves(a, b)}.values():
        assert torch.equal(places(a, one), places(b, one))


@given(shapes(12))
def test_every_position_belongs_to_the_leaves_of_its_axis(dim: Dim) -> None:
    ones = torch.ones(12)
    for one in dict.fromkeys(leaves(dim)):
        assert spread(dim, one, ones).sum() == (places(dim, one) >= 0).sum()


@given(shapes(12), st.sampled_from([(12,), (3, 4), (2, 6), (2, 2, 3)]))
def test_cutting_gives_axes_of_the_sizes_asked_for(dim: Dim, sizes: tuple[int, ...]) -> None:
    try:
        made = cut(dim, sizes)
    except DoNotFit:
        return
    assert [one.size for one in made] == list(sizes)


@given(shapes(12), st.integers(1, 11))
def test_parts_of_an_axis_lie_one_after_another(dim: Dim, first: int) -> None:
    try:
        parts = slices(dim, [first, 12 - first])
    except DoNotFit:
        return
    for one in dict.fromkeys(leaves(dim)):
        assert torch.equal(torch.cat([places(part, one) for part in parts]), places(dim, one))


def test_a_size_beside_one_that_shrinks_stays_as_it_is() -> None:
    def joined(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        heads = F.linear(x, up).reshape(x.shape[0], 4, 3)
        return F.linear(torch.relu(heads).reshape(x.shape[0], 12), down)

    weights = {"up": torch.randn(12, 6), "down": torch.randn(2, 12)}
    program = program_of(joined, torch.randn(5, 6), dims={0: {0: "batch"}}, **weights)
    new = assert_pruned_as_masked(program, {"input_0": torch.randn(7, 6)}, lambda g: True, 0.5)
    assert list(new.weights.values())[0].shape[0] == 4
    # No operation on sizes has joined the program.
    assert [n.target for n in new.graph.nodes] == [n.target for n in program.graph.nodes]
