"""Models as people write them by hand, without a library."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strop.bench.models.inputs import TARGET_TEXT, TEXT, VOCABULARY, ids, mask, randomize
from strop.bench.models.zoo.entry import ZooModel
from strop.compiler import Model


class EncoderLayer(nn.Module):
    """Self-attention and a ReLU feed-forward, each with a residual sum and a norm after it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """x: [batch, seq, width]; padding: bool [batch, seq], True where there is no token."""
        seen, _ = self.attention(x, x, x, key_padding_mask=padding, need_weights=False)
        x = self.norm1(x + seen)
        return self.norm2(x + self.down(F.relu(self.up(x))))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Causal self-attention, cross attention and a feed-forward, each followed by a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.cross = nn.MultiheadAttention(width, heads, batch_first=True)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, y: Tensor, memory: Tensor, padding: Tensor, future: Tensor) -> Tensor:
        """future: bool [target, target], True where a position may not look."""
        seen, _ = self.attention(y, y, y, attn_mask=future, need_weights=False)
        y = self.norm1(y + seen)
        read, _ = self.cross(y, memory, memory, key_padding_mask=padding, need_weights=False)
        y = self.norm2(y + read)
        return self.norm3(y + self.down(F.relu(self.up(y))))  # type: ignore[no-any-return]


def sinusoids(length: int, width: int) -> Tensor:
    """The fixed position encodings of Vaswani et al. (2017), [length, width]."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class TextbookTransformer(nn.Module):
    """An encoder-decoder as in "Attention Is All You Need", with ``nn.MultiheadAttention``."""

    positions: Tensor

    def __init__(self, width: int = 32, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.register_buffer("positions", sinusoids(32, width))
        self.encoder = nn.ModuleList(EncoderLayer(width, heads) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(width, heads) for _ in range(layers))
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight

    def embed(self, tokens: Tensor) -> Tensor:
        """[batch, seq] -> [batch, seq, width]."""
        scaled: Tensor = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)
        return scaled + self.positions[: tokens.shape[1]]

    def forward(self, source: Tensor, source_mask: Tensor, target: Tensor) -> Tensor:
        """Logits [batch, target, vocabulary]."""
        padding = source_mask == 0
        x = self.embed(source)
        for layer in self.encoder:
            x = layer(x, padding)
        length = target.shape[1]
        future = torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1)
        y = self.embed(target)
        for layer in self.decoder:
            y = layer(y, x, padding, future)
        return self.head(y)  # type: ignore[no-any-return]


class EagerBlock(nn.Module):
    """A pre-norm block whose attention is written out: matmul, mask, softmax, matmul."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def attend(self, x: Tensor) -> Tensor:
        """Causal self-attention, [batch, seq, width] -> the same."""
        batch, length, width = x.shape
        q, k, v = (
            t.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for t in self.qkv(x).chunk(3, dim=-1)
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)
        causal = torch.tril(torch.ones(length, length)).view(1, 1, length, length)
        scores = scores.masked_fill(causal == 0, float("-inf"))
        seen = F.softmax(scores, dim=-1) @ v
        seen = seen.transpose(1, 2).contiguous().view(batch, length, width)
        return self.out(seen)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """[batch, seq, width] -> the same."""
        x = x + self.attend(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))  # type: ignore[no-any-return]


class EagerTransformer(nn.Module):
    """A small GPT as people write it by hand."""

    def __init__(self, width: int = 32, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(32, width)
        self.blocks = nn.ModuleList(EagerBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits [batch, seq, vocabulary]."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.tokens(input_ids) + self.positions(positions)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


def textbook() -> Model:
    """The encoder-decoder, with a padded source."""
    return Model(
        randomize(TextbookTransformer()),
        {"source": ids(), "source_mask": mask(), "target": ids(6)},
        dynamic={"source": TEXT, "source_mask": TEXT, "target": TARGET_TEXT},
    )


def eager_gpt() -> Model:
    """The small GPT."""
    module = randomize(EagerTransformer())
    return Model(module, {"input_ids": ids()}, dynamic={"input_ids": TEXT})


HANDWRITTEN = {
    "textbook": ZooModel(textbook, attention=6),
    "eager-gpt": ZooModel(eager_gpt, attention=2),
}
