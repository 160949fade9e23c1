"""The numbers that conditions and comparisons are about; of several cases, the worst."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from strop.bench.records.figures import Spread
from strop.bench.records.record import BenchCase, DuelRecord, Fidelity, ratios


class NotMeasuredError(Exception):
    """Why a metric has no value, as a sentence."""


@dataclass(frozen=True)
class EngineMetric:
    """A number of one engine.

    Attributes:
        about: what it is, with its unit.
        value: reads it from a record, for an engine that ran.
    """

    about: str
    value: Callable[[DuelRecord, str], float]


def _latency(record: DuelRecord, engine: str) -> float:
    return max(case.results[engine].milliseconds.median for case in record.cases)


def _cosine(record: DuelRecord, engine: str) -> float:
    found = [f.cosine for f in _fidelities(record, engine) if f.cosine is not None]
    if not found:
        raise NotMeasuredError(f"{engine} has no output of floats")
    return min(found)


def _max_abs(record: DuelRecord, engine: str) -> float:
    found = [f.max_abs for f in _fidelities(record, engine)]
    return max(math.inf if value is None else value for value in found)


def _agreement(record: DuelRecord, engine: str) -> float:
    return min(f.agreement for f in _fidelities(record, engine))


def _fidelities(record: DuelRecord, engine: str) -> Iterator[Fidelity]:
    for case in record.cases:
        found = case.results[engine].fidelity
        if found is None:
            raise NotMeasuredError("there is no original whose outputs could be compared")
        yield found


def _size(record: DuelRecord, engine: str) -> float:
    size = record.engine(engine).bytes
    if size is None:
        raise NotMeasuredError(f"{engine} has no file")
    return size / 1e6


def _load(record: DuelRecord, engine: str) -> float:
    return _median(record.engine(engine).load_ms)


def _memory(record: DuelRecord, engine: str) -> float:
    return _median(record.engine(engine).peak_memory_bytes) / 1e6


def _median(spread: Spread | None) -> float:
    return spread.median if spread else math.nan


METRICS: dict[str, EngineMetric] = {
    "latency_ms": EngineMetric("median milliseconds, most over the cases", _latency),
    "cosine": EngineMetric("mean cosine with the original, least over the cases", _cosine),
    "max_abs": EngineMetric("largest difference from the original", _max_abs),
    "agreement": EngineMetric(
        "share of rows with the original's argmax, least over cases", _agreement
    ),
    "size_mb": EngineMetric("megabytes of its files", _size),
    "load_ms": EngineMetric("median milliseconds to load", _load),
    "memory_mb": EngineMetric("median of its process' peak memory in megabytes", _memory),
}


def speedup(record: DuelRecord, engine: str, over: str) -> float:
    """How many times faster one engine is than another, least over the cases."""
    return min(median_speedup(case, engine, over) for case in record.cases)


def median_speedup(case: BenchCase, engine: str, over: str) -> float:
    """The same in one case: the median of the ratios of each round."""
    found = ratios(case.counted(over), case.counted(engine))
    return Spread.of(found).median
