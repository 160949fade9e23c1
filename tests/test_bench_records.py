"""Records of duels: read back, judged by conditions, compared, tabled and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bench_tools import calm_case, engine_row

from strop.bench.measures import repeatability
from strop.bench.pages import tables
from strop.bench.pages.page import build_section, duel_section, page
from strop.bench.pages.plots import unbeaten
from strop.bench.records.compare import compare, differences, of_artifacts
from strop.bench.records.conditions import parse_condition
from strop.bench.records.reading import read_record
from strop.bench.records.record import BenchCase, DuelRecord, EngineRow, Fidelity, Plan, ratios
from strop.compiler.util.errors import UsageError

ENVIRONMENT = {
    "cpu": "A CPU", "flags": ["avx2"], "threads": 2, "cores": 2,
    "versions": {"torch": "2.13.0", "onnxruntime": "1.31.1"},
}  # fmt: skip
NEAR = Fidelity(output="y", max_abs=1e-3, sqnr_db=40.0, cosine=0.999, agreement=1.0, finite=True)
EXACT = Fidelity(output="y", max_abs=0.0, sqnr_db=None, cosine=1.0, agreement=1.0, finite=True)
NOISE = (0.98, 1.0, 1.02)


def record(
    ms: float = 2.0, fidelity: Fidelity | None = NEAR, size: int = 25, eager_ms: float = 10.0
) -> DuelRecord:
    """Eager, a peer that failed, and an artifact; at two batch sizes of which the second is twice
    as slow."""
    bouts = {"eager": [[eager_ms * n for n in NOISE]] * 2, "strop": [[ms * n for n in NOISE]] * 2}
    near = {"eager": EXACT if fidelity else None, "strop": fidelity}
    absent = EngineRow(
        name="ort", subject=False, outcome="failed", reason="it crashed", bytes=None,
        load_ms=None, peak_memory_bytes=None,
    )  # fmt: skip
    return DuelRecord(
        environment=ENVIRONMENT,
        plan=Plan(threads=[2], bouts=2, rounds=3),
        inputs="the model's",
        baseline="eager",
        engines=[
            engine_row("eager", False, None),
            engine_row("strop", True, size * 1_000_000),
            absent,
        ],
        cases=[case(batch, bouts, near) for batch in (1, 2)],
    )


def case(batch: int, bouts: dict[str, Any], near: dict[str, Fidelity | None]) -> BenchCase:
    samples = {name: [[batch * t for t in b] for b in of] for name, of in bouts.items()}
    return calm_case({"batch": batch, "seq": 16}, samples, near, "eager")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_ratios_are_taken_pair_by_pair_within_a_bout() -> None:
    assert ratios([[2.0, 20.0], [3.0]], [[1.0, 10.0], [1.0]]) == [2.0, 2.0, 3.0]


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", record().model_dump_json())
    assert read_record(file) == record()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON, or damaged"),
        ('{"format": "strop-bench-2"', "is not JSON, or damaged"),
        ("[]", "is no record of strop bench"),
        ('{"strop_format": 1}', "is no record of strop bench"),
        ('{"format": "strop-bench-2"}', "is damaged at 'environment'"),
        ("\x00\udcff", "is not text in UTF-8"),
    ],
)
def test_a_damaged_or_foreign_file_is_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UsageError, match=says):
        read_record(file)


def test_a_value_of_the_wrong_kind_is_named(tmp_path: Path) -> None:
    values = json.loads(record().model_dump_json())
    values["cases"][1]["results"]["strop"]["samples"] = "none"
    file = write(tmp_path / "a.json", json.dumps(values))
    with pytest.raises(UsageError, match=r"'cases\.1\.results\.strop\.samples'"):
        read_record(file)


def test_a_file_of_no_bytes_is_damage(tmp_path: Path) -> None:
    values = json.loads(record().model_dump_json())
    values["engines"][1]["bytes"] = 0
    file = write(tmp_path / "a.json", json.dumps(values))
    with pytest.raises(UsageError, match="'strop' has a file of no bytes"):
        read_record(file)


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_record(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("speedup<4.9", None),
        ("speedup<5.1", "speedup<5.1: it is 5"),
        ("speedup.eager <= 5.0", "it is 5"),
        ("speedup.ort>1", "cannot be told, ort did not run"),
        ("latency_ms>3.9", "it is 4"),
        ("latency_ms.eager<21", "it is 20"),
        ("cosine<0.999", None),
        ("cosine<0.9995", "it is 0.999"),
        ("max_abs>1e-4", "it is 0.001"),
        ("size_mb>24", "it is 25"),
        ("size_mb.eager>1", "cannot be told, eager has no file"),
        ("memory_mb>=100", "it is 100"),
        ("load_ms>49", "it is 50"),
        ("agreement<1", None),
    ],
)
def test_a_condition_holds_or_not(text: str, found: str | None) -> None:
    condition = parse_condition(text, ["eager", "ort", "strop"], ["eager", "ort"])
    said = condition.check(record(), "strop", "eager")
    assert (said is None) if found is None else (found in (said or ""))


def test_what_was_not_measured_does_not_pass() -> None:
    condition = parse_condition("cosine<0.9", ["strop"], [])
    said = condition.check(record(fidelity=None), "strop", None)
    assert (
        said == "cosine<0.9: cannot be told, there is no original whose outputs could be compared"
    )


def test_not_finite_is_far_away() -> None:
    broken = NEAR.model_copy(update={"max_abs": None, "finite": False})
    condition = parse_condition("max_abs>100", ["strop"], [])
    assert condition.check(record(fidelity=broken), "strop", None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("speedup", "write METRIC<NUMBER"),
        ("speedup<", "write METRIC<NUMBER"),
        ("speedup<x", "write METRIC<NUMBER"),
        ("__import__('os')<1", "write METRIC<NUMBER"),
        ("sped_up<1", "no metric 'sped_up'; did you mean 'speedup'"),
        ("speedup.openvino<1", "'openvino' does not take part"),
        ("speedup.strop<1", "'strop' does not take part"),
    ],
)
def test_a_bad_condition_is_refused_with_what_there_is(text: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_condition(text, ["eager", "ort", "strop"], ["eager", "ort"])
    assert says in str(error.value)


def test_a_speedup_needs_somebody_to_be_faster_than() -> None:
    with pytest.raises(UsageError, match="give --against"):
        parse_condition("speedup<1", ["strop"], [])


def worse(old: DuelRecord, new: DuelRecord) -> list[str]:
    found = of_artifacts(compare(old, new), old)
    return [c.what for c in found if c.verdict == "worse"]


def test_the_same_and_what_is_within_the_noise_is_no_regression() -> None:
    assert worse(record(), record()) == []
    assert worse(record(ms=2.0), record(ms=2.06)) == []


def test_a_slower_artifact_is_a_regression_in_every_case() -> None:
    assert worse(record(ms=2.0), record(ms=2.4)) == [
        "time over eager's, batch=1 seq=16 threads=2",
        "time over eager's, batch=2 seq=16 threads=2",
    ]
    verdicts = {c.verdict for c in compare(record(ms=2.4), record(ms=2.0)) if "over" in c.what}
    assert verdicts == {"better"}


def test_a_slower_machine_is_no_regression_where_the_baseline_shows_it() -> None:
    assert worse(record(ms=2.0, eager_ms=10.0), record(ms=3.0, eager_ms=15.0)) == []


def test_without_a_common_baseline_times_are_compared_as_they_are() -> None:
    other = record(ms=2.4).model_copy(update={"baseline": "ort"})
    assert worse(record(ms=2.0), other)[0] == "ms, batch=1 seq=16 threads=2"


def test_size_and_distance_have_bounds_of_their_own() -> None:
    assert worse(record(size=25), record(size=26)) == ["size_mb"]
    far = NEAR.model_copy(update={"max_abs": 2e-3, "cosine": 0.99})
    assert worse(record(), record(fidelity=far)) == ["max_abs", "cosine"]
    assert worse(record(fidelity=EXACT), record(fidelity=EXACT)) == []


def test_an_artifact_that_no_longer_runs_is_a_regression() -> None:
    broken = record()
    row = broken.engine("strop")
    row.outcome, row.reason = "failed", "it crashed"
    for c in broken.cases:
        del c.results["strop"]
    assert worse(record(), broken) == ["runs"]


def test_another_machine_is_said() -> None:
    other = record()
    other.environment = {**ENVIRONMENT, "cores": 8, "versions": {"torch": "2.14.0"}}
    assert differences(record(), other) == [
        "cores: 2 before, 8 now",
        "onnxruntime: 1.31.1 before, none now",
        "torch: 2.13.0 before, 2.14.0 now",
    ]
    assert differences(record(), record()) == []


def test_tables_show_who_ran_and_say_who_did_not() -> None:
    grid = tables.latency(record())
    assert [r.cells[:2] for r in grid.rows] == [
        ["batch=1 seq=16 threads=2", "eager"],
        ["", "strop"],
        ["batch=2 seq=16 threads=2", "eager"],
        ["", "strop"],
    ]
    assert grid.rows[1].cells[2:] == ["2", "1.97 – 2.03", "5.00"]
    assert tables.properties(record()).rows[1].cells == [
        "strop", "1.0e-03", "40.0", "0.99900", "100.0%", "25.0", "50", "100",
    ]  # fmt: skip
    assert tables.absent(record()) == ["ort failed: it crashed"]


def test_the_front_is_who_nobody_beats_in_both() -> None:
    assert unbeaten([(1.0, 10.0), (2.0, 5.0), (3.0, 20.0)]) == [(1.0, 10.0), (3.0, 20.0)]
    assert unbeaten([]) == []


def test_a_page_needs_nothing_else_and_escapes_what_it_shows() -> None:
    made = record()
    made.engine("ort").reason = "<script>alert(1)</script>"
    text = page("strop bench", [duel_section(made, "Duel")])
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    for foreign in ('src="http', 'href="http', "@import", "url(http"):
        assert foreign not in text
    assert text.count("<svg") == 2  # latency against fidelity, and against batch
    assert "Latency against batch" in text


def test_the_page_of_the_build_suite_draws_time_and_memory_by_layers() -> None:
    runs = {
        str(n): {"strop": n / 8, "capture": n / 2, "check": n / 9, "peak_gb": 1 + n / 8}
        for n in (8, 16)
    }
    text = page("build", [build_section("build_scaling", ENVIRONMENT, [], runs)])
    assert "Build time and memory against layers" in text
    assert "strop: passes, lowering, writing" in text


def disturbed(all_count: bool) -> DuelRecord:
    """The same, but the last round of every bout was disturbed."""
    made = record()
    for found in made.cases:
        found.canary_ms = [[1.0, 1.0, 2.0]] * 2
        found.calm = [[True, True, False]] * 2
        found.all_count = all_count
    return made


def test_disturbed_rounds_do_not_count_where_enough_others_do() -> None:
    assert disturbed(False).cases[0].counted("strop") == [[1.96, 2.0], [1.96, 2.0]]
    assert len(disturbed(True).cases[0].counted("strop")[0]) == 3


def test_disturbances_are_told() -> None:
    said = "batch=1 seq=16 threads=2: the machine was disturbed in 2 of 6 rounds; "
    assert tables.disturbances(disturbed(False))[0] == f"{said}they do not count"
    assert tables.disturbances(disturbed(True))[0] == f"{said}they count all the same"
    assert tables.disturbances(record()) == []


def test_a_machine_in_another_state_is_said() -> None:
    other = record()
    for found in other.cases:
        found.canary_ms = [[1.5] * 3] * 2
    assert differences(record(), other) == ["the machine, 2 threads: its canary took 1 ms, 1.5 now"]


def test_cases_that_only_one_record_has_are_left_out_and_told() -> None:
    wide, narrow = record(), record()
    narrow.cases = narrow.cases[:1]
    slow = record(ms=9.0).cases[1]
    wide.cases[1] = slow
    assert worse(narrow, wide) == []
    whats = {c.what for c in compare(narrow, wide)}
    assert "memory_mb" not in whats
    assert "memory_mb" in {c.what for c in compare(wide, wide)}
    assert differences(narrow, wide) == ["only measured now: batch=2 seq=16 threads=2"]
    narrow.cases = []
    assert compare(narrow, wide) == []


def test_runs_in_which_the_machine_was_not_quiet_are_told_apart() -> None:
    slow = record()
    for found in slow.cases:
        found.canary_ms = [[1.8] * 3] * 2
    runs = [record(), disturbed(True), disturbed(False), slow]
    assert repeatability.quiet(runs) == [runs[0], runs[2]]
    assert repeatability.quiet([]) == []
