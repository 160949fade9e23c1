"""The pass ``prune``: drop the least important channels, heads or features, and become smaller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context, Need, Needs
from strop.compiler.rewriting.learning import Learned, LearningPass
from strop.compiler.rewriting.rules import Log
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.sources import names_code
from strop.compiler.util.user_code import load_function
from strop.passes.prune.dependency import dependencies
from strop.passes.prune.goal import Counted, Goal
from strop.passes.prune.groups import Group, groups
from strop.passes.prune.importance import METHODS, needs_of, scores
from strop.passes.prune.own_importance import OwnImportance, own_scores
from strop.passes.prune.question import Question
from strop.passes.prune.roles import KINDS
from strop.passes.prune.selection import Scope, Selection, matching
from strop.passes.prune.shrink import shrink


@dataclass(frozen=True)
class Prune(LearningPass):
    """Drop whole channels, heads or features; the result is an ordinary, smaller program.

    Attributes:
        share: of what is counted, that goes; above 0 and below 1.
        of: what is counted: "positions" of every group; or, of the whole program, "parameters",
            "multiply-adds" or "latency", for which groups lose as much as it takes. "latency" is
            measured: the program as the other steps of the recipe leave it (but for those that
            learn: recovery changes no time, and another pruning has a goal of its own) is lowered,
            and runs on the target in turn with the unpruned one, on the first data of the model,
            for seven choices or fewer. As training that ends by the clock, it chooses otherwise on
            another machine, and may in another run; what it chose is in the cache, and in the
            manifest, and how long it took is in build.json.
        kinds: of groups: ffn, heads, queries (of grouped heads), head-size, width, channels, other.
        importance: l0, l1, l2 (size of weights); activation (Wanda) and activation-mean (Minitron),
            which look at calibration data; taylor; random; first (keep the first ones); or
            ``FILE.py:function``, called with a ``Group``, the ``Program`` and the batches of data
            (an empty list without any); returns a tensor [group.size], larger scores are more
            important. ``group.rows(program.weights)`` gives, for each slice of a weight in
            the group, its elements at each position: [size, elements].
        scope: "layer" drops the share of every group, "global" of all groups together.
        only: names of groups, or patterns of them; all if empty.
        keep: names of groups that stay whole, or patterns of them.
        round_to: keep a multiple of this many channels; 0 takes 16 for ffn, channels and width.
        batches: how many batches of data to look at.
    """

    name: ClassVar[str] = "prune"
    needs: ClassVar[Needs] = ()

    share: float = 0.5
    of: Counted = "positions"
    kinds: tuple[str, ...] = ("ffn",)
    importance: str = "activation"
    scope: Scope = "layer"
    only: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    round_to: int = 0
    batches: int = 32

    def __post_init__(self) -> None:
        """Refuse what would drop nothing or everything.

        Raises:
            UsageError: an option is out of its range.
        """
        if not 0 < self.share < 1:
            raise UsageError(f"share is {self.share}; it must be above 0 and below 1")
        if self.round_to < 0 or self.batches < 1:
            raise UsageError("round_to must be 0 or more, and batches 1 or more")
        if not self.kinds:
            raise UsageError(f"kinds is empty: say what to prune, of {', '.join(KINDS)}")
        for kind in self.kinds:
            if kind not in KINDS:
                raise UsageError(f"there are no groups of kind '{kind}'; kinds: {', '.join(KINDS)}")
        if not names_code(self.importance) and self.importance not in METHODS:
            hint = did_you_mean(self.importance, [*METHODS, "FILE.py:function"])
            raise UsageError(f"there is no importance '{self.importance}'{hint}")

    def required(self) -> Needs:
        return needs_of(self.importance)

    def reads(self) -> Sequence[Need]:
        return ("calibration", "train") if self._own() else super().reads()

    def uses(self) -> Sequence[Any]:
        own = self._own()
        return [own] if own else []

    def _own(self) -> OwnImportance | None:
        """The user's function.

        Raises:
            UsageError: there is no such file or function.
        """
        named = names_code(self.importance)
        return load_function(self.importance, "an importance") if named else None

    def learn(self, program: Program, context: Context) -> Learned:
        found = dependencies(program)
        chosen = self._chosen(groups(found))
        question = Question(program, found, chosen, context, self.batches)
        context.progress(f"pass {self.name}: {self.importance} of {len(chosen)} groups")
        own = self._own()
        scored = own_scores(own, question) if own else scores(self.importance, question)

        def choose(share: float) -> dict[str, list[int]]:
            kept: dict[str, list[int]] = {}
            for kind in dict.fromkeys(g.kind for g in chosen):
                alike = [g for g in chosen if g.kind == kind]
                kept |= Selection(share, self.scope, self._step(kind)).choose(alike, scored)
            return kept

        kept = Goal(self.of, self.share).reached_by(found, chosen, choose, context)
        return Learned(
            tensors={name: torch.tensor(places) for name, places in kept.items()},
            facts={"groups": {g.name: _fact(g, kept[g.name]) for g in chosen}},
        )

    def apply_learned(self, program: Program, log: Log, learned: Learned) -> None:
        found = dependencies(program)
        every = {group.name: group for group in groups(found)}
        kept = {every[name].leaf: places.tolist() for name, places in learned.tensors.items()}
        smaller = {leaf: places for leaf, places in kept.items() if len(places) < leaf.size}
        if not smaller:
            log.notes.append("every group is so small that the share rounds to nothing")
            return
        for name in shrink(program, found, smaller, self.name):
            log.changed_weight(self.name, name)

    def _chosen(self, every: list[Group]) -> list[Group]:
        """The groups to prune.

        Raises:
            UsageError: there is none, or a name matches nothing.
        """
        named = matching(every, self.only) if self.only else every
        kept = matching(every, self.keep) if self.keep else []
        wanted = [g for g in named if g.kind in self.kinds and g not in kept]
        free = [g for g in wanted if not g.frozen]
        if not free:
            reasons = [f"\n  {g.name}: {g.frozen[0]}" for g in wanted]
            raise UsageError(
                f"pass '{self.name}': nothing of kind {', '.join(self.kinds)} can be pruned"
                + "".join(reasons)
            )
        return free

    def _step(self, kind: str) -> int:
        return self.round_to or (16 if kind in ("ffn", "channels", "width") else 1)


def _fact(group: Group, kept: Sequence[int]) -> dict[str, Any]:
    """What the manifest says of a group: which of its original positions are left, and where."""
    return {
        "of": group.size,
        "kept": ranges(kept),
        "slices": [[one.weight, one.axis] for one in group.slices],
    }


def ranges(numbers: Sequence[int]) -> str:
    """Rising numbers as text: ``0-3,5``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in found)
