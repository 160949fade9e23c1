"""The fusion passes, by text before and after, numbers, and the reasons for near misses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from program_tools import body, counts, program_of, run_passes, same_numbers
from torch import Tensor, nn

from strop.compiler.rewriting.passes import Pass
from strop.passes.cleanup.linears import PlainLinears
from strop.passes.cleanup.noops import Noops
from strop.passes.fuse.activation import FuseActivations, FuseBiasGelu
from strop.passes.fuse.conv_bn import FoldBatchNorm
from strop.passes.fuse.eager_attention import FuseAttention
from strop.passes.fuse.embedding import FuseEmbeddings
from strop.passes.fuse.norm import FuseNorms
from strop.passes.fuse.packed import PackLinears
from strop.passes.fuse.residual import FuseResiduals
from strop.passes.fuse.rotary import FuseRotary

SEED = torch.Generator().manual_seed(0)
X = torch.randn(2, 3, 8, generator=SEED)
BATCH_SEQ = {0: {0: "batch", 1: "seq"}}


def split(x: Tensor, heads: int) -> Tensor:
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def merged(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


class SelfAttention(nn.Module):
    def __init__(self, kv_heads: int = 4, eager: bool = False, weights: bool = False) -> None:
        super().__init__()
        self.q = nn.Linear(8, 8)
        self.k = nn.Linear(8, 2 * kv_heads, bias=False)
        self.v = nn.Linear(8, 2 * kv_heads)
        self.kv_heads, self.eager, self.weights = kv_heads, eager, weights

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        q, k, v = (
            split(self.q(x), 4),
            split(self.k(x), self.kv_heads),
            split(self.v(x), self.kv_heads),
        )
        if self.kv_heads != 4:
            k, v = (
                t[:, :, None].expand(-1, -1, 4 // self.kv_heads, -1, -1).flatten(1, 2)
                for t in (k, v)
            )
        if not self.eager:
            return merged(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        scores = (q @ k.transpose(-1, -2) / math.sqrt(2)).masked_fill(hidden, -1e9)
        weights = scores.softmax(-1)
        return (merged(weights @ v), weights) if self.weights else merged(weights @ v)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_attention_and_its_layout_become_one_packed_operator(kv_heads: int) -> None:
    before = program_of(SelfAttention(kv_heads), X, dims=BATCH_SEQ)
    after = run_passes(before, Noops(), FuseAttention(), Noops())
    assert body(after) == (
        "program(%input_0 : f32[batch, seq, 8])\n"
        "  %linear : f32[batch, seq, 8] = aten.linear(%input_0, @q.weight, @q.bias)\n"
        f"  %linear_1 : f32[batch, seq, {2 * kv_heads}] = aten.linear(%input_0, @k.weight)\n"
        f"  %linear_2 : f32[batch, seq, {2 * kv_heads}] = "
        "aten.linear(%input_0, @v.weight, @v.bias)\n"
        "  %attention_default : f32[batch, seq, 8] = strop.attention(%linear, %linear_1, "
        f"%linear_2, None, 4, {kv_heads}, 0.7071067811865475, True)\n"
        '  return "output": %attention_default'
    )
    same_numbers(before, after, X, tolerance=1e-6)


def test_packed_qkv_is_one_product_of_joined_weights() -> None:
    before = program_of(SelfAttention(2), X, dims=BATCH_SEQ)
    fused = run_passes(before, Noops(), FuseAttention(), Noops())
    result = PackLinears().run(fused)
    assert counts(result) == {"packed-qkv": 1}
    text = body(result.program)
    assert text.count("aten.linear") == 1
    assert "aten.cat([@q.weight, @k.weight, @v.weight])" in text
    assert "aten.split_with_sizes(%linear_default, [8, 4, 4], -1)" in text
    same_numbers(before, result.program, X, tolerance=1e-6)


def test_training_still_reaches_every_original_weight_after_packing() -> None:
    before = program_of(SelfAttention(), X)
    after = run_passes(before, Noops(), FuseAttention(), Noops(), PackLinears())
    after.run(input_0=X)[0].sum().backward()
    names = {name for name, p in after.parameters.items() if p.grad is not None}
    assert names == {
        "inner.q.weight",
        "inner.q.bias",
        "inner.k.weight",
        "inner.v.weight",
        "inner.v.bias",
    }


def test_hand_written_attention_is_recognised() -> None:
    before = program_of(SelfAttention(eager=True), X, dims=BATCH_SEQ)
    result = FuseAttention().run(Noops().run(before).program)
    assert counts(result) == {"attention-eager": 1}
    same_numbers(before, result.program, X, tolerance=1e-6)


def test_attention_weights_that_are_returned_are_left_alone_with_the_reason() -> None:
    program = program_of(SelfAttention(eager=True, weights=True), X)
    result = FuseAttention().run(Noops().run(program).program)
    assert not result.modified
    assert "used elsewhere" in result.log.misses[0].reason


def test_bmm_attention_with_a_bias_is_recognised() -> None:
    def model(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return torch.bmm((torch.bmm(q, k.transpose(1, 2)) * 0.3 + bias).softmax(-1), v)

    inputs = [torch.randn(6, 5, 4, generator=SEED) for _ in range(3)]
    inputs.append(torch.randn(6, 5, 5, generator=SEED))
    before = program_of(model, *inputs)
    result = FuseAttention().run(before)
    assert counts(result) == {"attention-eager": 1}
    same_numbers(before, result.program, *inputs, tolerance=1e-6)


def test_a_bias_scaled_with_the_scores_is_scaled_in_the_mask() -> None:
    def model(q: Tensor, bias: Tensor) -> Tensor:
        return (((q @ q.transpose(-1, -2) + bias) * 0.5).softmax(-1)) @ q

    inputs = torch.randn(1, 2, 3, 4), torch.randn(3, 3)
    before = program_of(model, *inputs)
    result = FuseAttention().run(before)
    assert counts(result) == {"attention-eager": 1}
    same_numbers(before, result.program, *inputs, tolerance=1e-6)


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def _rms_division(x: Tensor, weight: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * (1 + weight)


@pytest.mark.parametrize("form", [_rms, _rms_division])
def test_rms_norm_written_out_is_recognised(form: object) -> None:
    weight = torch.randn(8, generator=SEED)
    before = program_of(form, X, weight=weight)  # type: ignore[arg-type]
    result = FuseNorms().run(before)
    assert counts(result) == {"rms-norm": 1}
    same_numbers(before, result.program, X, tolerance=1e-6)


def test_a_mean_over_another_axis_is_no_rms_norm() -> None:
    def model(x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)

    result = FuseNorms().run(program_of(model, X))
    assert not result.modified
    assert "not the last one" in result.log.misses[0].reason


def test_residual_and_norm_share_the_sum() -> None:
    def model(x: Tensor, y: Tensor, w: Tensor, b: Tensor) -> Tensor:
        total = x + y
        return F.layer_norm(total, (8,), w, b) + total

    before = program_of(model, X, X.flip(0), w=torch.randn(8), b=torch.randn(8))
    after = FuseResiduals().run(before)
    assert body(after.program) == (
        "program(%input_0 : f32[2, 3, 8], %input_1 : f32[2, 3, 8])\n"
        "  %skip_layer_norm_default : (f32[2, 3, 8], f32[2, 3, 8]) = "
        "strop.skip_layer_norm(%input_0, %input_1, @w, @b, 1e-05)\n"
        "  %getitem : f32[2, 3, 8] = py.getitem(%skip_layer_norm_default, 0)\n"
        "  %getitem_1 : f32[2, 3, 8] = py.getitem(%skip_layer_norm_default, 1)\n"
        "  %add_1 : f32[2, 3, 8] = aten.add.Tensor(%getitem, %getitem_1)\n"
        '  return "output": %add_1'
    )
    same_numbers(before, after.program, X, X.flip(0), tolerance=1e-6)


def test_a_broadcast_sum_is_no_residual() -> None:
    result = FuseResiduals().run(
        program_of(lambda x, w: F.layer_norm(x + w, (8,)), X, w=torch.randn(8))
    )
    assert not result.modified


GELUS = {
    "gelu-erf": [
        lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
        lambda x: 0.5 * (x * (1 + torch.erf(x * 0.70710678))),
    ],
    "gelu-tanh": [
        lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x**3))),
        lambda x: (
            x
            * (
                0.5
                * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))
            )
        ),
    ],
    "silu": [lambda x: x * torch.sigmoid(x), lambda x: torch.sigmoid(x) * x],
}


@pytest.mark.parametrize(
    ("rule", "form"), [(rule, form) for rule, forms in GELUS.items() for form in forms]
)
def test_activations_written_out_are_recognised(rule: str, form: object) -> None:
    before = program_of(form, X)  # type: ignore[arg-type]
    result = FuseActivations().run(before)
    assert counts(result) == {rule: 1}
    same_numbers(before, result.program, X, tolerance=1e-6)


def test_another_constant_is_no_gelu() -> None:
    result = FuseActivations().run(program_of(lambda x: x * 0.5 * (1.0 + torch.erf(x / 1.5)), X))
    assert not result.modified
    assert "expected the number" in str(result.log.misses[0].reason)


@pytest.mark.parametrize("kind", ["silu", "gelu", "gelu_tanh"])
def test_gated_activations_are_one_operator(kind: str) -> None:
    def model(x: Tensor, y: Tensor) -> Tensor:
        if kind == "silu":
            return F.silu(x) * y
        return y * F.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")

    before = program_of(model, X, X.flip(0))
    result = FuseActivations().run(before)
    assert f"strop.gated(%input_0, %input_1, '{kind}')" in body(result.program)
    same_numbers(before, result.program, X, X.flip(0), tolerance=1e-6)


def test_bias_moves_into_gelu() -> None:
    before = program_of(nn.Sequential(nn.Linear(8, 4), nn.GELU()), X)
    result = FuseBiasGelu().run(before)
    assert counts(result) == {"bias-gelu": 1}
    same_numbers(before, result.program, X, tolerance=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("padding", [0, "same"])
def test_batch_norm_folds_into_the_convolution(
    bias: bool, affine: bool, padding: int | str
) -> None:
    conv = nn.Conv2d(3, 4, 3, bias=bias, padding=padding)
    model = nn.Sequential(conv, nn.BatchNorm2d(4, affine=affine))
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.running_mean = torch.randn(4)
    norm.running_var = torch.rand(4) + 0.5
    image = torch.randn(2, 3, 6, 6)
    before = program_of(model, image)
    result = FoldBatchNorm().run(before)
    assert counts(result) == {"conv-bn": 1}
    assert "batch_norm" not in body(result.program)
    same_numbers(before, result.program, image, tolerance=1e-5)


def _rotated(x: Tensor, positions: Tensor, rotated: int) -> Tensor:
    frequencies = 1 / 10000 ** (torch.arange(0, rotated, 2) / rotated)
    angles = positions[:, :, None] * frequencies
    table = torch.cat((angles, angles), dim=-1)
    cos, sin = table.cos().unsqueeze(1), table.sin().unsqueeze(1)
    part, rest = x[..., :rotated], x[..., rotated:]
    half = torch.cat((-part[..., rotated // 2 :], part[..., : rotated // 2]), dim=-1)
    turned = part * cos + half * sin
    return torch.cat((turned, rest), dim=-1) if rotated < x.shape[-1] else turned


@pytest.mark.parametrize("rotated", [4, 2])
def test_rotary_is_recognised_in_full_and_in_part(rotated: int) -> None:
    def model(x: Tensor, positions: Tensor) -> Tensor:
        return _rotated(split(x, 2), positions, rotated).transpose(1, 2).flatten(2)

    positions = torch.arange(3.0)[None]
    before = program_of(model, X, positions)
    after = run_passes(before, Noops(), FuseRotary(), Noops())
    assert body(after).count("strop.rotary") == 1
    assert "strop.rotary(%input_0" in body(after)
    same_numbers(before, after, X, positions, tolerance=1e-6)


def test_tables_with_different_halves_are_not_rotary() -> None:
    def model(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        half = torch.cat((-x[..., 2:], x[..., :2]), dim=-1)
        return x * cos.unsqueeze(1) + half * sin.unsqueeze(1)

    x, table = torch.randn(1, 2, 3, 4), torch.randn(1, 3, 4)
    result = FuseRotary().run(program_of(model, x, table, table.flip(-1)))
    assert not result.modified
    assert "not two equal halves" in result.log.misses[0].reason


class Embeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.types = nn.Embedding(11, 8), nn.Embedding(2, 8)
        self.positions = nn.Embedding(7, 8)
        self.register_buffer("ids", torch.arange(7)[None], persistent=False)
        self.register_buffer("zeros", torch.zeros(1, 7, dtype=torch.long), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        types = self.zeros[:, :length].expand(ids.shape[0], length)  # type: ignore[index]
        total = self.words(ids) + self.types(types)
        return total + self.positions(self.ids[:, :length])  # type: ignore[index]


def test_embedding_sums_look_up_words_only() -> None:
    ids = torch.tensor([[1, 5, 10, 3], [0, 2, 2, 9]])
    before = program_of(Embeddings(), ids, dims={0: {0: "batch", 1: ("seq", 1, 7)}})
    result = FuseEmbeddings().run(before)
    assert counts(result) == {"embedding-row": 1, "embedding-range": 1, "embedding-sum": 1}
    assert body(result.program).count("aten.embedding") == 1
    same_numbers(before, result.program, ids, tolerance=1e-6)
    same_numbers(before, result.program, ids[:1, :2], tolerance=1e-6)


ALL: tuple[Pass, ...] = (Noops(), FuseAttention(), Noops(), PackLinears())


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.sampled_from([1, 2, 4]))
def test_fused_attention_agrees_at_any_size(batch: int, length: int, kv_heads: int) -> None:
    torch.manual_seed(0)
    before = program_of(SelfAttention(kv_heads), X, dims=BATCH_SEQ)
    x = torch.randn(batch, length, 8)
    same_numbers(before, run_passes(before, *ALL), x, tolerance=1e-6)


def test_a_row_hidden_behind_a_finite_number_stays_a_mean() -> None:
    def model(q: Tensor, hidden: Tensor) -> Tensor:
        scores = (q @ q.transpose(-1, -2)).masked_fill(hidden, -1e9)
        return scores.softmax(-1) @ q

    q = torch.randn(1, 2, 3, 4, generator=SEED)
    hidden = torch.tensor([[True, True, True], [False, True, True], [False, False, True]])
    before = program_of(model, q, hidden)
    result = FuseAttention().run(before)
    assert counts(result) == {"attention-eager": 1}
    same_numbers(before, result.program, q, hidden, tolerance=1e-6)


def test_keys_expanded_over_the_batch_are_not_taken_for_grouped_heads() -> None:
    def model(q: Tensor, k: Tensor) -> Tensor:
        wide = k[:, :, None].expand(2, 2, 2, 3, 4).reshape(2, 4, 3, 4)
        return F.scaled_dot_product_attention(q, wide, wide)

    q, k = torch.randn(2, 4, 3, 4, generator=SEED), torch.randn(1, 2, 3, 4, generator=SEED)
    before = program_of(model, q, k)
    result = FuseAttention().run(Noops().run(before).program)
    assert "4, 4, 0.5" in body(result.program)
    same_numbers(before, result.program, q, k, tolerance=1e-6)


SCORES = torch.randn(2, 2, 5, 4, generator=SEED)
# Rows that only look back, and padding on the left: whole rows are hidden, in two ways.
FUTURE = torch.ones(5, 5, dtype=torch.bool).triu(1)
PADDED = torch.tensor([[True, True, False, False, False], [False] * 5])[:, None, None]


@pytest.mark.parametrize(("first", "last"), [(-math.inf, -1e9), (-1e9, -math.inf)])
def test_a_row_hidden_in_two_ways_is_a_mean_of_what_is_hidden_less(
    first: float, last: float
) -> None:
    def model(q: Tensor, future: Tensor, padded: Tensor) -> Tensor:
        scores = (q @ q.transpose(-1, -2)).masked_fill(future, first).masked_fill(padded, last)
        return scores.softmax(-1) @ q

    masks = (FUTURE, PADDED) if first == -math.inf else (PADDED, FUTURE)
    before = program_of(model, SCORES, *masks)
    result = FuseAttention().run(before)
    assert counts(result) == {"attention-eager": 1}
    same_numbers(before, result.program, SCORES, *masks, tolerance=1e-6)


def test_scores_hidden_behind_different_numbers_are_left_alone() -> None:
    def model(q: Tensor, future: Tensor, padded: Tensor) -> Tensor:
        scores = (q @ q.transpose(-1, -2)).masked_fill(future, -1e9).masked_fill(padded, -1e5)
        return scores.softmax(-1) @ q

    result = FuseAttention().run(program_of(model, SCORES, FUTURE, PADDED))
    assert not result.modified
    assert "behind different numbers" in result.log.misses[0].reason


def test_a_fill_and_a_sum_that_both_hide_are_left_alone() -> None:
    def model(q: Tensor, future: Tensor, padded: Tensor) -> Tensor:
        scores = q @ q.transpose(-1, -2) + padded.float() * -1e9
        return scores.masked_fill(future, -1e9).softmax(-1) @ q

    result = FuseAttention().run(program_of(model, SCORES, FUTURE, PADDED))
    assert not result.modified
    assert "by a fill and by a sum" in result.log.misses[0].reason


def test_a_bias_that_only_shifts_scores_joins_a_mask() -> None:
    def model(q: Tensor, future: Tensor, slopes: Tensor) -> Tensor:
        distance = torch.arange(5.0)[None, :] - torch.arange(5.0)[:, None]
        scores = q @ q.transpose(-1, -2) + slopes * distance
        return scores.masked_fill(future, -1e9).softmax(-1) @ q

    before = program_of(model, SCORES, FUTURE, slopes=torch.tensor([0.5, 0.1]).view(2, 1, 1))
    result = FuseAttention().run(before)
    assert counts(result) == {"attention-eager": 1}
    same_numbers(before, result.program, SCORES, FUTURE, tolerance=1e-6)


def test_truth_values_added_to_scores_are_numbers_and_no_mask() -> None:
    def model(q: Tensor, padded: Tensor) -> Tensor:
        return (q @ q.transpose(-1, -2) + padded).softmax(-1) @ q

    result = FuseAttention().run(program_of(model, SCORES, PADDED))
    assert not result.modified
    assert "the summand is torch.bool" in result.log.misses[0].reason


def test_scores_repeated_over_a_bias_are_left_alone() -> None:
    def model(q: Tensor, bias: Tensor) -> Tensor:
        return (q @ q.transpose(-1, -2) + bias).softmax(-1) @ q

    result = FuseAttention().run(program_of(model, SCORES[:1, :1], torch.randn(2, 3, 5, 5)))
    assert not result.modified
    assert "repeated over a mask" in result.log.misses[0].reason


def test_values_repeated_over_the_batch_are_left_to_the_general_operator() -> None:
    before = program_of(F.scaled_dot_product_attention, SCORES, SCORES, SCORES[:1])
    result = FuseAttention().run(before)
    assert not result.modified
    assert "batch or key sizes differ" in result.log.misses[0].reason


def test_packing_takes_weights_that_are_computed_after_the_first_product() -> None:
    def model(x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = (split(x @ w, 2) for w in (q, k, 2 * v))
        return merged(F.scaled_dot_product_attention(*parts))

    weights = {n: torch.randn(8, 8, generator=SEED) for n in "qkv"}
    before = program_of(model, X, **weights)
    fused = run_passes(before, Noops(), PlainLinears(), FuseAttention(), Noops())
    result = PackLinears().run(fused)
    assert counts(result) == {"packed-qkv": 1}
    same_numbers(before, result.program, X, tolerance=1e-5)


def test_weights_computed_from_an_input_are_not_packed() -> None:
    def model(x: Tensor, k: Tensor, q: Tensor, v: Tensor) -> Tensor:
        parts = (split(F.linear(x, w), 2) for w in (q, torch.relu(k), v))
        return merged(F.scaled_dot_product_attention(*parts))

    weights = {n: torch.randn(8, 8, generator=SEED) for n in "qv"}
    before = program_of(model, X, torch.randn(8, 8, generator=SEED), **weights)
    result = PackLinears().run(run_passes(before, Noops(), FuseAttention(), Noops()))
    assert not result.modified
    assert "computed from an input" in result.log.misses[0].reason


def test_a_convolution_without_a_batch_keeps_its_batch_norm() -> None:
    norm = nn.BatchNorm1d(6)
    norm.running_var = torch.rand(6) + 0.5
    result = FoldBatchNorm().run(
        program_of(nn.Sequential(nn.Conv1d(6, 6, 3, padding=1), norm), torch.randn(6, 6))
    )
    assert not result.modified
    assert "no batch axis" in result.log.misses[0].reason


NO_RMS_NORMS = {
    "[0, 1, 2]": lambda x: x * torch.rsqrt(x.pow(2).mean((0, 1, 2), keepdim=True) + 1e-6),
    "torch.float64": lambda x: (
        x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True, dtype=torch.float64) + 1e-6)
    ),
}


@pytest.mark.parametrize(("says", "form"), NO_RMS_NORMS.items())
def test_a_mean_of_everything_or_in_another_dtype_is_no_rms_norm(says: str, form: object) -> None:
    result = FuseNorms().run(program_of(form, X))  # type: ignore[arg-type]
    assert not result.modified
    assert says in result.log.misses[0].reason


def test_a_norm_over_a_dynamic_number_of_channels_is_left_alone() -> None:
    def model(x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    before = program_of(model, X, dims={0: {2: "channels"}})
    result = FuseNorms().run(before)
    assert not result.modified
    same_numbers(before, result.program, X[..., :5], tolerance=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3)])
def test_rotary_tables_that_are_repeated_or_repeat_are_left_alone(shape: tuple[int, int]) -> None:
    def model(x: Tensor, positions: Tensor) -> Tensor:
        return _rotated(x, positions, 4)

    x, positions = torch.randn(1, 2, 3, 4), torch.randn(*shape)
    result = FuseRotary().run(program_of(model, x, positions))
    assert not result.modified


def test_a_rotated_input_joined_with_another_is_rotated_alone() -> None:
    def model(x: Tensor, positions: Tensor, y: Tensor) -> Tensor:
        return torch.cat((_rotated(x, positions, 4), y), -1)

    inputs = torch.randn(1, 2, 3, 4), torch.arange(3.0)[None], torch.randn(1, 2, 3, 5)
    before = program_of(model, *inputs)
    result = FuseRotary().run(before)
    assert counts(result) == {"rotary": 1}
    same_numbers(before, result.program, *inputs, tolerance=1e-6)


def test_one_position_for_all_is_not_a_range_of_them() -> None:
    def model(ids: Tensor, table: Tensor) -> Tensor:
        return F.embedding(ids, table) + F.embedding(torch.arange(1).expand(4), table)

    before = program_of(model, torch.tensor([[1, 5, 2, 3]]), table=torch.randn(7, 8))
    result = FuseEmbeddings().run(before)
    assert "embedding-range" not in counts(result)
    same_numbers(before, result.program, torch.tensor([[1, 5, 2, 3]]), tolerance=1e-6)
