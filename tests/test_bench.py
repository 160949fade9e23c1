"""The benchmarks' own arithmetic and plumbing, on models that take no time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from strop.bench import build_scaling, duel, kernels, reproducible
from strop.bench.engines import Eager, OnnxFile, workers
from strop.bench.fidelity import agreement, neighbours, pooled
from strop.bench.figures import Figure, Spread, environment, save
from strop.bench.peak_memory import watch
from strop.compiler import Model, build

FACTORY = """
import torch
from strop.compiler import Model

def make():
    torch.manual_seed(0)
    return Model(torch.nn.Linear(8, 4).eval(), {"input": torch.zeros(2, 8)})
"""


def tiny() -> torch.nn.Module:
    """Found by worker processes under the name of this module."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))


def test_a_figure_is_held_to_its_bound() -> None:
    assert Figure("x", 1.3, at_least=1.3).hit
    assert not Figure("x", 1.29, at_least=1.3).hit
    assert not Figure("x", 0.3, at_most=0.26).hit
    assert not Figure("x", float("nan"), at_most=1.0).hit
    assert Figure("x", 0.2, at_most=0.26).wanted == "≤ 0.26"


def test_spread_is_median_and_quartiles() -> None:
    assert Spread.of([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_ratios_are_taken_round_by_round() -> None:
    timing = duel._timing([1.0, 10.0, 1.0], [2.0, 20.0, 3.0])
    assert timing.ratio.median == 2.0
    assert timing.milliseconds.median == 1000.0


def test_a_saved_result_has_figures_and_an_environment_without_paths(tmp_path: Path) -> None:
    path = save("x", environment(2), [Figure("a", 2.0, at_least=1.0)], {"b": 1}, tmp_path)
    record = json.loads(path.read_text())
    assert record["figures"] == [
        {"what": "a", "value": 2.0, "at_least": 1.0, "at_most": None, "hit": True}
    ]
    assert set(record["environment"]) >= {"cpu", "flags", "cores", "threads", "versions"}
    assert not reproducible.paths_inside(tmp_path, [Path.home()])


def test_engines_race_in_processes_of_their_own(tmp_path: Path) -> None:
    example = {"input": torch.randn(2, 8)}
    artifact = build(Model(tiny().eval(), example), tmp_path / "tiny", "cpu-fp32")
    engines = [
        Eager("eager", 2, f"{__name__}:tiny"),
        OnnxFile("file", 2, artifact.model_path),
    ]
    feeds = {"input": np.ones((2, 8), np.float32)}
    with workers(engines) as running:
        timings = duel.race(running, {"only": feeds}, rounds=2, baseline="eager")["only"]
        outputs = {name: w.outputs(feeds) for name, w in running.items()}
    assert timings["eager"].ratio.median == 1.0
    assert timings["file"].milliseconds.median > 0
    apart = duel.difference(outputs["file"], outputs["eager"])
    assert apart.max_abs < 1e-5
    assert apart.cosine == pytest.approx(1.0)


def test_an_engine_that_cannot_load_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="engine 'broken'"),
        workers([OnnxFile("broken", 1, tmp_path / "missing.onnx")]),
    ):
        pass


def test_the_duel_judges_only_what_was_measured() -> None:
    spread = {"median": 1.4, "low": 1.3, "high": 1.5}
    found = {
        "timings": {"1x128": {"strop cpu-fp32": {"ratio": spread}}},
        "differences": {"1x128": {"strop cpu-fp32": {"max_abs": 1e-3}}},
    }
    figures = duel.judge(found, ["cpu-fp32"])
    assert [f.hit for f in figures] == [True, False]


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


def test_two_builds_of_a_tiny_model_are_the_same(tmp_path: Path) -> None:
    source = tmp_path / "tiny_model.py"
    source.write_text(FACTORY)
    found = reproducible.compare(f"{source}:make", "cpu-fp32")
    assert found["differing"] == []
    assert found["paths"] == []
    assert "model.onnx" in found["bytes"]


def test_memory_is_watched_from_outside() -> None:
    code = "x = bytearray(300_000_000); import time; time.sleep(0.3)"
    samples, peak, status = watch([sys.executable, "-c", code], {})
    assert status == 0
    assert peak > 0.3
    assert max(s.anonymous for s in samples) > 0.29


def test_build_times_are_judged_by_depth() -> None:
    runs = {
        16: {"strop": 1.0, "capture": 3.0},
        32: {"strop": 2.5, "capture": 6.0, "torch_onnx_after_capture": 20.0},
    }
    hits = {f.what: f.hit for f in build_scaling.judge(runs)}
    assert list(hits.values()) == [True, True, False]


@pytest.mark.parametrize("row", kernels.ROWS, ids=lambda r: f"{r.group}: {r.name}")
def test_every_kernel_row_runs(row: kernels.Row) -> None:
    kernels.runner(row, row.shapes[0])()
