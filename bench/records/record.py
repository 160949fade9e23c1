"""The record of a duel: the JSON of ``strop bench --json``.

``strop bench --schema`` prints its JSON schema; the descriptions there are the docstrings here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pydantic

from strop.bench.records.figures import Spread
from strop.compiler.util.numerics import DriftValues

FORMAT: Literal["strop-bench-2"] = "strop-bench-2"
# The machine is calm where the canary takes no more than this, over the best it was seen to take.
CALM = 1.2
# The share of all rounds that are calm on a quiet machine.
QUIET = 2 / 3
EngineOutcome = Literal["ran", "missing", "failed"]
InputKind = Literal["the model's", "made up", "prompts"]
Bouts = Sequence[Sequence[float]]
"""Milliseconds of every round, one list for each bout."""


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Fidelity(DriftValues):
    """An engine's outputs against the original's in eager torch; each is the worst output's."""

    model_config = pydantic.ConfigDict(extra="forbid")


class Result(_Part):
    """One engine in one case."""

    milliseconds: Spread
    """Median and quartiles over the rounds that count."""
    speedup: Spread | None
    """The baseline's time over this engine's, pair by pair in each of them; null without one."""
    samples: list[list[float]]
    """Milliseconds of every round, one list for each bout."""
    fidelity: Fidelity | None
    """Null where the original is not known, or its outputs cannot be matched."""


class BenchCase(_Part):
    """One number of threads, and one set of input sizes."""

    threads: int
    sizes: dict[str, int]
    """By dim; empty where the model has none."""
    results: dict[str, Result]
    """By engine; engines that did not run are missing."""
    canary_ms: list[list[float]]
    """Milliseconds of the canary before or after each round, whichever is longer; by bouts."""
    calm: list[list[bool]]
    """Whether the machine was calm in that round: the canary was near its best."""
    all_count: bool
    """Whether every round counts, since too few were calm; otherwise the calm ones do."""

    def counted(self, engine: str) -> list[list[float]]:
        """Milliseconds of an engine in the rounds that count, by bouts."""
        return counted(self.results[engine].samples, self.calm, self.all_count)

    @property
    def label(self) -> str:
        """For tables: ``batch=1 seq=16 threads=2``."""
        return size_label({**self.sizes, "threads": self.threads})


class EngineRow(_Part):
    """One engine, over all cases."""

    name: str
    subject: bool
    """Whether it is an artifact of strop's, not a peer."""
    outcome: EngineOutcome
    """"missing": a package it needs is not installed."""
    reason: str | None
    """Why it did not run."""
    bytes: int | None
    """Size of its files; null where it has none of its own."""
    load_ms: Spread | None
    """From the imported runtime to the loaded engine; over bouts."""
    peak_memory_bytes: Spread | None
    """Of its process, runtime and interpreter included; over bouts."""


class Plan(_Part):
    """How it was measured."""

    threads: list[int]
    bouts: int = 5
    """How often all engines are started anew."""
    rounds: int = 5
    """In each bout: how often each engine is timed at each case."""
    turn_seconds: float = 0.2
    """How long an engine is timed at a case in one round."""
    timeout: float = 300.0
    """Seconds after which an engine that does not answer is given up."""
    patience: float = 30.0
    """Seconds by which a bout may become longer, waiting for a calm machine."""


class DuelRecord(_Part):
    """A whole duel."""

    format: Literal["strop-bench-2"] = FORMAT
    environment: dict[str, Any]
    """The machine and the versions."""
    plan: Plan
    inputs: InputKind
    """"made up" where the original is not known. "prompts": drawn token ids that texts go on with;
    cases with past=0 are the time to the first token, those with seq=1 that of each further one."""
    baseline: str | None
    """The engine that speedups are relative to."""
    engines: list[EngineRow]
    cases: list[BenchCase]

    def engine(self, name: str) -> EngineRow:
        """The row of an engine."""
        return next(e for e in self.engines if e.name == name)

    @property
    def quiet(self) -> bool:
        """Whether the machine was calm in most rounds of every case, repeated ones included."""
        shares = [sum(map(sum, c.calm)) / sum(map(len, c.calm)) for c in self.cases]
        return min(shares) >= QUIET and not any(case.all_count for case in self.cases)

    def canary_best(self, threads: int) -> float:
        """The shortest time of the canary on that number of threads, in milliseconds."""
        cases = [case for case in self.cases if case.threads == threads]
        return min(look for case in cases for bout in case.canary_ms for look in bout)

    @property
    def subjects(self) -> list[str]:
        """The artifacts that ran."""
        return [e.name for e in self.engines if e.subject and e.outcome == "ran"]

    @property
    def peers(self) -> list[str]:
        """The other engines that ran."""
        return [e.name for e in self.engines if not e.subject and e.outcome == "ran"]


def is_calm(milliseconds: float, best: float) -> bool:
    """Whether a time of the canary is near its best."""
    return milliseconds <= CALM * best


def size_label(sizes: dict[str, int]) -> str:
    """``batch=1 seq=16``; "fixed sizes" where there is nothing to name."""
    return " ".join(f"{n}={v}" for n, v in sizes.items()) or "fixed sizes"


def counted(bouts: Bouts, calm: Sequence[Sequence[bool]], all_count: bool) -> list[list[float]]:
    """The rounds that count."""
    return [[t for t, ok in zip(*pair) if ok or all_count] for pair in zip(bouts, calm)]


def ratios(over: Bouts, under: Bouts) -> list[float]:
    """Times of one engine over those of another, pair by pair in each round."""
    return [a / b for bouts in zip(over, under) for a, b in zip(*bouts)]


def spread(bouts: Bouts) -> Spread:
    """Over all rounds of all bouts."""
    return Spread.of([value for bout in bouts for value in bout])
