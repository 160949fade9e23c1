"""Where a program with one layer quantized differs from the program in float.

Most values of both are the same, and a value keeps its name. So the quantized program is run from
the layer's place on only, with the values of the float program before it.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator, Mapping
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
    """The new values of a program, and the values of another one that they stand for.

    Attributes:
        instead: by the name of a value of the old program, the node that gives the new one.
        weights: of the new program, by name.
    """

    instead: Mapping[str, Node]
    weights: Mapping[str, Tensor]

    @staticmethod
    def between(old: Program, new: Program) -> Patch:
        """The difference of two programs, the second of which a pass made from the first one."""
        known = {node.name: node for node in old.graph.nodes}
        instead: dict[str, Node] = {}
        added = []
        for node in new.graph.nodes:
            if node.name not in known:
                added.append(node)
            elif node.op == "get_attr" and _other_values(str(node.target), old, new):
                added.append(node)
                instead[node.name] = node
            else:
                pairs = zip(_read(known[node.name]), _read(node))
                instead.update({a.name: b for a, b in pairs if a.name != b.name})
        copies = _copies(added)
        return Patch({name: copies[node] for name, node in instead.items()}, new.weights)

    def changes(self, values: Values) -> dict[str, Any]:
        """The new values by the names of the old ones, each computed from old values alone."""
        run = _Run(self.weights, values)
        return {name: run.value(node) for name, node in self.instead.items()}

    def outputs(self, old: Program, values: Values) -> tuple[Tensor, ...]:
        """The outputs of the new program, for the inputs of a run of the old one.

        Args:
            old: the old program.
            values: all that it computed.
        """
        now = ChainMap({}, values)
        run = _Run(self.weights, now)
        for node in _behind(old, self.instead):
            if node.name in self.instead:
                now[node.name] = run.value(self.instead[node.name])
            else:
                now[node.name] = called(node, {n: now[n.name] for n in node.all_input_nodes})
        return tuple(now[node.name] for node in old.outputs)


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


def _other_values(name: str, old: Program, new: Program) -> bool:
    return new.weights[name] is not old.weights[name]


def _read(node: Node) -> list[Node]:
    """The nodes among the arguments, as often as they are there."""
    return [v for v in pytree.tree_leaves((node.args, node.kwargs)) if isinstance(v, Node)]


def _copies(nodes: Iterable[Node]) -> dict[Node, Node]:
    """The nodes in a graph of their own: the program that they are from need not be kept."""
    graph = fx.Graph()
    copies: dict[Node, Node] = {}
    for node in nodes:
        for outer in node.all_input_nodes:
            if outer not in copies:
                copies[outer] = graph.placeholder(outer.name)
        copies[node] = graph.node_copy(node, copies.__getitem__)
    return copies


def _behind(program: Program, names: Collection[str]) -> Iterator[Node]:
    """The nodes of these names, and the calls that depend on them, in order."""
    inside: set[Node] = set()
    for node in program.graph.nodes:
        reads = node.op == "call_function" and not inside.isdisjoint(node.all_input_nodes)
        if reads or node.name in names:
            inside.add(node)
            yield node
