"""Options of the command line: combinations of sizes, and numbers of threads."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from strop.compiler.debug.shapes import parse_sizes
from strop.compiler.util.errors import UsageError


def size_combinations(
    words: Sequence[str], dims: Sequence[Mapping[str, Any]]
) -> list[dict[str, int]]:
    """Every combination of the sizes in ``batch=1,8 seq=16,128``; empty if no sizes are given.

    Raises:
        UsageError: not of this form, an unknown dim, a dim twice, or sizes outside its range.
    """
    chosen = parse_sizes(words, dims)
    return [dict(zip(chosen, c)) for c in itertools.product(*chosen.values())] if chosen else []


def parse_threads(text: str) -> list[int]:
    """``1,2`` as numbers of threads.

    Raises:
        UsageError: something else.
    """
    words = [w.strip() for w in text.split(",")]
    if not all(w.isdecimal() and int(w) > 0 for w in words):
        raise UsageError(f"--threads: '{text}' is no list of numbers; write 1,2")
    return list(dict.fromkeys(int(w) for w in words))
