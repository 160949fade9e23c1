"""Whether a narrow MobileNetV2 learns more from a wide one than from labels alone.

``python -m strop.bench.measures.student [--seeds 3]`` trains the textbook's example on
Fashion-MNIST: a teacher of width 1.0, and students of width 0.35. For each seed one student is
drawn and begins to learn on labels; from there it learns from the teacher and labels, or from
labels alone, with equal steps on the same images, a part of the teacher's. The learning rate of
both is chosen from the same candidates on validation images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial

import torch
import typer

from strop.bench.models.fashion import ROWS, SOURCE, task_or_exit
from strop.bench.models.mobilenet import MobileNetV2
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment
from strop.bench.trials.arms import after, at_best_rates, dense, fine_tuned
from strop.bench.trials.sample import Sample, Seeds, for_each_seed, samples
from strop.bench.trials.task import Task
from strop.compiler.ir.program import Program
from strop.passes.distill.recover import Recover
from strop.passes.train import Policy

IMAGES, SEEN_BY_STUDENT = 50_000, 5_000
TEACHER = Policy(steps=500, lr=3e-3, weight_decay=0.05, held_out=0)
BEGUN = replace(TEACHER, steps=200)
RATES = (1e-3, 3e-3)
DISTILLED = Recover(steps=300, soft=1, hard=0.3, hidden=0, temperature=4, held_out=0)
ARMS = {"distilled": DISTILLED, "undistilled": fine_tuned(DISTILLED)}


def student(data: Task, seed: int) -> Program:
    """A student that has begun to learn from labels, the same for both arms.

    A captured program normalizes by statistics that no longer change, so it begins as a module.
    """
    return dense(partial(_in_fast_layout, 0.35), data, replace(BEGUN, seed=seed))


def teacher(data: Task) -> Program:
    """MobileNetV2 of width 1.0, trained on labels."""
    return dense(partial(_in_fast_layout, 1.0), data, TEACHER)


def _in_fast_layout(width: float) -> torch.nn.Module:
    """With channels last, which halves the time of a step."""
    module: torch.nn.Module = MobileNetV2(width)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


def run(data: Task, taught_by: Program, arms: Mapping[str, Recover], seed: int) -> dict[str, float]:
    """The accuracy of the students of one seed, on test images in percent."""
    program, context = student(data, seed), data.context(taught_by, seed)
    return {
        name: data.metric(after([replace(arm, seed=seed)], program, context), data.test)
        for name, arm in arms.items()
    }


def figures(of_teacher: float, found: Mapping[str, Sample]) -> list[Figure]:
    """What is claimed."""
    distilled, alone = found["distilled"], found["undistilled"]
    return [
        Figure("accuracy of the teacher, percent", of_teacher),
        distilled.figure("accuracy of distilled students, percent"),
        alone.figure("accuracy of students that learned from labels alone, percent"),
        distilled.minus(alone).figure("points that distilled students are above", at_least=0),
    ]


def main(seeds: Seeds = 3, results: ResultsFolder = RESULTS) -> None:
    """Train the teacher, choose learning rates, and train the students."""
    whole = task_or_exit(IMAGES)
    with console.status("training the teacher"):
        taught_by = teacher(whole)
    part = replace(whole, train=whole.train[: SEEN_BY_STUDENT // ROWS])
    with console.status("choosing learning rates"):
        arms, search = at_best_rates(
            ARMS, RATES, student(part, 0), part, part.context(taught_by, 0)
        )
    runs = for_each_seed("students", partial(run, part, taught_by, arms), range(seeds))
    found = samples(runs)
    measured = {
        "data": SOURCE,
        "images": {"teacher": IMAGES, "student": SEEN_BY_STUDENT},
        "options": {name: arm.options() for name, arm in arms.items()},
        "validation": search,
        "test": {name: asdict(sample) for name, sample in found.items()},
    }
    made = figures(whole.metric(taught_by, whole.test), found)
    title = "a MobileNetV2 of width 0.35 taught by one of width 1.0"
    show_and_save("student", title, environment(torch.get_num_threads()), made, measured, results)


if __name__ == "__main__":
    typer.run(main)
