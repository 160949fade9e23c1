"""A small encoder for tests of distillation, its programs, and data for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strop.compiler import Model
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.ir.program import Program

WORDS = 40


class Block(nn.Module):
    """Attention and a feed-forward network, each with a residual sum and a norm."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm, self.last = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (2, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = self.norm(x + self.o(attended.transpose(1, 2).flatten(2)))
        return self.last(x + self.down(F.gelu(self.up(x))))


class Encoder(nn.Module):
    """Word ids and a padding mask in; hidden states, or logits of classes, out."""

    def __init__(
        self, width: int = 16, hidden: int = 32, blocks: int = 2, classes: int = 0, seed: int = 0
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.words = nn.Embedding(WORDS, width)
        self.blocks = nn.ModuleList(Block(width, hidden) for _ in range(blocks))
        self.head = nn.Linear(width, classes) if classes else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        mask = (1.0 - attention_mask[:, None, None, :].float()) * -1e4
        x = self.words(input_ids)
        for block in self.blocks:
            x = block(x, mask)
        return {"hidden": x} if self.head is None else {"logits": self.head(x[:, 0])}


def batch(rows: int = 8, length: int = 7, seed: int = 0, padded: int = 2) -> dict[str, Tensor]:
    """Random words, of which the last ones are padding in every other row."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, WORDS, (rows, length), generator=generator)
    mask = torch.ones(rows, length, dtype=torch.int64)
    if padded:
        mask[::2, -padded:] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def model_of(module: nn.Module, **more: object) -> Model:
    """A model with a dynamic batch and length."""
    axes = {0: "batch", 1: ("seq", 2, 32)}
    dynamic = {"input_ids": axes, "attention_mask": axes}
    return Model(module.eval(), batch(), dynamic, **more)  # type: ignore[arg-type]


def captured(module: nn.Module) -> Program:
    """The program of an encoder."""
    signature, example, _ = read_inputs(model_of(module))
    with torch.no_grad():
        return capture(module, signature, example)
