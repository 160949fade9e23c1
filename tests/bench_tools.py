"""Parts of records of duels, made up."""

from __future__ import annotations

from collections.abc import Mapping

from strop.bench.records.figures import Spread
from strop.bench.records.record import (
    BenchCase,
    Bouts,
    EngineRow,
    Fidelity,
    Result,
    ratios,
    spread,
)


def engine_row(name: str, subject: bool, size: int | None) -> EngineRow:
    """An engine that ran."""
    return EngineRow(
        name=name, subject=subject, outcome="ran", reason=None, bytes=size,
        load_ms=Spread(50, 45, 55), peak_memory_bytes=Spread(1e8, 1e8, 1e8),
    )  # fmt: skip


def calm_case(
    sizes: dict[str, int],
    samples: Mapping[str, Bouts],
    near: Mapping[str, Fidelity | None],
    baseline: str,
) -> BenchCase:
    """A case on two threads, in which the machine was calm all the time."""
    bouts = samples[baseline]
    return BenchCase(
        threads=2,
        sizes=sizes,
        results={
            name: Result(
                milliseconds=spread(of),
                speedup=Spread.of(ratios(bouts, of)),
                samples=[list(bout) for bout in of],
                fidelity=near[name],
            )
            for name, of in samples.items()
        },
        canary_ms=[[1.0 for _ in bout] for bout in bouts],
        calm=[[True for _ in bout] for bout in bouts],
        all_count=False,
    )
