"""The benchmarks' own arithmetic and plumbing, on models that take no time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from bench_tools import calm_case, engine_row

from strop.bench import readme
from strop.bench.applications import stages
from strop.bench.applications.stages import Stage
from strop.bench.measures import build_scaling, check_costs, reproducible
from strop.bench.measures.builds import WatchedBuild
from strop.bench.processes.memory import Memory, Watched, watch
from strop.bench.records.figures import Figure, Spread, results, save
from strop.bench.records.machine import environment, machine
from strop.bench.records.record import DuelRecord, Fidelity, Plan
from strop.bench.suites import contests, encoders
from strop.bench.suites.embeddings import EmbeddingAgreement, agreement, neighbours, pooled
from strop.compiler.frontend.source import load_model

FACTORY = """
import torch
from strop.compiler import Model

def make():
    torch.manual_seed(0)
    return Model(torch.nn.Linear(8, 4).eval(), {"input": torch.zeros(2, 8)})
"""


def test_a_figure_is_held_to_its_bound() -> None:
    assert Figure("x", 1.3, at_least=1.3).hit
    assert not Figure("x", 1.29, at_least=1.3).hit
    assert not Figure("x", 0.3, at_most=0.26).hit
    assert not Figure("x", float("nan"), at_most=1.0).hit
    assert Figure("x", 0.2, at_most=0.26).wanted == "≤ 0.26"


def test_spread_is_median_and_quartiles() -> None:
    assert Spread.of([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_a_saved_result_has_figures_and_an_environment_without_paths(tmp_path: Path) -> None:
    path = save("x", environment(2), [Figure("a", 2.0, at_least=1.0)], {"b": 1}, tmp_path)
    record = json.loads(path.read_text())
    assert record["figures"] == [
        {"what": "a", "value": 2.0, "at_least": 1.0, "at_most": None, "hit": True}
    ]
    assert set(record["environment"]) >= {"cpu", "flags", "cores", "threads", "versions"}
    assert all(value > 0 for value in record["environment"]["speed"].values())
    assert not reproducible.paths_inside(tmp_path, [Path.home()])


def small_record() -> DuelRecord:
    """A duel of a peer and an artifact at the sizes of the encoders suite."""
    samples = {"ort": [[4.0, 4.2]], "strop cpu-int8": [[1.0, 1.05]]}
    near = Fidelity(output="y", max_abs=0.5, sqnr_db=20.0, cosine=0.99, agreement=1.0, finite=True)
    return DuelRecord(
        environment=environment(2),
        plan=Plan(threads=[2], bouts=1, rounds=2),
        inputs="the model's",
        baseline="ort",
        engines=[engine_row("ort", False, 100), engine_row("strop cpu-int8", True, 27)],
        cases=[
            calm_case(sizes, samples, dict.fromkeys(samples, near), "ort")
            for sizes in encoders.SIZES[:2]
        ],
    )


def test_the_encoders_are_held_to_the_bounds_of_their_recipe() -> None:
    sentences = {"strop cpu-int8": EmbeddingAgreement(0.99, 0.8, 10, 400)}
    found = encoders.Found(small_record(), sentences)
    figures = {f.what: f for f in encoders.judge(found, ["cpu-int8"])}
    assert {what: (round(f.value, 3), f.hit) for what, f in figures.items()} == {
        "cpu-int8 batch=1 seq=16, times faster": (4.0, True),
        "cpu-int8 batch=1 seq=128, times faster": (4.0, True),
        "cpu-int8, pooled cosine": (0.99, True),
        "cpu-int8, size over fp32": (0.27, False),
    }


def test_pages_get_figures_and_latencies_from_what_was_saved(tmp_path: Path) -> None:
    record = small_record()
    figures = [Figure("a", 1.0, at_least=2.0), Figure("b", 3.0)]
    path = save("encoders", record.environment, figures, {"record": record.model_dump()}, tmp_path)
    saved = [json.loads(path.read_text())]
    assert readme.figures_tables(saved).splitlines() == [
        f"On {machine(record.environment)}:",
        "",
        "| record | figure | measured | wanted |  |",
        "| --- | --- | --- | --- | --- |",
        "| encoders | a | 1 | ≥ 2 | **missed** |",
        "| encoders | b | 3 |  |  |",
    ]
    duels = readme.duel_tables(saved)
    assert "| batch=1 seq=16 threads=2 | ort | 4.1 | 4.05 – 4.15 | 1.00 |" in duels
    assert readme.encoders_table(saved).splitlines()[-1] == (
        "| strop cpu-int8 | 1.02 (4.00×) | 1.02 (4.00×) | 0.99000 | 0.0 |"
    )


def test_applications_are_shown_by_stage(tmp_path: Path) -> None:
    first = Stage("torch", {"F1": 90.0}, {"1 text": [8.0, 8.0]})
    last = Stage("int8", {"F1": 80.0}, {"1 text": [2.0, 2.0]}, 1.0)
    stages.report("translation", "A title", [first, last], tmp_path)
    saved = [json.loads((tmp_path / "translation.json").read_text())]
    assert readme.application_tables(saved).splitlines() == [
        "### translation",
        "",
        f"A title. On {machine(saved[0]['environment'])}:",
        "",
        "|  | torch | int8 |",
        "| --- | --- | --- |",
        "| F1 | 90 | 80 |",
        "| ms, 1 text | 8 | 2 |",
        "| times as fast | 1 | 4 |",
        "| MB |  | 1 |",
    ]


def test_what_is_on_record_can_be_shown() -> None:
    found = results()
    assert readme.figures_tables(found)
    assert readme.duel_tables(found)
    assert readme.application_tables(found)


@pytest.mark.parametrize("name", contests.VISION | contests.DECODERS)
def test_every_model_of_the_suites_is_made(name: str) -> None:
    model = load_model((contests.VISION | contests.DECODERS)[name].source)
    assert not model.module.training
    assert model.dynamic


def test_pooling_leaves_masked_tokens_out() -> None:
    hidden = np.array([[[3.0, 4.0], [100.0, 100.0]]])
    np.testing.assert_allclose(pooled(hidden, np.array([[1, 0]])), [[0.6, 0.8]])


def test_agreement_counts_shared_neighbours() -> None:
    angles = np.linspace(0, 1, 8)
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    assert neighbours(unit, 1)[0].tolist() == [1]
    same = agreement(unit, unit, top=3)
    assert (same.cosine, same.overlap) == (pytest.approx(1.0), 1.0)
    assert agreement(unit, unit[::-1].copy()[[0, 2, 4, 6, 1, 3, 5, 7]], top=3).overlap < 1


def test_a_path_inside_a_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "clean").write_bytes(b"aten/linear, /tm, a/b/c")
    assert not reproducible.paths_inside(tmp_path)
    (tmp_path / "dirty").write_bytes(b"\x00\x01 at /home/someone/model.py \x02")
    assert reproducible.paths_inside(tmp_path) == ["dirty: /home/someone/model.py"]


@pytest.mark.slow
def test_two_builds_of_a_tiny_model_are_the_same(tmp_path: Path) -> None:
    source = tmp_path / "tiny_model.py"
    source.write_text(FACTORY)
    found = reproducible.compare(f"{source}:make", "cpu-fp32")
    assert found.differing == []
    assert found.paths == []
    assert "model.onnx" in found.bytes


def test_memory_is_watched_from_outside() -> None:
    code = "x = bytearray(300_000_000); import time; time.sleep(0.3)"
    found = watch([sys.executable, "-c", code])
    assert found.status == 0
    assert found.peak_gb >= found.kernel_peak_gb > 0.3
    assert found.record()["anonymous_peak_gb"] > 0.29
    assert found.seconds > 0.3


def test_build_times_are_judged_by_depth() -> None:
    runs = {
        16: {"strop": 1.0, "capture": 3.0},
        32: {"strop": 2.5, "capture": 6.0, "torch_onnx_after_capture": 20.0},
    }
    hits = {f.what: f.hit for f in build_scaling.judge(runs)}
    assert list(hits.values()) == [True, True, False]


def test_costs_of_the_check_are_held_to_time_and_memory() -> None:
    watched = Watched(0, 0.0, [Memory(total=2.4, at=59.0)])
    encoder = WatchedBuild(watched, 0.1, {"capture": 5.5, "check": 3.0})
    decoder = WatchedBuild(watched, 0.3, {})
    hits = [f.hit for f in check_costs.judge(encoder, decoder, weights=0.3)]
    assert hits == [False, True, False]
