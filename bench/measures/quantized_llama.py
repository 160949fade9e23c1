"""Perplexity of a small Llama whose weights have few bits: how much each method gives back.

``python -m strop.bench.measures.quantized_llama [--seeds 3]`` trains Llamas of 128 features on
docstrings and quantizes their linear layers: dynamic int8; weights of 4 bits in groups of 128, and
of 3 bits in groups of 64, by every method. Excess loss is what is above the float program's loss on
test text; of each method it is compared with that of rounding to nearest, of the same weights. QAT
trains the rounded weights by distillation from the float program, without labels: behind rounding
to nearest, whose scales follow the weights, and behind GPTQ, with scales that are learned.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import torch
import typer

from strop.bench.models import causal
from strop.bench.models.causal import llama, loss
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, show_and_save
from strop.bench.records.machine import environment
from strop.bench.trials.arms import after, dense
from strop.bench.trials.sample import Seeds, for_each_seed, samples
from strop.bench.trials.task import Task, outputs_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import Pass
from strop.passes.cleanup.linears import PlainLinears
from strop.passes.distill.recover import Recover
from strop.passes.quantize.dynamic import QuantizeDynamic
from strop.passes.quantize.methods import METHODS
from strop.passes.quantize.weights import QuantizeWeights
from strop.passes.train import Policy

WIDTH = 128
DENSE = Policy(steps=700, lr=3e-3, held_out=0)
QAT = Recover(steps=200, lr=5e-4, temperature=1.0, hidden=0, held_out=0, teacher_gib=0)
SCHEMES = {"int4 g128": (4, 128), "int3 g64": (3, 64)}
NEAREST = "nearest"
OBSERVED, LEARNED = "QAT, observed scales", "QAT, learned scales"
LEAST_REMOVED = {OBSERVED: 0.6, LEARNED: 0.6, "gptq": 0.3, "awq": 0.3, "adaround": 0.3}
Found = dict[str, float]


@cache
def task() -> Task:
    """All text that trains: one that fits few rows by heart becomes better when it is quantized."""
    return replace(causal.task(), train=causal.batches("train"))


def arms(bits: int, group: int, seed: int) -> dict[str, list[Pass]]:
    """What is done to the weights, by name."""
    made: dict[str, list[Pass]] = {
        method: [QuantizeWeights(bits=bits, group=group, method=method)] for method in METHODS
    }
    learned = QuantizeWeights(bits=bits, group=group, method="gptq", learnable=True)
    training = replace(QAT, seed=seed)
    made[OBSERVED] = [*made[NEAREST], training]
    made[LEARNED] = [learned, training]
    return made


def trial(seed: int) -> Found:
    """The float program's loss on test text, and what is above it, by what was done."""
    program = dense(lambda: llama(False, WIDTH), task(), replace(DENSE, seed=seed))
    context = task().context(program, seed)
    plain = after([PlainLinears()], program, context)
    base = tested(plain)
    found = {"loss": base, "int8": tested(after([QuantizeDynamic()], plain, context)) - base}
    for name, scheme in SCHEMES.items():
        for arm, passes in arms(*scheme, seed).items():
            found[_at(name, arm)] = tested(after(passes, plain, context)) - base
    return found


def tested(program: Program) -> float:
    """The mean loss on test text, in nats per token."""
    batches = task().test
    return statistics.fmean(float(loss(outputs_of(program, batch), batch)) for batch in batches)


def figures(trials: Sequence[Found]) -> list[Figure]:
    """What is claimed: means over seeds, with their spread."""
    found = samples(trials)
    made = [
        found["loss"].figure("loss of the float Llama, nats per token"),
        found["int8"].figure("excess loss, dynamic int8", at_most=0.00995),  # 1 % of perplexity
    ]
    for name in SCHEMES:
        made.append(found[_at(name, NEAREST)].figure(f"excess loss, {name}, {NEAREST}"))
    removed = samples([_removed(one) for one in trials])
    for what, one in removed.items():
        bound = LEAST_REMOVED.get(what.partition(", ")[2])
        made.append(one.figure(f"share of the excess loss removed, {what}", at_least=bound))
    return made


def _removed(found: Mapping[str, float]) -> Found:
    """The share of the excess loss of rounding to nearest that others do not have."""
    arms = [*(m for m in METHODS if m != NEAREST), OBSERVED, LEARNED]
    return {
        _at(name, arm): 1 - found[_at(name, arm)] / found[_at(name, NEAREST)]
        for name in SCHEMES
        for arm in arms
    }


def _at(scheme: str, what: str) -> str:
    return f"{scheme}, {what}"


def main(seeds: Seeds = 3, results: ResultsFolder = RESULTS) -> None:
    """Train and quantize a Llama for each seed."""
    torch.set_num_threads(1)
    place = environment(threads=1)
    trials = for_each_seed("quantized Llama", trial, range(seeds))
    measured: dict[str, Any] = {"dense": asdict(DENSE), "qat": asdict(QAT), "trials": trials}
    show_and_save(
        "quantized_llama", "Llamas of few bits", place, figures(trials), measured, results
    )


if __name__ == "__main__":
    typer.run(main)
