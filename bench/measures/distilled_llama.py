"""Perplexity of a small Llama that lost FFN channels and heads: distilled, fine-tuned, or new.

``python -m strop.bench.measures.distilled_llama`` trains Llamas with a separate and with a tied
head on docstrings, prunes a quarter and a half of FFN channels and of key heads with their queries,
and trains what is left in three ways: towards the original, on the text alone for as many steps,
and on the text alone from random weights, for the steps of both trainings together. How fast each
learns is chosen on validation text, among as many rates, with a separate head and half of it gone;
perplexities are those of test text.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
import typer

from strop.bench.models.causal import llama, task
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment
from strop.bench.trials.arms import after, chosen, dense, drawn, fine_tuned, from_scratch
from strop.bench.trials.sample import Seeds, for_each_seed, samples
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import Pass
from strop.passes.distill.recover import Recover
from strop.passes.prune.prune import Prune
from strop.passes.train import Policy

HEADS = ("separate", "tied")
SHARES = (0.25, 0.5)
DENSE = Policy(steps=600, lr=3e-3, held_out=0)
# The labels are there, so both are learned from.
RECOVERY = Recover(steps=250, temperature=1.0, hidden=0, hard=1, held_out=0, teacher_gib=0)
RATES = (1.5e-3, 3e-3)
DISTILLED, TUNED, NEW = "distilled", "fine-tuned", "from scratch"
Rates = Mapping[str, float]
Found = dict[str, float]


def untrained(head: str, seed: int) -> Program:
    """A Llama with weights as they were drawn."""
    return task().captured(drawn(lambda: llama(head == "tied"), seed))


def trained(head: str, seed: int) -> Program:
    """A Llama that learned."""
    return dense(lambda: llama(head == "tied"), task(), replace(DENSE, seed=seed))


def pruning(share: float) -> list[Pass]:
    """What makes the Llama smaller."""
    return [Prune(share=share, kinds=("ffn",)), Prune(share=share, kinds=("heads",))]


def arms(smaller: Program, new: Program, seed: int) -> dict[str, tuple[Program, Recover]]:
    """What each arm begins with, and how it is trained."""
    distilled = replace(RECOVERY, seed=seed)
    tuned = fine_tuned(distilled)
    longer = replace(tuned, steps=DENSE.steps + tuned.steps)
    return {
        DISTILLED: (smaller, distilled),
        TUNED: (smaller, tuned),
        NEW: (from_scratch(smaller, new), longer),
    }


def rates(head: str, share: float, seed: int) -> dict[str, dict[str, float]]:
    """By arm, the perplexity on validation text of each rate."""
    program = trained(head, seed)
    context = task().context(program, seed)
    smaller = after(pruning(share), program, context)
    found = {}
    for arm, (start, recover) in arms(smaller, untrained(head, seed + 1000), seed).items():
        candidates = {str(rate): replace(recover, lr=rate) for rate in RATES}
        _, found[arm] = chosen(candidates, start, task(), context)
    return found


def trial(head: str, chosen_rates: Rates, seed: int) -> Found:
    """Perplexities on test text, by what was done."""
    program = trained(head, seed)
    context = task().context(program, seed)
    found = {"before": tested(program)}
    new = untrained(head, seed + 1000)
    for share in SHARES:
        smaller = after(pruning(share), program, context)
        found[_at(share, "pruned")] = tested(smaller)
        for arm, (start, recover) in arms(smaller, new, seed).items():
            learned = replace(recover, lr=chosen_rates[arm])
            found[_at(share, arm)] = tested(after([learned], start, context))
    return found


def tested(program: Program) -> float:
    """The perplexity on test text."""
    return task().metric(program, task().test)


def _at(share: float, what: str) -> str:
    return f"-{share:.0%}, {what}"


def figures(head: str, trials: Sequence[Found]) -> list[Figure]:
    """What is claimed of one kind of head: means over seeds, and who comes first."""
    found = samples(trials)
    made = [one.figure(f"perplexity, {head} head, {what}") for what, one in found.items()]
    for share, other in itertools.product(SHARES, (TUNED, NEW)):
        less = found[_at(share, DISTILLED)].minus(found[_at(share, other)])
        what = f"perplexity, {head} head, {_at(share, DISTILLED)} minus {other}"
        made.append(less.figure(what, at_most=0))
    return made


def main(seeds: Seeds = 3, results: ResultsFolder = RESULTS) -> None:
    """Choose the rates, run every trial, and compare."""
    torch.set_num_threads(1)
    place = environment(threads=1)
    with console.status("choosing rates"):
        tried = rates(HEADS[0], SHARES[-1], 0)
    best = {arm: float(task().best(found)) for arm, found in tried.items()}
    trials = {
        head: for_each_seed(f"{head} head", partial(trial, head, best), range(seeds))
        for head in HEADS
    }
    made = [figure for head in HEADS for figure in figures(head, trials[head])]
    measured: dict[str, Any] = {
        "dense": asdict(DENSE),
        "recovery": asdict(RECOVERY),
        "rates": {"tried": tried, "chosen": best},
        "trials": trials,
    }
    show_and_save("distilled_llama", "pruned Llamas", place, made, measured, results)


if __name__ == "__main__":
    typer.run(main)
