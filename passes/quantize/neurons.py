"""Neurons between two linear layers, which can be computed apart from one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder, fake_mode_of
from strop.compiler.ir.nodes import arguments, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.pattern import NEAR, Miss

aten = torch.ops.aten
strop = torch.ops.strop


@dataclass(frozen=True)
class Neurons:
    """What stands between linear layers: y = W_b f(W_a x), or f of several such products.

    Attributes:
        before: the linear layers whose rows belong to the neurons, in program order.
        between: calls that work element by element, in program order.
        behind: the linear layer whose columns belong to them.
    """

    before: tuple[Node, ...]
    between: tuple[Node, ...]
    behind: Node

    def split(self, few: Tensor, build: Builder) -> Node:
        """Compute some neurons apart, as plain products, which stay in float.

        Args:
            few: which, in order; int64.
            build: inserts before the layer behind.

        Returns:
            The sum that stands for the layer behind.
        """
        everything = torch.arange(int(shape_of(self.behind.args[1])[1]))
        most = everything[~torch.isin(everything, few)]
        apart = {layer: _narrow_product(layer, few, build) for layer in self.before}
        narrow = self._replayed(apart, build)
        second = _part(build, arguments(self.behind)["weight"], 1, few).t()
        side = build.call(aten.matmul.default, narrow, _constant(build, self.behind, second))
        for layer in self.before:
            for name in ("weight", "bias"):
                _shrink(build, arguments(layer)[name], 0, most)
        _shrink(build, arguments(self.behind)["weight"], 1, most)
        rest = {layer: build.call(layer.target, *layer.args) for layer in self.before}
        main = build.call(self.behind.target, self._replayed(rest, build), *self.behind.args[1:])
        return build.call(aten.add.Tensor, main, side)

    def _replayed(self, values: dict[Node, Node], build: Builder) -> Node:
        """What the layer behind reads, of other neurons than all."""
        made = dict(values)
        for node in self.between:
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: made[n])
            made[node] = build.call(node.target, *args, **kwargs)
        return made[self.behind.all_input_nodes[0]]


def neurons_before(behind: Node, program: Program) -> Neurons | Miss:
    """The neurons whose values a linear layer reads, or why they cannot be parted."""
    before, between = [], []
    waiting, seen = [behind.all_input_nodes[0]], set[Node]()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.target is aten.linear.default:
            before.append(node)
        elif _is_elementwise(node):
            between.append(node)
            waiting += node.all_input_nodes
        else:
            return Miss("what it reads is no function, element by element, of layers", node, NEAR)
    inside = {*seen, behind}
    other = next((u for n in seen for u in n.users if u not in inside), None)
    if other is not None:
        return Miss("its neurons are read here too", other, NEAR)
    found = Neurons(tuple(sorted(before)), tuple(sorted(between)), behind)
    return _shared(found, program) or found


def _is_elementwise(node: Node) -> bool:
    """Whether a call computes each element from those at its place in values, not in weights."""
    if node.target is strop.gated.default:
        return True
    pointwise = isinstance(node.target, OpOverload) and torch.Tag.pointwise in node.target.tags
    return pointwise and all(
        n.op == "call_function" and len(shape_of(n)) == len(shape_of(node))
        for n in node.all_input_nodes
    )


def _shared(found: Neurons, program: Program) -> Miss | None:
    """Why the weights cannot be divided: each must be held as such, and read by its layer alone."""
    for layer in (*found.before, found.behind):
        for weight in _weights(layer):
            if weight.op != "get_attr":
                return Miss("its weight is not held as such, but computed", layer, NEAR)
            named = program.graph.find_nodes(op="get_attr")
            readers = {u for n in named if n.target == weight.target for u in n.users}
            if readers != {layer}:
                return Miss(f"the weight '{weight.target}' is used elsewhere too", layer, NEAR)
    return None


def _weights(layer: Node) -> Iterator[Node]:
    given = arguments(layer)
    return (given[name] for name in ("weight", "bias") if given[name] is not None)


def _narrow_product(layer: Node, few: Tensor, build: Builder) -> Node:
    """Some rows of a linear layer, as a plain product and a sum."""
    given = arguments(layer)
    weight = _constant(build, layer, _part(build, given["weight"], 0, few).t())
    product = build.call(aten.matmul.default, given["input"], weight)
    if given["bias"] is None:
        return product
    bias = _part(build, given["bias"], 0, few)
    return build.call(aten.add.Tensor, product, _constant(build, layer, bias, "bias"))


def _part(build: Builder, weight: Node, axis: int, kept: Tensor) -> Tensor:
    return build.program.weights[str(weight.target)].detach().index_select(axis, kept)


def _constant(build: Builder, layer: Node, values: Tensor, name: str = "weight") -> Node:
    """A part of a layer's weight as a weight of its own."""
    whole = str(arguments(layer)[name].target)
    sources = build.program.origins[whole].sources
    parameter = nn.Parameter(values.contiguous(), build.program.weights[whole].requires_grad)
    return build.weight(f"{whole}.{build.made_by}", parameter, sources)


def _shrink(build: Builder, weight: Node | None, axis: int, kept: Tensor) -> None:
    if weight is None:
        return
    name = str(weight.target)
    build.program.shrink_weight(name, {axis: kept}, build.made_by)
    fake = fake_mode_of(build.program)
    for node in build.program.graph.find_nodes(op="get_attr"):
        if node.target == name:
            node.meta["val"] = fake.from_tensor(build.program.weights[name], static_shapes=True)
