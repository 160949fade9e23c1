"""Run a graph node by node, without generating code, so no name in it can be executed.

``fx.GraphModule`` writes Python source in which placeholders and weights are identifiers; names
come from users and from files, and are any text here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.fx.node import Node
from torch.utils.checkpoint import checkpoint

from strop.compiler.ir import autocast

Watch = Callable[[Node, Any], None]


def interpret(
    graph: fx.Graph,
    weights: Mapping[str, torch.Tensor],
    inputs: Iterable[Any],
    watch: Watch = lambda node, value: None,
) -> Any:
    """What the graph returns for its inputs; gradients reach inputs and weights.

    Args:
        graph: placeholders, ``get_attr`` nodes that name weights, calls, one output.
        weights: by name.
        inputs: one for each placeholder, in order.
        watch: told of every value as it is made. A value is let go of after its last use.
    """
    given = iter(inputs)
    last = last_uses(graph)
    values: dict[Node, Any] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = next(given)
        elif node.op == "get_attr":
            values[node] = weights[str(node.target)]
        elif node.op == "call_function":
            values[node] = called(node, values)
        else:
            return fx.map_arg(node.args[0], values.__getitem__)
        watch(node, values[node])
        for done in last.get(node, ()):
            del values[done]
    raise ValueError("the graph returns nothing")


def interpret_in_segments(
    graph: fx.Graph, weights: Mapping[str, torch.Tensor], inputs: Iterable[Any], segments: int
) -> Any:
    """The same with less memory: what is inside a segment is computed again for its gradients.

    Args:
        graph: as for ``interpret``.
        weights: by name.
        inputs: one for each placeholder, in order.
        segments: into how many pieces of equal length the calls are cut; only values that cross
            from one to another are kept until the gradients are computed.
    """
    values: dict[Node, Any] = dict(zip(graph.find_nodes(op="placeholder"), inputs))
    values |= {node: weights[str(node.target)] for node in graph.find_nodes(op="get_attr")}
    calls = [node for node in graph.nodes if node.op == "call_function"]
    length = max(1, -(-len(calls) // segments))
    for start in range(0, len(calls), length):
        segment = _Segment.of(calls[start : start + length])
        given = [values[node] for node in segment.takes]
        found = checkpoint(segment.run, *given, use_reentrant=False)
        values.update(zip(segment.gives, found))
    return fx.map_arg(graph.output_node().args[0], values.__getitem__)


@dataclass(frozen=True)
class _Segment:
    """Calls that follow one another, and the values that they take from others and give to them."""

    calls: Sequence[Node]
    takes: Sequence[Node]
    gives: Sequence[Node]

    @staticmethod
    def of(calls: Sequence[Node]) -> _Segment:
        inside = set(calls)
        takes = dict.fromkeys(n for call in calls for n in call.all_input_nodes if n not in inside)
        return _Segment(calls, list(takes), [n for n in calls if not inside.issuperset(n.users)])

    def run(self, *given: Any) -> tuple[Any, ...]:
        values = dict(zip(self.takes, given))
        for node in self.calls:
            values[node] = called(node, values)
        return tuple(values[node] for node in self.gives)


def called(node: Node, values: Mapping[Node, Any]) -> Any:
    """The value of a call."""
    args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
    if autocast.leaves(node.target):
        return autocast.outside(node.target, args, kwargs)
    return node.target(*args, **kwargs)  # type: ignore[operator]


def last_uses(graph: fx.Graph) -> dict[Node, list[Node]]:
    """By node, the values that nothing after it reads."""
    seen: set[Node] = set()
    last: dict[Node, list[Node]] = {}
    for node in reversed(graph.nodes):
        for used in (*node.all_input_nodes, node):
            if used not in seen:
                seen.add(used)
                last.setdefault(node, []).append(used)
    return last
