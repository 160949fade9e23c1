"""Run a graph node by node, without generating code, so no name in it can be executed.

``fx.GraphModule`` writes Python source in which placeholders and weights are identifiers; names
come from users and from files, and are any text here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import fx
from torch.fx.node import Node

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
            args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*args, **kwargs)
        else:
            return fx.map_arg(node.args[0], values.__getitem__)
        watch(node, values[node])
        for done in last.get(node, ()):
            del values[done]
    raise ValueError("the graph returns nothing")


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
