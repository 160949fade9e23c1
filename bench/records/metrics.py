"""The numbers that conditions and comparisons are about; of several cases, the worst."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from strop.bench.records.figures import Spread
from strop.bench.records.record import BenchCase, DuelRecord, Fidelity, ratios


class NotMeasuredError(Exception):
    """Why a metric has no value, as a sentence."""


Metric = Callable[[DuelRecord, str], float]
"""Reads a number of an engine that ran from a record."""


def _latency(record: DuelRecord, engine: str) -> float:
    """Median milliseconds, the most of all cases."""
    return max(case.results[engine].milliseconds.median for case in record.cases)


def _cosine(record: DuelRecord, engine: str) -> float:
    """Mean cosine with the original, the least of all cases."""
    found = [f.cosine for f in _fidelities(record, engine) if f.cosine is not None]
    if not found:
        raise NotMeasuredError(f"{engine} has no output of floats")
    return min(found)


def _max_abs(record: DuelRecord, engine: str) -> float:
    """Largest difference from the original."""
    found = [f.max_abs for f in _fidelities(record, engine)]
    return max(math.inf if value is None else value for value in found)


def _agreement(record: DuelRecord, engine: str) -> float:
    """Share of rows with the original's argmax, the least of all cases."""
    return min(f.agreement for f in _fidelities(record, engine))


def _fidelities(record: DuelRecord, engine: str) -> Iterator[Fidelity]:
    for case in record.cases:
        found = case.results[engine].fidelity
        if found is None:
            raise NotMeasuredError("there is no original whose outputs could be compared")
        yield found


def _size(record: DuelRecord, engine: str) -> float:
    """Megabytes of its files."""
    size = record.engine(engine).bytes
    if size is None:
        raise NotMeasuredError(f"{engine} has no file")
    return size / 1e6


def _load(record: DuelRecord, engine: str) -> float:
    """Median milliseconds to load."""
    return _median(record.engine(engine).load_ms)


def _memory(record: DuelRecord, engine: str) -> float:
    """Median of its process' peak memory in megabytes."""
    return _median(record.engine(engine).peak_memory_bytes) / 1e6


def _median(spread: Spread | None) -> float:
    return spread.median if spread else math.nan


METRICS: dict[str, Metric] = {
    "latency_ms": _latency,
    "cosine": _cosine,
    "max_abs": _max_abs,
    "agreement": _agreement,
    "size_mb": _size,
    "load_ms": _load,
    "memory_mb": _memory,
}


def speedup(record: DuelRecord, engine: str, over: str) -> float:
    """How many times faster one engine is than another, least over the cases."""
    return min(median_speedup(case, engine, over) for case in record.cases)


def median_speedup(case: BenchCase, engine: str, over: str) -> float:
    """The same in one case: the median of the ratios of each round."""
    found = ratios(case.counted(over), case.counted(engine))
    return Spread.of(found).median
