"""Attention in any layout: batch axes, masks spread over some of them, keys and heads turned."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from program_tools import assert_left_alone, body, counts, program_of, run_passes, same_numbers
from torch import Tensor, nn

from strop.passes.cleanup.linears import PlainLinears
from strop.passes.cleanup.noops import Noops
from strop.passes.fuse.eager_attention import FuseAttention
from strop.passes.fuse.packed import PackLinears
from strop.passes.fuse.rotary import FuseRotary

SEED = torch.Generator().manual_seed(0)
# How scores may be viewed between product and softmax.
View = tuple[int, ...]


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=SEED)


def batches(lead: View) -> Iterator[View]:
    """Every shape that is repeated over these axes."""
    for ones in itertools.product((True, False), repeat=len(lead)):
        yield tuple(size if whole else 1 for size, whole in zip(lead, ones))
    for start in range(1, len(lead) + 1):
        yield lead[start:]


def masked(lead: View, view: View) -> Callable[..., Any]:
    """One attention for each mask; q is [*lead, 3, 4], scores are viewed as [*view, 3, 3]."""
    masks = [randn(*batch, 3, 3) for batch in batches(view)]

    def model(q: Tensor) -> list[Tensor]:
        results = []
        for mask in masks:
            q = q + 0.1
            scores = (q @ q.mT).view(*view, 3, 3) + mask
            results.append(scores.softmax(-1).view(*q.shape[:-2], 3, 3) @ q)
        return results

    return model


VIEWS: list[tuple[View, View]] = [
    ((), ()),
    ((3,), (3,)),
    ((2, 3), (2, 3)),
    ((2, 2, 3), (2, 2, 3)),
    ((2, 1, 2, 3), (2, 1, 2, 3)),
    ((6,), (2, 3)),
    ((4, 3), (2, 2, 3)),
    ((12,), (2, 2, 3)),
    ((2, 3), (6,)),
    ((2, 2, 3), (4, 3)),
    ((2, 2, 3), (12,)),
]


AS_IT_IS: list[tuple[View, View]] = [
    ((2, 3), (2, 3)),
    ((2, 3), (1, 3)),
    ((2, 3), (3,)),
    ((2, 2, 3), (1, 1)),
    ((2, 2, 3), (1,)),
    ((2, 2, 3), ()),
    ((6,), (1,)),
    ((6,), ()),
]


@pytest.mark.parametrize(("lead", "batch"), AS_IT_IS, ids=str)
def test_a_mask_that_torch_spreads_anyway_is_taken_as_it_is(lead: View, batch: View) -> None:
    q, mask = randn(*lead, 3, 4), randn(*batch, 3, 3)
    before = program_of(lambda q, mask: (q @ q.mT + mask).softmax(-1) @ q, q, mask)
    result = FuseAttention().run(run_passes(before, Noops()))
    assert counts(result) == {"attention-eager": 1}
    assert "%input_1, " in body(result.program)
    same_numbers(before, result.program, q, mask, tolerance=1e-5)


def test_a_dynamic_axis_that_the_mask_has_is_not_computed() -> None:
    q, mask = randn(4, 2, 3, 3, 4), randn(4, 1, 3, 3, 3)
    before = program_of(
        lambda q, mask: (q @ q.mT + mask).softmax(-1) @ q,
        *(q, mask),
        dims={0: {0: "batch"}, 1: {0: "batch"}},
    )
    result = FuseAttention().run(run_passes(before, Noops()))
    assert counts(result) == {"attention-eager": 1}
    assert not result.program.find(torch.ops.aten.sym_size.int)
    same_numbers(before, result.program, q[:3], mask[:3], tolerance=1e-5)


@pytest.mark.parametrize(("lead", "view"), VIEWS, ids=str)
def test_masks_of_any_batch_axes_are_spread_as_torch_does(lead: View, view: View) -> None:
    q = randn(*lead, 3, 4)
    before = program_of(masked(lead, view), q)
    result = FuseAttention().run(run_passes(before, Noops()))
    assert counts(result) == {"attention-eager": len(list(batches(view)))}
    same_numbers(before, result.program, q, tolerance=1e-5)


DYNAMIC: list[tuple[View, Callable[[Tensor], Tensor]]] = [
    ((4,), lambda s: s.view(-1, 1, 3, 3)),
    ((4, 3), lambda s: s.view(-1, 3, 3)),
    ((4, 2, 3), lambda s: s),
    ((4, 2, 3), lambda s: s.view(-1, 3, 3, 3)),
    ((4, 6), lambda s: s.view(-1, 2, 3, 3, 3)),
]


@pytest.mark.parametrize("case", range(len(DYNAMIC)))
def test_masks_are_spread_over_a_dynamic_batch(case: int) -> None:
    lead, view = DYNAMIC[case]
    shapes = view(torch.zeros(*lead, 3, 3)).shape
    masks = [randn(*batch, 3, 3) for batch in batches((1, *shapes[1:-2]))]

    def model(q: Tensor) -> list[Tensor]:
        results = []
        for mask in masks:
            q = q + 0.1
            scores = view(q @ q.mT) + mask
            results.append(scores.softmax(-1).view(*q.shape[:-2], 3, 3) @ q)
        return results

    q = randn(*lead, 3, 4)
    before = program_of(model, q, dims={0: {0: "batch"}})
    result = FuseAttention().run(run_passes(before, Noops()))
    assert counts(result)["attention-eager"] > 0
    for size in (2, 6):
        same_numbers(before, result.program, randn(size, *lead[1:], 3, 4), tolerance=1e-5)


def test_a_mask_for_each_of_a_dynamic_batch_is_spread() -> None:
    def model(q: Tensor, mask: Tensor) -> list[Tensor]:
        wide = (q @ q.mT).unflatten(0, (-1, 2)) + mask
        three = (q @ q.mT).unflatten(0, (-1, 2))[:, :, None] + mask[:, :, None]
        return [wide.softmax(-1).flatten(0, 1) @ q, three.softmax(-1).flatten(0, 2) @ q]

    inputs = (randn(6, 3, 4), randn(3, 1, 3, 3))
    before = program_of(model, *inputs)
    result = FuseAttention().run(run_passes(before, Noops()))
    assert counts(result) == {"attention-eager": 2}
    same_numbers(before, result.program, *inputs, tolerance=1e-5)


def test_values_of_other_batch_axes_than_the_scores_are_left_alone() -> None:
    def model(q: Tensor, v: Tensor) -> Tensor:
        return (q @ q.mT).softmax(-1) @ v

    program = program_of(model, randn(3, 5, 4), randn(2, 3, 5, 4))
    assert_left_alone(FuseAttention(), program, "the batch axes of scores and values differ")


@pytest.mark.parametrize("name", ["queries", "keys", "values"])
def test_one_factor_for_all_of_a_batch_is_left_alone(name: str) -> None:
    def model(q: Tensor) -> Tensor:
        given = {n: q[:1] if n == name else q for n in ("queries", "keys", "values")}
        scores = given["queries"] @ given["keys"].mT
        return scores.softmax(-1) @ given["values"]

    assert_left_alone(FuseAttention(), program_of(model, randn(2, 5, 4)), "different batch axes")


def test_doubles_of_three_axes_are_left_alone() -> None:
    program = program_of(lambda q: (q @ q.mT).softmax(-1) @ q, randn(2, 5, 4).double())
    assert_left_alone(FuseAttention(), program, "queries, keys or values are torch.float64")


@pytest.mark.parametrize("lead", [(2, 3), (2, 2, 3)])
def test_a_dynamic_number_of_heads_is_left_alone(lead: View) -> None:
    program = program_of(
        lambda q: (q @ q.mT).softmax(-1) @ q,
        randn(*lead, 5, 4),
        dims={0: {len(lead) - 1: "heads"}},
    )
    assert_left_alone(FuseAttention(), program, "the number of heads is dynamic")


def test_an_axis_that_a_mask_has_already_is_not_measured_to_repeat_it() -> None:
    def model(q: Tensor, mask: Tensor) -> Tensor:
        return (q @ q.mT + mask).softmax(-1) @ q

    inputs = (randn(4, 2, 3, 5, 4), randn(4, 1, 3, 5, 5))
    before = program_of(model, *inputs, dims={0: {0: "batch"}, 1: {0: "batch"}})
    result = FuseAttention().run(before)
    assert counts(result) == {"attention-eager": 1}
    assert "aten.sym_size" not in body(result.program)
    same_numbers(before, result.program, *(x[:3] for x in inputs), tolerance=1e-6)


KEYS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda k: k.transpose(-1, -2),
    "transposed, counted from the left": lambda k: k.transpose(2, 3),
    "by mT": lambda k: k.mT,
    "permuted": lambda k: k.permute(0, 1, 3, 2),
    "scaled, then transposed": lambda k: (k * 2).mT,
    "transposed, then scaled": lambda k: 0.5 * k.mT,
    "divided": lambda k: k.mT / 2,
    "computed": lambda k: k.mT.exp(),
    "permuted from rows": lambda k: k.permute(0, 2, 1, 3).permute(0, 2, 3, 1),
    "of other axes": lambda k: k.transpose(2, 3).transpose(0, 1).transpose(0, 1),
    "turned twice": lambda k: k.permute(3, 0, 1, 2).permute(1, 2, 0, 3),
    "scaled by more axes": lambda k: (k * torch.full((1, 1, 1), 0.5)).mT,
}


@pytest.mark.parametrize("case", KEYS)
def test_keys_are_turned_back_however_they_were_turned(case: str) -> None:
    def model(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ KEYS[case](k)).softmax(-1) @ v

    inputs = (randn(2, 3, 5, 4), randn(2, 3, 6, 4), randn(2, 3, 6, 7))
    before = program_of(model, *inputs)
    result = FuseAttention().run(before)
    assert counts(result) == {"attention-eager": 1}
    same_numbers(before, result.program, *inputs, tolerance=1e-5)


def test_keys_that_were_permuted_are_permuted_once() -> None:
    def model(q: Tensor, k: Tensor) -> Tensor:
        return (q @ k.permute(0, 2, 3, 1)).softmax(-1) @ q

    before = program_of(model, randn(2, 3, 5, 4), randn(2, 5, 3, 4))
    text = body(FuseAttention().run(before).program)
    assert "aten.transpose.int(%input_1, 1, 2)" in text
    assert text.count("aten.transpose") + text.count("aten.permute") == 1


def test_repeated_heads_of_turned_keys_are_grouped() -> None:
    def model(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (t[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2) for t in (k, v))
        return (q @ k).softmax(-1) @ v

    inputs = (randn(2, 4, 5, 3), randn(2, 2, 3, 6), randn(2, 2, 6, 7))
    before = program_of(model, *inputs)
    after = FuseAttention().run(run_passes(before, Noops())).program
    assert ", None, 4, 2, 1.0, False" in body(after)
    same_numbers(before, after, *inputs, tolerance=1e-6)


TURNED: dict[str, Callable[..., Tensor]] = {
    "keys as an input": lambda q, k, v: (q @ k).softmax(-1) @ v.mT,
    "a result turned": lambda q, k, v: v @ (q @ k).softmax(-1).mT,
    "a result permuted": lambda q, k, v: v @ (q @ k).softmax(-1).permute(0, 1, 3, 2),
    "scores turned": lambda q, k, v: (k.mT @ q.mT).mT.softmax(-1) @ v.mT,
}


@pytest.mark.parametrize("case", TURNED)
def test_products_may_be_turned(case: str) -> None:
    inputs = (randn(2, 3, 5, 4), randn(2, 3, 4, 6), randn(2, 3, 7, 6))
    before = program_of(TURNED[case], *inputs)
    result = FuseAttention().run(before)
    assert counts(result) == ({} if case == "scores turned" else {"attention-eager": 1})
    same_numbers(before, result.program, *inputs, tolerance=1e-5)


NUMBERS: dict[str, Callable[[Tensor], Tensor]] = {
    "a number": lambda q: q * 0.3,
    "a number first": lambda q: 0.3 * q,
    "over a number": lambda q: q / 3,
    "two numbers": lambda q: q * 2 / 3,
    "a kept number": lambda q: q * torch.tensor(0.3),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_a_number_that_multiplies_queries_is_the_scale(case: str) -> None:
    q = randn(2, 3, 5, 4)
    before = program_of(lambda q: (NUMBERS[case](q) @ q.mT).softmax(-1) @ q, q)
    after = run_passes(before, Noops(), FuseAttention())
    assert "strop.attention(%input_0, %input_0, %input_0, None, 3, 3, 0." in body(after)
    same_numbers(before, after, q, tolerance=1e-6)


def test_a_number_with_more_axes_than_queries_is_no_scale() -> None:
    def model(q: Tensor) -> Tensor:
        wide = q * torch.full((1, 1, 1, 1), 0.5)
        return (wide @ q.mT).softmax(-1) @ q

    q = randn(2, 5, 4)
    before = program_of(model, q)
    result = FuseAttention().run(before)
    assert not result.modified
    same_numbers(before, result.program, q, tolerance=1e-6)


def test_a_softmax_over_queries_is_left_alone() -> None:
    for axis in (-2, 0, 2):
        program = program_of(lambda q, a=axis: (q @ q.mT).softmax(a) @ q, randn(2, 3, 4, 4))
        assert_left_alone(FuseAttention(), program, "softmax is not over the last axis")


def test_heads_of_more_axes_are_packed_anew() -> None:
    def model(x: Tensor) -> Tensor:
        rows = x.view(2, 3, 4, 4).transpose(1, 2)
        return F.scaled_dot_product_attention(rows, rows, rows)

    for shape in ((2, 3, 2, 8), (2, 3, 2, 2, 4)):
        x = randn(*shape)
        before = program_of(model, x)
        result = FuseAttention().run(before)
        assert counts(result) == {"attention-sdpa": 1}
        assert "aten.flatten" in body(result.program)
        same_numbers(before, result.program, x, tolerance=1e-6)


@pytest.mark.parametrize("order", [(0, 2, 1, 3), (2, 0, 1, 3), (0, 1, 2, 3), (1, 2, 0, 3)])
def test_heads_in_any_order_of_axes_give_the_same_numbers(order: tuple[int, ...]) -> None:
    def model(x: Tensor) -> Tensor:
        heads = x.unflatten(-1, (3, 3)).permute(order)
        return F.scaled_dot_product_attention(heads, heads, heads)

    x = randn(3, 3, 9)
    before = program_of(model, x)
    result = FuseAttention().run(run_passes(before, Noops()))
    assert counts(result) == {"attention-sdpa": 1}
    packed = "strop.attention(%input_0, %input_0, %input_0" in body(result.program)
    assert packed == (order == (0, 2, 1, 3))
    same_numbers(before, result.program, x, tolerance=1e-6)


class Decorated(nn.Module):
    """Projections whose heads are normed, scaled and rotated before attention reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 8)
        self.norm, self.rms = nn.LayerNorm(4), nn.RMSNorm(4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k, v = self.norm(q), self.rms(k) * 0.5, v * y
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def test_projections_are_packed_through_what_is_done_to_heads() -> None:
    inputs = (randn(2, 3, 8), randn(2, 1, 3, 1))
    before = program_of(Decorated(), *inputs)
    fused = run_passes(before, Noops(), PlainLinears(), FuseRotary(), FuseAttention(), Noops())
    result = PackLinears().run(fused)
    assert counts(result) == {"packed-qkv": 1}
    assert "aten.cat([@q.weight, @k.weight, @v.weight])" in body(result.program)
    same_numbers(before, result.program, *inputs, tolerance=1e-5)
