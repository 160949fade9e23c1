"""Pre-training of a small BERT: masked words, and whether one sentence follows another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn

from strop.bench.models.text import Part, passages
from strop.bench.models.tokens import CLS, MASK, PAD, SEP, SPECIAL, encoded
from strop.bench.trials.task import Task, outputs_of
from strop.compiler.frontend.model import DimSpec
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Batch
from strop.passes.distill.losses import IGNORED, hard_labels

# Bytes and the most common pairs of them: a masked letter is learned sooner than a word.
VOCABULARY = 320
LENGTH, ROWS, LAYERS = 64, 16, 4
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": LAYERS,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": LENGTH,
    "pad_token_id": PAD,
    "initializer_range": 0.05,  # 0.02 is for hundreds of features
}
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
WORDS, FOLLOWS = "prediction_logits", "seq_relationship_logits"
# Pairs of the training text are drawn so often, with other masks and other strangers each time.
DRAWS = 4
# Devlin et al., BERT (2019), section 3.1: of all words so many are asked for, and of these so many
# are hidden by the mask, or replaced by any word; the others stay as they are.
_ASKED, _HIDDEN, _REPLACED = 0.15, 0.8, 0.1


def bert() -> nn.Module:
    """A BERT of four layers with both heads, without dropout."""
    import transformers

    config = transformers.BertConfig(
        **SIZES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    module: nn.Module = transformers.BertForPreTraining(config)
    return module


def losses(outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Cross-entropy of the masked words (MLM) and of the next sentence (NSP)."""
    return {
        "mlm": hard_labels(outputs[WORDS], batch["labels"]),
        "nsp": hard_labels(outputs[FOLLOWS], batch["next_sentence_label"]),
    }


def loss(outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """The sum of both losses."""
    return torch.stack(list(losses(outputs, batch).values())).sum()


def mean_losses(program: Program, batches: Sequence[Batch]) -> dict[str, float]:
    """Both losses, the mean over batches."""
    found = [
        losses(outputs_of(program, {name: batch[name] for name in INPUTS}), batch)
        for batch in batches
    ]
    return {name: float(torch.stack([one[name] for one in found]).mean()) for name in found[0]}


def total(program: Program, batches: Sequence[Batch]) -> float:
    """The sum of both, the mean over batches."""
    return sum(mean_losses(program, batches).values())


@cache
def task() -> Task:
    """Pairs of sentences of docstrings, in batches of 16."""
    train = [one for draw in range(DRAWS) for one in batches("train", draw)]
    axes: dict[int, DimSpec] = {0: "batch", 1: ("seq", 2, LENGTH)}
    dynamic = dict.fromkeys(INPUTS, axes)
    return Task(train, batches("validation"), batches("test"), loss, total, False, dynamic)


def batches(part: Part, draw: int = 0) -> list[Batch]:
    """Every two sentences that follow each other, half of them with a stranger in second place."""
    generator = torch.Generator().manual_seed(draw)
    firsts, seconds = _pairs(part)
    size = len(firsts)
    order = torch.randperm(size, generator=generator)
    follows = torch.rand(size, generator=generator) < 0.5
    strangers = torch.randint(size, (size,), generator=generator)
    second = torch.where(follows, order, strangers).tolist()
    rows = [_row(firsts[i], seconds[j]) for i, j in zip(order.tolist(), second)]
    labels = (~follows).long()
    return [
        _batch(rows[i : i + ROWS], labels[i : i + ROWS], generator)
        for i in range(0, size - ROWS + 1, ROWS)
    ]


@cache
def _pairs(part: Part) -> tuple[list[list[int]], list[list[int]]]:
    """The tokens of sentences, and those of the ones that follow them."""
    pairs = [pair for passage in passages(part) for pair in pairwise(passage)]
    first, second = ([pair[i] for pair in pairs] for i in (0, 1))
    return encoded(first, VOCABULARY), encoded(second, VOCABULARY)


def _row(first: Sequence[int], second: Sequence[int]) -> tuple[list[int], int]:
    """Tokens of a pair, each sentence cut to its share, and where the second one begins."""
    most = (LENGTH - 3) // 2
    begin = [CLS, *first[:most], SEP]
    return [*begin, *second[:most], SEP], len(begin)


def _batch(
    rows: Sequence[tuple[list[int], int]], follows: Tensor, generator: torch.Generator
) -> Batch:
    """Padded rows; words that are asked for are labels, all others are ignored."""
    ids = torch.full((len(rows), LENGTH), PAD)
    types = torch.zeros_like(ids)
    for i, (tokens, second) in enumerate(rows):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        types[i, second : len(tokens)] = 1
    drawn = torch.rand(ids.shape, generator=generator)
    asked = (drawn < _ASKED) & (ids >= len(SPECIAL))
    return {
        "input_ids": _masked(ids, asked, generator),
        "attention_mask": (ids != PAD).long(),
        "token_type_ids": types,
        "labels": ids.masked_fill(~asked, IGNORED),
        "next_sentence_label": follows,
    }


def _masked(ids: Tensor, asked: Tensor, generator: torch.Generator) -> Tensor:
    """The words that are asked for, hidden, replaced or left."""
    fate = torch.rand(ids.shape, generator=generator)
    others = torch.randint(len(SPECIAL), VOCABULARY, ids.shape, generator=generator)
    hidden = ids.masked_fill(asked & (fate < _HIDDEN), MASK)
    replaced = asked & (fate >= _HIDDEN) & (fate < _HIDDEN + _REPLACED)
    return torch.where(replaced, others, hidden)
