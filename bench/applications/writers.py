"""Writers: what makes a target of a source, in eager torch or by an artifact."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import islice

import torch

from strop.bench.applications.corpus import Corpus
from strop.bench.applications.programs import generation
from strop.bench.applications.sequences import Pair, batches
from strop.bench.applications.stepping import (
    Run,
    Steps,
    forced_loss,
    greedy,
    most_likely,
    on_arrays,
)
from strop.bench.applications.transformer import Sizes, Weights, both_programs
from strop.bench.harness import decoding
from strop.compiler import Artifact, load
from strop.compiler.rewriting.context import Batch
from strop.compiler.util.numerics import Array
from strop.passes.distill.losses import IGNORED

_TOGETHER = 32


class Writer(ABC):
    """Writes the targets of sources.

    Attributes:
        encoder: of the two programs, as ``Steps`` calls them.
        decoder: the other one.
    """

    def __init__(self, corpus: Corpus, encoder: Run, decoder: Run) -> None:
        self.corpus, self.encoder, self.decoder = corpus, encoder, decoder

    @abstractmethod
    def __call__(self, sources: Sequence[str]) -> list[str]:
        """The most likely text for each source, token by token."""

    def perplexity(self, pairs: Sequence[Pair]) -> float:
        """exp of the mean of -log p(token), over the tokens of the targets and their ends."""
        lost, count = 0.0, 0
        for batch in batches(pairs, self.corpus.tokenizer, _TOGETHER, self.corpus.sizes.context):
            tokens = int(batch["labels"].ne(IGNORED).sum())
            lost += tokens * float(forced_loss(self.steps(batch), batch))
            count += tokens
        return math.exp(lost / count)

    def steps(self, source: Batch) -> Steps:
        """The programs at the beginning of their texts."""
        return Steps(self.encoder, self.decoder, generation(self.corpus.sizes), source)


class Modules(Writer):
    """Writes with the modules themselves, in eager torch."""

    def __init__(self, weights: Weights, corpus: Corpus) -> None:
        super().__init__(corpus, *both_programs(weights, corpus.sizes))

    def __call__(self, sources: Sequence[str]) -> list[str]:
        """The most likely text for each source, token by token."""
        most = self.corpus.sizes.context - 1
        found = greedy(self.steps(self.corpus.tokens(sources)), len(sources), most)
        return [self.corpus.tokenizer.decode(ids) for ids in found]


class Files(Writer):
    """Writes with an artifact."""

    def __init__(self, artifact: Artifact, corpus: Corpus) -> None:
        self.loaded = load(artifact.path)
        sessions = (self.loaded.programs[name].session for name in ("encoder", "decoder"))
        super().__init__(corpus, *(on_arrays(session.run) for session in sessions))

    def __call__(self, sources: Sequence[str]) -> list[str]:
        """The most likely text for each source, token by token."""
        given = {name: ids.numpy() for name, ids in self.corpus.tokens(sources).items()}
        found = [""] * len(sources)
        for token in self.loaded.generate(given, max_new=self.corpus.sizes.context - 1):
            found[token.row] += token.text
        return found


class TimedInTorch(decoding.Writer):
    """The modules in eager torch, as the benchmark times what writes token by token."""

    def __init__(self, sizes: Sizes, weights: Weights) -> None:
        self.encoder, self.decoder = both_programs(weights, sizes)
        self.called = generation(sizes)

    def write(self, prompts: Array, count: int, told: decoding.Told) -> None:
        """Write targets of sources, int64 [batch, tokens]; all of their tokens are read."""
        ids = torch.from_numpy(prompts)
        source = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        steps = Steps(self.encoder, self.decoder, self.called, source)
        for found in islice(most_likely(steps, len(prompts)), count):
            told(found[:, 0].tolist())
