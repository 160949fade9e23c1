"""Weights that layers share, and that a file holds more than once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.fx.node import Node

from strop.compiler.ir.dialect.registry import stored_bits
from strop.compiler.ir.nodes import arguments, dtype_of
from strop.compiler.ir.program import Program

_READERS = (
    torch.ops.aten.linear.default,
    torch.ops.aten.embedding.default,
    torch.ops.strop.linear_nbits.default,
    torch.ops.strop.embedding_nbits.default,
)


def stored_apart(program: Program) -> Iterator[str]:
    """A sentence for each tied weight that layers hold in different widths."""
    widths: dict[tuple[str, ...], set[int]] = {}
    for node in program.find(*_READERS):
        values = arguments(node)
        weight = values["weight"]
        if not isinstance(weight, Node) or weight.op != "get_attr":
            continue
        bits = stored_bits(node.target, "weight", values) or dtype_of(weight).itemsize * 8
        widths.setdefault(program.origins[str(weight.target)].sources, set()).add(bits)
    for sources, found in widths.items():
        if len(found) > 1:
            said = " and ".join(str(bits) for bits in sorted(found))
            yield (
                f"the tied weight '{sources[0]}' is stored {len(found)} times, in {said} bits: "
                "with one width for layers and tables (embeddings=...) it is stored once"
            )
