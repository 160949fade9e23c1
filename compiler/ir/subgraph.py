"""A part of a program as a program of its own."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable

import torch
from torch import fx
from torch.fx.node import Node

from strop.compiler.ir.contract import Contract
from strop.compiler.ir.printer import tensor_spec
from strop.compiler.ir.program import Program


def extract(program: Program, nodes: Collection[Node]) -> Program:
    """The given calls, with what they read from outside as inputs.

    Weights stay weights. Sizes, and operators whose results come as a tuple, are taken along
    where a given call needs them. Outputs are the values that no call in the part reads.
    """
    kept = _closed(nodes)
    graph = fx.Graph()
    copies: dict[Node, Node] = {}
    for node in program.graph.nodes:
        if node in kept:
            for outer in node.all_input_nodes:
                if outer not in copies:
                    copies[outer] = _outside(graph, outer, copies)
            copies[node] = graph.node_copy(node, copies.__getitem__)
    outputs = [copies[n] for n in program.graph.nodes if n in kept and _is_result(n, kept)]
    graph.output(tuple(outputs))
    part = Program(graph, dict(program.weights), Contract((), (), ()), dict(program.origins))
    part.symbols = dict(program.symbols)
    part.contract = _contract(part, program.contract)
    part.drop_unused_weights()
    return part


def _closed(nodes: Iterable[Node]) -> set[Node]:
    """The nodes and, upwards, whatever cannot be an input: only tensors can."""
    kept: set[Node] = set()
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if node in kept or node.op != "call_function":
            continue
        kept.add(node)
        pending += [n for n in node.all_input_nodes if not _is_tensor(n)]
    return kept


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta["val"], torch.Tensor)


def _outside(graph: fx.Graph, node: Node, copies: dict[Node, Node]) -> Node:
    first = next((n for n in graph.nodes if n.op == "call_function"), None)
    with graph.inserting_before(first) if first is not None else graph.inserting_after():
        if node.op == "get_attr":
            made = graph.create_node("get_attr", str(node.target))
        else:
            made = graph.placeholder(node.name)
    made.meta = dict(node.meta)
    return made


def _is_result(node: Node, kept: set[Node]) -> bool:
    read = any(u in kept and u.target is not operator.getitem for u in node.users)
    return _is_tensor(node) and not read


def _contract(part: Program, old: Contract) -> Contract:
    inputs = [
        tensor_spec(str(n.target), n, part.symbols) for n in part.graph.find_nodes(op="placeholder")
    ]
    outputs = [tensor_spec(n.name, n, part.symbols) for n in part.outputs]
    return Contract(tuple(inputs), tuple(outputs), old.dims)
