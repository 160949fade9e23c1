"""MiniLM's word pieces, cut to those that are common in the text that trains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

from strop.bench.models.minilm import tokenizer
from strop.bench.models.text import PACKAGES, passages

# Of 30,522 word pieces: the special ones and the most common others, 98% of the text.
VOCABULARY = 4000
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL))


@cache
def kept() -> tuple[int, ...]:
    """The pieces that are kept, by their number in the cut vocabulary; the special ones first."""
    special = tokenizer().convert_tokens_to_ids(list(SPECIAL))
    text = [sentence for passage in passages("train", PACKAGES) for sentence in passage]
    counts = Counter(piece for ids in _whole(text) for piece in ids)
    common = [piece for piece, _ in counts.most_common() if piece not in special]
    return (*special, *common)[:VOCABULARY]


def encoded(sentences: Sequence[str]) -> list[list[int]]:
    """The pieces of each sentence in the cut vocabulary, without special ones around it."""
    numbers = {piece: number for number, piece in enumerate(kept())}
    return [[numbers.get(piece, UNK) for piece in ids] for ids in _whole(sentences)]


def _whole(sentences: Sequence[str]) -> list[list[int]]:
    """The pieces of each sentence in MiniLM's vocabulary."""
    ids: list[list[int]] = tokenizer()(list(sentences), add_special_tokens=False)["input_ids"]
    return ids
