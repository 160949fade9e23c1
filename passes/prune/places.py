"""Which position of a leaf every position of an axis belongs to."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.passes.prune.dims import Dim


def places(dim: Dim, leaf: Dim) -> Tensor:
    """The position of ``leaf`` at each position of an axis that holds it, else -1; int64."""
    one = dim.of
    if one is leaf:
        return torch.arange(int(one.size))
    if one.kind == "leaf":
        return torch.full([int(one.size)], -1)
    parts = [places(part, leaf) for part in one.parts]
    if one.kind == "sum":
        return torch.cat(parts)
    made = torch.full([1], -1)
    for part in parts:
        made = torch.where(part >= 0, part, made[:, None]).flatten()
    return made


def spread(dim: Dim, leaf: Dim, values: Tensor) -> Tensor:
    """Sum values along an axis into the positions of a leaf; what belongs to none is left out."""
    of = places(dim, leaf)
    made = torch.zeros(int(leaf.size), dtype=values.dtype)
    return made.index_add(0, of[of >= 0], values[of >= 0])
