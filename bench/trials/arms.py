"""The arms of a trial: a dense program, and what passes make of it under equal conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from strop.bench.trials.fit import fit
from strop.bench.trials.task import Task
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context, seeded
from strop.compiler.rewriting.passes import Pass, Pipeline
from strop.passes.distill.recover import Recover
from strop.passes.train import Policy


def dense(make: Callable[[], nn.Module], task: Task, policy: Policy) -> Program:
    """A module that ``trained`` gives, captured."""
    return task.captured(trained(make, task, policy))


def trained(make: Callable[[], nn.Module], task: Task, policy: Policy) -> nn.Module:
    """Draw a module by the policy's seed, and train it on labels.

    Args:
        make: draws a module whose outputs are a mapping by name.
        task: what it learns.
        policy: how it is trained.
    """
    return fit(drawn(make, policy.seed), task.dynamic, task.loss, task.train, policy)


def drawn(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A module whose weights depend on the seed alone, in train mode."""
    with seeded(seed):
        return make().train()


def after(passes: Sequence[Pass], program: Program, context: Context) -> Program:
    """The program that some passes make, in this order."""
    return Pipeline.of(passes).within(context).run(program)


def fine_tuned(distilled: Recover) -> Recover:
    """The same training on labels alone: what distillation is compared with."""
    return replace(
        distilled, soft=0, embedding=0, contrastive=0, hidden=0, relations=0, own=0, hard=1
    )


def from_scratch(smaller: Program, untrained: Program) -> Program:
    """A program of the smaller one's sizes with weights that learned nothing.

    Args:
        smaller: what pruning has left of a trained program.
        untrained: a program of the same module with weights as they were drawn.
    """
    made = smaller.clone()
    for name in smaller.parameters:
        weight = untrained.weights[name].detach()
        for axis, kept in smaller.origins[name].kept.items():
            weight = weight.index_select(axis, torch.tensor(kept))
        made.set_weight(name, weight, "from_scratch")
    return made


def at_best_rates(
    arms: Mapping[str, Recover],
    rates: Sequence[float],
    program: Program,
    task: Task,
    context: Context,
) -> tuple[dict[str, Recover], dict[str, dict[str, float]]]:
    """Every arm at its best learning rate, all of them chosen from the same ones.

    Returns:
        The arms; and by arm and learning rate, the metric on validation data.
    """
    best, found = {}, {}
    for name, arm in arms.items():
        candidates = {f"{lr:g}": replace(arm, lr=lr) for lr in rates}
        rate, found[name] = chosen(candidates, program, task, context)
        best[name] = candidates[rate]
    return best, found


def chosen(
    candidates: Mapping[str, Recover], program: Program, task: Task, context: Context
) -> tuple[str, dict[str, float]]:
    """The candidate with the best metric on validation data, and the metrics of all."""
    found = {
        name: task.metric(after([one], program, context), task.validation)
        for name, one in candidates.items()
    }
    return task.best(found), found
