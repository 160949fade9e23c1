"""Two artifacts that go on with one prompt: where their texts part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from strop.compiler.artifact.loaded import load
from strop.compiler.generate.generator import Token


@dataclass(frozen=True)
class Parting:
    """What two artifacts make of one prompt.

    Attributes:
        same: the text that both make first.
        number: of the first token that differs, from 0; None where there is none.
        tokens: that token of each; None of one whose text has ended.
    """

    same: str
    number: int | None
    tokens: tuple[Token | None, Token | None]


def parting(before: Path, after: Path, prompt: str | Sequence[int], max_new: int | None) -> Parting:
    """Let two artifacts generate greedily, and find the first token that differs.

    Raises:
        UsageError: one of them makes no texts, or the prompt is not as it must be.
        RuntimeRefusedError: the runtime does not run one of them.
    """
    same = ""
    streams = [load(path).generate(prompt, max_new=max_new) for path in (before, after)]
    for number, (first, second) in enumerate(zip_longest(*streams)):
        if first is None or second is None or first.id != second.id:
            return Parting(same, number, (first, second))
        same += first.text
    return Parting(same, None, (None, None))
