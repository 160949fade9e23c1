"""What tests of ragged batches share: a small encoder, its masks and heads, and masks to try."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from program_tools import program_of, run_passes
from torch import Tensor, nn

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import PassResult
from strop.passes.cleanup.noops import Noops
from strop.passes.fuse.eager_attention import FuseAttention
from strop.passes.ragged.ragged import Ragged

WIDTH, HEADS, WORDS = 16, 2, 19
TEXT: dict[int, Any] = {0: "batch", 1: ("seq", 1, 40)}
LOWEST = torch.finfo(torch.float32).min

Masks = Callable[[Tensor], Tensor]
"""From a mask, [batch, seq], to what attention takes."""
MASKS: dict[str, Masks] = {
    "bool": lambda m: m.bool()[:, None, None, :],
    "equal": lambda m: (m != 0)[:, None, None, :],
    "whole": lambda m: m.bool()[:, None, None, :].expand(-1, 1, m.shape[1], -1),
    "both axes": lambda m: m.bool()[:, None, None, :] & m.bool()[:, None, :, None],
    "floor": lambda m: (1.0 - m.float())[:, None, None, :] * LOWEST,
    "filled": lambda m: torch.zeros(m.shape).masked_fill(m == 0, LOWEST)[:, None, None, :],
    "chosen": lambda m: torch.where(m.bool(), 0.0, LOWEST)[:, None, None, :],
}
Heads = Callable[[Tensor, Tensor], Tensor]
"""From last hidden states, [batch, seq, width], and the mask to an output."""
POOLED: dict[str, Heads] = {
    "mean": lambda x, m: (x * m[:, :, None]).sum(1) / m.sum(1, keepdim=True).clamp(min=1e-9),
    "highest": lambda x, m: x.masked_fill(m[:, :, None] == 0, -1e4).amax(1),
    "chosen": lambda x, m: torch.where(m[:, :, None] != 0, x, 0.0).sum(1),
    "first": lambda x, m: x[:, 0].tanh(),
    "last": lambda x, m: x[:, -1],
    "mean of norms": lambda x, m: (x.softmax(-1).square().sum(-1) * m).sum(1),
    "by a matrix": lambda x, m: ((x @ torch.ones(WIDTH, 3)) * m[:, :, None]).sum(1),
    "weighed": lambda x, m: F.normalize(x, dim=-1).mul(m[..., None]).mean(1),
}


def sequence(x: Tensor, mask: Tensor) -> Tensor:
    """The last hidden states themselves."""
    return x


class Encoder(nn.Module):
    """One layer of a BERT: embeddings, attention and a feed-forward, with norms behind sums."""

    def __init__(
        self, masks: Masks, head: Heads = sequence, causal: bool = False, softcap: float = 0.0
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(40, WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.masks, self.head, self.causal, self.softcap = masks, head, causal, softcap

    def attend(self, x: Tensor, mask: Tensor) -> Tensor:
        """[batch, seq, width] -> the same."""
        batch, length, width = x.shape
        parts = self.qkv(x).split(width, -1)
        q, k, v = (t.view(batch, length, HEADS, width // HEADS).transpose(1, 2) for t in parts)
        if self.softcap:
            how = (self.masks(mask), HEADS, HEADS, 1.0, self.causal, self.softcap)
            joined = torch.ops.strop.attention(*parts, *how)
        else:
            seen = F.scaled_dot_product_attention(q, k, v, self.masks(mask), is_causal=self.causal)
            joined = seen.transpose(1, 2).reshape(batch, length, width)
        result: Tensor = self.out(joined)
        return result

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids and mask: [batch, seq]."""
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        x = self.norm1(x + self.attend(x, mask))
        x = self.norm2(x + self.down(F.gelu(self.up(x))))
        return self.head(x, mask)


def inputs(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Words for a mask, and the mask."""
    words = torch.randint(0, WORDS, mask.shape, generator=torch.Generator().manual_seed(1))
    return words, mask


def captured(module: nn.Module, mask: Tensor | None = None) -> Program:
    """A module of ids and mask, with its attention as one operator."""
    example = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]) if mask is None else mask
    program = program_of(module, *inputs(example), dims={0: TEXT, 1: {0: "batch", 1: "seq"}})
    return run_passes(program, Noops(), FuseAttention(), Noops())


def ragged(program: Program) -> PassResult:
    """The pass, with zeros in sequence outputs."""
    result = Ragged(zeros=True).run(program)
    assert result.modified, [str(miss) for miss in result.log.misses]
    return result


def same_where_real(before: Program, after: Program, mask: Tensor, tolerance: float) -> None:
    """Both agree; where an output holds padded positions, at real ones, and zeros elsewhere."""
    given = dict(zip(("input_0", "input_1"), inputs(mask)))
    with torch.no_grad():
        for spec, want, got in zip(
            after.contract.outputs, before.run(**given), after.run(**given), strict=True
        ):
            if spec.padded is not None:
                real = mask != spec.padded.value
                assert not got[~real].any()
                want, got = want[real], got[real]
            torch.testing.assert_close(got, want, rtol=0, atol=tolerance)


# Right and left padding, holes, nothing padded, a row of padding, everything padded, one position.
PATTERNS: dict[str, Tensor] = {
    "right": torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0]]),
    "left": torch.tensor([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1]]),
    "holes": torch.tensor([[0, 1, 0, 1, 0, 0, 1], [1, 0, 0, 0, 0, 1, 1]]),
    "none": torch.ones(2, 5, dtype=torch.int64),
    "a row of padding": torch.tensor([[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]),
    "all padding": torch.zeros(2, 3, dtype=torch.int64),
    "many sequences": (torch.arange(9)[:, None] * 5 % 9 > torch.arange(8)).long(),
    "one sequence": torch.tensor([[1, 1, 0, 0]]),
    "one position": torch.ones(1, 1, dtype=torch.int64),
    "one padded position": torch.zeros(1, 1, dtype=torch.int64),
}
