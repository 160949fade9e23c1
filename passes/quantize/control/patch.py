"""Where a program with one layer quantized differs from the program in float.

Most values of both are the same, and a value keeps its name. So the quantized program is run from
the layer's place on only, with the values of the float program before it.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx
from torch.fx.node import Node
from torch.utils import _pytree as pytree

from strop.compiler.ir.interpreter import called
from strop.compiler.ir.program import Program

Values = dict[str, Any]
"""What a run of a program computed, by the names of its nodes."""


@dataclass(frozen=True)
class Patch:
    """The calls of a program that are new, or read new values; reads of others are placeholders.

    Attributes:
        changed: by the name of a value that both programs have, the node that computes the new one.
        outputs: by place, the nodes of outputs that are new values.
        weights: of the new program, by name.
    """

    changed: Mapping[str, Node]
    outputs: Mapping[int, Node]
    weights: Mapping[str, Tensor]

    @staticmethod
    def between(old: Program, new: Program) -> Patch:
        """The difference of two programs, the second of which a pass made from the first one."""
        known = {node.name: node for node in old.graph.nodes}
        added = [node for node in new.graph.nodes if node.name not in known]
        same = [node for node in new.graph.nodes if node.name in known and node.op != "output"]
        changed = [node for node in same if _differs(node, known[node.name], old, new)]
        copies = _copies(added, changed)
        named = {node.name: copies[node] for node in changed}
        outputs = {i: copies[node] for i, node in enumerate(new.outputs) if node.name not in known}
        return Patch(named, outputs, new.weights)

    def changes(self, values: Values) -> tuple[dict[str, Any], dict[int, Any]]:
        """The new values by name, and new outputs by place; each from old values alone."""
        run = _Run(self.weights, values)
        named = {name: run.value(node) for name, node in self.changed.items()}
        return named, {place: run.value(node) for place, node in self.outputs.items()}

    def run(self, old: Program, values: Values) -> tuple[Tensor, ...]:
        """The outputs of the new program, for the inputs of a run of the old one.

        Args:
            old: the old program.
            values: all that it computed.
        """
        now = ChainMap({}, values)
        run = _Run(self.weights, now)
        for node in _behind(old, self.changed):
            if node.name in self.changed:
                now[node.name] = run.value(self.changed[node.name])
            else:
                now[node.name] = called(node, {n: now[n.name] for n in node.all_input_nodes})
        outputs = [now[node.name] for node in old.outputs]
        for place, node in self.outputs.items():
            outputs[place] = run.value(node)
        return tuple(outputs)


@dataclass
class _Run:
    """One run of the new calls, as far as they are asked for."""

    weights: Mapping[str, Tensor]
    outside: Mapping[str, Any]
    inside: dict[Node, Any] = field(default_factory=dict)

    def value(self, node: Node) -> Any:
        if node.op == "placeholder":
            return self.outside[str(node.target)]
        if node.op == "get_attr":
            return self.weights[str(node.target)]
        if node not in self.inside:
            given = {n: self.value(n) for n in node.all_input_nodes}
            self.inside[node] = called(node, given)
        return self.inside[node]


def _differs(node: Node, before: Node, old: Program, new: Program) -> bool:
    """Whether a value that both programs have is computed of others."""
    if node.op == "get_attr":
        return new.weights[str(node.target)] is not old.weights[str(before.target)]
    return _read(node) != _read(before)


def _read(node: Node) -> list[str]:
    """The names of the nodes among the arguments, as often as they are there."""
    arguments = pytree.tree_leaves((node.args, node.kwargs))
    return [value.name for value in arguments if isinstance(value, Node)]


def _copies(added: Sequence[Node], changed: Sequence[Node]) -> dict[Node, Node]:
    """The nodes in a graph of their own: the program that they are from need not be kept.

    What both programs have is read by its name: it may have changed, or not, in a run.
    """
    graph = fx.Graph()
    copies: dict[Node, Node] = {}
    read: dict[Node, Node] = {}
    new = set(added)
    for node in [*added, *changed]:
        for outer in node.all_input_nodes:
            if outer not in new and outer not in read:
                read[outer] = graph.placeholder(outer.name)
        copies[node] = graph.node_copy(node, lambda n: copies[n] if n in new else read[n])
    return copies


def _behind(program: Program, names: Collection[str]) -> Iterator[Node]:
    """The nodes of these names, and the calls that depend on them, in order."""
    inside: set[Node] = set()
    for node in program.graph.nodes:
        reads = node.op == "call_function" and not inside.isdisjoint(node.all_input_nodes)
        if reads or node.name in names:
            inside.add(node)
            yield node
