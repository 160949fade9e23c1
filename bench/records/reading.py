"""Read a record: check its types, and that its parts fit together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from strop.bench.records.figures import Spread
from strop.bench.records.record import FORMAT, BenchCase, DuelRecord
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.parsing import parse_json, validated_json
from strop.compiler.util.files.reading import read_text


def read_record(path: Path) -> DuelRecord:
    """Read what ``strop bench --json`` wrote.

    Raises:
        UsageError: there is no such file, or it is damaged, or something else.
    """
    text = read_text(path, "the record")
    values = parse_json(text, f"the record {path}")
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UsageError(f"{path} is no record of strop bench: its format is not '{FORMAT}'")
    record = validated_json(DuelRecord, text, f"the record {path}")
    require_whole(record, f"the record {path}")
    return record


def require_whole(record: DuelRecord, where: str) -> None:
    """Refuse a record that no duel can have written.

    Raises:
        UsageError: with the first thing that does not fit.
    """
    for problem in _problems(record):
        raise UsageError(f"{where} is damaged: {problem}")


def _problems(record: DuelRecord) -> Iterator[str]:
    yield from _twice("engine", (e.name for e in record.engines))
    yield from _twice("case", (c.label for c in record.cases))
    ran = {e.name for e in record.engines if e.outcome == "ran"}
    if record.baseline is not None and record.baseline not in ran:
        yield f"its baseline '{record.baseline}' did not run"
    for row in record.engines:
        if row.bytes is not None and row.bytes <= 0:
            yield f"'{row.name}' has a file of no bytes"
        for spread in (row.load_ms, row.peak_memory_bytes):
            if spread is not None and not _is_positive(spread):
                yield f"'{row.name}' has a figure that is not above 0"
    versions = record.environment.get("versions", {})
    if not isinstance(versions, dict) or not all(isinstance(v, str) for v in versions.values()):
        yield "its versions are not names by package"
    for case in record.cases:
        yield from _case_problems(case, ran, record.baseline)


def _twice(what: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"the {what} '{name}' is there {count} times"


def _case_problems(case: BenchCase, ran: set[str], baseline: str | None) -> Iterator[str]:
    place = f"in the case '{case.label}'"
    if set(case.results) != ran:
        odd = sorted(set(case.results) ^ ran)
        yield f"{place} '{odd[0]}' has no result, or has one and did not run"
    rounds = [len(bout) for bout in case.calm]
    if not sum(rounds) or [len(bout) for bout in case.canary_ms] != rounds:
        yield f"{place} not every round has a look at the machine"
    if not _all_positive(look for bout in case.canary_ms for look in bout):
        yield f"{place} the canary took no time"
    for name, result in case.results.items():
        if [len(bout) for bout in result.samples] != rounds:
            yield f"{place} '{name}' has not every round"
        spreads = [result.milliseconds, *([result.speedup] if result.speedup else [])]
        times = (t for bout in result.samples for t in bout)
        if not all(map(_is_positive, spreads)) or not _all_positive(times):
            yield f"{place} '{name}' has a figure that is not above 0"
        if (result.speedup is None) != (baseline is None):
            yield f"{place} '{name}' has no speedup, or one over nothing"


def _is_positive(spread: Spread) -> bool:
    return _all_positive((spread.low, spread.median, spread.high))


def _all_positive(values: Iterable[float]) -> bool:
    return all(0 < value < math.inf for value in values)
