"""The check of a bisection that asks how a program generates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from strop.compiler.check.generated import Generated, check_texts
from strop.compiler.debug.checks import Check, Verdict, first_line
from strop.compiler.frontend.programs import as_programs
from strop.compiler.frontend.source import load_source
from strop.compiler.frontend.texts import Texts, make_texts
from strop.compiler.generate.prepared import Arrays
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import run_program
from strop.compiler.ir.stale import verify_types
from strop.compiler.targets.decoding import FedDecoder, Start, names_of
from strop.compiler.util.errors import UsageError

# Measures of a whole generation, and whether more of it is better.
TEXT_METRICS = {"tokens": True, "first_token": True, "perplexity": False}


def texts_of(source: str) -> Texts:
    """What the original of a factory makes when it generates.

    Raises:
        UsageError: it does not.
    """
    texts = make_texts(as_programs(load_source(source)), "bounded")
    if texts is None or not texts.made:
        raise UsageError(f"{source} does not generate: its metrics are cosine, agreement, ...")
    return texts


@dataclass(frozen=True)
class TextMetric(Check):
    """How a decoder generates in eager torch, beside the original.

    Attributes:
        texts: that the original made.
        name: "tokens" is the share that is the original's, "first_token" the number of the first
            that differs in any text, "perplexity" how many times that of the original it is.
        bound: the lowest value that is good; of perplexity the highest.
    """

    texts: Texts
    name: str
    bound: float

    def __post_init__(self) -> None:
        if self.name == "perplexity" and self.texts.text is None:
            raise UsageError("the model has no calibration text, and so no perplexity: take tokens")

    def ask(self, program: Program, again: Program) -> Verdict:
        """Lead the program along the original's texts."""
        try:
            verify_types(program)
            found = check_texts(self.texts, lambda source, fixed: self._decoder(program, fixed))
        except Exception as error:  # whatever a wrong graph raises when it runs
            return Verdict(False, f"it does not run: {first_line(error)}")
        value = _values(found)[self.name]
        good = value >= self.bound if TEXT_METRICS[self.name] else value <= self.bound
        return Verdict(good, f"{self.name} {value:.5g}")

    def _decoder(self, program: Program, fixed: Arrays) -> FedDecoder:
        names = [spec.name for spec in program.contract.inputs]

        def run(feeds: Arrays) -> Arrays:
            return run_program(program, {name: torch.as_tensor(feeds[name]) for name in names})

        return FedDecoder(run, names_of(self.texts.generation), Start(self.texts.empty, fixed))


def _values(found: Generated) -> Mapping[str, float]:
    """Every measure; a first token that differs is never where all are the original's."""
    numbers = [text.first.number if text.first else float("inf") for text in found.texts]
    original, artifact = found.perplexity or (1.0, 1.0)
    return {
        "tokens": found.agreement,
        "first_token": min(numbers),
        "perplexity": artifact / original,
    }
