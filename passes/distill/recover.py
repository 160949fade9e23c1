"""Train a compressed program back towards the program that it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.batches import on_batch
from strop.compiler.rewriting.context import Batch, Batches, Context, Needs
from strop.compiler.rewriting.learning import Learned, LearningPass
from strop.compiler.util.errors import UsageError, VerifyError, did_you_mean, nearest
from strop.compiler.util.sources import is_source, names_code, without_folder
from strop.compiler.util.user_code import load_function
from strop.passes.distill.align import AUTO, align, attention_pairs
from strop.passes.distill.kept import kept_positions
from strop.passes.distill.objective import Objective, Sides, Weights
from strop.passes.distill.outputs import outputs_of
from strop.passes.distill.own_loss import OwnLoss
from strop.passes.distill.padding import padding_mask
from strop.passes.distill.taps import strip
from strop.passes.distill.teacher import Teacher, require_same_contract
from strop.passes.train import Policy, Trained, train

_GIBIBYTE = 1 << 30
_LOSSES = ("soft", "embedding", "contrastive", "hidden", "relations", "hard", "own")


@dataclass(frozen=True)
class Recover(Policy, LearningPass):
    """Recovery: train the weights towards what the program as captured gives, or another model.

    It needs inputs only, ``train`` or else ``calibration``; labels only where ``hard`` is not 0.
    The teacher is the program before all passes, or ``teacher``. The loss is a weighted sum, of
    which weights of 0 leave parts out. The weights with the best validation loss are taken, and
    none where training made it no better. Zeros that ``sparsify`` made stay zeros. How long and how
    fast it trains are the options of ``Policy``.

    Attributes:
        teacher: ``FILE.py:make`` or ``hf:PATH`` of another model to learn from, with the same
            inputs and outputs. It is captured at the sizes of the student; nothing of it is in the
            artifact, whose manifest has its hash.
        soft: weight of the divergence from the teacher's distribution, for outputs that are logits
            or probabilities of classes.
        embedding: weight of squared error and cosine, for all other float outputs.
        contrastive: weight of InfoNCE between student's and teacher's rows, for the same outputs.
        hidden: weight of the squared error of taps.
        relations: weight of MiniLM's relations between queries, keys and values of attention.
        hard: weight of the model's ``loss`` on ``train``.
        own: weight of ``own_loss``.
        own_loss: ``FILE.py:function``, called with the outputs of student and of teacher by name,
            and the batch; returns a scalar tensor.
        temperature: of the soft targets.
        taps: values inside that are compared: "auto" for the results of repeated blocks, patterns
            of values or module paths, ``STUDENT=TEACHER``.
        outputs: ``NAME=KIND`` where an output is not what its name and operators suggest: "logits",
            "probabilities", "values", "ignored".
        mask: the input whose zeros mark padding, which does not count; "auto" reads it off the
            attention, "" is none.
        freeze: patterns of weights that stay as they are.
        teacher_gib: most disk space for the teacher's values, in GiB, so that they are computed
            once; 0 computes them in every epoch.
        segments: gradient checkpointing, where memory is short: into how many pieces the program is
            cut, inside of which values are computed again; 0 keeps all values.
    """

    name = "recover"
    needs = (("train", "calibration"),)
    teacher: str = ""
    soft: float = 1.0
    embedding: float = 1.0
    contrastive: float = 0.0
    hidden: float = 1.0
    relations: float = 0.0
    hard: float = 0.0
    own: float = 0.0
    own_loss: str = ""
    temperature: float = 2.0
    taps: tuple[str, ...] = (AUTO,)
    outputs: tuple[str, ...] = ()
    mask: str = AUTO
    freeze: tuple[str, ...] = ()
    teacher_gib: float = 2.0
    segments: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that have no meaning.

        Raises:
            UsageError: a number is out of its range.
        """
        super().__post_init__()
        for name in (*_LOSSES, "teacher_gib", "segments"):
            self._require(name, getattr(self, name) >= 0, "0 or above")
        self._require("temperature", self.temperature > 0, "above 0")
        if self.own and not self.own_loss:
            raise UsageError("own is above 0: name the loss, own_loss=FILE.py:function")
        if self.teacher and not is_source(self.teacher):
            raise UsageError(
                f"teacher is '{self.teacher}'; it must be FILE.py:make, or hf:PATH of a folder"
            )

    def required(self) -> Needs:
        return ("train", "loss") if self.hard else self.needs

    def uses(self) -> Sequence[Any]:
        if names_code(self.teacher):
            # Its weights count, not its source; what is missing is told before the capture.
            load_function(self.teacher, "a model factory")
        return [self._own()]

    def teacher_in(self, context: Context) -> Program | None:
        if not self.teacher:
            return context.teacher
        if context.capture is None:
            raise UsageError(
                f"teacher is '{self.teacher}', which only a build can capture; here, give its "
                "program: Context(teacher=...)"
            )
        return context.capture(self.teacher)

    def _own(self) -> OwnLoss | None:
        """The user's own loss.

        Raises:
            UsageError: there is no such file or function.
        """
        return load_function(self.own_loss, "a loss") if self.own else None

    def learn(self, program: Program, context: Context) -> Learned:
        teacher = context.teacher
        if teacher is None:
            raise UsageError("pass 'recover' needs a program to learn from: Context(teacher=...)")
        require_same_contract(program, teacher)
        data, what = _data(context)
        sides = self._sides(program, teacher, context)
        objective = Objective(
            program,
            partial(self._teacher, context),
            teacher,
            self._trained(program),
            sides,
            self._weights(sides),
        )
        trained = train(objective.parameters, objective.loss, data, self, context, what)
        better = trained.best_at > 0
        weights = {n: trained.tensors[n] for n in self._trained(program)} if better else {}
        after = _without_taps(objective.student, weights, next(iter(data)))
        metrics = _metrics(program, after, context)
        facts = self._facts(sides, trained, what) | {"metrics": metrics}
        return Learned(weights, facts, (*trained.notes, *_notes(trained)))

    def _sides(self, student: Program, teacher: Program, context: Context) -> Sides:
        pairs = []
        if self.hidden:
            # Pruning has left parts of the student's own features, not of another model's.
            kept = {} if self.teacher else kept_positions(student)
            pairs = align(student, teacher, self.taps, kept)
        return Sides(
            outputs_of(student, self.outputs),
            pairs,
            attention_pairs(student, teacher) if self.relations else [],
            self._padding(student),
            self.temperature,
            context.loss if self.hard else None,
            self._own(),
            self.segments,
        )

    def _weights(self, sides: Sides) -> Weights:
        """The weights of the losses.

        Raises:
            UsageError: none of them counts for this program.
        """
        kinds = {output.kind for output in sides.outputs}
        counted = (
            self.hard,
            self.own,
            self.hidden and sides.pairs,
            self.relations and sides.related,
            self.soft and kinds & {"logits", "probabilities"},
            (self.embedding or self.contrastive) and "values" in kinds,
        )
        if not any(counted):
            told = ", ".join(f"{o.name} ({o.kind})" for o in sides.outputs)
            raise UsageError(
                f"pass 'recover' has no loss for this program: its outputs are {told}, and it has "
                f"{len(sides.pairs)} taps and {len(sides.related) // 3} attentions; set one of "
                f"{', '.join(_LOSSES)} above 0"
            )
        return Weights(*(getattr(self, name) for name in _LOSSES))

    def _padding(self, program: Program) -> str | None:
        if self.mask == AUTO:
            return padding_mask(program)
        names = [spec.name for spec in program.contract.inputs]
        if self.mask and self.mask not in names:
            hint = did_you_mean(self.mask, names)
            raise UsageError(f"mask: there is no input '{self.mask}'{hint}")
        return self.mask or None

    def _trained(self, program: Program) -> list[str]:
        """Names of the weights that are trained.

        Raises:
            UsageError: a pattern of ``freeze`` matches none, or together they match all.
        """
        names = [n for n, weight in program.parameters.items() if weight.is_floating_point()]
        for pattern in self.freeze:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise UsageError(f"freeze: no weight is '{pattern}'{nearest(pattern, names)}")
        trained = [n for n in names if not any(fnmatchcase(n, p) for p in self.freeze)]
        if not trained:
            raise UsageError("freeze: all weights match it, and none is left to train")
        return trained

    def _teacher(self, context: Context, tapped: Program) -> Teacher:
        place = context.kept or context.scratch
        folder = place / "teacher" if place and self.teacher_gib else None
        return Teacher(tapped, folder, int(self.teacher_gib * _GIBIBYTE), context.say)

    def _facts(self, sides: Sides, trained: Trained, what: str) -> dict[str, Any]:
        """What the manifest says of the training; the options stand beside it."""
        validation = [line["validation"] for line in trained.history]
        best = next(line for line in trained.history if line["update"] == trained.best_at)
        return {
            **({"teacher": without_folder(self.teacher)} if self.teacher else {}),
            "data": what,
            "losses": {name: getattr(self, name) for name in _LOSSES if getattr(self, name)},
            "temperature": self.temperature,
            "seed": self.seed,
            "outputs": {output.name: output.kind for output in sides.outputs},
            "taps": [f"{pair.student}={pair.teacher}" for pair in sides.pairs],
            "mask": sides.mask,
            "updates": trained.updates,
            "best_at": trained.best_at,
            "ended": trained.ended,
            "validation": {"before": validation[0], "after": best["validation"]},
            "history": trained.history,
        }


