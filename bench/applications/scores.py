"""How near a text is to the one that was wanted: exact match, F1 of words, ROUGE-L."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

Score = Callable[[str, str], float]


def words(text: str) -> list[str]:
    """Lower-case words and numbers; everything else parts them."""
    return re.findall(r"\w+", text.lower())


def exact_match(found: str, wanted: str) -> float:
    """1 where both texts are the same but for spaces around them, else 0."""
    return float(found.strip() == wanted.strip())


def f1(found: str, wanted: str) -> float:
    """The harmonic mean of precision and recall of words; Rajpurkar et al., SQuAD (2016)."""
    a, b = words(found), words(wanted)
    return _harmonic(sum((Counter(a) & Counter(b)).values()), len(a), len(b))


def rouge_l(found: str, wanted: str) -> float:
    """F of the longest common subsequence of words; Lin, ROUGE (2004), section 3, with β = 1."""
    a, b = words(found), words(wanted)
    longest = [0] * (len(b) + 1)
    for one in a:
        before = list(longest)
        for i, other in enumerate(b):
            longest[i + 1] = before[i] + 1 if one == other else max(before[i + 1], longest[i])
    return _harmonic(longest[-1], len(a), len(b))


def means(
    scores: Mapping[str, Score], found: Sequence[str], wanted: Sequence[str]
) -> dict[str, float]:
    """The mean of each score over pairs of texts, in percent."""
    return {
        name: 100 * fmean(score(a, b) for a, b in zip(found, wanted, strict=True))
        for name, score in scores.items()
    }


def _harmonic(common: int, first: int, second: int) -> float:
    """2·c / (a + b), 1 where both have no words."""
    return 2 * common / (first + second) if first + second else 1.0
