"""Several processes that train one program together, as ``torchrun`` starts them."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

from strop.compiler.util.errors import UsageError
from strop.compiler.util.ranks import processes, rank

Item = TypeVar("Item")


class Team:
    """The processes that share every update; alone, each method gives back what it is given."""

    def __init__(self, accumulate: int) -> None:
        """Meet the others.

        Args:
            accumulate: batches in one update, which the processes share.

        Raises:
            UsageError: they cannot be shared equally.
        """
        self.rank, self.size = rank(), processes()
        if accumulate % self.size:
            raise UsageError(
                f"{self.size} processes cannot share updates of {accumulate} batches: set "
                f"accumulate to a multiple of {self.size}"
            )
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("gloo")
            atexit.register(dist.destroy_process_group)

    def mine(self, group: Sequence[Item]) -> Sequence[Item]:
        """The batches of an update that this process takes."""
        return group[self.rank :: self.size]

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        """Add up tensors over the processes, in place; one message for all of them."""
        if self.size == 1:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors])):
            tensor.copy_(part.view_as(tensor))

    def largest(self, value: float) -> float:
        """The largest of the processes' values, float64."""
        if self.size == 1:
            return value
        held = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(held, dist.ReduceOp.MAX)
        return float(held)

    def from_first(self, value: float) -> float:
        """The first process's value, float64, in all of them."""
        if self.size == 1:
            return value
        held = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(held, 0)
        return float(held)

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.size > 1:
            dist.barrier()
