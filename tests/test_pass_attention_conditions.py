"""Torch's attention call: what becomes the operator, and each condition for which it stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from program_tools import assert_left_alone, body, counts, program_of, run_passes, same_numbers
from torch import Tensor, nn

from strop.passes.cleanup.noops import Noops
from strop.passes.fuse.eager_attention import FuseAttention
from strop.passes.fuse.packed import PackLinears

SEED = torch.Generator().manual_seed(0)


def heads(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=SEED)


Q = heads(2, 4, 5, 6)
K, V = heads(2, 4, 3, 6), heads(2, 4, 3, 6)

LEFT_ALONE: dict[str, tuple[Tensor, Tensor, Tensor, str]] = {
    "keys for one of two batches": (Q, K[:1], V[:1], "batch or key sizes differ"),
    "values for one of two batches": (Q, K, V[:1], "batch or key sizes differ"),
    "queries for one of two batches": (Q[:1], K, V, "batch or key sizes differ"),
    "keys of one head": (Q, K[:, :1], V, "4 query heads do not divide over 1 key and 4 value"),
    "values of one head": (Q, K, V[:, :1], "4 query heads do not divide over 4 key and 1 value"),
    "queries of one head": (Q[:, :1], K, V, "1 query heads do not divide over 4 key"),
    "doubles": (Q.double(), K.double(), V.double(), "queries are torch.float64"),
    "three axes": (Q[0], K[0], V[0], "queries are not [batch, heads, seq, size]"),
    # Torch spreads them over the batch.
    "keys of three axes": (Q[:, :2], K[0, :2], V[:, :2], "keys are not [batch, heads, seq, size]"),
    "values of three axes": (Q[:, :2], K[:, :2], V[0, :2], "values are not [batch, heads, "),
    "five axes": (Q[None], K[None], V[None], "queries are not [batch, heads, seq, size]"),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_other_shapes_and_dtypes_stay(case: str) -> None:
    q, k, v, reason = LEFT_ALONE[case]
    assert_left_alone(FuseAttention(), program_of(F.scaled_dot_product_attention, q, k, v), reason)


@pytest.mark.parametrize("heads_of_keys", [1, 2])
def test_grouped_heads_that_torch_groups_itself_are_one_operator(heads_of_keys: int) -> None:
    def model(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    inputs = (Q, K[:, :heads_of_keys], V[:, :heads_of_keys])
    before = program_of(model, *inputs)
    result = FuseAttention().run(before)
    assert counts(result) == {"attention-sdpa": 1}
    assert f", None, 4, {heads_of_keys}, 0.408" in body(result.program)
    same_numbers(before, result.program, *inputs, tolerance=1e-6)


def test_dropped_weights_stay_and_say_so() -> None:
    program = program_of(lambda q: F.scaled_dot_product_attention(q, q, q, dropout_p=0.5), Q)
    assert_left_alone(FuseAttention(), program, "drops attention weights")


@pytest.mark.parametrize("axis", [1, 3])
def test_a_dynamic_number_or_size_of_heads_stays(axis: int) -> None:
    program = program_of(
        lambda q: F.scaled_dot_product_attention(q, q, q), Q, dims={0: {axis: "size"}}
    )
    reason = "number of heads is dynamic" if axis == 1 else "the size of a head is dynamic"
    assert_left_alone(FuseAttention(), program, reason)


def test_the_mask_the_scale_and_values_of_another_size_are_kept() -> None:
    def model(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, mask, scale=0.3)

    inputs = (Q, K, heads(2, 4, 3, 7), heads(5, 3))
    before = program_of(model, *inputs)
    result = FuseAttention().run(before)
    assert counts(result) == {"attention-sdpa": 1}
    same_numbers(before, result.program, *inputs, tolerance=1e-6)


def wide(x: Tensor, times: int = 2) -> Tensor:
    """Heads repeated as ``repeat_kv`` of model libraries does."""
    batch, count, length, size = x.shape
    repeated = x[:, :, None].expand(batch, count, times, length, size)
    return repeated.reshape(batch, count * times, length, size)


REPEATED: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "expanded within": (wide, 2),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), 2),
    "repeat_interleave, from the right": (lambda x: x.repeat_interleave(2, dim=-3), 4),
    "repeated as a whole": (lambda x: torch.cat((x, x), 1), 4),
    "expanded before": (
        lambda x: x[:, None].expand(2, 2, 2, 3, 6).reshape(2, 4, 3, 6),
        4,
    ),
    "the other axes joined": (
        lambda x: x[:, :, None].expand(2, 2, 2, 3, 6).transpose(1, 2).reshape(2, 4, 3, 6),
        4,
    ),
    "expanded and regrouped": (
        lambda x: x[:, :, None].expand(2, 2, 3, 3, 6).reshape(2, 6, 3, 6)[:, :4],
        4,
    ),
    "repeated and scaled within": (
        lambda x: (x[:, :, None] * torch.tensor([1.0, 2.0]).view(2, 1, 1)).flatten(1, 2),
        4,
    ),
    "expanded after": (
        lambda x: x[:, :, :, None].expand(2, 2, 3, 2, 6).reshape(2, 4, 3, 6),
        4,
    ),
}


@pytest.mark.parametrize("case", REPEATED)
def test_repeated_heads_are_grouped_only_where_each_is_repeated_in_place(case: str) -> None:
    repeat, kv_heads = REPEATED[case]

    def model(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, repeat(k), repeat(v))

    inputs = (Q, K[:, :2], V[:, :2])
    before = program_of(model, *inputs)
    result = FuseAttention().run(run_passes(before, Noops()))
    assert f", None, 4, {kv_heads}, 0.408" in body(result.program)
    same_numbers(before, result.program, *inputs, tolerance=1e-6)


# All sizes are equal: only the operators say which axis was repeated.
LOOKALIKES: dict[str, Callable[[Tensor], Tensor]] = {
    **{
        f"inserted at {axis}": lambda x, axis=axis: _spread(x.unsqueeze(axis))
        for axis in (-5, -4, -3, -2, -1, 0, 1, 2, 3, 4)
    },
    "in the batch": lambda x: x[:, :, None].expand(2, 2, 2, 2, 2).reshape(4, 2, 2, 2),
    "and rows": lambda x: _spread(x[:, :, :1].unsqueeze(2)),
    "nothing inserted": lambda x: _spread(x.transpose(2, 3)),
    **{
        f"repeated along {axis}": lambda x, axis=axis: x.repeat_interleave(2, axis)
        for axis in range(4)
    },
}


def _spread(x: Tensor) -> Tensor:
    return x.expand(2, 2, 2, 2, 2).reshape(2, 4, 2, 2)


@pytest.mark.parametrize("case", LOOKALIKES)
def test_only_repeated_heads_are_taken_for_grouped_heads(case: str) -> None:
    repeat, x = LOOKALIKES[case], heads(2, 2, 2, 2)
    repeated = repeat(x)

    def model(q: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, repeat(x), repeat(x), mask)

    inputs = (heads(*repeated.shape), x, heads(repeated.shape[2], repeated.shape[2]))
    before = program_of(model, *inputs)
    result = FuseAttention().run(before)
    assert counts(result) == {"attention-sdpa": 1}
    same_numbers(before, result.program, *inputs, tolerance=1e-6)
    grouped = case in ("inserted at 2", "inserted at -3", "repeated along 1")
    kv_heads = 2 if grouped else repeated.shape[1]
    assert f", {repeated.shape[1]}, {kv_heads}, 0." in body(result.program)


def test_two_heads_of_keys_for_six_of_queries_in_one_batch() -> None:
    def model(q: Tensor, k: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, wide(k, 3), wide(k, 3))

    inputs = (heads(1, 6, 5, 4), heads(1, 2, 3, 4))
    before = program_of(model, *inputs)
    result = FuseAttention().run(run_passes(before, Noops()))
    assert ", None, 6, 2, 0.5" in body(result.program)
    same_numbers(before, result.program, *inputs, tolerance=1e-6)


def test_rows_repeated_as_if_they_were_heads_are_not_taken_for_grouped_heads() -> None:
    def model(q: Tensor, k: Tensor) -> Tensor:
        rows = k[:, :, None].expand(2, 2, 2, 3, 6).reshape(2, 2, 6, 6)
        return F.scaled_dot_product_attention(q[:, :2], rows, rows)

    inputs = (Q, K[:, :2])
    before = program_of(model, *inputs)
    result = FuseAttention().run(run_passes(before, Noops()))
    same_numbers(before, result.program, *inputs, tolerance=1e-6)


@pytest.mark.parametrize("shape", [(6, 1, 8), (2, 3, 4, 2), (2, 24), (2, 4, 6), (3, 2, 8)])
def test_heads_split_from_other_rows_are_packed_anew(shape: tuple[int, ...]) -> None:
    def model(x: Tensor) -> Tensor:
        rows = x.view(2, 3, 2, 4).transpose(1, 2)
        return F.scaled_dot_product_attention(rows, rows, rows)

    x = heads(*shape)
    before = program_of(model, x)
    result = FuseAttention().run(run_passes(before, Noops()))
    assert counts(result) == {"attention-sdpa": 1}
    same_numbers(before, result.program, x, tolerance=1e-6)


def test_rows_without_heads_are_packed_anew() -> None:
    def model(x: Tensor) -> Tensor:
        rows = x.view(2, 3, 1, 1).transpose(1, 2)
        return F.scaled_dot_product_attention(rows, rows, rows)

    x = heads(2, 3)
    before = program_of(model, x)
    result = FuseAttention().run(before)
    assert counts(result) == {"attention-sdpa": 1}
    same_numbers(before, result.program, x, tolerance=1e-6)


@pytest.mark.parametrize("vector", [lambda x: x.permute(0), lambda x: x.t()], ids=["permute", "t"])
def test_a_product_with_a_vector_is_no_attention(vector: Callable[[Tensor], Tensor]) -> None:
    before = program_of(lambda a, x: a @ vector(x), heads(4, 3), heads(3))
    assert not FuseAttention().run(before).modified


class Cross(nn.Module):
    """Queries of one value, keys and values of another."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8, bias=bias), nn.Linear(8, 8)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (2, 4)).transpose(1, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(y)), self.split(self.v(y))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


