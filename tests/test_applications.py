"""Question answering in small, and what every application reports of its stages."""

from __future__ import annotations

import ast
import io
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from strop.bench.applications import functions, question_answering, stages, timing
from strop.bench.applications.question_answering import Answers, Question
from strop.bench.applications.stages import Stage
from strop.bench.applications.timing import InTorch
from strop.bench.harness.engines import Runner
from strop.bench.harness.subject import Feeds
from strop.bench.harness.workers import workers
from strop.bench.models import minilm
from strop.bench.records.record import Plan
from strop.compiler.util.numerics import Array
from strop.compiler.util.terminal import Console
from strop.passes.train import Policy

QUICK = Policy(steps=4, lr=5e-3, held_out=0)
LEARNING = ("prune-heads.share=0.5", "recover.minutes=0", "recover.steps=2", "budget.min_cosine=-1")


# Question answering --------------------------------------------------------------------------

DESCRIBED = '''
def area{i}(width, height=2.5):
    """Return the area of shape {i}. It is a number."""

def wait{i}(seconds, reason='none', again=True):
    """Wait for {i} seconds."""
'''


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few functions, and a small encoder in place of MiniLM."""
    import transformers

    tree = ast.parse("".join(DESCRIBED.format(i=i) for i in range(9)))
    known = tuple(functions._of(tree))
    config = transformers.BertConfig(
        hidden_size=32, num_attention_heads=2, num_hidden_layers=1, intermediate_size=32
    )
    monkeypatch.setattr(question_answering, "functions", lambda part: known)
    monkeypatch.setattr(minilm, "encoder", lambda: transformers.BertModel(config).eval())


def test_questions_are_answered_by_a_span_of_their_context(described: None) -> None:
    asked = question_answering.questions("train")
    assert all(q.context[q.start :].startswith(q.answer) for q in asked)
    first = asked[: len(asked) // 17]
    context = (
        "area0(width, height=2.5): Return the area of shape 0. It is a number. "
        "wait0(seconds, reason='none', again=True): Wait for 0 seconds."
    )
    assert [(q.text, q.answer) for q in first if q.context == context] == [
        ("What does area0 do?", "Return the area of shape 0."),
        ("What does area0 return?", "the area of shape 0"),
        ("Which parameter of area0 comes after width?", "height"),
        ("What is the default of height in area0?", "2.5"),
        ("What does wait0 do?", "Wait for 0 seconds."),
        ("Which parameter of wait0 comes after seconds?", "reason"),
        ("Which parameter of wait0 comes after reason?", "again"),
        ("What is the default of reason in wait0?", "'none'"),
        ("What is the default of again in wait0?", "True"),
    ]


def test_right_scores_give_right_answers(described: None) -> None:
    answers = Answers(question_answering.questions("test"))
    places = iter(answers.batches)

    def right(input_ids: Any, **others: Any) -> tuple[Any, Any]:
        batch = next(places)
        shape = input_ids.shape
        return tuple(
            torch.zeros(shape).scatter(1, batch[name][:, None], 1.0).numpy()
            for name in ("start", "end")
        )  # type: ignore[return-value]

    assert answers(right) == {"exact match": 100, "F1": 100}


def test_an_answer_ends_after_its_start_inside_the_context() -> None:
    question = Question("What is it?", "one two three", "two", 4)
    ((_, row),) = question_answering.encoded([question])
    assert row.tokens[6:9] == ["one", "two", "three"]

    def scored(start: list[int], end: list[int]) -> str:
        values = [np.zeros(len(row), np.float32) for _ in range(2)]
        for array, order in zip(values, (start, end)):
            array[order] = np.arange(len(order), 0, -1)
        return question_answering.answer(question, row, *values)

    assert scored([7], [7]) == "two"
    assert scored([1, 7], [2, 8]) == "two three"
    assert scored([8, 7], [6, 8]) == "three"


def test_long_questions_are_left_out() -> None:
    long = Question("What?", "word " * question_answering.LENGTH, "word", 0)
    assert question_answering.encoded([long]) == []


@pytest.mark.slow
def test_question_answering_runs(
    described: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(question_answering, "TRAINING", QUICK)
    monkeypatch.setattr(question_answering, "ROWS", 8)
    monkeypatch.setattr(question_answering, "LEARNING", LEARNING)
    monkeypatch.setattr(timing, "PLAN", Plan(threads=[1], bouts=1, rounds=2, patience=0))
    question_answering.main(tmp_path / "out", tmp_path / "results")
    saved = json.loads((tmp_path / "results/question_answering.json").read_text())
    assert [stage["name"] for stage in saved["measured"]["stages"]] == [
        "torch", "trained", "trained-int8", "pruned", "recovered", "recovered-int8",
    ]  # fmt: skip
    assert (tmp_path / "out/cpu-pruned-int8/model.onnx").exists()


# Stages --------------------------------------------------------------------------------------

TASK = "1 text"
THREE = [
    Stage("torch", {"F1": 90.0}, {TASK: [8.0, 16.0, 9.0]}),
    Stage("pruned", {"F1": 30.0}, None, 4.0),
    Stage("int8", {"F1": 80.0}, {TASK: [2.0, 8.0, 3.0]}, 1.0),
]


def test_speeds_are_compared_round_by_round() -> None:
    first, pruned, last = THREE
    assert [stage.milliseconds(TASK) for stage in THREE] == [9.0, None, 3.0]
    # The ratios are 4, 2 and 3.
    assert last.faster(first, TASK) == 3 and pruned.faster(first, TASK) is None


def test_figures_compare_the_last_stage_with_the_first() -> None:
    assert [(f.what, f.value) for f in stages.figures(THREE)] == [
        ("F1, torch", 90),
        ("F1, int8", 80),
        ("speed, 1 text, int8 over torch", 3),
    ]


def test_a_report_is_a_table_and_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(stages, "console", Console(file=shown))
    stages.report("small", "A title", THREE, tmp_path, settings=["x=1"])
    rows = [line.split("│")[1:-1] for line in shown.getvalue().splitlines() if "│" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["F1", "90", "30", "80"],
        ["ms, 1 text", "9", "", "3"],
        ["times as fast", "1", "", "3"],
        ["MB", "", "4", "1"],
    ]
    assert shown.getvalue().startswith("A title")
    saved = json.loads((tmp_path / "small.json").read_text())
    assert saved["measured"]["settings"] == ["x=1"]
    assert stages.recorded(saved) == stages.table("A title", THREE)


# Timing --------------------------------------------------------------------------------------


class Slow(Runner):
    """Sleeps for as many milliseconds as its weight says."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self.seconds = float(weights["milliseconds"]) / 1000

    def run(self, feeds: Feeds) -> list[Array]:
        time.sleep(self.seconds)
        return [np.array(os.getpid())]


