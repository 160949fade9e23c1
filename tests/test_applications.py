"""Question answering in small, and what every application reports of its stages."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from strop.bench.applications import functions, question_answering, stages
from strop.bench.applications.question_answering import Answers, Question
from strop.bench.applications.stages import Stage
from strop.bench.models import minilm
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
    question_answering.main(tmp_path / "out", tmp_path / "results")
    saved = json.loads((tmp_path / "results/question_answering.json").read_text())
    assert [stage["name"] for stage in saved["measured"]["stages"]] == [
        "torch", "trained", "trained-int8", "pruned", "recovered", "recovered-int8",
    ]  # fmt: skip
    assert (tmp_path / "out/cpu-pruned-int8/model.onnx").exists()


# Stages --------------------------------------------------------------------------------------

TWO = [
    Stage("trained", {"F1": 90.0}, {"1 text": 8.0}, 4.0),
    Stage("pruned", {"F1": 30.0}),
    Stage("int8", {"F1": 80.0}, {"1 text": 2.0}, 1.0),
]


def test_figures_compare_with_the_first_stage() -> None:
    assert [(f.what, f.value) for f in stages.figures(TWO)] == [
        ("F1, trained", 90),
        ("F1, pruned", 30),
        ("F1, int8", 80),
        ("speed, 1 text, int8 over trained", 4),
        ("size, int8, share of trained", 0.25),
    ]


def test_a_report_is_a_table_and_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(stages, "console", Console(file=shown))
    stages.report("small", "A title", TWO, tmp_path, settings=["x=1"])
    rows = [line.split("│")[1:-1] for line in shown.getvalue().splitlines() if "│" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["F1", "90", "30", "80"],
        ["ms, 1 text", "8", "", "2"],
        ["times as fast", "1", "", "4"],
        ["MB", "4", "", "1"],
    ]
    assert shown.getvalue().startswith("A title")
    saved = json.loads((tmp_path / "small.json").read_text())
    assert saved["measured"]["settings"] == ["x=1"]
    assert saved["measured"]["stages"][1] == {
        "name": "pruned", "quality": {"F1": 30.0}, "milliseconds": None, "megabytes": None,
    }  # fmt: skip


def test_calls_take_turns() -> None:
    turns: list[str] = []
    calls = {name: lambda name=name: turns.append(name) for name in "ab"}
    found = stages.interleaved(calls, rounds=2)
    assert turns == ["a", "b"] * 3 and min(found.values()) >= 0


def test_a_folder_is_kept_where_one_is_named(tmp_path: Path) -> None:
    with stages.folder_for(tmp_path / "out") as kept:
        (kept / "file").touch()
    with stages.folder_for(None) as gone:
        (gone / "file").touch()
    assert (tmp_path / "out/file").exists() and not gone.exists()
