"""Which models of the zoo the quick tests take: one of each family."""

from __future__ import annotations

from typing import Any

import pytest

from strop.bench.models.zoo import ZOO

# Their layers are those of a sibling: BERT, Llama, Whisper or ViT.
SIBLINGS = (
    "distilbert", "roberta", "electra", "gpt-neox", "mistral", "qwen2", "gemma", "phi", "marian",
    "clip", "qwen3", "bart",
)  # fmt: skip


def one_of_each_family(*others: str) -> list[Any]:
    """Names of all models as parameters; siblings of others are slow, and the others named."""
    slow = {*SIBLINGS, *others}
    return [pytest.param(n, marks=pytest.mark.slow) if n in slow else n for n in ZOO]
