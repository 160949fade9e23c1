"""An instrument that records what every pass did."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from strop.compiler.ir.footprint import Footprint, footprint
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import Instrument, PassResult, Step
from strop.compiler.rewriting.rules import NearMiss
from strop.compiler.util.numerics import Drift


@dataclass
class StepRecord:
    """What one step did.

    Attributes:
        before: the program's size before it.
        after: the program's size after it.
        modified: whether the program's text changed.
        previous: how far the outputs moved from those before the step; None if not measured.
        original: how far they are from the original module's.
        learned: from what a pass that learns did it, and its facts; None of other passes.
        seconds: wall time of the step.
        peak_bytes: the process's largest resident memory so far.
    """

    name: str
    options: dict[str, object]
    before: Footprint
    after: Footprint
    modified: bool
    rewrites: dict[str, int]
    notes: list[str]
    misses: list[NearMiss]
    seconds: float
    peak_bytes: int
    previous: Drift | None = None
    original: Drift | None = None
    learned: Mapping[str, Any] | None = None


@dataclass
class Recorder(Instrument):
    """Records every step; ``announce`` is called with the name of each as it begins.

    Attributes:
        programs: the program after each step; they share their weights.
        running: the step that has begun and not ended, and the program that it was given.
    """

    announce: Callable[[str], None] = lambda name: None
    records: list[StepRecord] = field(default_factory=list)
    programs: list[Program] = field(default_factory=list)
    running: tuple[Step, Program] | None = None
    _started: float = 0.0
    _size: Footprint | None = None

    def before(self, step: Step, program: Program) -> None:
        self.announce(step.name)
        self.running = (step, program)
        if self._size is None:
            self._size = footprint(program)
        self._started = time.perf_counter()

    def after(self, step: Step, result: PassResult) -> None:
        seconds = time.perf_counter() - self._started
        assert self._size is not None
        size = footprint(result.program) if result.modified else self._size
        self.programs.append(result.program)
        self.records.append(
            StepRecord(
                name=step.name,
                options=step.run.options(),
                before=self._size,
                after=size,
                modified=result.modified,
                rewrites=dict(sorted(Counter(r.rule for r in result.log.rewrites).items())),
                notes=result.log.notes,
                misses=result.log.misses,
                seconds=seconds,
                peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                learned=result.log.learned,
            )
        )
        self._size = size
        self.running = None