X, Y = heads(2, 3, 8), heads(2, 5, 8)


def test_keys_and_values_alone_are_packed_where_queries_read_another_value() -> None:
    before = program_of(Cross(bias=False), X, Y)
    result = PackLinears().run(run_passes(before, Noops(), FuseAttention(), Noops()))
    text = body(result.program)
    assert counts(result) == {"packed-qkv": 1}
    assert "aten.cat([@k.weight, @v.weight])" in text
    same_numbers(before, result.program, X, Y, tolerance=1e-6)


class Apart(Cross):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(y)), self.split(self.v(y * 2))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def test_layers_that_all_read_different_values_are_not_packed() -> None:
    program = run_passes(program_of(Apart(), X, Y), Noops(), FuseAttention(), Noops())
    assert_left_alone(PackLinears(), program, "read different inputs")


def test_functions_of_one_input_that_are_no_linear_layers_are_not_packed() -> None:
    before = program_of(lambda x: F.scaled_dot_product_attention(x.exp(), x.tanh(), x.sin()), Q)
    result = PackLinears().run(FuseAttention().run(before).program)
    assert not result.modified and not result.log.misses


class ComputedBias(Cross):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        k = F.linear(x, self.k.weight, y[0, 0])
        q, v = self.split(self.q(x)), self.split(self.v(x))
        return F.scaled_dot_product_attention(q, self.split(k), v).transpose(1, 2).flatten(2)


def test_a_bias_that_is_computed_from_an_input_is_not_packed() -> None:
    program = run_passes(program_of(ComputedBias(), X, Y), Noops(), FuseAttention(), Noops())
    assert_left_alone(PackLinears(), program, "computed from an input")


def test_without_biases_none_is_made() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            q, k = (layer(x).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (self.q, self.k))
            return F.scaled_dot_product_attention(q, k, k)

    before = program_of(Plain(), X)
    result = PackLinears().run(run_passes(before, Noops(), FuseAttention(), Noops()))
    assert counts(result) == {"packed-qkv": 1}
    assert "new_zeros" not in body(result.program)
    same_numbers(before, result.program, X, tolerance=1e-6)


def gated(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.ops.strop.gated(F.linear(x, a), F.linear(x, b), "silu")  # type: ignore[no-any-return]


@pytest.mark.parametrize("gates", [True, False])
def test_gates_are_packed_on_request_only(gates: bool) -> None:
    before = program_of(gated, X, a=heads(8, 8), b=heads(8, 8))
    result = PackLinears(gates=gates).run(before)
    assert counts(result) == ({"packed-gate": 1} if gates else {})
    same_numbers(before, result.program, X, tolerance=1e-5)
