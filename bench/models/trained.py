"""A small model, and a pass that trains it for a while; used from a copy of this file.

The pass trains for ``STROP_BENCH_SECONDS``, and appends the seconds that it took to ``spent.txt``
beside this file.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn.functional import mse_loss

from strop.compiler import Context, Learned, LearningPass, Model, Program

torch.manual_seed(0)
BATCHES = [{"input": torch.randn(64, 32)} for _ in range(8)]


@dataclass(frozen=True)
class Train(LearningPass):
    """Fits the weights to outputs that are a little off the original's."""

    name = "train"
    needs = ("train",)

    def learn(self, program: Program, context: Context) -> Learned:
        """Steps of gradient descent until the time is up."""
        assert context.train is not None and context.teacher is not None
        begun = time.perf_counter()
        ends = begun + float(os.environ["STROP_BENCH_SECONDS"])
        weights = {n: w.detach().clone().requires_grad_() for n, w in program.weights.items()}
        student = replace(program, weights=weights)
        optimizer = torch.optim.SGD(weights.values(), lr=1e-7)
        while time.perf_counter() < ends:
            for batch in context.train:
                (wanted,) = context.teacher.run(**batch)
                (got,) = student.run(**batch)
                optimizer.zero_grad()
                mse_loss(got, wanted.detach() + 0.01).backward()
                optimizer.step()
        with Path(__file__).with_name("spent.txt").open("a") as file:
            file.write(f"{time.perf_counter() - begun}\n")
        return Learned(weights)


def make() -> Model:
    """Two linear layers, rows of 32 numbers to 8."""
    torch.manual_seed(1)
    layers = [torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.Linear(64, 8)]
    return Model(
        torch.nn.Sequential(*layers).eval(),
        (BATCHES[0]["input"],),
        dynamic={"input": {0: ("rows", 1, 64)}},
        train=BATCHES,
    )
