"""Pre-training of a small BERT: masked words, and whether one sentence follows another.

The encoder starts from real weights: the word table and the first four of six layers of
all-MiniLM-L6-v2, out of the package of the demo (``bench/models/minilm.py``). Pooler and heads are
drawn anew, and the MLM decoder is the word table. The text is that of the docstrings of the
standard library and of packages that strop needs (``bench/models/text.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from strop.bench.models import minilm
from strop.bench.models.text import PACKAGES, Part, passages
from strop.bench.models.wordpieces import CLS, MASK, PAD, SEP, SPECIAL, encoded, kept
from strop.bench.trials.task import Task, outputs_of
from strop.compiler.frontend.model import DimSpec
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Batch
from strop.passes.distill.losses import IGNORED, hard_labels

LENGTH, ROWS, LAYERS = 48, 16, 4
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
WORDS, FOLLOWS = "prediction_logits", "seq_relationship_logits"
# Pairs of the training text are drawn so often, with other masks and other strangers each time.
DRAWS = 2
# Devlin et al., BERT (2019), section 3.1: of all words so many are asked for, and of these so many
# are hidden by the mask, or replaced by any word; the others stay as they are.
_ASKED, _HIDDEN, _REPLACED = 0.15, 0.8, 0.1
# With the same weight as NSP, masked words hide for hundreds of steps which sentence follows.
_MLM = 0.1
_WORD_TABLE = "embeddings.word_embeddings.weight"


def bert() -> nn.Module:
    """The first four layers of MiniLM with pooler and heads as they are drawn, without dropout."""
    import transformers

    source: Any = minilm.encoder()
    changed = {
        "num_hidden_layers": LAYERS,
        "vocab_size": len(kept()),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.05,  # 1 / sqrt(384); 0.02 is for twice as many features
    }
    config = transformers.BertConfig(**source.config.to_dict() | changed)
    module: nn.Module = transformers.BertForPreTraining(config)
    encoder, weights = module.get_submodule("bert"), source.state_dict()
    weights[_WORD_TABLE] = weights[_WORD_TABLE][list(kept())]
    weights |= {name: w for name, w in encoder.state_dict().items() if name.startswith("pooler.")}
    encoder.load_state_dict({name: weights[name] for name in encoder.state_dict()})
    return module


def losses(outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Cross-entropy of the masked words (MLM) and of the next sentence (NSP)."""
    return {
        "mlm": hard_labels(outputs[WORDS], batch["labels"]),
        "nsp": hard_labels(outputs[FOLLOWS], batch["next_sentence_label"]),
    }


def loss(outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """The weighted sum of both losses."""
    found = losses(outputs, batch)
    return _MLM * found["mlm"] + found["nsp"]


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
    far = max(map(len, passages(part, PACKAGES)))  # so many pairs on is another passage
    strangers = (order + torch.randint(far, size - far, (size,), generator=generator)) % size
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
    pairs = [pair for passage in passages(part, PACKAGES) for pair in pairwise(passage)]
    first, second = ([pair[i] for pair in pairs] for i in (0, 1))
    return encoded(first), encoded(second)


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
    others = torch.randint(len(SPECIAL), len(kept()), ids.shape, generator=generator)
    hidden = ids.masked_fill(asked & (fate < _HIDDEN), MASK)
    replaced = asked & (fate >= _HIDDEN) & (fate < _HIDDEN + _REPLACED)
    return torch.where(replaced, others, hidden)
