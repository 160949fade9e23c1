"""Every rule of the dependency analysis, between a layer that gives channels and one that reads
them: slicing equals zeroing, and what cannot be sliced is frozen with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from strop.passes.prune.dependency import dependencies
from strop.passes.prune.groups import Group, groups

from program_tools import program_of  # isort: skip
from prune_tools import assert_pruned_as_masked  # isort: skip

CHANNELS = 12
MATRIX = torch.randn(12, 4, generator=torch.Generator().manual_seed(2))
Between = Callable[[Tensor], Tensor]


def between(op: Between, reads: int = CHANNELS, rank: int = 3) -> Callable[..., Tensor]:
    """A linear layer of 12 channels, something, and a linear layer that reads ``reads``."""

    def forward(x: Tensor, up: Tensor, bias: Tensor, down: Tensor) -> Tensor:
        return F.linear(op(F.linear(x, up, bias)), down)

    return forward


def weights(reads: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {"up": (CHANNELS, 5), "bias": (CHANNELS,), "down": (3, reads)}
    return {name: torch.randn(size, generator=generator) for name, size in sizes.items()}


def x() -> Tensor:
    return torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(1))


# What lies between the layers, and how many channels the second one reads.
SLICED: dict[str, tuple[Between, int]] = {
    "gelu": (F.gelu, 12),
    "sigmoid, not 0 at 0": (torch.sigmoid, 12),
    "clamp": (lambda v: v.clamp(-0.5, 0.5), 12),
    "where": (lambda v: torch.where(v > 0, v, 0.1 * v), 12),
    "masked fill": (lambda v: v.masked_fill(v > 1, 0.5), 12),
    "to and back": (lambda v: v.double().float(), 12),
    "glu": (lambda v: F.glu(v, -1), 6),
    "softmax": (lambda v: v.softmax(-1), 12),
    "softmax of rows": (lambda v: v.softmax(1), 12),
    "mean": (lambda v: v - v.mean(-1, keepdim=True), 12),
    "mean of rows": (lambda v: v.mean(1, keepdim=True) + v, 12),
    "layer norm": (lambda v: F.layer_norm(v, (12,)), 12),
    "sum of rows": (lambda v: v.sum(1), 12),
    "cumsum of rows": (lambda v: v.cumsum(1), 12),
    "amax of rows": (lambda v: v.amax(1), 12),
    "transpose": (lambda v: v.transpose(1, 2).transpose(1, 2), 12),
    "permute": (lambda v: v.permute(2, 0, 1).permute(1, 2, 0), 12),
    "movedim": (lambda v: v.movedim(-1, 0).movedim(0, -1), 12),
    "unsqueeze": (lambda v: v.unsqueeze(1).squeeze(1), 12),
    "heads": (lambda v: v.view(2, 7, 4, 3).transpose(1, 2).transpose(1, 2).reshape(2, 7, 12), 12),
    "heads, unflatten": (lambda v: v.unflatten(-1, (4, 3)).flatten(-2), 12),
    "heads of batch": (lambda v: v.view(14, 4, 3).view(2, 7, 12), 12),
    "heads apart": (
        lambda v: v.view(2, 7, 4, 3).transpose(1, 2).reshape(8, 7, 3).view(2, 4, 7, 3)
        .transpose(1, 2).flatten(2), 12,
    ),
    "view as": (lambda v: (v.view(2, 7, 3, 4) * 2).reshape_as(v) + v, 12),
    "three cuts": (lambda v: v.view(2, 7, 2, 3, 2).flatten(3).flatten(2), 12),
    "chunk": (lambda v: v.chunk(3, -1)[0] * v.chunk(3, -1)[2], 4),
    "split": (lambda v: torch.cat([p.relu() for p in v.split(4, -1)], -1), 12),
    "split, sizes": (lambda v: torch.cat(v.split([5, 7], -1)[::-1], -1), 12),
    "slice": (lambda v: torch.cat([v[..., 6:], v[..., :6]], -1), 12),
    "one channel beside all": (lambda v: v[..., 3:4] + v, 12),
    "slice of the middle": (lambda v: v[..., 3:9], 6),
    "narrow": (lambda v: v.narrow(-1, 2, 8), 8),
    "cat with itself": (lambda v: torch.cat([v, v.relu()], -1), 24),
    "rotated halves": (
        lambda v: v * 0.5 + torch.cat([-v[..., 6:], v[..., :6]], -1), 12,
    ),
    "expand": (lambda v: v.unsqueeze(2).expand(2, 7, 3, 12).flatten(2), 36),
    "expand as": (lambda v: v[:, :1].expand_as(v), 12),
    "repeat": (lambda v: v.repeat(1, 1, 2), 24),
    "repeat rows": (lambda v: v.repeat(1, 3, 1), 12),
    "repeat interleave": (lambda v: v.repeat_interleave(2, -1), 24),
    "matmul with a constant": (lambda v: v @ MATRIX, 4),
    "gram": (lambda v: v @ v.transpose(1, 2), 7),
    "einsum": (lambda v: torch.einsum("bsc,btc->bst", v, v), 7),
    "baddbmm": (lambda v: torch.baddbmm(v[..., :7], v, v.transpose(1, 2)), 7),
    "stack": (lambda v: torch.stack([v, v.relu()], 1).sum(1), 12),
    "select of rows": (lambda v: v[:, 0], 12),
    "gather of rows": (
        lambda v: v.gather(1, torch.zeros(2, 3, 12, dtype=torch.int64)), 12,
    ),
    "index of rows": (lambda v: v[:, torch.tensor([1, 3, 3])], 12),
    "index select of rows": (lambda v: v.index_select(1, torch.tensor([1, 3, 3])), 12),
    "roll of rows": (lambda v: v.roll(1, 1), 12),
    "tril of places": (lambda v: v.transpose(0, 2).tril().transpose(0, 2), 12),
    "pad of rows": (lambda v: F.pad(v, (0, 0, 1, 1)), 12),
    "zeros like": (lambda v: v + torch.zeros_like(v), 12),
    "full": (lambda v: v + torch.full((2, 7, 12), 0.5), 12),
    "group norm": (lambda v: F.group_norm(v.transpose(1, 2), 4).transpose(1, 2), 12),
    "pool": (lambda v: F.max_pool1d(v.transpose(1, 2), 2).transpose(1, 2), 12),
    "average pool": (lambda v: F.avg_pool1d(v.transpose(1, 2), 2).transpose(1, 2), 12),
    "adaptive pool": (lambda v: F.adaptive_avg_pool1d(v.transpose(1, 2), 1).transpose(1, 2), 12),
    "attention": (
        lambda v: F.scaled_dot_product_attention(
            *(v.view(2, 7, 4, 3).transpose(1, 2) for _ in range(3))
        ).transpose(1, 2).flatten(2), 12,
    ),
    "attention, one cut for all": (
        lambda v: F.scaled_dot_product_attention(
            *v.view(2, 7, 3, 2, 2).permute(2, 0, 3, 1, 4).unbind(0)
        ).transpose(1, 2).flatten(2), 4,
    ),
    "norm of rows": (lambda v: v / (1 + v.norm(dim=1, keepdim=True)), 12),
    "relu6": (F.relu6, 12),
    "hardswish": (F.hardswish, 12),
    "hardtanh": (F.hardtanh, 12),
    "selu": (F.selu, 12),
    "softplus": (F.softplus, 12),
    "mish": (F.mish, 12),
    "log sigmoid": (F.logsigmoid, 12),
    "clamp by tensors": (lambda v: torch.clamp(v, -v.abs() / 2, v.abs() / 2), 12),
    "logic": (lambda v: v * ((v > 0) & (v < 1) | (v < -1)).float(), 12),
    "extremes of rows": (lambda v: v - v.amin(1, True) + v.max(1).values[:, None], 12),
    "products of rows": (lambda v: v.prod(1), 12),
    "spread of rows": (lambda v: v.var(1) + v.std(1), 12),
    "log of sums of rows": (lambda v: v.logsumexp(1), 12),
    "any of rows": (lambda v: v.sum(1) * (v > 0).any(1), 12),
    "squeeze all": (lambda v: v[:1, :1].squeeze(), 12),
    "type as": (lambda v: (v > 0).type_as(v), 12),
    "ones": (lambda v: v * torch.ones(12), 12),
    "new full": (lambda v: v * v.new_full((7, 12), 2.0), 12),
    "broadcast to": (lambda v: v[:, :1].broadcast_to(2, 7, 12), 12),
    "bmm": (lambda v: torch.bmm(v, v.transpose(1, 2)), 7),
    "transposed matrix": (lambda v: (v[0].t().contiguous().t()), 12),
    "root mean square": (lambda v: v / (1 + v.pow(2).mean(-1, True)).sqrt(), 12),
}  # fmt: skip


@pytest.mark.parametrize("name", SLICED)
def test_slicing_equals_zeroing(name: str) -> None:
    op, reads = SLICED[name]
    program = program_of(between(op), x(), **weights(reads))
    free = [g for g in groups(dependencies(program)) if not g.frozen]
    assert free, [str(g) for g in groups(dependencies(program))]
    for group in free:
        assert_pruned_as_masked(program, {"input_0": x()}, named(group), 0.5)


def named(group: Group) -> Callable[[Group], bool]:
    return lambda g: g.name == group.name


FROZEN: dict[str, tuple[Between, int, str]] = {
    "flip": (lambda v: v.flip(-1), 12, "moves positions"),
    "roll": (lambda v: v.roll(1, -1), 12, "moves positions"),
    "index": (lambda v: v[..., [1, 4]], 2, "chosen by number"),
    "gather": (
        lambda v: v.gather(-1, torch.zeros(2, 7, 4, dtype=torch.int64)), 4, "chosen by number",
    ),
    "every second": (lambda v: v[..., ::2], 6, "chosen by number"),
    "argmax": (lambda v: v + v.argmax(-1, keepdim=True), 12, "the place of a position"),
    "pad": (lambda v: F.pad(v, (1, 0)), 13, "padded"),
    "arange": (lambda v: v + torch.arange(12), 12, "numbers of positions"),
    "unbind": (lambda v: torch.stack(v.unbind(-1)[::2], -1), 6, "is a tensor"),
    "unknown": (lambda v: torch.fft.irfft(torch.fft.rfft(v)), 12, "does not know"),
    "sort": (lambda v: v.sort(-1).values, 12, "does not know aten.sort"),
    "two cuts that do not fit": (
        lambda v: v.view(2, 7, 4, 3).flatten(2) + torch.cat(v.split([5, 7], -1)[::-1], -1), 12,
        "across its structure|different places",
    ),
    "parts of unequal size": (lambda v: torch.cat(v.split(5, -1), -1), 12, "but for the last"),
}  # fmt: skip


@pytest.mark.parametrize("name", FROZEN)
def test_what_cannot_be_sliced_is_frozen_with_its_reason(name: str) -> None:
    op, reads, reason = FROZEN[name]
    program = program_of(between(op), x(), **weights(reads))
    up = [g for g in groups(dependencies(program)) if any(s.weight.endswith("up") and s.axis == 0
                                                          for s in g.slices)]  # fmt: skip
    assert up
    assert all(any(re.search(reason, r) for r in g.frozen) for g in up), [str(g) for g in up]


def image() -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))


class Images(torch.nn.Module):
    """A convolution and what follows it."""

    def __init__(self, *parts: torch.nn.Module) -> None:
        super().__init__()
        self.parts = torch.nn.Sequential(torch.nn.Conv2d(4, CHANNELS, 3), *parts)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.parts(x)
        return made


LAST = torch.nn.Conv2d(CHANNELS, 3, 1)
AFTER_A_CONVOLUTION: dict[str, list[torch.nn.Module]] = {
    "batch norm": [torch.nn.BatchNorm2d(12), torch.nn.ReLU(), LAST],
    "instance norm": [torch.nn.InstanceNorm2d(12, affine=True), LAST],
    "group norm": [torch.nn.GroupNorm(3, 12), LAST],
    "prelu": [torch.nn.PReLU(12), LAST],
    "one slope": [torch.nn.PReLU(), LAST],
    "depthwise": [torch.nn.Conv2d(12, 12, 3, groups=12), LAST],
    "depthwise, two for each": [torch.nn.Conv2d(12, 24, 3, groups=12), torch.nn.Conv2d(24, 3, 1)],
    "groups": [torch.nn.Conv2d(12, 6, 3, groups=3), torch.nn.Conv2d(6, 3, 1)],
    "same padding": [torch.nn.Conv2d(12, 12, 3, padding="same"), LAST],
    "transposed": [torch.nn.ConvTranspose2d(12, 3, 2, 2)],
    "transposed, groups": [torch.nn.ConvTranspose2d(12, 6, 2, 2, groups=3)],
    "max pool": [torch.nn.MaxPool2d(2), LAST],
    "average pool": [torch.nn.AvgPool2d(2), LAST],
    "upsampled": [torch.nn.Upsample(scale_factor=2), LAST],
    "bilinear": [torch.nn.Upsample(scale_factor=2, mode="bilinear"), LAST],
    "flattened": [torch.nn.Flatten(), torch.nn.Linear(12 * 36, 3)],
    "pooled": [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(1), torch.nn.Linear(12, 3)],
    "dropped": [torch.nn.Dropout2d(), torch.nn.Hardtanh(), LAST],
}


@pytest.mark.parametrize("name", AFTER_A_CONVOLUTION)
def test_channels_of_convolutions(name: str) -> None:
    module = Images(*AFTER_A_CONVOLUTION[name])
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    program = program_of(module, image(), dims={0: {0: "batch"}})
    free = [g for g in groups(dependencies(program)) if not g.frozen]
    assert free, [str(g) for g in groups(dependencies(program))]
    for group in free:
        assert_pruned_as_masked(program, {"input_0": image()}, named(group), 0.5)
