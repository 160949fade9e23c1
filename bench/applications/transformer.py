"""The textbook's encoder-decoder Transformer: trained as one program, called as two.

``Transformer`` is made of torch's own parts and takes a source and a target; this is what trains,
is pruned, and is distilled. ``Encoder`` and ``Decoder`` compute the same one token at a time from
the same weights, by name: pruning has left fewer heads and channels of them, or none is missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import strop.compiler.ir.dialect  # noqa: F401  (registers the strop:: operators)
from strop.bench.models.reversal import sinusoids

PAD, START, END, UNKNOWN = range(4)
"""The ids of special tokens."""
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """Of a Transformer; ``context`` is the most tokens of a source, and of a target."""

    vocabulary: int
    width: int = 128
    heads: int = 4
    layers: int = 2
    inner: int = 512
    context: int = 64
    dropout: float = 0.1

    @property
    def head_size(self) -> int:
        """Features of one head; pruning leaves it as it is."""
        return self.width // self.heads


class Transformer(nn.Module):
    """Vaswani et al., Attention Is All You Need (2017), with norms before each part.

    It takes source and target, int64 [batch, source] and [batch, target], and a mask of the
    source's real tokens, and gives the logits of what follows each token of the target, float32
    [batch, target, vocabulary]. Source and target are padded on the right.
    """

    places: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sizes.vocabulary, sizes.width)
        nn.init.normal_(self.embedding.weight, std=sizes.width**-0.5)
        self.register_buffer("places", sinusoids(sizes.context, sizes.width))
        width, part = sizes.width, (sizes.width, sizes.heads, sizes.inner, sizes.dropout)
        reads = nn.TransformerEncoderLayer(*part, batch_first=True, norm_first=True)
        writes = nn.TransformerDecoderLayer(*part, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(reads, sizes.layers, nn.LayerNorm(width), False)
        self.decoder = nn.TransformerDecoder(writes, sizes.layers, nn.LayerNorm(width))
        for weight in (*self.encoder.parameters(), *self.decoder.parameters()):
            if weight.dim() > 1:
                nn.init.xavier_uniform_(weight)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor
    ) -> dict[str, Tensor]:
        """The logits of the tokens that follow those of the target."""
        padding = attention_mask == 0
        causal = torch.ones(2 * [decoder_input_ids.shape[1]], dtype=torch.bool).triu(1)
        source = self.encoder(self._embedded(input_ids), src_key_padding_mask=padding)
        target = self._embedded(decoder_input_ids)
        hidden = self.decoder(target, source, causal, memory_key_padding_mask=padding)
        return {"logits": F.linear(hidden, self.embedding.weight)}

    def _embedded(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(ids) * math.sqrt(self.places.shape[1])
        return embedded + self.places[: ids.shape[1]]


class Table(nn.Module):
    """Embedded tokens with their positions, and the same table as the head."""

    places: Tensor

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.words = nn.Parameter(weights["embedding.weight"])
        self.register_buffer("places", weights["places"])

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """[batch, seq] becomes [batch, seq, width]."""
        scale = math.sqrt(self.places.shape[1])
        return F.embedding(ids, self.words) * scale + F.embedding(positions, self.places)

    def scores(self, x: Tensor) -> Tensor:
        """[batch, seq, width] becomes [batch, seq, vocabulary]."""
        return F.linear(x, self.words)


class Attention(nn.Module):
    """What ``nn.MultiheadAttention`` computes, in parts that can be called apart.

    The number of heads is read off the weights, ``size`` features each.
    """

    def __init__(self, weights: Weights, name: str, size: int) -> None:
        super().__init__()
        packed = (weights[f"{name}.in_proj_{kind}"].chunk(3) for kind in ("weight", "bias"))
        self.query, self.key, self.value = (_linear(w, b) for w, b in zip(*packed))
        self.out = _layer(weights, f"{name}.out_proj")
        self.size = size

    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, [batch, heads, seq, size], of [batch, seq, width]."""
        return self._heads(self.key(x)), self._heads(self.value(x))

    def forward(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """What each place of ``x`` takes from the places that the mask lets it see."""
        found = F.scaled_dot_product_attention(self._heads(self.query(x)), key, value, mask)
        mixed: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return mixed

    def _heads(self, x: Tensor) -> Tensor:
        apart: Tensor = x.unflatten(-1, (-1, self.size)).transpose(1, 2)
        return apart


class Inner(nn.Module):
    """The two layers behind attention."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.first, self.second = (_layer(weights, f"{name}.linear{i}") for i in (1, 2))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, seq, width] becomes the same."""
        result: Tensor = self.second(F.relu(self.first(x)))
        return result


class EncoderLayer(nn.Module):
    """What ``nn.TransformerEncoderLayer`` computes."""

    def __init__(self, weights: Weights, name: str, size: int) -> None:
        super().__init__()
        self.attention = Attention(weights, f"{name}.self_attn", size)
        self.inner = Inner(weights, name)
        self.norms = nn.ModuleList(_norm(weights, f"{name}.norm{i}") for i in (1, 2))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[batch, seq, width] becomes the same."""
        before = self.norms[0](x)
        x = x + self.attention(before, *self.attention.read(before), mask)
        result: Tensor = x + self.inner(self.norms[1](x))
        return result


class DecoderLayer(nn.Module):
    """What ``nn.TransformerDecoderLayer`` computes, over a cache of its own, and the encoder's."""

    def __init__(self, weights: Weights, name: str, size: int) -> None:
        super().__init__()
        self.attention = Attention(weights, f"{name}.self_attn", size)
        self.cross = Attention(weights, f"{name}.multihead_attn", size)
        self.inner = Inner(weights, name)
        self.norms = nn.ModuleList(_norm(weights, f"{name}.norm{i}") for i in (1, 2, 3))

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor], mask: Tensor,
        source: tuple[Tensor, Tensor], source_mask: Tensor,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # fmt: skip
        """[batch, seq, width] becomes the same; and the longer cache."""
        before = self.norms[0](x)
        key, value = (torch.cat(both, 2) for both in zip(past, self.attention.read(before)))
        x = x + self.attention(before, key, value, mask)
        x = x + self.cross(self.norms[1](x), *source, source_mask)
        return x + self.inner(self.norms[2](x)), (key, value)


