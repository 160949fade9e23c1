"""Common subexpressions: the same operator on the same arguments is computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.fx.node import Node

from strop.compiler.ir.data_sizes import made_symbols
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import Pass
from strop.compiler.rewriting.rules import Log

RANDOM = torch.Tag.nondeterministic_seeded


@dataclass(frozen=True)
class CommonSubexpressions(Pass):
    """Merge calls with equal arguments, and computed sizes with equal expressions."""

    name = "cse"

    def apply(self, program: Program, log: Log) -> None:
        seen: dict[Any, Node] = {}
        for node in list(program.calls()):
            key = _key(node)
            if key is None:
                continue
            first = seen.setdefault(key, node)
            if first is not node:
                node.replace_all_uses_with(first)
                program.erase_dead([node])
                if not isinstance(node.meta["val"], torch.SymInt):
                    log.rewrote("cse", node)


def _key(node: Node) -> Any:
    if isinstance(node.meta["val"], torch.SymInt):
        return ("size", node.meta["val"].node.expr)
    if RANDOM in getattr(node.target, "tags", ()):
        return None
    # Where sizes depend on the data, both calls must use the same symbols for them.
    made = tuple(made_symbols(node))
    return (node.target, _hashable(node.args), _hashable(node.kwargs), made)


def _hashable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_hashable(v) for v in value)
    if isinstance(value, dict):
        return tuple((k, _hashable(v)) for k, v in sorted(value.items()))
    # 1, 1.0 and True are equal to Python and different to an operator; so are 0.0 and -0.0.
    if isinstance(value, float):
        return value.hex()
    return value if isinstance(value, fx.Node) else (type(value), value)
