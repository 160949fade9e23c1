"""Hand-written attention of known models: one operator each, the numbers, reasons for misses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from program_tools import counts, program_of, run_passes, same_numbers
from torch import Tensor, nn

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import PassResult
from strop.passes.cleanup.linears import PlainLinears
from strop.passes.cleanup.noops import Noops
from strop.passes.fuse.eager_attention import FuseAttention

SEED = torch.Generator().manual_seed(0)


def fused(before: Program) -> PassResult:
    return FuseAttention().run(run_passes(before, Noops(), PlainLinears()))


class SwinAttention(nn.Module):
    """Windows [batch * windows, rows, width], as in the paper's code (arXiv:2103.14030)."""

    def __init__(self, windows: int, heads: int, rows: int, size: int, by_cosine: bool) -> None:
        super().__init__()
        self.heads, self.scale, self.by_cosine = heads, size**-0.5, by_cosine
        self.qkv = nn.Linear(heads * size, 3 * heads * size)
        self.table = nn.Parameter(torch.randn(9, heads, generator=SEED))
        self.logit_scale = nn.Parameter(torch.rand(heads, 1, 1, generator=SEED) + 1)
        self.register_buffer("index", torch.randint(9, (rows, rows), generator=SEED))
        hidden = torch.rand(windows, rows, rows, generator=SEED) < 0.4
        self.register_buffer("mask", torch.zeros(hidden.shape).masked_fill(hidden, -100.0))

    def forward(self, x: Tensor) -> Tensor:
        batch, rows, width = x.shape
        qkv = self.qkv(x).reshape(batch, rows, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        if self.by_cosine:
            q, k = nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1)
            scores = q @ k.transpose(-2, -1) * self.logit_scale.clamp(max=4.6).exp()
        else:
            scores = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.table[self.index.view(-1)].view(rows, rows, -1)
        scores = scores + bias.permute(2, 0, 1).contiguous().unsqueeze(0)
        windows = self.mask.shape[0]
        wide = scores.view(batch // windows, windows, self.heads, rows, rows)
        wide = wide + self.mask.unsqueeze(1).unsqueeze(0)
        weights = wide.view(-1, self.heads, rows, rows).softmax(dim=-1)
        return (weights @ v).transpose(1, 2).reshape(batch, rows, width)


@pytest.mark.parametrize("by_cosine", [False, True], ids=["first version", "second version"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_shifted_window_attention_is_one_operator(dynamic: bool, by_cosine: bool) -> None:
    module = SwinAttention(4, 2, 5, 4, by_cosine)
    images = {0: {0: ("images", 1, 9)}} if dynamic else None

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = module

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x.flatten(0, 1)).view(x.shape)

    x = torch.randn(2, 4, 5, 8, generator=SEED)
    before = program_of(Model(), x, dims=images)
    result = fused(before)
    assert counts(result) == {"attention-eager": 1}
    same_numbers(before, result.program, x, tolerance=1e-5)
    if dynamic:
        same_numbers(before, result.program, x.repeat(3, 1, 1, 1), tolerance=1e-5)


class TorchAttention(nn.Module):
    def __init__(self, **how: Any) -> None:
        super().__init__()
        self.how = how
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor, padding: Tensor) -> Any:
        how = {"key_padding_mask": padding} | self.how
        out, weights = self.inner(x, x, x, **{k: v for k, v in how.items() if k != "returned"})
        return (out, weights) if "returned" in self.how else out


HOW = {
    "defaults": {},
    "every head's weights": {"average_attn_weights": False},
    "causal": {"attn_mask": torch.ones(5, 5, dtype=torch.bool).triu(1)},
    "biased": {"attn_mask": torch.randn(5, 5, generator=SEED)},
    "by head": {"attn_mask": torch.randn(4, 5, 5, generator=SEED)},
    "without weights": {"need_weights": False},
}


@pytest.mark.parametrize("how", HOW)
def test_torchs_attention_with_a_padding_mask_is_one_operator(how: str) -> None:
    x, padding = torch.randn(2, 5, 8, generator=SEED), torch.zeros(2, 5, dtype=torch.bool)
    padding[0, 3:] = True
    dims = {} if how == "by head" else {0: {0: "batch"}, 1: {0: "batch"}}
    before = program_of(TorchAttention(**HOW[how]), x, padding, dims=dims)
    result = fused(before)
    assert sum(counts(result).values()) == 1
    same_numbers(before, result.program, x, padding, tolerance=1e-5)


def test_weights_of_torchs_attention_that_are_returned_are_kept_with_the_reason() -> None:
    x, padding = torch.randn(2, 5, 8, generator=SEED), torch.zeros(2, 5, dtype=torch.bool)
    result = fused(program_of(TorchAttention(returned=True), x, padding))
    assert not result.modified
    assert "weights are used elsewhere" in result.log.misses[0].reason


def alibi(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Folded heads, ``baddbmm`` onto the slopes, and a mask on split heads: BLOOM's."""
    slopes = torch.tensor([0.5, 0.25]).repeat(q.shape[0] // 2)[:, None, None]
    distance = slopes * torch.arange(float(k.shape[1]))
    scores = distance.baddbmm(q, k.transpose(1, 2), beta=1.0, alpha=0.5)
    wide = scores.view(q.shape[0] // 2, 2, q.shape[1], k.shape[1])
    wide = wide.masked_fill(mask, torch.finfo(q.dtype).min)
    return torch.bmm(wide.softmax(-1).view(scores.shape), v)


def falcon(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Bias and scores are scaled together, and a mask is added then."""
    q, k, v = (t.unflatten(0, (-1, 2)) for t in (q, k, v))
    scores = q @ k.transpose(-1, -2) + torch.arange(5.0) * torch.tensor([[[0.5]], [[0.25]]])
    added = torch.zeros(mask.shape).masked_fill(mask, torch.finfo(torch.float32).min)
    weights = (scores * 0.5 + added).softmax(-1, dtype=torch.float32)
    return (weights @ v).flatten(0, 1)


def channels_first(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """[batch, channels, rows] as in latent diffusion, which transposes the weights."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    weights = torch.bmm(q.permute(0, 2, 1), k).mul(0.5).softmax(2)
    return torch.bmm(v, weights.permute(0, 2, 1)).transpose(1, 2)


def two_biases(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Several sums, one to the left of the scores, and one of scores by another product."""
    rows = (q @ q.transpose(-1, -2)).roll(1, -1)
    scores = torch.arange(5.0) + (torch.bmm(q, k.mT) + rows * 0.3) - torch.ones(5, 5)
    return scores.softmax(-1) @ v


def five_axes(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """[batch, windows, heads, rows, size], with a bias for each window."""
    q, k, v = (t.unflatten(0, (-1, 2, 2)) for t in (q, k, v))
    scores = q @ k.transpose(-1, -2) + torch.arange(50.0).view(2, 1, 5, 5) / 9
    return (scores.softmax(-1) @ v).flatten(0, 2)


MODELS: dict[str, Callable[..., Tensor]] = {
    f.__name__: f for f in (alibi, falcon, channels_first, two_biases, five_axes)
}


@pytest.mark.parametrize("model", MODELS)
def test_forms_of_other_models_are_one_operator(model: str) -> None:
    inputs = [torch.randn(4, 5, 4, generator=SEED) for _ in range(3)]
    mask = torch.rand(2, 1, 5, 5, generator=SEED) < 0.3
    mask[0, 0, 2] = True
    before = program_of(MODELS[model], *inputs, mask)
    result = fused(before)
    assert counts(result) == {"attention-eager": 1}
    same_numbers(before, result.program, *inputs, mask, tolerance=1e-5)


@pytest.mark.parametrize("times", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("biases", [0, 1, 2])
def test_rows_in_which_all_is_hidden_by_the_lowest_number(times: float, biases: int) -> None:
    bias = torch.randn(5, 5, generator=SEED)

    def model(q: Tensor, mask: Tensor) -> Tensor:
        hidden = torch.where(mask, torch.finfo(torch.float32).min, 0.0)
        scores = q @ q.mT + hidden
        for _ in range(biases):
            scores = scores + bias
        return (scores * times).softmax(-1) @ q

    mask = torch.tensor([[True] * 5, [False] * 5, [True, False, False, True, False]])[
        [0, 1, 2, 2, 1]
    ]
    q = torch.randn(2, 2, 5, 4, generator=SEED)
    before = program_of(model, q, mask)
    result = fused(before)
    assert counts(result) == {"attention-eager": 1}
    # Twice the lowest number is -inf, and a row of nothing else no number.
    repaired = bool(result.program.find(torch.ops.aten.amax.default))
    assert repaired == (times > 1) == bool(model(q, mask).isnan().any())
    same_numbers(before, result.program, q, mask, tolerance=1e-5)


def test_a_bound_of_the_scores_is_that_of_the_operator() -> None:
    def model(q: Tensor, bias: Tensor) -> Tensor:
        scores = 30.0 * torch.tanh(q @ q.mT * 0.5 / 30.0)
        return (scores + bias).softmax(-1) @ q

    inputs = torch.randn(2, 2, 5, 4, generator=SEED) * 9, torch.randn(5, 5, generator=SEED)
    before = program_of(model, *inputs)
    result = fused(before)
    [node] = result.program.find(torch.ops.strop.attention.default)
    assert node.args[4:] == (2, 2, pytest.approx(0.5), False, pytest.approx(30.0))
    same_numbers(before, result.program, *inputs, tolerance=1e-5)


def test_two_matrices_without_batch_are_one_operator() -> None:
    def model(q: Tensor, bias: Tensor) -> Tensor:
        return torch.addmm(bias, q, q.t()).softmax(-1) @ q

    inputs = torch.randn(5, 4, generator=SEED), torch.randn(5, 5, generator=SEED)
    before = program_of(model, *inputs)
    result = fused(before)
    assert counts(result) == {"attention-eager": 1}
    same_numbers(before, result.program, *inputs, tolerance=1e-5)


Q = torch.randn(2, 2, 5, 4, generator=SEED)


LEFT_ALONE: dict[str, Callable[[Tensor], Any]] = {
    "softmax is not over the last axis": lambda q: (q @ q.mT).softmax(-2) @ q,
    "softmax is computed in torch.float64": lambda q: (
        (q @ q.mT).softmax(-1, dtype=torch.float64) @ q.double()
    ),
    "the attention weights are changed before": lambda q: (
        (q @ q.mT).softmax(-1, dtype=torch.float64).float() @ q
    ),
    "between softmax and the scores stands aten.sigmoid": lambda q: (
        (q @ q.mT).sigmoid().softmax(-1) @ q
    ),
    "a bias or a mask is added to the scores before they are bounded": lambda q: (
        (q @ q.mT + torch.arange(5.0)).tanh().softmax(-1) @ q
    ),
    "the scores are bounded by a tanh more than once": lambda q: (
        (q @ q.mT).tanh().tanh().softmax(-1) @ q
    ),
    "the scores are scaled by a tensor after they are bounded": lambda q: (
        ((q @ q.mT).tanh() * q[..., :1]).softmax(-1) @ q
    ),
    "bounded scores are multiplied by 0": lambda q: ((q @ q.mT).tanh() * 0.0).softmax(-1) @ q,
    "the attention scores are used elsewhere too": lambda q: _returned(q @ q.mT, q),
    "the attention weights are changed": lambda q: ((q @ q.mT).softmax(-1) * q[..., :1]) @ q,
    "filled with -100, which may not hide": lambda q: (
        (q @ q.mT).masked_fill(q[..., :1] > 0, -100.0).softmax(-1) @ q
    ),
    "stands aten.expand": lambda q: _expanded(q[:, :1] @ q[:, :1].mT, q),
    "their rows and columns change": lambda q: (
        (q.flatten(1, 2) @ q[:, 0].mT).view(2, 2, 5, 5).softmax(-1) @ q
    ),
    "weights are changed before they meet": lambda q: (
        (q @ q.mT).view(2, 2, 1, 25).softmax(-1).view(2, 2, 5, 5) @ q
    ),
    "batch or key sizes differ": lambda q: (q @ q[:1].mT).softmax(-1) @ q[:1],
    "different batch axes": lambda q: (q[0] @ q[0, :1].mT).softmax(-1) @ q[0],
    "filled with 1e+09, which may not hide": lambda q: (
        ((q @ q.mT).masked_fill(q[..., :1] > 0, -1e9) * -1.0).softmax(-1) @ q
    ),
    "a summand comes after scores were filled": lambda q: (
        ((q @ q.mT).masked_fill(q[..., :1] > 0, -1e9) + torch.arange(5.0)).softmax(-1) @ q
    ),
}  # fmt: skip


def _returned(scores: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    return (scores * 2).softmax(-1) @ q, scores


def _expanded(scores: Tensor, q: Tensor) -> Tensor:
    return scores.expand(2, 2, 5, 5).softmax(-1) @ q


@pytest.mark.parametrize("reason", LEFT_ALONE)
def test_what_is_left_alone_says_why(reason: str) -> None:
    result = fused(program_of(LEFT_ALONE[reason], Q))
    assert counts(result) == {}
    assert any(reason in miss.reason and miss.lines for miss in result.log.misses)


def test_two_dynamic_batch_axes_of_folded_heads_are_left_alone() -> None:
    def model(q: Tensor) -> Tensor:
        return (q @ q.transpose(-1, -2)).softmax(-1) @ q

    dims = {0: {0: "batch", 1: "windows"}}
    result = fused(program_of(model, torch.randn(2, 3, 2, 5, 4), dims=dims))
    assert not result.modified
    assert "several batch axes are dynamic" in result.log.misses[0].reason


@pytest.mark.parametrize("hides", [-math.inf, -1e9])
def test_a_parameter_that_scales_scores_can_still_be_trained(hides: float) -> None:
    def model(q: Tensor, scale: Tensor) -> Tensor:
        scores = (q @ q.mT * scale).masked_fill(q[..., :1] > 0, hides)
        return scores.softmax(-1) @ q

    before = program_of(model, Q, scale=torch.tensor(0.7))
    result = fused(before)
    assert counts(result) == {"attention-eager": 1}
    same_numbers(before, result.program, Q, tolerance=1e-5)
    result.program.run(input_0=Q)[0].nan_to_num().sum().backward()
    trained = [name for name, p in result.program.parameters.items() if p.grad is not None]
    assert trained == ["inner.scale"]
