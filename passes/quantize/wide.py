"""Which weights are worth 8 bits: those whose rounding moves the scores most.

An output is taken for scores: softmax over its last axis gives each label a probability. To the
second order, rounding moves these by a KL divergence of half the mean of (g · d)²: g is the
gradient of the log-probability of a label drawn from them, d what rounding changes in the weight.
That is the Fisher information, which the divergence begins with (Kullback, Information Theory and
Statistics, 1959, section 2.6). A pass backwards for each draw serves all weights.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import prod

import torch
from torch import Tensor
from torch.fx.node import Node

from strop.compiler.ir.constants import weight_names
from strop.compiler.ir.families import PRODUCTS
from strop.compiler.ir.nodes import arg, arguments, input_node, shape_of
from strop.compiler.ir.pointwise import is_pointwise
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.batches import first_batches, on_batch
from strop.compiler.rewriting.context import Context, mixed, seeded
from strop.passes.quantize.choosing import Place
from strop.passes.quantize.control.distance import require_floats
from strop.passes.quantize.methods import METHODS, Settings

aten = torch.ops.aten
strop = torch.ops.strop

# Labels that are drawn for each row of scores: what one of them says is off by its own size.
DRAWS = 4
# Batches that are looked at; more of them change the order of weights little.
_MOST_BATCHES = 16


def worth_more(
    found: Sequence[Place], program: Program, share: float, context: Context, batches: int
) -> list[Place]:
    """The places that gain most by each weight, up to a share of all weights, in program order.

    Args:
        found: every weight that is to be rounded.
        program: in float.
        share: of the weights of these places, 0 to 1.
        context: has the data, and is told how far it is.
        batches: of data that are looked at, at most.

    Raises:
        UsageError: the program does not run on the data, or gives no scores.
    """
    sizes = {place.weight.name: prod(map(int, shape_of(place.weight))) for place in found}
    room, taken = share * sum(sizes.values()), set()
    # A weight that has no room, such as the head's, need not be looked at.
    near = [place for place in found if sizes[place.weight.name] <= room]
    costs = divergences(program, _moved(near, program), context, batches)
    for name in sorted(costs, key=lambda name: -costs[name] / sizes[name]):
        if costs[name] > 0 and sizes[name] <= room:
            room -= sizes[name]
            taken.add(name)
    return [place for place in found if place.weight.name in taken]


def _moved(found: Sequence[Place], program: Program) -> dict[str, Tensor]:
    """What rounding to nearest changes in each weight, in bfloat16: few digits are enough."""
    moved = {}
    for place in found:
        layer = place.layer(program)
        grid = METHODS["nearest"](layer, Settings())
        rounded = layer.rounded(layer.weight, grid.scale, grid.zero_point)
        moved[place.weight.name] = (rounded - layer.weight).to(torch.bfloat16)
    return moved


def divergences(
    program: Program, moved: Mapping[str, Tensor], context: Context, batches: int
) -> dict[str, float]:
    """How far each weight alone moves the scores: KL divergence in nats, mean over rows.

    Args:
        program: whose scores.
        moved: by the name of a constant, what is added to it.
        context: has the data, and is told how far it is.
        batches: of data that are looked at, at most.
    """
    program, totals, count = _at_every_place(program), dict.fromkeys(moved, 0.0), 0
    along = dict.fromkeys(moved, 0.0)

    def project(name: str, slope: Tensor) -> None:
        along[name] += float((slope * moved[name]).sum())

    def watch(node: Node, value: Tensor) -> None:
        if node.name in moved:
            value.register_hook(partial(project, node.name))

    for number, batch in enumerate(first_batches(context, min(batches, _MOST_BATCHES))):
        context.progress(f"which weights move the scores: batch {number + 1}")
        outputs = on_batch(program, batch, weights=_differentiable(program, moved), watch=watch)
        require_floats(outputs)
        own = (y for y, node in zip(outputs, program.outputs) if not _is_cache(node))
        scores = [rows for rows in map(_rows, own) if len(rows)]
        if not scores:
            continue
        count += DRAWS * sum(map(len, scores))
        with seeded(mixed(number)):
            for _ in range(DRAWS):
                along.update(dict.fromkeys(along, 0.0))
                torch.stack([*map(_likelihood, scores)]).sum().backward(retain_graph=True)
                totals = {name: totals[name] + along[name] ** 2 for name in totals}
    return {name: total / (2 * max(count, 1)) for name, total in totals.items()}


def _differentiable(program: Program, moved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights; gradients reach those that are moved, and are let go of at once."""
    nodes = (node for node in program.graph.nodes if node.name in moved)
    names = {name for node in nodes for name in weight_names(node)}
    found = {name: weight.detach() for name, weight in program.weights.items()}
    for name in names:
        leaf = found[name].requires_grad_()
        leaf.register_post_accumulate_grad_hook(lambda t: setattr(t, "grad", None))
    return found


def _at_every_place(program: Program) -> Program:
    """The program with scores for each token of a text, where it has them for the last one alone.

    Only where all that follows computes each place by itself.
    """
    program = program.clone()
    for node in program.find(strop.last_token.default):
        if all(_is_by_place(one) for one in _behind(node)):
            x, mask = arguments(node)["x"], arguments(node)["mask"]
            with program.graph.inserting_before(node):
                node.replace_all_uses_with(program.graph.call_function(_real, (x, mask)))
    return program


def _real(x: Tensor, mask: Tensor) -> Tensor:
    """Padding as zeros, through which no gradient comes."""
    return x * mask[:, mask.shape[1] - x.shape[1] :, None].ne(0)


def _behind(node: Node) -> Iterator[Node]:
    seen, waiting = {node}, [node]
    while waiting:
        for user in waiting.pop().users:
            if user not in seen and user.op == "call_function":
                seen.add(user)
                waiting.append(user)
                yield user


def _is_by_place(node: Node) -> bool:
    return node.target in (aten.linear.default, *PRODUCTS) or is_pointwise(node.target)


def _is_cache(output: Node) -> bool:
    """Whether an output is what attention over a cache gives beside its result."""
    if output.target is not operator.getitem:
        return False
    return input_node(output).target is strop.cached_attention.default and arg(output, 1) != 0


def _rows(output: Tensor) -> Tensor:
    """Rows of finite scores, [rows, labels]; none of what are no scores."""
    if not output.is_floating_point() or not output.ndim or not output.requires_grad:
        return output.new_zeros((0, 1))
    rows = output.flatten(0, -2) if output.ndim > 1 else output[None]
    return rows[rows.detach().isfinite().all(-1)]


def _likelihood(scores: Tensor) -> Tensor:
    """The sum over rows of the log-probability of a label drawn for each."""
    logs = scores.log_softmax(-1)
    labels = torch.multinomial(logs.detach().exp(), 1)
    return logs.gather(-1, labels).sum()
