"""``--shapes``: from ``batch=1,8 seq=16,128`` to the cases to measure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from strop.compiler.errors import UsageError, did_you_mean

WORD = re.compile(r"[^\W\d]\w*=\d+(,\d+)*")


def parse_sizes(words: Sequence[str], dims: Sequence[Mapping[str, Any]]) -> list[dict[str, int]]:
    """Every combination of the sizes of the named dims.

    Args:
        words: like ``batch=1,8``, or several of these with spaces between them.
        dims: of the artifact's contract: name, min, and max or None.

    Raises:
        UsageError: not of this form, an unknown dim, a dim twice, or sizes outside its range.
    """
    ranges = {d["name"]: (d["min"], d["max"]) for d in dims}
    chosen: dict[str, list[int]] = {}
    for word in " ".join(words).split():
        if not WORD.fullmatch(word):
            raise UsageError(f"--shapes: '{word}' is no DIM=SIZE,SIZE; write batch=1,8 seq=16,128")
        name, _, sizes = word.partition("=")
        if not ranges:
            raise UsageError(f"--shapes: '{word}', but the model was built for fixed sizes")
        if name not in ranges:
            raise UsageError(f"--shapes: no dim '{name}'{did_you_mean(name, list(ranges))}")
        if name in chosen:
            raise UsageError(f"--shapes: '{name}' is given twice; write {name}=1,8")
        chosen[name] = [_within(name, int(s), *ranges[name]) for s in sizes.split(",")]
    return [dict(zip(chosen, c)) for c in itertools.product(*chosen.values())] if chosen else []


def _within(name: str, size: int, low: int, high: int | None) -> int:
    if size < low or (high is not None and size > high):
        raise UsageError(
            f"--shapes: {name}={size} is outside the range that the artifact was built for, "
            f"{low} to {high or 'any size'}"
        )
    return size


def parse_threads(text: str) -> list[int]:
    """``1,2`` as numbers of threads.

    Raises:
        UsageError: something else.
    """
    words = [w.strip() for w in text.split(",")]
    if not all(w.isdecimal() and int(w) > 0 for w in words):
        raise UsageError(f"--threads: '{text}' is no list of numbers; write 1,2")
    return list(dict.fromkeys(int(w) for w in words))