def _data(context: Context) -> tuple[Batches, str]:
    """What is trained on, and what the user calls it."""
    if context.train is not None:
        return context.train, "train"
    assert context.calibration is not None
    return context.calibration, "calibration"


def _without_taps(tapped: Program, weights: Mapping[str, torch.Tensor], batch: Batch) -> Program:
    """The student as it goes on: with what it learned, and without what it learned by.

    Raises:
        VerifyError: its outputs are not the same to the bit as with its taps.
    """
    whole = replace(tapped, weights=tapped.weights | dict(weights))
    alone = strip(whole)
    with torch.no_grad():
        pairs = list(zip(on_batch(alone, batch), on_batch(whole, batch)))
    if not all(_equal(a, b) for a, b in pairs):
        raise VerifyError("without its taps the student gives other outputs")
    return alone


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _metrics(before: Program, after: Program, context: Context) -> dict[str, Mapping[str, float]]:
    """The user's metrics of the program before and after."""
    if context.evaluate is None:
        return {}
    return {"before": context.evaluate(before), "after": context.evaluate(after)}


def _notes(trained: Trained) -> list[str]:
    """What the user should know of how well it went."""
    notes = []
    if not trained.best_at:
        notes.append("recovery made no weights better on what is held out: all stay as they were")
    if trained.history[0]["validation"] is None:
        notes.append(
            "recovery held nothing out, since there are few batches: the last weights were taken, "
            "whatever they do on other data"
        )
    return notes
