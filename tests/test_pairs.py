"""Pairs of layers between which scales are moved: the same numbers for any scale, or a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from program_tools import program_of, run_passes
from torch import Tensor, nn

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.pattern import Miss
from strop.passes.fuse.activation import FuseActivations
from strop.passes.fuse.conv_pad import FoldPads
from strop.passes.fuse.eager_attention import FuseAttention
from strop.passes.fuse.norm import FuseNorms
from strop.passes.fuse.packed import PackLinears
from strop.passes.quantize.pairs import LAYERS, Pair, pairs

WIDTH, HEADS, GROUPS = 12, 6, 2


def assert_scales_move(program: Program, pair: Pair, *inputs: Tensor, seed: int = 0) -> None:
    """A random scale moves between the weights of a pair and leaves the outputs as they are."""
    random = torch.Generator().manual_seed(seed)
    scale = torch.empty(pair.channels).uniform_(0.3, 3, generator=random)
    new = program.clone()
    for name, weight in pair.folded(program.weights, scale).items():
        new.set_weight(name, weight, "test")
    assert new.has_other_values(program)
    feeds = {f"input_{i}": x for i, x in enumerate(inputs)}
    with torch.no_grad():
        for want, got in zip(program.run(**feeds), new.run(**feeds)):
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


def named(program: Program) -> list[tuple[str, list[str]]]:
    """The weight of the source of every pair, and those of its readers."""

    def last(name: str) -> str:
        return name.removeprefix("inner.").removesuffix(".weight")

    return [
        (last(pair.divided[0].weight), [last(slot.weight) for slot in pair.multiplied])
        for pair in pairs(program).found
    ]


class RMSNorm(nn.Module):
    """As checkpoints write it out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Attention(nn.Module):
    """Query heads share heads of keys and values."""

    def __init__(self, repeated: bool = False) -> None:
        super().__init__()
        self.repeated, inner = repeated, WIDTH // HEADS * GROUPS
        self.q, self.k, self.v = (
            nn.Linear(WIDTH, WIDTH),
            nn.Linear(WIDTH, inner),
            nn.Linear(WIDTH, inner),
        )
        self.o = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        def heads(y: Tensor) -> Tensor:
            return y.view(*y.shape[:2], -1, WIDTH // HEADS).transpose(1, 2)

        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        if self.repeated:
            k, v = (y.repeat_interleave(HEADS // GROUPS, dim=1) for y in (k, v))
            made = torch.softmax(q @ k.transpose(-1, -2) / 1.5, -1) @ v
        else:
            made = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.o(made.transpose(1, 2).reshape(x.shape))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Llama(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = RMSNorm(WIDTH), RMSNorm(WIDTH)
        self.attention, self.mlp = Attention(), Gated()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        return x + self.mlp(self.second(x))


TOKENS = torch.randn(3, 5, WIDTH, generator=torch.Generator().manual_seed(1))
TOKEN_DIMS = {0: {0: "batch", 1: "seq"}}
IMAGES = torch.randn(2, WIDTH, 9, 9, generator=torch.Generator().manual_seed(2))
LLAMA_PAIRS = [
    ("first", ["attention.q", "attention.k", "attention.v"]),
    ("attention.v", ["attention.o"]),
    ("second", ["mlp.gate", "mlp.up"]),
    ("mlp.up", ["mlp.down"]),
]


def test_a_decoder_layer_has_four_pairs_whatever_its_form() -> None:
    captured = program_of(Llama(), TOKENS, dims=TOKEN_DIMS)
    fused = run_passes(captured, FuseNorms(), FuseActivations(), FuseAttention())
    for program in (captured, fused):
        assert named(program) == LLAMA_PAIRS
        for pair in pairs(program).found:
            assert_scales_move(program, pair, TOKENS)


def test_a_packed_projection_takes_scales_into_each_of_its_parts() -> None:
    captured = program_of(Llama(), TOKENS, dims=TOKEN_DIMS)
    program = run_passes(
        captured, FuseNorms(), FuseActivations(), FuseAttention(), PackLinears(gates=True)
    )
    found = pairs(program).found
    assert named(program)[0] == LLAMA_PAIRS[0]
    for pair in found:
        assert_scales_move(program, pair, TOKENS)


def test_query_heads_that_share_a_value_head_share_its_scales() -> None:
    program = program_of(Attention(), TOKENS)
    [pair] = [p for p in pairs(program).found if len(p.readers) == 1]
    assert pair.channels == WIDTH // HEADS * GROUPS
    assert pair.readers[0].channel.tolist() == [0, 1] * 3 + [2, 3] * 3


def test_convolutions_and_depthwise_ones_form_a_chain() -> None:
    blocks = nn.Sequential(
        nn.Conv2d(WIDTH, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(8, 4, 3, groups=2, padding="same"),
        nn.Conv2d(4, 6, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip
    program = program_of(blocks, IMAGES)
    assert named(program) == [("0", ["2"]), ("2", ["5"]), ("5", ["6"]), ("6", ["9"])]
    for pair in pairs(program).found:
        assert_scales_move(program, pair, IMAGES)


def test_a_convolution_with_its_padding_is_a_layer_too() -> None:
    blocks = nn.Sequential(nn.Conv2d(WIDTH, 8, 1), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 4, 3))
    program = run_passes(program_of(blocks, IMAGES), FoldPads())
    [pair] = pairs(program).found
    assert_scales_move(program, pair, IMAGES)


def _both(x: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return x, F.linear(x, b)


def _squared(x: Tensor, b: Tensor) -> Tensor:
    return F.linear(x * x.relu(), b)


REFUSED: list[tuple[Callable[..., object], str]] = [
    (lambda x, a, b: F.linear(F.gelu(F.linear(x, a)), b), "does not pass through aten.gelu"),
    (lambda x, a, b: F.linear(F.linear(x, a).square(), b), "does not pass through aten.square"),
    (lambda x, a, b: _both(F.linear(x, a), b), "its channels reach an output"),
    (lambda x, a, b: _squared(F.linear(x, a), b), "does not pass through aten.mul"),
    (lambda x, a, b: F.linear(F.linear(x, a), b) + a.sum(), "'inner.a' is used here too"),
    (lambda x, a, b: F.linear(F.linear(x, a), a), "'inner.a' would take two scales"),
    (lambda x, a, b: F.linear(F.linear(x, a * 2), b), "not held as such, but computed"),
    (lambda x, a, b: F.linear(F.linear(x, a).transpose(1, 2), b[:, :5]), "it mixes positions"),
    (lambda x, a, b: F.linear(F.linear(x, a) + x, b), "does not pass through aten.add"),
    (lambda x, a, b: F.linear(x, F.linear(b, a)), "its weight is computed from the scaled"),
    (lambda x, a, b: F.linear(x, b), "no norm or layer with weights"),
]


@pytest.mark.parametrize(("function", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_takes_no_scale_says_why(function: Callable[..., object], reason: str) -> None:
    program = program_of(function, TOKENS, a=torch.randn(WIDTH, WIDTH), b=torch.randn(WIDTH, WIDTH))
    found = pairs(program)
    assert not found.found
    misses = [found.read_by(program.find(*LAYERS)[-1]), *found.missed.values()]
    assert all(isinstance(miss, Miss) and miss.node is not None for miss in misses)
    assert any(reason in str(miss) for miss in misses), misses


def test_a_layer_knows_its_pair() -> None:
    program = program_of(Gated(), TOKENS)
    found = pairs(program)
    assert found.read_by(program.find(*LAYERS)[-1]) is found.found[0]
    first = found.read_by(program.find(*LAYERS)[0])
    assert isinstance(first, Miss) and "no norm or layer" in first.reason


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Split(nn.Module):
    """Halves of the channels change places, on another shape."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.unflatten(-1, (4, -1)).flatten(0, 1).flatten(1).chunk(2, -1)
        return torch.cat([right, left], -1).view(x.shape)


class Shuffled(nn.Module):
    """Channels change places, on another shape."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (4, -1)).transpose(-1, -2).flatten(-2)


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "norm": lambda: nn.LayerNorm(WIDTH),
    "rms": lambda: RMSNorm(WIDTH),
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "leaky": nn.LeakyReLU,
    "shuffled": Shuffled,
    "split": Split,
    "attention": Attention,
    "repeated": lambda: Attention(repeated=True),
    "gated": Gated,
    "residual": lambda: Residual(nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))),
}


@settings(max_examples=25)
@given(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=2, max_size=6), st.integers(0, 99))
def test_no_pair_of_a_random_graph_changes_its_output(names: list[str], seed: int) -> None:
    torch.manual_seed(seed)
    program = program_of(nn.Sequential(*(BLOCKS[name]() for name in names)), TOKENS)
    for pair in pairs(program).found:
        assert_scales_move(program, pair, TOKENS, seed=seed)


def test_the_reason_is_found_behind_a_long_chain_of_sums() -> None:
    def chain(x: Tensor, w: Tensor) -> Tensor:
        for _ in range(40):
            x = x + x.relu()
        return F.linear(x, w)

    program = program_of(chain, TOKENS, w=torch.randn(WIDTH, WIDTH))
    miss = pairs(program).read_by(program.find(*LAYERS)[0])
    assert isinstance(miss, Miss) and "no norm or layer" in miss.reason


class Sounds(nn.Module):
    """Windows of samples, normed and read by a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.windows = nn.Conv1d(1, WIDTH, 20, stride=10)
        self.norm, self.reader = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Any:
        return self.reader(self.norm(self.windows(x).transpose(1, 2)))


def test_long_windows_over_a_dynamic_size_leave_channels_to_follow() -> None:
    x = torch.randn(2, 1, 45)
    program = program_of(Sounds(), x, dims={0: {2: ("samples", 20, 64)}})
    assert named(program) == [("norm", ["reader"])]
    (pair,) = pairs(program).found
    assert_scales_move(program, pair, x)
