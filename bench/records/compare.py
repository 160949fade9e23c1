"""``strop bench compare``: what got worse from one record to another, beyond the noise.

A time got worse if its median did by more than 5 %, and the better quartile of the new one is
still worse than the worse quartile of the old one. Times are compared relative to the baseline
where both records have the same one, since both are slow while the machine is.
Load times have a bound of 25 %. Numbers without noise have bounds of their own: 1 % of file size,
10 % of peak memory, and 10 % of the distance from the original (largest difference, 1 - cosine,
share of changed argmaxes).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from strop.bench.records.figures import Spread
from strop.bench.records.metrics import METRICS, NotMeasuredError
from strop.bench.records.record import CALM, BenchCase, DuelRecord, EngineRow

TIME, LOAD, SIZE, MEMORY, DISTANCE = 1.05, 1.25, 1.01, 1.10, 1.10
# Below these, a distance is rounding: of fp32 sums, of recorded cosines, of one row in a thousand.
NEGLIGIBLE = {"max_abs": 1e-5, "cosine": 1e-4, "agreement": 1e-3}


@dataclass(frozen=True)
class Change:
    """One number of one engine, before and after.

    Attributes:
        factor: how many times worse it got; below 1 it got better.
        verdict: "worse" or "better" beyond the noise, or "same".
    """

    engine: str
    what: str
    before: str
    after: str
    factor: float
    verdict: str


def compare(old: DuelRecord, new: DuelRecord) -> list[Change]:
    """Everything that both records hold, engine by engine, in the cases that both have.

    Load time and peak memory depend on all cases, and are looked at where those are the same.
    """
    old, new, same = _in_shared_cases(old, new)
    found: list[Change] = []
    if not old.cases:
        return found
    for row in old.engines:
        other = next((e for e in new.engines if e.name == row.name), None)
        if other is None or row.outcome != "ran":
            continue
        if other.outcome != "ran":
            found.append(Change(row.name, "runs", "yes", "no", float("inf"), "worse"))
            continue
        found += _times(old, new, row.name)
        found += _properties(old, new, row.name)
        found += _process(old, new, row, other) if same else []
    return found


def _in_shared_cases(old: DuelRecord, new: DuelRecord) -> tuple[DuelRecord, DuelRecord, bool]:
    """Both without the cases that only one has, and whether there were none."""
    labels = [{case.label for case in record.cases} for record in (old, new)]
    shared = labels[0] & labels[1]
    cut = [
        record.model_copy(update={"cases": [c for c in record.cases if c.label in shared]})
        for record in (old, new)
    ]
    return cut[0], cut[1], labels[0] == labels[1]


def of_artifacts(found: Sequence[Change], record: DuelRecord) -> list[Change]:
    """Those of strop's own artifacts: a peer that got slower is no regression."""
    own = {e.name for e in record.engines if e.subject}
    return [c for c in found if c.engine in own]


def _times(old: DuelRecord, new: DuelRecord, engine: str) -> Iterator[Change]:
    shared = old.baseline if old.baseline == new.baseline != engine else None
    cases = {c.label: c for c in new.cases}
    for case in old.cases:
        match = cases[case.label]
        if shared:
            before, after = _slowness(case, engine), _slowness(match, engine)
            yield _spread(engine, f"time over {shared}'s, {case.label}", before, after, TIME)
        else:
            before, after = (c.results[engine].milliseconds for c in (case, match))
            yield _spread(engine, f"ms, {case.label}", before, after, TIME)


def _slowness(case: BenchCase, engine: str) -> Spread:
    """Time over the baseline's: the inverse of the speedup."""
    speedup = case.results[engine].speedup
    assert speedup is not None
    return Spread(1 / speedup.median, 1 / speedup.high, 1 / speedup.low)


def _spread(engine: str, what: str, before: Spread, after: Spread, bound: float) -> Change:
    factor = after.median / before.median
    worse = factor > bound and after.low > before.high
    better = factor < 1 / bound and after.high < before.low
    verdict = "worse" if worse else "better" if better else "same"
    return Change(engine, what, _median(before), _median(after), factor, verdict)


def _median(sample: Spread) -> str:
    """With half the distance of its quartiles."""
    return f"{sample.median:.3g} ± {(sample.high - sample.low) / 2:.2g}"


def _properties(old: DuelRecord, new: DuelRecord, engine: str) -> Iterator[Change]:
    yield from _number(old, new, engine, "size_mb", SIZE)
    for metric in NEGLIGIBLE:
        yield from _number(old, new, engine, metric, DISTANCE)


def _process(
    old: DuelRecord, new: DuelRecord, row: EngineRow, other: EngineRow
) -> Iterator[Change]:
    """What depends on everything that an engine's process was asked to run."""
    if row.load_ms and other.load_ms:
        yield _spread(row.name, "ms to load", row.load_ms, other.load_ms, LOAD)
    yield from _number(old, new, row.name, "memory_mb", MEMORY)


def _number(
    old: DuelRecord, new: DuelRecord, engine: str, metric: str, bound: float
) -> Iterator[Change]:
    try:
        before, after = (METRICS[metric](record, engine) for record in (old, new))
    except NotMeasuredError:
        return  # missing in one of the records: nothing to compare
    far = [1 - v if metric in ("cosine", "agreement") else v for v in (before, after)]
    floor = NEGLIGIBLE.get(metric, 0.0)
    factor = max(far[1], floor) / max(far[0], floor)
    verdict = "worse" if factor > bound else "better" if factor < 1 / bound else "same"
    yield Change(engine, metric, f"{before:.5g}", f"{after:.5g}", factor, verdict)


def differences(old: DuelRecord, new: DuelRecord) -> list[str]:
    """What was not the same about the measurements, in sentences."""
    found = []
    for key in ("cpu", "flags", "cores", "memory_gb", "system", "python"):
        a, b = old.environment.get(key), new.environment.get(key)
        if a != b:
            found.append(f"{key}: {a} before, {b} now")
    versions = [r.environment.get("versions") or {} for r in (old, new)]
    for name in sorted(set(versions[0]) | set(versions[1])):
        a, b = (v.get(name, "none") for v in versions)
        if a != b:
            found.append(f"{name}: {a} before, {b} now")
    for threads in sorted({c.threads for c in old.cases} & {c.threads for c in new.cases}):
        a, b = (r.canary_best(threads) for r in (old, new))
        if not 1 / CALM <= b / a <= CALM:
            found.append(f"the machine, {threads} threads: its canary took {a:.3g} ms, {b:.3g} now")
    labels = [{case.label for case in record.cases} for record in (old, new)]
    for mine, when in ((labels[0] - labels[1], "before"), (labels[1] - labels[0], "now")):
        if mine:
            found.append(f"only measured {when}: {', '.join(sorted(mine))}")
    if old.inputs != new.inputs:
        found.append(f"inputs: {old.inputs} before, {new.inputs} now")
    return found
