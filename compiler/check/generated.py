"""The check of generation: the artifact's tokens and scores against those of the original."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from strop.compiler.check.comparison import Comparison, compare
from strop.compiler.frontend.cases import Case
from strop.compiler.frontend.texts import Text, Texts
from strop.compiler.generate.allowed import Allowed
from strop.compiler.generate.forced import forced_scores, perplexity
from strop.compiler.generate.prepared import Arrays
from strop.compiler.recipes.budget import Budget
from strop.compiler.targets.decoding import Called, Decoder
from strop.compiler.util.errors import BudgetError
from strop.compiler.util.numerics import Array

OpenDecoder = Callable[[Arrays, Arrays], Decoder]
"""The artifact's decoder with empty caches: for what its encoder is given, and what the original's
encoder makes of it."""


@dataclass(frozen=True)
class Departure:
    """The first token of a text that the artifact would choose otherwise.

    Up to it both make the same text, so it is also where their greedy texts part.
    """

    row: int
    number: int
    original: int
    artifact: int


@dataclass(frozen=True)
class TextCheck:
    """One text that the original made, step by step.

    Attributes:
        tokens: how many there are, of all rows.
        equal: how many the artifact chooses too, behind the original's tokens.
        first: None where all are equal.
        comparison: of the scores of all steps.
    """

    tokens: int
    equal: int
    first: Departure | None
    comparison: Comparison


@dataclass(frozen=True)
class Generated:
    """How the artifact generates.

    Attributes:
        texts: of every case that was run.
        perplexity: of the original and of the artifact on calibration text; None where there is
            none.
        left_out: names of cases that were not run.
    """

    texts: Sequence[TextCheck]
    perplexity: tuple[float, float] | None
    left_out: Sequence[str]

    @property
    def agreement(self) -> float:
        """The share of tokens that the artifact chooses as the original does."""
        return sum(t.equal for t in self.texts) / max(sum(t.tokens for t in self.texts), 1)

    def record(self) -> dict[str, Any]:
        """For the manifest."""
        original, artifact = self.perplexity or (None, None)
        return {
            "texts": [_text_record(text) for text in self.texts],
            "agreement": round(self.agreement, 5),
            "perplexity": {"original": _rounded(original), "artifact": _rounded(artifact)},
            "left_out": list(self.left_out),
        }


def _text_record(text: TextCheck) -> dict[str, Any]:
    first = text.first
    return {
        "case": text.comparison.case,
        "tokens": text.tokens,
        "equal": text.equal,
        "first_difference": None if first is None else {"row": first.row, "token": first.number},
        "max_error": float(f"{text.comparison.max_error:.2e}"),
        "cosine": round(text.comparison.cosine or 0.0, 5),
    }


def _rounded(value: float | None) -> float | None:
    """Five digits; None for what JSON has no number for."""
    return float(f"{value:.5g}") if value is not None and math.isfinite(value) else None


def check_texts(texts: Texts, open_decoder: OpenDecoder) -> Generated:
    """Lead the artifact's decoder along the original's texts.

    Raises:
        RuntimeRefusedError: the runtime does not run it.
    """
    called = texts.generation
    checks = [
        _check_text(text, open_decoder(text.source, text.fixed), called) for text in texts.made
    ]
    known = None
    if texts.text is not None:
        known = (texts.perplexity, perplexity(open_decoder({}, {}), texts.text))
    return Generated(checks, known, texts.left_out)


def _check_text(text: Text, decoder: Decoder, called: Called) -> TextCheck:
    steps = forced_scores(decoder, text.batch, text.tokens)
    scores = np.stack([one.copy() for one in steps])
    allowed = Allowed(called, len(scores))
    chosen = np.stack([allowed(s, number).argmax(-1) for number, s in enumerate(scores, 1)]).T
    case = Case(f"generate {text.name}", {}, {"logits": text.scores})
    (comparison,) = compare(case, {"logits": scores})
    equal = int((chosen == text.tokens).sum())
    return TextCheck(text.tokens.size, equal, _first(text.tokens, chosen), comparison)


def _first(tokens: Array, chosen: Array) -> Departure | None:
    """The difference that comes first in time."""
    steps, rows = np.nonzero((tokens != chosen).T)
    if not len(steps):
        return None
    row, step = int(rows[0]), int(steps[0])
    return Departure(row, step, int(tokens[row, step]), int(chosen[row, step]))


def hold_generation(found: Generated, budget: Budget) -> None:
    """Check how the artifact generates against a budget.

    Raises:
        BudgetError: it misses it; with the first token that differs.
    """
    missed = [miss for text in found.texts if (miss := text.comparison.misses(budget))]
    least = budget.min_token_agreement
    if least is not None and found.agreement < least:
        missed.append(
            f"{found.agreement:.2%} of the tokens are the original's (budget {least:.2%})"
        )
    if found.perplexity is not None and (miss := _perplexity_miss(*found.perplexity, budget)):
        missed.append(miss)
    if missed:
        lines = "\n  ".join([*missed[:5], *_departures(found)])
        raise BudgetError(f"the artifact generates other texts:\n  {lines}\nNothing was written.")


def _perplexity_miss(original: float, artifact: float, budget: Budget) -> str | None:
    most = budget.max_perplexity
    if math.isfinite(original) and not math.isfinite(artifact):
        return f"perplexity is {original:.5g} for the original and {artifact} for the artifact"
    if most is None or artifact <= most * original:
        return None
    return (
        f"perplexity is {original:.5g} for the original and {artifact:.5g} for the artifact, "
        f"{artifact / original:.4f} times that (budget {most:g})"
    )


def _departures(found: Generated) -> list[str]:
    """The first token that differs in the first case that has one, in words."""
    for text in found.texts:
        if (first := text.first) is not None:
            return [
                f"first token that differs ({text.comparison.case}): token {first.number} of text "
                f"{first.row} is {first.original} for the original and {first.artifact} for the "
                "artifact"
            ]
    return []
