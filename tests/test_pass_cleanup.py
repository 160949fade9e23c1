"""The cleanup passes, by text before and after."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from program_tools import body, counts, program_of, run_passes, same_numbers
from torch import Tensor

from strop.passes.cleanup.constants import FoldConstants
from strop.passes.cleanup.cse import CommonSubexpressions
from strop.passes.cleanup.linears import PlainLinears
from strop.passes.cleanup.masks import CanonicalMasks
from strop.passes.cleanup.noops import Noops

X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


def test_noops_removes_what_changes_nothing() -> None:
    def model(x: Tensor) -> Tensor:
        x = F.dropout(x, 0.5, training=False).contiguous()
        x = F.pad((x.to(torch.float32) + 0) * 1, (0, 0, 0, 0))
        return torch.relu(x.view(2, 3, 4))

    before = program_of(model, X)
    after = Noops().run(before)
    assert body(after.program) == (
        "program(%input_0 : f32[2, 3, 4])\n"
        "  %relu : f32[2, 3, 4] = aten.relu(%input_0)\n"
        '  return "output": %relu'
    )
    same_numbers(before, after.program, X, tolerance=0)


def test_noops_keeps_what_changes_something() -> None:
    def model(x: Tensor) -> tuple[Tensor, ...]:
        return x + 1, x * 2, x.to(torch.float64), x[:, ::2], x.reshape(6, 4), F.pad(x, (1, -1))

    program = program_of(model, X)
    assert not Noops().run(program).modified


def test_a_scaling_by_true_division_of_integers_stays() -> None:
    program = program_of(lambda x: x / 1, torch.arange(4))
    assert "aten.div" in body(Noops().run(program).program)


def test_transposes_and_views_cancel() -> None:
    def model(x: Tensor) -> Tensor:
        heads = x.unflatten(-1, (2, 2)).transpose(1, 2)
        return heads.transpose(2, 1).flatten(2) * 2

    before = program_of(model, X, dims={0: {0: "batch", 1: "seq"}})
    after = Noops().run(before)
    assert body(after.program) == (
        "program(%input_0 : f32[batch, seq, 4])\n"
        "  %mul : f32[batch, seq, 4] = aten.mul.Tensor(%input_0, 2)\n"
        '  return "output": %mul'
    )
    same_numbers(before, after.program, X, tolerance=0)


def test_a_lossy_cast_chain_stays_and_says_why() -> None:
    program = program_of(lambda x: x.to(torch.float16).to(torch.float32), X)
    result = Noops().run(program)
    assert not result.modified
    assert any("cannot hold" in m.reason for m in result.log.misses)


def test_removing_a_copy_never_leaves_a_view_that_eager_refuses() -> None:
    before = program_of(lambda x: x.transpose(1, 2).contiguous().view(2, 12), X)
    after = Noops().run(before).program
    same_numbers(before, after, X, tolerance=0)


def test_cse_merges_equal_calls_and_no_others() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.exp(x) + torch.exp(x) * torch.exp(-x)

    before = program_of(model, X)
    result = CommonSubexpressions().run(before)
    assert counts(result) == {"cse": 1}
    assert body(result.program).count("aten.exp") == 2
    same_numbers(before, result.program, X, tolerance=0)


def test_cse_tells_an_int_from_a_float_and_a_bool() -> None:
    program = program_of(lambda x: (x + 1, x + 1.0), torch.arange(4))
    assert not CommonSubexpressions().run(program).modified


def test_constants_are_folded_up_to_a_limit() -> None:
    def model(x: Tensor) -> Tensor:
        return x + torch.arange(4).to(torch.float32) * 2

    before = program_of(model, X)
    after = FoldConstants().run(before)
    assert body(after.program).count("\n") == 2
    same_numbers(before, after.program, X, tolerance=0)
    limited = FoldConstants(limit_bytes=8).run(before)
    assert not limited.modified
    assert "left as it is" in limited.log.notes[0]


def test_expressions_over_trained_weights_are_not_folded() -> None:
    program = program_of(lambda x, w: x * (w + 1), X, w=torch.ones(4))
    assert not FoldConstants().run(program).modified


def test_conv1d_and_plain_products_become_linear() -> None:
    def model(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        rows = torch.addmm(b, x.reshape(-1, 4), w)
        return rows.reshape(2, 3, 5) + x @ w

    w, b = torch.randn(4, 5), torch.randn(5)
    before = program_of(model, X, w=w, b=b)
    after = PlainLinears().run(before)
    assert counts(after) == {"linear-conv1d": 1, "linear-product": 1}
    assert body(after.program).count("aten.linear") == 2
    same_numbers(before, after.program, X, tolerance=1e-6)


def test_a_product_of_two_inputs_is_no_linear_layer() -> None:
    program = program_of(lambda x, y: x @ y, X, X.transpose(1, 2))
    assert not PlainLinears().run(program).modified


def _masked_attention(q: Tensor, padding: Tensor) -> Tensor:
    batch, length = padding.shape
    rows = torch.arange(batch)[:, None, None, None]
    queries = torch.arange(length)[None, None, :, None]
    keys = torch.arange(length)[None, None, None, :]
    mask = (keys <= queries) & padding[rows, keys]
    mask = mask.expand(batch, -1, length, length)
    return F.scaled_dot_product_attention(q, q, q, mask)


def test_a_computed_mask_is_read_back_into_causal_and_padding() -> None:
    q = torch.randn(2, 2, 5, 4)
    padding = torch.ones(2, 5, dtype=torch.bool)
    padding[1, 3:] = False
    dims = {0: {0: "batch", 2: "seq"}, 1: {0: "batch", 1: "seq"}}
    before = program_of(_masked_attention, q, padding, dims=dims)
    program = run_passes(before, Noops(), CommonSubexpressions())
    after = CanonicalMasks().run(program)
    assert counts(after) == {"masks": 1}
    assert body(after.program) == (
        "program(%input_0 : f32[batch, 2, seq, 4], %input_1 : bool[batch, seq])\n"
        "  %unsqueeze_default : bool[batch, 1, seq] = aten.unsqueeze(%input_1, 1)\n"
        "  %unsqueeze_default_1 : bool[batch, 1, 1, seq] = "
        "aten.unsqueeze(%unsqueeze_default, 1)\n"
        "  %scaled_dot_product_attention_default : f32[batch, 2, seq, 4] = "
        "aten.scaled_dot_product_attention(%input_0, %input_0, %input_0, %unsqueeze_default_1, "
        "0.0, True, scale=None, enable_gqa=False)\n"
        '  return "output": %scaled_dot_product_attention_default'
    )


def test_a_mask_that_says_something_else_is_kept_with_its_reason() -> None:
    def model(q: Tensor) -> Tensor:
        i = torch.arange(5)
        return F.scaled_dot_product_attention(q, q, q, (i[None, :] - i[:, None]).abs() < 2)

    result = CanonicalMasks().run(program_of(model, torch.randn(1, 2, 5, 4)))
    assert not result.modified
    assert "not causal-and-padding" in result.log.misses[0].reason


def test_a_transposed_causal_mask_is_not_taken_for_causal() -> None:
    def model(q: Tensor) -> Tensor:
        i = torch.arange(5)
        return F.scaled_dot_product_attention(q, q, q, i[:, None] <= i[None, :])

    assert not CanonicalMasks().run(program_of(model, torch.randn(1, 2, 5, 4))).modified


def test_a_sum_with_a_matrix_is_no_bias() -> None:
    def flattened(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return torch.addmm(y, x.view(-1, 4), weight).view(2, 3, 4)

    rows, weight = torch.randn(6, 4), torch.randn(4, 4)
    before = run_passes(program_of(flattened, X, rows, weight=weight), Noops())
    result = PlainLinears().run(before)
    assert not result.modified
    assert {m.reason.split(" at ")[0] for m in result.log.misses} == {"the addend is not a bias"}


def test_a_cast_through_a_dtype_of_less_range_is_kept() -> None:
    before = program_of(lambda x: x.bfloat16().half().bfloat16().float(), X * 1e6)
    result = Noops().run(before)
    assert not result.modified
    assert "cannot hold every torch.bfloat16" in result.log.misses[0].reason


def test_numbers_that_differ_in_the_sign_of_zero_are_two() -> None:
    def model(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(x, 0.0), torch.full_like(x, -0.0)

    assert not CommonSubexpressions().run(program_of(model, X)).modified


def test_a_constant_may_be_named_like_an_attribute_of_every_module() -> None:
    def model(x: Tensor) -> Tensor:
        return x.masked_fill(torch.ones(3, 4).triu(1).to(torch.bool), 0.0)

    before = program_of(model, X)
    after = FoldConstants().run(before).program
    assert "@strop.to," in body(after)
    same_numbers(before, after, X, tolerance=0)


Q = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(1))
STRANGE_MASKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "one key for all": lambda i, one: one[None, :] <= i[:, None],
    "one query for all": lambda i, one: i[None, :] <= one[:, None],
    "indices as truth values": lambda i, one: i.bool()[None, :] <= i[:, None],
    "one index for all": lambda i, one: one.expand(5)[None, :] <= i[:, None],
    "causal for one key": lambda i, one: (
        (one[None, :] <= i[:, None]) & torch.ones(5, 5, dtype=torch.bool)
    ),
}


@pytest.mark.parametrize("mask", STRANGE_MASKS.values(), ids=STRANGE_MASKS)
def test_an_index_grid_that_is_repeated_or_cast_does_not_count(
    mask: Callable[[Tensor, Tensor], Tensor],
) -> None:
    def model(q: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, q, q, mask(torch.arange(5), torch.arange(1)))

    before = program_of(model, Q)
    result = CanonicalMasks().run(before)
    assert not result.modified
    assert result.log.misses
