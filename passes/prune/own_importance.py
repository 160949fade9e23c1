"""Importance by a function of the user's: called with care, and held to one score a position."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from strop.compiler.ir.program import Program
from strop.compiler.ir.verifier import verify_unchanged, versions_of
from strop.compiler.rewriting.context import Batch
from strop.compiler.util.errors import UsageError, VerifyError
from strop.compiler.util.user_code import file_of, given_to
from strop.passes.prune.groups import Group
from strop.passes.prune.question import Question

OwnImportance = Callable[[Group, Program, Sequence[Batch]], Tensor]
"""``score(group, program, batches)``: a score for each position of a group, [group.size]."""


def own_scores(score: OwnImportance, question: Question) -> dict[str, Tensor]:
    """The scores of every group by a function of the user's, float64 [size].

    Raises:
        UsageError: it raised, wrote to a weight, or returned no finite score for each position.
    """
    program, batches = question.program, list(question.data())
    versions = versions_of(program)
    with torch.enable_grad():
        found = {g.name: _scored(score, g, program, batches) for g in question.groups}
    try:
        verify_unchanged(program, versions)
    except VerifyError as error:
        raise UsageError(f"importance: {_told(score)}: {error}") from error
    return found


def _scored(
    score: OwnImportance, group: Group, program: Program, batches: Sequence[Batch]
) -> Tensor:
    given = given_to(score, f"importance of {group.name}", group, program, batches)
    if not isinstance(given, Tensor) or tuple(given.shape) != (group.size,):
        what = f"a tensor of {list(given.shape)}" if isinstance(given, Tensor) else repr(given)
        raise UsageError(
            f"importance: {_told(score)} returned {what} for {group.name}; it must return a tensor "
            f"of [{group.size}], one score for each position"
        )
    values = given.detach().double()
    if not values.isfinite().all():
        place = int((~values.isfinite()).nonzero()[0])
        raise UsageError(
            f"importance: {_told(score)} returned {float(values[place])} for position {place} of "
            f"{group.name}; scores must be finite"
        )
    return values


def _told(score: OwnImportance) -> str:
    """What the user calls it, and where it is."""
    line = score.__code__.co_firstlineno if hasattr(score, "__code__") else 0
    return f"{getattr(score, '__name__', score)} ({file_of(score)}:{line})"