class Encoder(nn.Module):
    """Reads the source once: gives the keys and values that each layer of the decoder looks at.

    It takes the source and a mask of its real tokens, int64 [batch, source], and gives
    ``cross.{i}.key`` and ``cross.{i}.value``, float32 [batch, heads, source, size].
    """

    def __init__(self, weights: Weights, sizes: Sizes, table: Table) -> None:
        super().__init__()
        self.table = table
        count, size = range(sizes.layers), sizes.head_size
        self.layers = nn.ModuleList(
            EncoderLayer(weights, f"encoder.layers.{i}", size) for i in count
        )
        self.norm = _norm(weights, "encoder.norm")
        self.cross = nn.ModuleList(
            Attention(weights, f"decoder.layers.{i}.multihead_attn", size) for i in count
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """The keys and values by name."""
        positions = torch.ops.strop.cache_positions(attention_mask, input_ids.shape[1])
        seen = attention_mask.ne(0)[:, None, None, :]
        x = self.table(input_ids, positions)
        for layer in self.layers:
            x = layer(x, seen)
        x, found = self.norm(x), {}
        for i, cross in enumerate(self.cross):
            assert isinstance(cross, Attention)
            found[f"cross.{i}.key"], found[f"cross.{i}.value"] = cross.read(x)
        return found


class Decoder(nn.Module):
    """Writes the target: takes new tokens and what was computed before, gives the next logits.

    Its inputs and outputs are those of ``strop.compiler.frontend.generation.Generation``.
    """

    def __init__(self, weights: Weights, sizes: Sizes, table: Table) -> None:
        super().__init__()
        self.table = table
        self.layers = nn.ModuleList(
            DecoderLayer(weights, f"decoder.layers.{i}", sizes.head_size)
            for i in range(sizes.layers)
        )
        self.norm = _norm(weights, "decoder.norm")

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        encoder_attention_mask: Tensor,
        **caches: Tensor,
    ) -> dict[str, Tensor]:
        """Logits, [batch, 1, vocabulary], and the caches with the new tokens."""
        seq = input_ids.shape[1]
        mask = torch.ops.strop.cache_mask(attention_mask, seq, None)
        source_mask = encoder_attention_mask.ne(0)[:, None, None, :]
        x = self.table(input_ids, torch.ops.strop.cache_positions(attention_mask, seq))
        present: dict[str, Tensor] = {}
        for i, layer in enumerate(self.layers):
            past, source = _pair(caches, f"past_key_values.{i}"), _pair(caches, f"cross.{i}")
            x, (key, value) = layer(x, past, mask, source, source_mask)
            present |= {f"present.{i}.key": key, f"present.{i}.value": value}
        last = torch.ops.strop.last_token(self.norm(x), attention_mask)
        return {"logits": self.table.scores(last), **present}


def both_programs(weights: Weights, sizes: Sizes) -> tuple[Encoder, Decoder]:
    """Encoder and decoder of a Transformer's weights, pruned or not; they share the table.

    Args:
        weights: by the names that they have in ``Transformer``.
        sizes: of the Transformer before it was pruned.
    """
    table = Table(weights)
    return Encoder(weights, sizes, table).eval(), Decoder(weights, sizes, table).eval()


def _pair(caches: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return caches[f"{name}.key"], caches[f"{name}.value"]


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    made.weight, made.bias = nn.Parameter(weight), nn.Parameter(bias)
    return made


def _layer(weights: Weights, name: str) -> nn.Linear:
    return _linear(weights[f"{name}.weight"], weights[f"{name}.bias"])


def _norm(weights: Weights, name: str) -> nn.LayerNorm:
    made = nn.LayerNorm(weights[f"{name}.weight"].shape, device="meta")
    made.weight, made.bias = (nn.Parameter(weights[f"{name}.{k}"]) for k in ("weight", "bias"))
    return made
