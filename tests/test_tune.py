"""Choices follow measurement; measuring runs every variant and is cached."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.compiler.check.comparison import check_program
from strop.compiler.frontend.cases import Case
from strop.compiler.lower.choices import Choices, shipped
from strop.compiler.lower.onnx import tune
from strop.compiler.targets.target import CPU
from strop.compiler.util.errors import UsageError

OP = torch.ops.strop.skip_layer_norm.default


def _choices(**times: float) -> Choices:
    return Choices({"strop.skip_layer_norm": {v: {"1x1": t} for v, t in times.items()}})


def test_the_fastest_variant_is_taken() -> None:
    assert _choices(sum=3.0, add=2.0).variant(OP, ["sum", "add"]) == "add"


def test_a_tie_goes_to_the_first() -> None:
    assert _choices(sum=1.02, add=1.0).variant(OP, ["sum", "add"]) == "sum"


def test_without_a_measurement_the_first_is_taken() -> None:
    assert Choices({}).variant(OP, ["sum", "add"]) == "sum"
    assert _choices(other=1.0).variant(OP, ["sum", "add"]) == "sum"


def test_every_shape_counts_alike() -> None:
    small_wins = {"sum": {"1x1": 1.0, "8x128": 110.0}, "add": {"1x1": 2.0, "8x128": 100.0}}
    assert Choices({"strop.skip_layer_norm": small_wins}).variant(OP, ["add", "sum"]) == "sum"


def test_a_choice_for_many_rows_looks_at_shapes_of_many_rows() -> None:
    times = {"sum": {"1x1x8": 1.0, "2x64x8": 9.0}, "add": {"1x1x8": 3.0, "2x64x8": 6.0}}
    choices = Choices({"strop.skip_layer_norm": times})
    assert choices.for_rows(128).variant(OP, ["add", "sum"]) == "add"
    assert choices.for_rows(1, 127).variant(OP, ["add", "sum"]) == "sum"
    assert choices.for_rows(129).milliseconds["strop.skip_layer_norm"] == times


def test_a_table_with_a_shape_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="axb"):
        Choices.from_json(
            '{"milliseconds": {"strop.rotary": {"standard": {"axb": 1.0}}}}', "t.json"
        )


def test_the_shipped_table_knows_every_variant_that_is_measured() -> None:
    table = shipped(CPU).milliseconds
    for subject in tune.SUBJECTS:
        name = str(subject.target).removesuffix(".default")
        assert set(table[name]) == set(tune._variants(subject))


@pytest.mark.parametrize("subject", tune.SUBJECTS, ids=lambda s: str(s.target))
def test_a_chain_runs_in_torch_and_every_variant_agrees(subject: tune.Subject) -> None:
    program = tune.chain_program(subject, (2, 3, subject.widths[0]))
    inputs = {
        s.name: torch.randn([int(n) for n in s.shape]).clamp(-1, 1) for s in program.contract.inputs
    }
    expected = {s.name: t.numpy() for s, t in zip(program.contract.outputs, program.run(**inputs))}
    assert not [r for r in check_program(program, [Case("x", inputs, expected)]) if r.max_error]
    for variant in tune._variants(subject):
        tune._runner(program, subject, variant, CPU)()


def test_tuned_measures_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STROP_CACHE", str(tmp_path))
    asked: list[Any] = []

    def measure(target: Any, progress: Any) -> Any:
        asked.append(target)
        return {
            str(s.target).removesuffix(".default"): {v: {"1x1": 1.0} for v in tune._variants(s)}
            for s in tune.SUBJECTS
        }

    monkeypatch.setattr(tune, "measure", measure)
    first, second = tune.tuned(CPU), tune.tuned(CPU)
    assert first == second
    assert len(asked) == 1
    record = json.loads(tune.cache_path("cpu").read_text())
    assert record["onnxruntime"]
    assert record["cpu"]


def test_a_cache_for_other_variants_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STROP_CACHE", str(tmp_path))
    path = tune.cache_path("cpu")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"milliseconds": {"strop.skip_layer_norm": {"gone": {"x": 1}}}}))
    monkeypatch.setattr(tune, "measure", lambda target, progress: {"fresh": {}})
    assert tune.tuned(CPU).milliseconds == {"fresh": {}}


def test_measure_gives_a_time_for_every_variant_and_shape() -> None:
    subject = tune.SUBJECTS[0]
    narrow = tune.Subject(subject.target, subject.inputs, subject.step, (64,))
    found = tune.measure(CPU, subjects=[narrow], shapes=[(1, 2)])
    times = found["strop.skip_layer_norm"]
    assert set(times) == set(tune._variants(subject))
    assert all(t["1x2x64"] > 0 for t in times.values())


def test_a_cpu_is_told_from_others_of_its_name() -> None:
    text = (
        "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\nmodel name: 2\n"
    )
    assert tune.named_cpu(text) == "AMD EPYC (family 25, model 17)"
    assert tune.named_cpu("model name : Cortex\n") == "Cortex"
    assert tune.named_cpu("") == ""
