"""Attention as people write it out: a module for any combination of ten choices, and inputs."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

BATCH, HEADS, ROWS, SIZE = 2, 2, 5, 4
WIDTH = HEADS * SIZE
LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class Variant:
    """One way to write attention.

    Attributes:
        scale: where 1/sqrt(size) is applied.
        product: the operator for scores and for the result.
        layout: how heads are split off, and keys transposed.
        softcap: how scores are bounded by a tanh.
        bias: what is added that hides nothing.
        mask: how scores are hidden.
        hides: the number behind which.
        shape: the axes of the mask.
        order: whether the bias comes before the mask.
        softmax: how it is called, and what follows.
    """

    scale: str = "scores/"
    product: str = "matmul"
    layout: str = "transpose"
    softcap: str = "none"
    bias: str = "none"
    mask: str = "add"
    hides: float = LOWEST
    shape: str = "keys"
    order: str = "bias first"
    softmax: str = "method"


CHOICES: dict[str, tuple[Any, ...]] = {
    "scale": ("none", "q*", "k*", "q/", "scores*", "scores/", "both", "rows", "after bias"),
    "product": ("matmul", "einsum", "bmm", "baddbmm", "turned"),
    "layout": ("transpose", "permute", "packed qkv"),
    "softcap": ("none", "divided", "alone", "negative"),
    "bias": ("none", "heads", "batch", "subtracted", "twice"),
    "mask": ("none", "add", "fill", "where", "where tensor", "causal", "window"),
    "hides": (-math.inf, LOWEST, -1e9, -1e4),
    "shape": ("keys", "rows", "all"),
    "order": ("bias first", "mask first"),
    "softmax": ("method", "dtype", "dropout"),
}


def pairwise_variants(seed: int = 0) -> list[Variant]:
    """Variants in which every two choices meet, few of them."""
    names = list(CHOICES)
    draw = random.Random(seed)
    missing = {
        ((a, x), (b, y))
        for a, b in itertools.combinations(names, 2)
        for x in CHOICES[a]
        for y in CHOICES[b]
    }
    found = []
    while missing:
        tried = [dict.fromkeys(names) for _ in range(30)]
        for one in tried:
            one.update({name: draw.choice(CHOICES[name]) for name in names})
            (a, x), (b, y) = draw.choice(sorted(missing, key=str))
            one.update({a: x, b: y})
        best = max(tried, key=lambda one: len(missing & _pairs(one)))
        missing -= _pairs(best)
        found.append(Variant(**best))  # type: ignore[arg-type]
    return found


def _pairs(choices: dict[str, Any]) -> set[Any]:
    return set(itertools.combinations(choices.items(), 2))


class Attention(nn.Module):
    """Self-attention on x [batch, rows, width] as a variant says; mask: True where hidden."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        generator = torch.Generator().manual_seed(1)
        self.register_buffer("heads", torch.randn(1, HEADS, ROWS, ROWS, generator=generator))
        self.rows = nn.Parameter(torch.rand(HEADS, 1, 1, generator=generator) + 0.5)
        self.register_buffer("hidden", torch.tensor(variant.hides))
        self.register_buffer("future", torch.ones(ROWS, ROWS, dtype=torch.bool).triu(1))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor) -> Tensor:
        """[batch, rows, width] -> the same."""
        v = self.variant
        parts = self._split(x)
        scale = 1 / math.sqrt(SIZE)
        q, k, values = parts
        if v.scale in ("q*", "q/"):
            q = q * scale if v.scale == "q*" else q / math.sqrt(SIZE)
        if v.scale == "k*":
            k = k * scale
        if v.scale == "both":
            q, k = q * math.sqrt(scale), k / math.sqrt(math.sqrt(SIZE))
        scores = self._scores(q, k, bias)
        if v.scale == "scores*":
            scores = scores * scale
        if v.scale == "scores/":
            scores = scores / math.sqrt(SIZE)
        if v.scale == "rows":
            scores = scores * self.rows
        scores = self._bounded(scores)
        steps = [self._add_bias, self._add_mask]
        for step in steps if v.order == "bias first" else steps[::-1]:
            scores = step(scores, mask, bias)
        return self._result(scores, values)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        shape = (BATCH, ROWS, HEADS, SIZE)
        if self.variant.layout == "packed qkv":
            packed = self.qkv(x).reshape(BATCH, ROWS, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4)
            return packed.unbind(0)
        parts = (p.view(shape) for p in self.qkv(x).chunk(3, -1))
        if self.variant.layout == "permute":
            return tuple(p.permute(0, 2, 1, 3) for p in parts)
        return tuple(p.transpose(1, 2) for p in parts)

    def _scores(self, q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
        product = self.variant.product
        if product == "einsum":
            return torch.einsum("bhqd,bhkd->bhqk", q, k)
        if product in ("bmm", "baddbmm"):
            q, k = (t.reshape(BATCH * HEADS, ROWS, SIZE) for t in (q, k))
            if product == "bmm":
                return torch.bmm(q, k.transpose(1, 2)).view(BATCH, HEADS, ROWS, ROWS)
            first = bias.expand(BATCH, HEADS, ROWS, ROWS).reshape(-1, ROWS, ROWS)
            scores = torch.baddbmm(first, q, k.transpose(1, 2), beta=0.5, alpha=0.7)
            return scores.view(BATCH, HEADS, ROWS, ROWS)
        return q @ k.transpose(-1, -2)

    def _bounded(self, scores: Tensor) -> Tensor:
        match self.variant.softcap:
            case "divided":
                return torch.tanh(scores / 2.0) * 2.0
            case "alone":
                return scores.tanh()
            case "negative":
                return -1.5 * torch.tanh(scores * 0.7)
        return scores

    def _add_bias(self, scores: Tensor, mask: Tensor, bias: Tensor) -> Tensor:
        kind = self.variant.bias
        if kind == "heads":
            scores = scores + self.heads
        elif kind == "batch":
            scores = bias + scores
        elif kind == "subtracted":
            scores = scores - bias
        elif kind == "twice":
            scores = scores + self.heads + bias
        return scores * 0.8 if self.variant.scale == "after bias" else scores

    def _add_mask(self, scores: Tensor, mask: Tensor, bias: Tensor) -> Tensor:
        kind, hides = self.variant.mask, self.variant.hides
        if kind == "add":
            return scores + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(mask, hides)
        if kind == "fill":
            return scores.masked_fill(mask, hides)
        if kind == "where":
            return torch.where(mask, hides, scores)
        if kind == "where tensor":
            return torch.where(mask.logical_not(), scores, self.hidden)
        if kind == "causal":
            return scores.masked_fill(self.future, hides)
        if kind == "window":
            wide = scores.view(1, BATCH, HEADS, ROWS, ROWS)
            number = torch.zeros(mask.shape).masked_fill(mask, hides)
            return (wide + number[None]).view(BATCH, HEADS, ROWS, ROWS)
        return scores

    def _result(self, scores: Tensor, v: Tensor) -> Tensor:
        kind = self.variant.softmax
        weights = torch.softmax(scores, -1, dtype=torch.float32 if kind == "dtype" else None)
        if kind == "dropout":
            weights = self.dropout(weights)
        product = self.variant.product
        if product == "einsum":
            return torch.einsum("bhqk,bhkd->bqhd", weights, v).flatten(2)
        if product == "turned":
            turned = v.transpose(-1, -2) @ weights.transpose(-1, -2)
            return turned.permute(0, 3, 1, 2).flatten(2)
        if product in ("bmm", "baddbmm"):
            folded = (t.reshape(BATCH * HEADS, ROWS, -1) for t in (weights, v))
            out = torch.bmm(*folded).view(BATCH, HEADS, ROWS, SIZE)
        else:
            out = weights @ v
        return out.transpose(1, 2).reshape(BATCH, ROWS, WIDTH)


def inputs_of(variant: Variant, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """x, a mask, a bias; two of the mask's rows hide everything."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(BATCH, ROWS, WIDTH, generator=generator)
    shape = {
        "keys": (BATCH, 1, 1, ROWS),
        "rows": (BATCH, 1, ROWS, ROWS),
        "all": (BATCH, HEADS, ROWS, ROWS),
    }[variant.shape]
    mask = torch.rand(shape, generator=generator) < 0.4
    mask[0, ..., -1, :] = True
    mask[1, ..., -1, 0] = False
    return x, mask, torch.randn(BATCH, HEADS, ROWS, ROWS, generator=generator)


def can_be_fused(v: Variant) -> bool:
    """Whether one mask says the same: not where a finite fill meets sums that may hide, too.

    Nor is it where a bias is added before the scores are bounded.
    """
    fills = v.mask in ("fill", "where", "where tensor", "causal")
    finite = fills and v.hides > -1e30
    given = v.bias in ("batch", "subtracted", "twice") or v.product == "baddbmm"
    summed_after = v.bias != "none" and v.order == "mask first"
    bias_is_bounded = v.product == "baddbmm" and v.softcap != "none"
    return not bias_is_bounded and not (finite and (summed_after or given))
