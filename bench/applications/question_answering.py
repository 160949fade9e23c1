"""Question answering: which words of a text answer a question about it.

``python -m strop.bench.applications.question_answering`` puts a span head on the real MiniLM-L6
encoder: for each token, the scores that the answer starts and that it ends there. It trains on
questions about functions of the standard library, whose answers are read off their signatures and
docstrings; the questions of the test are about functions in other modules. Then strop builds the
reader, prunes it, lets it learn from the original, and makes it int8, and every stage is measured.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from strop.bench.applications.functions import Function, functions
from strop.bench.applications.scores import exact_match, f1, means
from strop.bench.applications.stages import TORCH, Out, Stage, folder_for, report
from strop.bench.applications.timing import CORES, InTorch, saved, timed
from strop.bench.harness.engines import Engine, OnnxFile, Runner
from strop.bench.harness.subject import Feeds
from strop.bench.models import minilm
from strop.bench.models.text import Part
from strop.bench.records.figures import RESULTS, ResultsFolder, console
from strop.bench.trials.arms import drawn
from strop.bench.trials.fit import fit
from strop.bench.trials.stages import stages
from strop.compiler import Artifact, Model, build
from strop.compiler.frontend.model import DimSpec
from strop.compiler.recipes.loading import asked_recipe
from strop.compiler.rewriting.context import Batch
from strop.compiler.util.numerics import Array
from strop.passes.train import Policy

LENGTH, ROWS, LONGEST_ANSWER = 96, 32, 32
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SCORES = {"exact match": exact_match, "F1": f1}
TESTED, CALIBRATED = 384, 8
TRAINING = Policy(steps=200, lr=3e-4, warmup=0.1, held_out=0, bf16=True)


@dataclass(frozen=True)
class Question:
    """What is asked about a text; the answer is ``context[start : start + len(answer)]``."""

    text: str
    context: str
    answer: str
    start: int


Row = tuple[Question, Any]
"""A question and its tokens, as the library tokenizers gives them."""


class Reader(nn.Module):
    """An encoder, and two scores for each token: that the answer starts there, and ends there.

    It takes question and context as one row of tokens, int64 [batch, seq], with a mask of real
    ones and ones of the context, and gives scores, float32 [batch, seq].
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.span = nn.Linear(encoder.config.hidden_size, 2)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> dict[str, Tensor]:
        """The logits of starts and of ends."""
        hidden = self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
        start, end = self.span(hidden).unbind(-1)
        return {"start_logits": start, "end_logits": end}


