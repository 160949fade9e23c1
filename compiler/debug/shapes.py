"""``--shapes``: sizes for the dynamic dims of an artifact."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from strop.compiler.util.errors import UsageError, did_you_mean

WORD = re.compile(r"[^\W\d]\w*=\d+(,\d+)*")


def parse_sizes(words: Sequence[str], dims: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """The sizes of the named dims.

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
            raise UsageError(
                f"--shapes: '{word}' is not of the form DIM=SIZE,SIZE; write batch=1,8 seq=16,128"
            )
        name, _, sizes = word.partition("=")
        if not ranges:
            raise UsageError(f"--shapes: '{word}', but the model was built for fixed sizes")
        if name not in ranges:
            raise UsageError(f"--shapes: no dim '{name}'{did_you_mean(name, list(ranges))}")
        if name in chosen:
            raise UsageError(f"--shapes: '{name}' is given twice; write {name}=1,8")
        chosen[name] = [_within(name, int(s), *ranges[name]) for s in sizes.split(",")]
    return chosen


def _within(name: str, size: int, low: int, high: int | None) -> int:
    if size < low or (high is not None and size > high):
        raise UsageError(
            f"--shapes: {name}={size} is outside the range that the artifact was built for, "
            f"{low} to {high or 'any size'}"
        )
    return size
