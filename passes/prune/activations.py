"""What weights are multiplied with, summed over data: nothing grows with the number of batches."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx.node import Node

from strop.compiler.rewriting.batches import on_batch
from strop.passes.prune.axes import Read
from strop.passes.prune.question import Question

Place = tuple[Node, int]
"""A value, and one of its axes."""


def _zero() -> Tensor:
    return torch.zeros((), dtype=torch.float64)


@dataclass
class Activations:
    """Sums over all other axes and all batches; float64, by position of the axis.

    Attributes:
        squares: of the squares of a value.
        sizes: of its absolute values.
        counts: how many values were summed for each position.
        weights: of the absolute values of the weight of a product, along the axis it contracts.
    """

    squares: dict[Place, Tensor] = field(default_factory=lambda: defaultdict(_zero))
    sizes: dict[Place, Tensor] = field(default_factory=lambda: defaultdict(_zero))
    counts: dict[Place, int] = field(default_factory=lambda: defaultdict(int))
    weights: dict[Read, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(question: Question) -> Activations:
        """Run the program on the data."""
        made = Activations()
        by_value, by_weight = defaultdict(set), defaultdict(set)
        for read in question.found.reads:
            by_value[read.value].add(read.axis)
            by_weight[read.weight].add(read)

        def watch(node: Node, value: object) -> None:
            for axis in by_value.get(node, ()):
                made._add((node, axis), _lines(value, axis))
            for read in by_weight.get(node, ()):
                if read not in made.weights:
                    made.weights[read] = _lines(value, read.weight_axis).abs().sum(0)

        with torch.no_grad():
            for batch in question.data():
                on_batch(question.program, batch, watch=watch)
        return made

    def _add(self, place: Place, lines: Tensor) -> None:
        self.squares[place] = self.squares[place] + lines.square().sum(0)
        self.sizes[place] = self.sizes[place] + lines.abs().sum(0)
        self.counts[place] += len(lines)


def _lines(value: object, axis: int) -> Tensor:
    """A tensor as a matrix whose columns are the positions of an axis."""
    assert isinstance(value, Tensor)
    return value.detach().double().movedim(axis, -1).reshape(-1, value.shape[axis])
