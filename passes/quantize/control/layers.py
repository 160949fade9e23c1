"""The layers that a pass quantizes, read off the program before and after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch.fx.node import Node

from strop.compiler.ir.constants import is_weight_expression, weight_names
from strop.compiler.ir.program import Program


@dataclass(frozen=True)
class Layer:
    """What is quantized together, since it lies on the same weights.

    Attributes:
        weights: their names; the first one names the layer.
        nodes: the names of the calls that use them.
    """

    weights: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the layer is called."""
        return self.weights[0]


def quantized_layers(old: Program, new: Program) -> list[Layer]:
    """The layers that a pass quantized, in the order of the program.

    A weight is quantized that something new reads, or that has new values. Layers that share a
    weight are one: a name chooses all of them, or none.

    Args:
        old: the program before the pass.
        new: after it.
    """
    quantized = {name for name in _read_anew(old, new) if old.weights[name].ndim >= 2}
    found: list[Layer] = []
    for node in old.calls():
        if is_weight_expression(node):
            continue  # the layer is the call that reads it
        if weights := tuple(name for name in _weights_behind(node) if name in quantized):
            shared = [layer for layer in found if not set(weights).isdisjoint(layer.weights)]
            found = [layer for layer in found if layer not in shared]
            found.append(_merged([*shared, Layer(weights, (node.name,))]))
    return found


def _read_anew(old: Program, new: Program) -> set[str]:
    """The weights of a program that new calls of another one read, or that it has other ones of."""
    known = {node.name for node in old.graph.nodes}
    read = {w for n in new.calls() if n.name not in known for w in _weights_behind(n)}
    other = {name for name, w in old.weights.items() if new.weights.get(name, w) is not w}
    return (read | other) & old.weights.keys()


def _weights_behind(node: Node) -> list[str]:
    """The weights behind the constant arguments of a call, each once."""
    constant = [value for value in node.all_input_nodes if is_weight_expression(value)]
    return list(dict.fromkeys(name for value in constant for name in weight_names(value)))


def _merged(layers: Sequence[Layer]) -> Layer:
    weights = dict.fromkeys(name for layer in layers for name in layer.weights)
    return Layer(tuple(weights), tuple(name for layer in layers for name in layer.nodes))
