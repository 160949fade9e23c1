"""The layers that a pass quantizes, read off what it rewrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch.fx.node import Node

from strop.compiler.ir.constants import is_weight_expression, weight_names
from strop.compiler.ir.nodes import tensors_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.rules import Log


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


def quantized_layers(program: Program, log: Log) -> list[Layer]:
    """The layers that a pass rewrote, in the order of the program.

    Layers that share a weight are one: a name chooses all of them, or none. A rewrite without a
    weight belongs to no layer.

    Args:
        program: as it was before the pass.
        log: of the pass.
    """
    rewritten = {rewrite.node for rewrite in log.rewrites}
    found: list[Layer] = []
    for node in program.graph.nodes:
        if node.name in rewritten and (weights := tuple(dict.fromkeys(_matrices(node)))):
            shared = [layer for layer in found if not set(weights).isdisjoint(layer.weights)]
            found = [layer for layer in found if layer not in shared]
            found.append(_merged([*shared, Layer(weights, (node.name,))]))
    return found


def _merged(layers: list[Layer]) -> Layer:
    weights = dict.fromkeys(name for layer in layers for name in layer.weights)
    return Layer(tuple(weights), tuple(name for layer in layers for name in layer.nodes))


def _matrices(node: Node) -> Iterator[str]:
    """The weights behind the constant arguments of a call that have two axes or more."""
    for value in node.all_input_nodes:
        if all(t.ndim >= 2 for t in tensors_of(value)) and is_weight_expression(value):
            yield from weight_names(value)
