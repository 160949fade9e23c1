"""Causal language modelling: a small Llama learns sentences of docstrings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor, nn

from strop.bench.models.text import Part
from strop.bench.models.tokens import VOCABULARY, rows
from strop.bench.trials.task import Task, outputs_of
from strop.compiler.frontend.model import DimSpec
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Batch, seeded
from strop.passes.distill.losses import next_token

LENGTH, ROWS = 64, 8
# So few that what is trained for hundreds of updates sees each of them several times.
TRAINED = 80
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": LENGTH,
}


def llama(tied: bool, width: int = SIZES["hidden_size"]) -> nn.Module:
    """A Llama with pairs of query heads on one key head; its head is the embedding if tied."""
    import transformers

    sizes = SIZES | {"hidden_size": width, "intermediate_size": 4 * width}
    config = transformers.LlamaConfig(**sizes, tie_word_embeddings=tied, use_cache=False)
    module: nn.Module = transformers.LlamaForCausalLM(config)
    return module


def loss(outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """The mean over places of -log p of the token that follows."""
    return next_token(outputs["logits"], batch["input_ids"])


def perplexity(program: Program, batches: Sequence[Batch]) -> float:
    """exp of the mean loss; batches have one size."""
    losses = [loss(outputs_of(program, batch), batch) for batch in batches]
    return math.exp(float(torch.stack(losses).mean()))


@cache
def task() -> Task:
    """Rows of 64 tokens, in batches of 8."""
    train, validation, test = (batches(part) for part in ("train", "validation", "test"))
    axes: dict[int, DimSpec] = {0: "batch", 1: ("seq", 2, LENGTH)}
    return Task(train[:TRAINED], validation, test, loss, perplexity, False, {"input_ids": axes})


def batches(part: Part) -> list[Batch]:
    """All rows of a part in random order; what does not fill a batch is left out."""
    every = rows(part, LENGTH)
    with seeded(0):
        every = every[torch.randperm(len(every))]
    return [{"input_ids": some} for some in every.split(ROWS) if len(some) == ROWS]
