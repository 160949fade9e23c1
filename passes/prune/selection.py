"""From scores to what is kept: per group or over all groups, in numbers that kernels like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import torch

from strop.compiler.util.errors import UsageError, did_you_mean
from strop.passes.prune.groups import Group
from strop.passes.prune.importance import Scores

Scope = Literal["layer", "global"]
Kept = Mapping[str, list[int]]
"""By the group's name: positions that stay, in order."""


@dataclass(frozen=True)
class Selection:
    """How positions are chosen.

    Attributes:
        share: of the positions that go, in (0, 1).
        scope: "layer" drops this share of every group; "global" drops the least important of all
            groups together, with scores divided by their mean in the group.
        round_to: the number kept in a group is a multiple of this.
    """

    share: float
    scope: Scope = "layer"
    round_to: int = 1

    def choose(self, groups: Sequence[Group], scores: Scores) -> dict[str, list[int]]:
        """What every group keeps."""
        counts = self._counts(groups, scores)
        return {g.name: _best(scores[g.name], counts[g.name]) for g in groups}

    def _counts(self, groups: Sequence[Group], scores: Scores) -> dict[str, int]:
        if self.scope == "layer":
            return {g.name: self._rounded(g.size * (1 - self.share), g.size) for g in groups}
        _require_sizes(scores)
        relative = {g.name: scores[g.name] / scores[g.name].mean().clamp(min=1e-30) for g in groups}
        everything = torch.cat(list(relative.values()))
        last = min(len(everything) - 1, round(len(everything) * self.share))
        least = everything.sort().values[last]
        return {
            g.name: self._rounded(int((relative[g.name] >= least).sum()), g.size) for g in groups
        }

    def _rounded(self, count: float, size: int) -> int:
        """The nearest multiple; at least one of them stays, and a small group is not rounded."""
        step = self.round_to if size >= 2 * self.round_to else 1
        return min(size, max(step, round(count / step) * step))


def _require_sizes(scores: Scores) -> None:
    """Check that scores can be divided by their mean.

    Raises:
        UsageError: one is below 0.
    """
    for name, values in scores.items():
        if bool((values < 0).any()):
            raise UsageError(
                f'scope "global" compares scores with the mean of their group, so they must be 0 '
                f'or above; one of {name} is {float(values.min()):.4g}. Take scope "layer"'
            )


def _best(scores: torch.Tensor, count: int) -> list[int]:
    """The places of the largest scores, in order; of equal ones the first."""
    order = torch.sort(scores, descending=True, stable=True).indices
    found: list[int] = order[:count].sort().values.tolist()
    return found


def matching(groups: Sequence[Group], patterns: Sequence[str]) -> list[Group]:
    """The groups whose names match one of the patterns.

    Raises:
        UsageError: a pattern matches none.
    """
    made: dict[str, Group] = {}
    for pattern in patterns:
        found = [g for g in groups if _matches(g, pattern)]
        if not found:
            names = [g.name for g in groups]
            raise UsageError(f"no group is called '{pattern}'{did_you_mean(pattern, names)}")
        made.update((g.name, g) for g in found)
    return [g for g in groups if g.name in made]


def _matches(group: Group, pattern: str) -> bool:
    names = (group.name, group.name.partition(":")[2], group.kind)
    return any(fnmatchcase(name, pattern) for name in names)
