"""How much the positions of a group matter: a score for each, larger is more important.

Every method scores all slices of a group together, since they can only go together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from strop.compiler.rewriting.batches import on_batch
from strop.compiler.rewriting.context import Need
from strop.passes.prune.activations import Activations
from strop.passes.prune.axes import Dependencies, Read
from strop.passes.prune.dims import Dim, leaves
from strop.passes.prune.groups import Group
from strop.passes.prune.places import spread
from strop.passes.prune.question import Question

Scores = Mapping[str, Tensor]
"""By the group's name: float64 [size]."""


def scores(method: str, question: Question) -> Scores:
    """The scores of every group by one method."""
    return METHODS[method](question)


def needs_of(method: str) -> tuple[tuple[Need, ...], ...]:
    """What data a method looks at: either of these."""
    looks = method in ("activation", "activation-mean", "taylor")
    return (("calibration", "train"),) if looks else ()


def _of_weights(score: Callable[[Tensor], Tensor]) -> Callable[[Question], Scores]:
    def scored(question: Question) -> Scores:
        program = question.program
        each = {
            name: score(w.detach().double())
            for name, w in program.weights.items()
            if isinstance(w, nn.Parameter)
        }
        return {g.name: _summed(g, each) for g in question.groups}

    return scored


def _summed(group: Group, each: Mapping[str, Tensor]) -> Tensor:
    """The sum over every element of a group's slices, by position of the group."""
    made = torch.zeros(group.size, dtype=torch.float64)
    for one in group.slices:
        if one.weight in each:
            weight = each[one.weight]
            others = [axis for axis in range(weight.dim()) if axis != one.axis]
            made += spread(one.dim, group.leaf, weight.sum(others) if others else weight)
    return made


def _taylor(question: Question) -> Scores:
    """First-order Taylor: (sum of weight times gradient)^2 (Molchanov et al., 2019, eq. 8).

    With a loss and training batches, the gradient of the loss. Otherwise that of the sum of all
    outputs, each times a random sign: its square estimates how far the outputs move together.
    """
    program, context = question.program, question.context
    trained = {n: w.detach().clone().requires_grad_() for n, w in program.parameters.items()}
    weights = {**program.weights, **trained}
    totals = {g.name: torch.zeros(g.size, dtype=torch.float64) for g in question.groups}
    names = [spec.name for spec in program.contract.outputs]
    generator = torch.Generator().manual_seed(context.seed)
    labelled = context.loss is not None and context.train is not None
    for batch in question.data(labelled):
        with torch.enable_grad():
            outputs = on_batch(program, batch, weights=weights)
            if labelled and context.loss is not None:
                value = context.loss(dict(zip(names, outputs)), batch)
            else:
                value = _signed(outputs, generator)
            grads = torch.autograd.grad(value, list(trained.values()), allow_unused=True)
        moved = {n: g * trained[n] for n, g in zip(trained, grads) if g is not None}
        each = {n: product.detach().double() for n, product in moved.items()}
        for group in question.groups:
            totals[group.name] += _summed(group, each) ** 2
    return totals


def _signed(outputs: Iterable[Tensor], generator: torch.Generator) -> Tensor:
    floats = [o for o in outputs if o.is_floating_point() and o.requires_grad]
    signs = [torch.randint(0, 2, o.shape, generator=generator) * 2 - 1 for o in floats]
    return torch.stack([(o * s).sum() for o, s in zip(floats, signs)]).sum()


def _activation(question: Question) -> Scores:
    """|weight| times the norm of what it is multiplied with (Wanda: Sun et al., 2023, eq. 1)."""
    seen = Activations.of(question)

    def score(read: Read) -> Tensor:
        return seen.weights[read] * seen.squares[read.value, read.axis].sqrt()

    return _of_reads(question, score)


def _activation_mean(question: Question) -> Scores:
    """The mean size of what arrives (Minitron: Muralidharan et al., 2024, section 2.2)."""
    seen = Activations.of(question)

    def score(read: Read) -> Tensor:
        return seen.sizes[read.value, read.axis] / seen.counts[read.value, read.axis]

    return _of_reads(question, score)


def _of_reads(question: Question, score: Callable[[Read], Tensor]) -> Scores:
    """Sum over the products that contract a group; by the size of weights where there is none."""
    made, unread = {}, []
    for group in question.groups:
        reads = _reads(group, question.found)
        lines = [spread(dim, group.leaf, score(read)) for read, dim in reads]
        if lines:
            made[group.name] = torch.stack(lines).sum(0)
        else:
            unread.append(group)
    return {**made, **scores("l2", replace(question, groups=unread))} if unread else made


def _reads(group: Group, found: Dependencies) -> Iterator[tuple[Read, Dim]]:
    """Where a weight contracts an axis that holds a group."""
    for read in found.reads:
        dim = found.values[read.value][0][read.axis]
        if any(one is group.leaf for one in leaves(dim)):
            yield read, dim


def _random(question: Question) -> Scores:
    generator = torch.Generator().manual_seed(question.context.seed)
    return {
        g.name: torch.rand(g.size, generator=generator, dtype=torch.float64)
        for g in question.groups
    }


def _first(question: Question) -> Scores:
    return {g.name: torch.arange(g.size, 0, -1, dtype=torch.float64) for g in question.groups}


METHODS: dict[str, Callable[[Question], Scores]] = {
    "l0": _of_weights(lambda w: (w != 0).double()),
    "l1": _of_weights(torch.abs),
    "l2": _of_weights(torch.square),
    "activation": _activation,
    "activation-mean": _activation_mean,
    "taylor": _taylor,
    "random": _random,
    "first": _first,
}
