"""How near engines are to the original in what a user of sentence embeddings would notice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from strop.bench.harness.duel import DuelSession
from strop.bench.harness.engines import Eager
from strop.bench.harness.subject import Feeds
from strop.bench.harness.workers import workers
from strop.bench.processes.spawned import EngineError
from strop.compiler.util.errors import RuntimeRefusedError
from strop.compiler.util.numerics import Array

SENTENCES, BATCH = 400, 16
REFERENCE = "the original"


@dataclass(frozen=True)
class EmbeddingAgreement:
    """Agreement of two encoders on the same sentences.

    Attributes:
        cosine: mean cosine between the two embeddings of a sentence.
        overlap: mean share of a sentence's ``top`` nearest neighbours that both agree on.
        top: how many neighbours.
        sentences: how many sentences.
    """

    cosine: float
    overlap: float
    top: int
    sentences: int


@dataclass(frozen=True)
class SentenceOutputs:
    """Last hidden states of engines for the same sentences.

    Attributes:
        masks: of every batch, [batch, seq].
        original: of every batch, [batch, seq, size], of the source in eager torch.
        engines: the same of every engine that still runs, by name.
    """

    masks: list[Array]
    original: list[Array]
    engines: dict[str, list[Array]]


def sentence_outputs(session: DuelSession, source: str) -> SentenceOutputs:
    """What the engines of a duel and the source give for real sentences.

    Raises:
        RuntimeRefusedError: eager torch or an artifact does not run on them.
    """
    plan = session.setup.plan
    threads = max(plan.threads)
    engines = [Eager(REFERENCE, threads, source), *session.engines(threads)]
    batches = _batches()
    with workers(engines, batches, plan.timeout) as (running, failed):
        found = {}
        for name, worker in running.items():
            try:
                found[name] = [worker.outputs(case)[0] for case in batches]
            except EngineError as error:
                failed[name] = f"does not run: {error}"
    for name in (REFERENCE, *session.setup.artifacts):
        if name in failed:
            raise RuntimeRefusedError(f"{name} {failed[name]}, on sentences")
    masks = [feeds["attention_mask"] for feeds in batches.values()]
    return SentenceOutputs(masks, found.pop(REFERENCE), found)


def sentence_fidelity(session: DuelSession, source: str) -> dict[str, EmbeddingAgreement]:
    """Agreement with the source in eager torch on real sentences, of every engine that still runs.

    Raises:
        RuntimeRefusedError: eager torch or an artifact does not run on them.
    """
    found = sentence_outputs(session, source)
    original = embed(found.original, found.masks)
    return {
        name: agreement(original, embed(hidden, found.masks))
        for name, hidden in found.engines.items()
    }


def token_cosine(found: SentenceOutputs, engine: str) -> float:
    """The mean cosine of last hidden states with the original's, over real tokens."""
    cosines = []
    for mask, want, got in zip(found.masks, found.original, found.engines[engine]):
        sizes = np.linalg.norm(want, axis=-1) * np.linalg.norm(got, axis=-1)
        real = mask.astype(bool)  # padded positions may be zeros
        cosines.append((want * got).sum(-1)[real] / sizes[real])
    return float(np.concatenate(cosines).mean())


def _batches() -> dict[str, Feeds]:
    """Sentences by length, so that a batch holds little padding."""
    from strop.bench.models.minilm import tokenize
    from strop.bench.models.sentences import sentences

    texts = sorted(sentences(SENTENCES), key=len)
    parts = [texts[i : i + BATCH] for i in range(0, len(texts), BATCH)]
    return {
        str(i): {name: tensor.numpy() for name, tensor in tokenize(part).items()}
        for i, part in enumerate(parts)
    }


def pooled(hidden: Array, mask: Array) -> Array:
    """Mean over the unmasked tokens, normalised: [batch, seq, size] -> [batch, size]."""
    weights = mask[..., None].astype(hidden.dtype)
    mean = (hidden * weights).sum(1) / weights.sum(1)
    unit: Array = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
    return unit


def embed(hidden: Sequence[Array], masks: Sequence[Array]) -> Array:
    """Embeddings of all sentences of all batches, [sentences, size]."""
    return np.concatenate([pooled(h, m) for h, m in zip(hidden, masks)])


def agreement(original: Array, other: Array, top: int = 10) -> EmbeddingAgreement:
    """Compare two sets of unit embeddings, row by row and neighbour by neighbour."""
    cosines = (original * other).sum(-1)
    pairs = zip(neighbours(original, top), neighbours(other, top))
    shared = [len(set(a) & set(b)) / top for a, b in pairs]
    return EmbeddingAgreement(float(cosines.mean()), float(np.mean(shared)), top, len(original))


def neighbours(embeddings: Array, top: int) -> Array:
    """Indices of each row's ``top`` nearest other rows, [rows, top]."""
    scores = embeddings @ embeddings.T
    np.fill_diagonal(scores, -np.inf)
    order: Array = np.argsort(-scores, axis=-1, kind="stable")[:, :top]
    return order
