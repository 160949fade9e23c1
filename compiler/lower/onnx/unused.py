"""Nodes whose results nothing reads: a candidate that gave up leaves some behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir


def without_unused(nodes: Sequence[ir.Node], outputs: Sequence[ir.Value]) -> list[ir.Node]:
    """The nodes that the outputs need, in order; the others are detached from what they read."""
    kept: list[ir.Node] = []
    for node in reversed(nodes):
        if any(value.uses() or value in outputs for value in node.outputs):
            kept.append(node)
            continue
        for part in (node, *_inside(node)):
            for index in range(len(part.inputs)):
                part.replace_input_with(index, None)
    return kept[::-1]


def _inside(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes of a loop's body."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield from attribute.as_graph().all_nodes()
