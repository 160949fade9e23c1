"""How fast the stages are: each in a process of its own, all of them timed in turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from strop.bench.harness.bout import Bout
from strop.bench.harness.canary import Best, canary
from strop.bench.harness.engines import Engine, Runner
from strop.bench.harness.log import calm_rounds
from strop.bench.harness.subject import Feeds
from strop.bench.harness.workers import workers
from strop.bench.records.figures import console
from strop.bench.records.record import Plan, counted
from strop.compiler.ir.snapshots.weight_store import read_tensors, write_tensors

CORES = os.cpu_count() or 1
PLAN = Plan(threads=[CORES], bouts=3, patience=10)
Rounds = dict[str, dict[str, list[float]]]
"""Engine -> task -> milliseconds of each round, the same rounds for all engines."""


@dataclass(frozen=True)
class InTorch(Engine):
    """A trained module in eager torch, made anew from its weights.

    Attributes:
        weights: a file that ``saved`` wrote.
        opened: makes the module of its weights; a function or class of a module, or a ``partial``
            of one, for it travels to the worker by its name.
    """

    weights: Path
    opened: Callable[[Mapping[str, Tensor]], Runner]
    runtime = "torch"

    def load(self) -> Runner:
        """Make the module."""
        torch.set_num_threads(self.threads)
        return self.opened(read_tensors(self.weights, "the file", within=self.weights.parent))


def saved(weights: Mapping[str, Tensor], folder: Path) -> Path:
    """Write the weights of a module; returns the file."""
    path = folder / "torch.safetensors"
    write_tensors(weights, path)
    return path


def timed(engines: Sequence[Engine], feeds: Mapping[str, Feeds]) -> Rounds:
    """Milliseconds of every engine at every task, in the interleaved rounds that count.

    Args:
        engines: the stages.
        feeds: task -> what the engines are given.

    Raises:
        SystemExit: an engine does not load or does not run; the message says which and why.
    """
    best, looks = Best(), {task: list[list[float]]() for task in feeds}
    times = {engine.name: {task: list[list[float]]() for task in feeds} for engine in engines}
    for number in range(PLAN.bouts):
        with ExitStack() as stack:
            stack.enter_context(console.status(f"timing: bout {number + 1} of {PLAN.bouts}"))
            watch = stack.enter_context(canary(CORES, best, PLAN.patience))
            running, refused = stack.enter_context(workers(engines, feeds, PLAN.timeout))
            bout = Bout(running, list(feeds), PLAN, watch)
            samples = bout.run()
        if failed := refused | bout.failed:
            raise SystemExit("; ".join(f"{name} {reason}" for name, reason in failed.items()))
        for task, of in samples.items():
            looks[task].append(bout.looks[task])
            for name, milliseconds in of.items():
                times[name][task].append(milliseconds)
    calm = {task: calm_rounds(of, best, PLAN) for task, of in looks.items()}
    return {
        name: {task: list(chain(*counted(bouts, *calm[task]))) for task, bouts in of.items()}
        for name, of in times.items()
    }
