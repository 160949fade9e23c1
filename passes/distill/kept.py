"""What pruning has left of a program's values, read off what it left of the weights beside them."""

from __future__ import annotations

import torch

from strop.compiler.ir.program import Program
from strop.passes.distill.align import Kept
from strop.passes.prune.axes import Dependencies
from strop.passes.prune.dependency import dependencies
from strop.passes.prune.dims import Dim, leaves

_Key = tuple[int, ...]


def kept_positions(program: Program) -> Kept:
    """By value and axis, the original index of each position that is left, int64.

    An axis of a value is known where a weight has the same axis, and ``Origin.kept`` of that weight
    says what is left of it. Other axes are not named, be they whole or not.
    """
    if not any(origin.kept for origin in program.origins.values()):
        return {}
    found = dependencies(program)
    known = _known(program, found)
    kept: dict[str, dict[int, torch.Tensor]] = {}
    for node, results in found.values.items():
        if len(results) == 1:
            axes = {axis: known.get(_key(dim)) for axis, dim in enumerate(results[0])}
            indices = {axis: torch.tensor(index) for axis, index in axes.items() if index}
            kept |= {node.name: indices} if indices else {}
    return kept


def _known(program: Program, found: Dependencies) -> dict[_Key, tuple[int, ...]]:
    """What is left of the axes of weights."""
    return {
        _key(dim): program.origins[name].kept[axis]
        for name, axes in found.weights.items()
        for axis, dim in enumerate(axes)
        if name in program.origins and axis in program.origins[name].kept
    }


def _key(dim: Dim) -> _Key:
    """Equal for axes that count through the same leaves in the same order."""
    return tuple(id(leaf) for leaf in leaves(dim))
