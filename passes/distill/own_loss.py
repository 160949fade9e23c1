"""Losses of the user's own: called with care, and held to what a loss must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from strop.compiler.rewriting.context import Batch
from strop.compiler.util.errors import UsageError
from strop.compiler.util.user_code import given_to

Outputs = Mapping[str, torch.Tensor]
OwnLoss = Callable[[Outputs, Outputs, Batch], torch.Tensor]
"""``loss(student, teacher, batch)``: outputs of both by name, and the batch; returns a scalar."""


def scalar_of(what: str, loss: Callable[..., Any], *given: Any) -> torch.Tensor:
    """What a loss of the user's gives.

    Args:
        what: it is, for messages: "loss".
        loss: the function.
        given: its arguments.

    Raises:
        UsageError: it raised, or returned something other than a scalar with a gradient.
    """
    value = given_to(loss, what, *given)
    if not isinstance(value, torch.Tensor) or value.ndim or not value.is_floating_point():
        shape = f"a tensor of {list(value.shape)}" if isinstance(value, torch.Tensor) else value
        raise UsageError(f"{what} returned {shape}; it must return a float tensor without axes")
    if torch.is_grad_enabled() and value.grad_fn is None:
        raise UsageError(
            f"{what} returned a number that has no gradient: compute it from the student's outputs "
            "by operators of torch, without detach(), item() or numpy()"
        )
    return value
