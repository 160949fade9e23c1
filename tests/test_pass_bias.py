"""Biases folded into norms and dropped from keys: text, numbers, and what must stay."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from program_tools import body, counts, program_of, run_passes, same_numbers
from torch import Tensor, nn

from strop.passes.cleanup.noops import Noops
from strop.passes.fuse.bias import FoldBiases
from strop.passes.fuse.eager_attention import FuseAttention
from strop.passes.fuse.residual import FuseResiduals

X = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))


class PostNorm(nn.Module):
    """Two residual layers with a norm after each, as in BERT."""

    def __init__(self, returns_stream: bool = False) -> None:
        super().__init__()
        self.first, self.up, self.down = nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.norm, self.last = nn.LayerNorm(8), nn.LayerNorm(8)
        self.returns_stream = returns_stream
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        stream = self.norm(self.first(x) + x)
        out = self.last(self.down(torch.relu(self.up(stream))) + stream)
        return (out, stream) if self.returns_stream else out


def test_a_bias_before_a_residual_norm_moves_into_the_norm_before() -> None:
    before = program_of(PostNorm(), X)
    fused = run_passes(before, Noops(), FuseResiduals())
    result = FoldBiases().run(fused)
    assert counts(result) == {"bias-into-norm": 1}
    text = body(result.program)
    assert "aten.linear(%relu, @down.weight)\n" in text
    assert "aten.add.Tensor(@norm.bias, @down.bias)" in text
    assert "aten.mv(@up.weight, @down.bias)" in text
    same_numbers(before, result.program, X, tolerance=1e-5)


class OneLinear(nn.Module):
    """The linear layer before the norm reads the stream itself."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear, self.last = nn.LayerNorm(8), nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.norm(x)
        out: Tensor = self.last(stream + self.linear(stream))
        return out


def test_a_linear_layer_that_reads_the_stream_itself_takes_its_own_bias_back() -> None:
    before = program_of(OneLinear(), X)
    result = FoldBiases().run(run_passes(before, Noops(), FuseResiduals()))
    assert counts(result) == {"bias-into-norm": 1}
    same_numbers(before, result.program, X, tolerance=1e-5)


def test_a_stream_that_is_returned_keeps_its_value() -> None:
    before = program_of(PostNorm(returns_stream=True), X)
    result = FoldBiases().run(run_passes(before, Noops(), FuseResiduals()))
    assert not result.modified
    assert any("more than linear layers" in m.reason for m in result.log.misses)


def test_gradients_still_reach_every_bias() -> None:
    program = run_passes(program_of(PostNorm(), X), Noops(), FuseResiduals(), FoldBiases())
    program.run(input_0=X)[0].square().sum().backward()
    assert program.parameters
    assert all(p.grad is not None for p in program.parameters.values())


class Keys(nn.Module):
    def __init__(self, returns_keys: bool = False) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.returns_keys = returns_keys

    def forward(self, x: Tensor, mask: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v, mask)
        return (out, k) if self.returns_keys else out


MASK = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])


def test_the_bias_of_the_keys_is_dropped_even_where_a_row_hides_everything() -> None:
    before = program_of(Keys(), X, MASK)
    result = FoldBiases().run(run_passes(before, Noops(), FuseAttention()))
    assert counts(result) == {"key-bias": 1}
    assert "k.bias" not in body(result.program)
    same_numbers(before, result.program, X, MASK, tolerance=1e-6)


def test_keys_whose_scores_are_bounded_keep_their_bias() -> None:
    class Bounded(Keys):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
            return (q @ k.mT).tanh().softmax(-1) @ v

    before = run_passes(program_of(Bounded(), X, MASK), Noops(), FuseAttention())
    assert before.find(torch.ops.strop.attention.default)
    result = FoldBiases().run(before)
    assert not result.modified
    assert any("bounded by a tanh" in miss.reason for miss in result.log.misses)


def test_keys_that_are_returned_keep_their_bias() -> None:
    before = program_of(Keys(returns_keys=True), X, MASK)
    result = FoldBiases().run(run_passes(before, Noops(), FuseAttention()))
    assert not result.modified


def test_keys_that_are_also_the_values_or_the_queries_keep_their_bias() -> None:
    linear = nn.Linear(8, 8)

    def model(x: Tensor) -> tuple[Tensor, Tensor]:
        q, one = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in (x, linear(x)))
        keys_are_values = F.scaled_dot_product_attention(q, one, one)
        return keys_are_values, F.scaled_dot_product_attention(one, one, q)

    before = program_of(model, X)
    result = FoldBiases().run(run_passes(before, Noops(), FuseAttention()))
    assert not result.modified
    assert {m.reason.split(" at ")[0] for m in result.log.misses} == {
        "the keys are used elsewhere too"
    }
    same_numbers(before, result.program, X, tolerance=1e-6)


def test_keys_that_are_the_queries_of_one_attention_keep_their_bias() -> None:
    linear = nn.Linear(8, 8)

    def model(x: Tensor) -> Tensor:
        v, one = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in (x, linear(x)))
        return F.scaled_dot_product_attention(one, one, v)

    result = FoldBiases().run(run_passes(program_of(model, X), Noops(), FuseAttention()))
    assert not result.modified


def test_a_norm_over_several_axes_takes_no_bias() -> None:
    linear = nn.Linear(8, 8)

    def model(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        stream = F.layer_norm(x, (3, 8), weight, bias)
        return F.layer_norm(stream + linear(stream), (8,))

    before = program_of(model, X, weight=torch.randn(3, 8), bias=torch.randn(3, 8))
    result = FoldBiases().run(run_passes(before, FuseResiduals()))
    assert not result.modified
    assert "over several axes" in result.log.misses[0].reason
