"""What a trial learns: data in three parts, a loss, and a metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from strop.compiler import Model
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.frontend.model import DimSpec
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Batch, Context, Loss

Outputs = Mapping[str, torch.Tensor]
Metric = Callable[[Program, Sequence[Batch]], float]


@dataclass(frozen=True)
class Task:
    """What is learned. A batch holds the inputs by name, and the labels beside them.

    Attributes:
        train: batches to learn from.
        validation: batches on which settings are chosen.
        test: batches that nothing is chosen on.
        loss: of the outputs by name, and a batch; a scalar.
        metric: of a program on some batches.
        larger_is_better: whether the best metric is the largest one.
        dynamic: as in ``Model``; it names every input.
    """

    train: Sequence[Batch]
    validation: Sequence[Batch]
    test: Sequence[Batch]
    loss: Loss
    metric: Metric
    larger_is_better: bool
    dynamic: Mapping[str, Mapping[int, DimSpec]]

    def inputs(self, batch: Batch) -> dict[str, torch.Tensor]:
        """What a batch holds beside the labels."""
        return {name: batch[name] for name in self.dynamic}

    def captured(self, module: torch.nn.Module) -> Program:
        """The program of a module, which is put into eval mode."""
        model = Model(module.eval(), self.inputs(self.train[0]), self.dynamic)
        signature, example, _ = read_inputs(model)
        with torch.no_grad():
            return capture(module, signature, example)

    def context(self, teacher: Program, seed: int) -> Context:
        """What passes see: a teacher, the training data, and the loss."""
        return Context(teacher=teacher, train=self.train, loss=self.loss, seed=seed)

    def best(self, found: Mapping[str, float]) -> str:
        """The name of the best of several metrics."""
        choose = max if self.larger_is_better else min
        return choose(found, key=found.__getitem__)


def outputs_of(program: Program, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The outputs of a program by name, without gradients."""
    with torch.no_grad():
        values = program.run(**inputs)
    return {spec.name: value for spec, value in zip(program.contract.outputs, values)}
