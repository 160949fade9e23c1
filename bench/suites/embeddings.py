"""How near an artifact is to its original, in what a user of embeddings would notice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from strop.compiler.util.numerics import Array


@dataclass(frozen=True)
class EmbeddingAgreement:
    """Agreement of two encoders on the same sentences.

    Attributes:
        cosine: mean cosine between the two embeddings of a sentence.
        least_cosine: the worst sentence's.
        overlap: mean share of a sentence's ``top`` nearest neighbours that both agree on.
        top: how many neighbours.
        sentences: how many sentences.
    """

    cosine: float
    least_cosine: float
    overlap: float
    top: int
    sentences: int


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
    return EmbeddingAgreement(
        cosine=float(cosines.mean()),
        least_cosine=float(cosines.min()),
        overlap=float(np.mean(shared)),
        top=top,
        sentences=len(original),
    )


def neighbours(embeddings: Array, top: int) -> Array:
    """Indices of each row's ``top`` nearest other rows, [rows, top]."""
    scores = embeddings @ embeddings.T
    np.fill_diagonal(scores, -np.inf)
    order: Array = np.argsort(-scores, axis=-1, kind="stable")[:, :top]
    return order
