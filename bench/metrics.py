"""The numbers that conditions and comparisons are about; of several cases, the worst."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from strop.bench.figures import Spread
from strop.bench.record import Case, Fidelity, Record, ratios


class NotMeasuredError(Exception):
    """Why a metric has no value, as a sentence."""


@dataclass(frozen=True)
class Metric:
    """A number of one engine.

    Attributes:
        about: what it is, with its unit.
        value: reads it from a record, for an engine that ran.
    """

    about: str
    value: Callable[[Record, str], float]


def _latency(record: Record, engine: str) -> float:
    return max(case.results[engine].milliseconds.median for case in record.cases)


def _cosine(record: Record, engine: str) -> float:
    found = [f.cosine for f in _fidelities(record, engine) if f.cosine is not None]
    if not found:
        raise NotMeasuredError(f"{engine} has no output of floats")
    return min(found)


def _max_abs(record: Record, engine: str) -> float:
    found = [f.max_abs for f in _fidelities(record, engine)]
    return max(math.inf if value is None else value for value in found)


def _agreement(record: Record, engine: str) -> float:
    return min(f.agreement for f in _fidelities(record, engine))


def _fidelities(record: Record, engine: str) -> Iterator[Fidelity]:
    for case in record.cases:
        found = case.results[engine].fidelity
        if found is None:
            raise NotMeasuredError("there is no original whose outputs could be compared")
        yield found


def _size(record: Record, engine: str) -> float:
    size = record.engine(engine).bytes
    if size is None:
        raise NotMeasuredError(f"{engine} has no file")
    return size / 1e6


def _load(record: Record, engine: str) -> float:
    return _median(record.engine(engine).load_ms)


def _memory(record: Record, engine: str) -> float:
    return _median(record.engine(engine).peak_memory_bytes) / 1e6


def _median(spread: Spread | None) -> float:
    return spread.median if spread else math.nan


METRICS: dict[str, Metric] = {
    "latency_ms": Metric("median milliseconds, most over the cases", _latency),
    "cosine": Metric("mean cosine with the original, least over the cases", _cosine),
    "max_abs": Metric("largest difference from the original", _max_abs),
    "agreement": Metric("share of rows with the original's argmax, least over cases", _agreement),
    "size_mb": Metric("megabytes of its files", _size),
    "load_ms": Metric("median milliseconds to load", _load),
    "memory_mb": Metric("median of its process' peak memory in megabytes", _memory),
}


def speedup(record: Record, engine: str, over: str) -> float:
    """How many times faster one engine is than another, least over the cases."""
    return min(median_speedup(case, engine, over) for case in record.cases)


def median_speedup(case: Case, engine: str, over: str) -> float:
    """The same in one case: the median of the ratios of each round."""
    found = ratios(case.counted(over), case.counted(engine))
    return Spread.of(found).median
