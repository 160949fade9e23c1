"""What hangs between passes: timing and counts, and numbered dumps of the IR."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from strop.compiler.passes import Instrument, PassResult, Step
from strop.compiler.program import Program
from strop.compiler.rewrite import NearMiss


@dataclass
class StepRecord:
    """What one step did; ``seconds`` is the only field that differs from build to build."""

    name: str
    options: dict[str, object]
    nodes_before: int
    nodes_after: int
    rewrites: dict[str, int]
    notes: list[str]
    misses: list[NearMiss]
    seconds: float


@dataclass
class Recorder(Instrument):
    """Records every step; ``announce`` is told the name of each as it begins."""

    announce: Callable[[str], None] = lambda name: None
    records: list[StepRecord] = field(default_factory=list)
    programs: list[tuple[str, Program]] = field(default_factory=list)
    _started: float = 0.0
    _nodes: int = 0

    def before(self, step: Step, program: Program) -> None:
        self.announce(step.name)
        self._nodes = count_nodes(program)
        self._started = time.perf_counter()

    def after(self, step: Step, result: PassResult) -> None:
        self.programs.append((step.name, result.program))
        self.records.append(
            StepRecord(
                name=step.name,
                options=step.run.options(),
                nodes_before=self._nodes,
                nodes_after=count_nodes(result.program),
                rewrites=dict(sorted(Counter(r.rule for r in result.log.rewrites).items())),
                notes=result.log.notes,
                misses=result.log.misses,
                seconds=time.perf_counter() - self._started,
            )
        )


@dataclass
class Dump(Instrument):
    """Writes ``003_name.txt`` into a folder after each step that changed the program."""

    folder: Path
    _count: int = 0

    def before(self, step: Step, program: Program) -> None:
        if self._count == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "000_capture.txt").write_text(str(program))

    def after(self, step: Step, result: PassResult) -> None:
        self._count += 1
        if result.modified:
            (self.folder / f"{self._count:03d}_{step.name}.txt").write_text(str(result.program))


def count_nodes(program: Program) -> int:
    """Number of operator calls."""
    return sum(1 for _ in program.calls())
