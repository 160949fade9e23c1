"""A small encoder and decoder that share one table: rows of tokens, in plain torch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from strop.compiler import Model, Programs
from strop.compiler.frontend.generation import Generation

VOCABULARY, HIDDEN, HEADS = 150, 32, 4


class Encoder(nn.Module):
    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table = table
        self.key, self.value = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        x = self.table(input_ids)
        return {"key": heads(self.key(x)), "value": heads(self.value(x))}


class Decoder(nn.Module):
    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table, self.query = table, nn.Linear(HIDDEN, HIDDEN)

    def forward(self, input_ids: Tensor, cross_key: Tensor, cross_value: Tensor) -> Tensor:
        x = self.table(input_ids)
        found = functional.scaled_dot_product_attention(
            heads(self.query(x)), cross_key, cross_value
        )
        return functional.linear(x + found.transpose(1, 2).flatten(2), self.table.weight)


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def make(seed: int = 0, tied: bool = True, **more: object) -> Programs:
    """Both programs, with what the factory declares of how they generate."""
    torch.manual_seed(seed)
    table, other = nn.Embedding(VOCABULARY, HIDDEN), nn.Embedding(VOCABULARY, HIDDEN)
    ids = torch.randint(0, VOCABULARY, (2, 5))
    cross = torch.randn(2, HEADS, 7, HIDDEN // HEADS)
    tokens, source = {0: "batch", 1: ("seq", 1, 8)}, {0: "batch", 2: ("source", 1, 8)}
    encoder = Model(Encoder(table).eval(), {"input_ids": ids}, {"input_ids": tokens})
    decoder = Model(
        Decoder(table if tied else other).eval(),
        {"input_ids": ids, "cross_key": cross, "cross_value": cross.flip(0)},
        {"input_ids": tokens, "cross_key": source, "cross_value": source},
    )
    models: Mapping[str, Model] = {"encoder": encoder, "decoder": decoder}
    generation = Generation({}, context=8, cross={"cross_key": "key", "cross_value": "value"})
    return Programs(models, generation, **more)  # type: ignore[arg-type]
