"""Reversal: an encoder-decoder Transformer writes random symbols in reverse order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strop.bench.trials.task import Task, outputs_of
from strop.compiler.frontend.model import DimSpec
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Batch

Run = Callable[..., Any]
SYMBOLS, START = 32, 0
SHORTEST, LONGEST, ROWS = 4, 16, 32
WIDTH, HEADS, LAYERS, INNER = 64, 4, 2, 256


class Translator(nn.Module):
    """Vaswani et al., Attention Is All You Need (2017), small, with teacher forcing.

    It takes source and target as int64 [batch, seq], and gives logits [batch, seq, symbols].
    """

    places: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, WIDTH)
        nn.init.normal_(self.embedding.weight, std=WIDTH**-0.5)
        self.register_buffer("places", sinusoids(LONGEST, WIDTH))
        self.layers = nn.Transformer(
            WIDTH, HEADS, LAYERS, LAYERS, INNER, dropout=0.0, batch_first=True
        )
        self.head = nn.Linear(WIDTH, SYMBOLS)

    def forward(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The logits of the symbols that follow those of the target."""
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        hidden = self.layers(self._embedded(source), self._embedded(target), tgt_mask=mask)
        return {"logits": self.head(hidden)}

    def _embedded(self, symbols: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(symbols) * math.sqrt(WIDTH)
        return embedded + self.places[: symbols.shape[1]]


def sinusoids(length: int, width: int) -> Tensor:
    """Section 3.5 of the paper: sines and cosines of each place, [length, width]."""
    angles = torch.arange(length)[:, None] * 10_000 ** (-torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def loss(outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Cross-entropy, the mean over places."""
    return F.cross_entropy(outputs["logits"].flatten(0, 1), batch["labels"].flatten())


def accuracy(program: Program, batches: Sequence[Batch]) -> float:
    """The share of symbols that are right, where those before are given."""
    return right(lambda **inputs: (outputs_of(program, inputs)["logits"].numpy(),), batches)


def right(run: Run, batches: Sequence[Batch]) -> float:
    """The same of whatever gives the logits, as arrays."""
    hits = [
        run(source=batch["source"], target=batch["target"])[0].argmax(2) == batch["labels"].numpy()
        for batch in batches
    ]
    return float(np.concatenate([one.ravel() for one in hits]).mean())


@cache
def task() -> Task:
    """Batches of 32 rows of one length, of 4 to 16 symbols."""
    train, validation, test = (batches(count, seed) for seed, count in enumerate((512, 32, 64)))
    dynamic: dict[str, dict[int, DimSpec]] = {
        "source": {0: "batch", 1: ("source", 2, LONGEST)},
        "target": {0: "batch", 1: ("target", 2, LONGEST)},
    }
    return Task(train, validation, test, loss, accuracy, True, dynamic)


def batches(count: int, seed: int) -> list[Batch]:
    """Random symbols; the start symbol occurs in none."""
    generator = torch.Generator().manual_seed(seed)
    found: list[Batch] = []
    for _ in range(count):
        (length,) = torch.randint(SHORTEST, LONGEST + 1, (1,), generator=generator).tolist()
        source = torch.randint(START + 1, SYMBOLS, (ROWS, length), generator=generator)
        labels = source.flip(1)
        start = torch.full((ROWS, 1), START)
        target = torch.cat([start, labels[:, :-1]], dim=1)
        found.append({"source": source, "target": target, "labels": labels})
    return found
