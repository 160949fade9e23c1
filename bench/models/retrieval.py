"""How near the sentence embeddings of a compressed encoder stay to those of the original."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

Batch = Mapping[str, torch.Tensor]
Run = Callable[..., Any]
NEIGHBOURS = 10


def pooled(hidden: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The mean over real tokens, at length 1: [batch, seq, size] becomes [batch, size]."""
    weights = mask[..., None].astype(hidden.dtype)
    mean = (hidden * weights).sum(1) / weights.sum(1)
    unit: np.ndarray[Any, Any] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return unit


def neighbours(embeddings: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The ten nearest other rows of each row: [rows, 10]."""
    near = embeddings @ embeddings.T
    np.fill_diagonal(near, -np.inf)
    nearest: np.ndarray[Any, Any] = np.argsort(-near, axis=1)[:, :NEIGHBOURS]
    return nearest


class Retrieval:
    """Compares with the original: mean cosine of embeddings, and common nearest neighbours."""

    def __init__(self, module: torch.nn.Module, batches: Sequence[Batch]) -> None:
        self.batches = batches

        def original(**inputs: torch.Tensor) -> tuple[Any, ...]:
            with torch.inference_mode():
                return (module(**inputs).last_hidden_state.numpy(),)

        self.wanted = self.embeddings(original)
        self.near = neighbours(self.wanted)

    def embeddings(self, run: Run) -> np.ndarray[Any, Any]:
        """The embeddings of all sentences: [sentences, size]."""
        made = [pooled(run(**batch)[0], batch["attention_mask"].numpy()) for batch in self.batches]
        return np.concatenate(made)

    def __call__(self, run: Run) -> dict[str, float]:
        """``pooled_cosine`` and ``overlap_at_10``, both 1 for the original itself."""
        found = self.embeddings(run)
        common = [len(set(a) & set(b)) for a, b in zip(neighbours(found), self.near)]
        return {
            "pooled_cosine": float((found * self.wanted).sum(1).mean()),
            "overlap_at_10": float(np.mean(common)) / NEIGHBOURS,
        }