def slow(name: str, milliseconds: float, folder: Path) -> InTorch:
    folder /= name
    folder.mkdir()
    weights = timing.saved({"milliseconds": torch.tensor(milliseconds)}, folder)
    return InTorch(name, 1, weights, Slow)


@pytest.mark.slow
def test_stages_are_timed_in_processes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(threads=[1], bouts=2, rounds=2, turn_seconds=0.01, patience=0)
    monkeypatch.setattr(timing, "PLAN", plan)
    engines = [slow("a", 2, tmp_path), slow("b", 20, tmp_path)]
    feeds: dict[str, Feeds] = {"task": {}}
    found = timing.timed(engines, feeds)
    assert len(found["a"]["task"]) == len(found["b"]["task"]) >= 2
    assert all(a < b for a, b in zip(found["a"]["task"], found["b"]["task"]))
    with workers(engines, feeds) as (running, _):
        assert len({os.getpid(), *(int(w.outputs("task")[0]) for w in running.values())}) == 3


@pytest.mark.slow
def test_a_stage_that_does_not_run_is_named(tmp_path: Path) -> None:
    weights = timing.saved({"other": torch.ones(1)}, tmp_path)
    with pytest.raises(SystemExit, match=r"^broken does not load: KeyError"):
        timing.timed([InTorch("broken", 1, weights, Slow)], {"task": {}})


def test_a_reader_made_of_its_weights_answers_as_before(described: None) -> None:
    reader = question_answering.Reader(minilm.encoder()).eval()
    made = question_answering.InEagerTorch(reader.encoder.config, reader.state_dict())
    batch = question_answering._batch(
        question_answering.encoded(question_answering.questions("test"))[:2]
    )
    given = {name: batch[name] for name in question_answering.INPUTS}
    with torch.no_grad():
        wanted = [scores.numpy() for scores in reader(**given).values()]
    found = made.run({name: ids.numpy() for name, ids in given.items()})
    np.testing.assert_equal(found, wanted)


def test_a_folder_is_kept_where_one_is_named(tmp_path: Path) -> None:
    with stages.folder_for(tmp_path / "out") as kept:
        (kept / "file").touch()
    with stages.folder_for(None) as gone:
        (gone / "file").touch()
    assert (tmp_path / "out/file").exists() and not gone.exists()
