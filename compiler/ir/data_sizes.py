"""Sizes that only the data know: ``u0`` rows of ``nonzero(x)``, the value of ``x.item()``.

Torch gives each a symbol of its own. The node that makes one is the only place at which a target
can read it.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.fx.node import Node
from torch.utils import _pytree as pytree

from strop.compiler.ir.nodes import expression


def data_symbols(value: Any) -> list[Any]:
    """Symbols in a value's sizes that only the data know, in order of appearance."""
    found: dict[Any, None] = {}
    for leaf in pytree.tree_leaves(value):
        sizes = leaf.shape if isinstance(leaf, torch.Tensor) else (leaf,)
        for size in sizes:
            if isinstance(size, (torch.SymInt, torch.SymFloat)):
                new = free_unbacked_symbols(expression(size))
                found |= dict.fromkeys(sorted(new, key=str))
    return list(found)


def made_symbols(node: Node) -> list[Any]:
    """Symbols that a node makes: in its value, and in none of its inputs."""
    symbols = data_symbols(node.meta["val"])
    if not symbols:
        return []
    known = {s for n in node.all_input_nodes for s in data_symbols(n.meta["val"])}
    return [s for s in symbols if s not in known]


def free_names(taken: Collection[str]) -> Iterator[str]:
    """Names for such sizes that no other size has: ``u0``, ``u1``, ..."""
    return (name for i in itertools.count() if (name := f"u{i}") not in taken)