def loss(outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Cross-entropy over positions, the mean of start and end."""
    starts = F.cross_entropy(outputs["start_logits"], batch["start"])
    return (starts + F.cross_entropy(outputs["end_logits"], batch["end"])) / 2


# Questions -----------------------------------------------------------------------------------


def questions(part: Part) -> list[Question]:
    """What is asked about one of two neighbours in a file, and answered by a span of their text."""
    return [
        question
        for first, second in pairwise(functions(part))
        if first.name != second.name
        for asked in (first, second)
        for question in _of(asked, described(first), described(second))
    ]


def described(function: Function) -> str:
    """Signature and docstring of a function."""
    given = (f"{name}={default}" if default else name for name, default in function.parameters)
    return f"{function.name}({', '.join(given)}): {function.docstring}"


def _of(function: Function, *texts: str) -> Iterator[Question]:
    """The questions about a function whose text is among some others."""
    context, own = " ".join(texts), described(function)
    begin = context.index(own)
    for text, before, answer in _asked(function):
        place = own.find(before + answer)
        if answer and place >= 0:
            yield Question(text, context, answer, begin + place + len(before))


def _asked(function: Function) -> Iterator[tuple[str, str, str]]:
    """Questions about a function: the words, what stands before the answer, and the answer."""
    name, parameters = function.name, function.parameters
    yield f"What does {name} do?", "): ", function.summary
    verb, _, result = function.summary.partition(" ")
    if verb in ("Return", "Returns"):
        yield f"What does {name} return?", f"{verb} ", result.rstrip(".")
    for (one, _), (following, _) in pairwise(parameters):
        yield f"Which parameter of {name} comes after {one}?", ", ", following
    for one, default in parameters:
        yield f"What is the default of {one} in {name}?", f"{one}=", default


def encoded(asked: Sequence[Question]) -> list[Row]:
    """The questions that fit into a row with their contexts, and their tokens, short rows first."""
    rows = minilm.tokenizer()([q.text for q in asked], [q.context for q in asked]).encodings
    fitting = [pair for pair in zip(asked, rows) if len(pair[1]) <= LENGTH]
    return sorted(fitting, key=lambda pair: len(pair[1]))


def batches(rows: Sequence[Row]) -> list[Batch]:
    """Rows of about one length, with the places of their answers as ``start`` and ``end``."""
    return [_batch(rows[i : i + ROWS]) for i in range(0, len(rows), ROWS)]


def _batch(rows: Sequence[Row]) -> Batch:
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    made = {
        name: nn.utils.rnn.pad_sequence(
            [torch.tensor(getattr(row, column)) for _, row in rows], batch_first=True
        )
        for name, column in columns.items()
    }
    spans = [
        (row.char_to_token(q.start, 1), row.char_to_token(q.start + len(q.answer) - 1, 1))
        for q, row in rows
    ]
    starts, ends = torch.tensor(spans).unbind(1)
    return made | {"start": starts, "end": ends}


# Answers -------------------------------------------------------------------------------------


def answer(question: Question, row: Any, start: Array, end: Array) -> str:
    """The words of the best span of the context, by the sum of both scores, float32 [seq]."""
    inside = np.array([s == 1 for s in row.sequence_ids])
    scores = np.where(inside, start, -np.inf)[:, None] + np.where(inside, end, -np.inf)
    # From the diagonal on, and so many beside it: ends come at or after their starts.
    spans = np.tril(np.triu(np.ones_like(scores)), LONGEST_ANSWER - 1)
    first, last = np.unravel_index(np.where(spans, scores, -np.inf).argmax(), scores.shape)
    return question.context[row.offsets[first][0] : row.offsets[last][1]]


class Answers:
    """Scores the answers of a reader to questions: the model's ``evaluate``."""

    def __init__(self, asked: Sequence[Question]) -> None:
        self.rows = encoded(asked)
        self.batches = batches(self.rows)

    def found(self, run: Callable[..., Any]) -> list[str]:
        """The answers of whatever gives both scores as arrays."""
        made: list[str] = []
        for i, batch in enumerate(self.batches):
            starts, ends = run(**{name: batch[name] for name in INPUTS})
            rows = self.rows[i * ROWS : (i + 1) * ROWS]
            made += [
                answer(*row, s[: len(row[1])], e[: len(row[1])])
                for row, s, e in zip(rows, starts, ends)
            ]
        return made

    def __call__(self, run: Callable[..., Any]) -> dict[str, float]:
        """Exact match and F1, in percent."""
        return means(SCORES, self.found(run), [question.answer for question, _ in self.rows])


# The model, its stages, and what each is worth -----------------------------------------------


def drawn_from(asked: Sequence[Question], most: int) -> list[Question]:
    """So many of the questions, or all of them; the same each time."""
    return random.Random(0).sample(asked, min(most, len(asked)))


def make() -> Model:
    """The trained reader: ``strop build bench/applications/question_answering.py:make -o out``."""
    train = batches(encoded(drawn_from(questions("train"), ROWS * TRAINING.steps)))
    reader = drawn(lambda: Reader(minilm.encoder()), TRAINING.seed)
    with console.status("training the reader") as status:
        fit(reader, INPUTS, loss, train, TRAINING, status.update)
    axes: dict[int, DimSpec] = {0: "batch", 1: ("seq", 4, LENGTH)}
    inputs = [{name: batch[name] for name in INPUTS} for batch in train]
    return Model(
        reader,
        example_inputs=inputs[0],
        dynamic=dict.fromkeys(INPUTS, axes),
        calibration=inputs[:: max(1, len(inputs) // CALIBRATED)],
        evaluate=Answers(drawn_from(questions("test"), TESTED)),
        train=train,
        loss=loss,
    )


LEARNING = (
    "recover.minutes=0",
    "recover.steps=200",
    "recover.lr=3e-4",
    "recover.hard=1",
    "recover.bf16=true",
    "recover.check_every=50",
    "recover.most_held_out=8",
    # The table of words is not pruned, holds half of all weights, and costs time in every step.
    'recover.freeze=["encoder.embeddings.word_embeddings.weight"]',
    "budget.min_cosine=0",  # what is lost is measured here, and not refused
)


def built(model: Model, folder: Path) -> dict[str, Artifact]:
    """The reader in float32 and in int8, as it is and pruned; it learns once for both."""
    made = {}
    for recipe in ("cpu-fp32", "cpu-int8", "cpu-pruned-fp32", "cpu-pruned-int8"):
        given = LEARNING if "pruned" in recipe else ["budget.min_cosine=0"]
        with console.status(f"building {recipe}") as status:
            made[recipe] = build(
                model, folder / recipe, asked_recipe(recipe, given), progress=status.update
            )
    return made


class InEagerTorch(Runner):
    """The trained reader, made anew from its weights and the encoder's configuration."""

    def __init__(self, config: Any, weights: Mapping[str, Tensor]) -> None:
        import transformers

        self.reader = Reader(transformers.AutoModel.from_config(config)).eval()
        self.reader.load_state_dict(weights)

    @torch.inference_mode()
    def run(self, feeds: Feeds) -> list[Array]:
        """Both scores."""
        outputs = self.reader(**{name: torch.from_numpy(array) for name, array in feeds.items()})
        return [scores.numpy() for scores in outputs.values()]


def measured(model: Model, artifacts: Mapping[str, Artifact], folder: Path) -> list[Stage]:
    """What each stage is worth: its answers as the build found them, and the time of some rows."""
    rounds = timed(engines(model, artifacts, folder), _feeds(model))

    def stage(name: str, recipe: str) -> Stage:
        artifact = artifacts[recipe]
        quality = artifact.manifest["metrics"]["artifact"]
        return Stage(name, quality, rounds[recipe], artifact.size / 1e6)

    return [
        Stage(TORCH, artifacts["cpu-fp32"].manifest["metrics"]["original"], rounds[TORCH]),
        stage("trained", "cpu-fp32"),
        stage("trained-int8", "cpu-int8"),
        Stage("pruned", stages(artifacts["cpu-pruned-fp32"])["before"]),
        stage("recovered", "cpu-pruned-fp32"),
        stage("recovered-int8", "cpu-pruned-int8"),
    ]


def engines(model: Model, artifacts: Mapping[str, Artifact], folder: Path) -> list[Engine]:
    """The reader in torch, whose weights are saved for it, and each artifact in its runtime."""
    reader = model.module
    assert isinstance(reader, Reader)
    opened = partial(InEagerTorch, reader.encoder.config)
    original = InTorch(TORCH, CORES, saved(reader.state_dict(), folder), opened)
    return [original, *(OnnxFile(name, CORES, one.path_of()) for name, one in artifacts.items())]


def _feeds(model: Model) -> dict[str, Feeds]:
    """What is timed: some of the longest rows of the test."""
    assert isinstance(model.evaluate, Answers)
    longest = {name: model.evaluate.batches[-1][name].numpy() for name in INPUTS}
    tokens = longest["input_ids"].shape[1]
    return {f"{n}×{tokens}": {name: a[:n] for name, a in longest.items()} for n in (1, 8)}


def main(out: Out = None, results: ResultsFolder = RESULTS) -> None:
    """Train, build every stage, and compare."""
    model = make()
    with folder_for(out) as folder:
        found = measured(model, built(model, folder), folder)
    title = "Questions about functions of the standard library, percent answered"
    report("question_answering", title, found, results, training=vars(TRAINING), settings=LEARNING)


if __name__ == "__main__":
    typer.run(main)
