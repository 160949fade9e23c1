"""Elements from places that are known when the model runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def narrow(input: Tensor, dim: int, start: Any, length: Any) -> Tensor:
    """The elements from a place on, which may be known at run time only; below 0 from the end."""
    if not isinstance(start, Tensor):
        return torch.narrow(input, dim, start, length)
    first = torch.where(start < 0, start + input.shape[dim], start)
    places = first.reshape(1) + torch.arange(length, device=input.device)
    return input.index_select(dim, places)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """Rows of r elements of a vector, in the order of their places."""
    size = input.shape[0]
    if isinstance(size, int):
        every: Iterator[tuple[int, ...]] = itertools.combinations(range(size), r)
        if with_replacement:
            every = itertools.combinations_with_replacement(range(size), r)
        rows = torch.tensor(list(every), dtype=torch.int64, device=input.device)
        return input[rows.view(-1, r)]
    places = torch.arange(size, device=input.device)
    grids = torch.stack([g.reshape(-1) for g in torch.meshgrid([places] * r, indexing="ij")], 1)
    left, right = grids[:, :-1], grids[:, 1:]
    rising = (left <= right) if with_replacement else (left < right)
    return input[grids[rising.all(1)]]
