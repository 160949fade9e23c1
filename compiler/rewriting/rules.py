"""Rules: match a subgraph, check its conditions, rewrite it, or say why not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from torch._ops import OpOverload
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.printer import describe, source_line
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.pattern import NEAR, Match, Miss, Op, Pattern
from strop.compiler.targets.target import CPU, Target


@dataclass(frozen=True)
class Rewrite:
    """One rewrite that happened: the rule, the node it replaced, its source line."""

    rule: str
    node: str
    source: str | None


@dataclass(frozen=True)
class NearMiss:
    """A root that was not rewritten: the rule, the condition that failed, and its node.

    Attributes:
        root: the root with its operator and source line, as text.
        reason: the condition, and the node that it failed at, as text.
        lines: source lines of the root and of the node at which the condition failed.
        root_name: the root's name alone.
        kind: the reason without names of values: equal in layers that repeat.
    """

    rule: str
    root: str
    reason: str
    lines: tuple[str, ...]
    # Manifests of older versions have neither.
    root_name: str = ""
    kind: str = ""


class Enough(BaseException):
    """A log has reached its limit of rewrites. Not an error, so not an ``Exception``."""


@dataclass
class Log:
    """What a pass did and did not do.

    Attributes:
        limit: how many rewrites to let happen; None for all of them.
        least_depth: how many nodes of a pattern must match for a miss to be a near miss.
        looking_at: the rule and the root that are being tried.
        learned: what a pass that learns did it from, and its facts; None of other passes.
    """

    rewrites: list[Rewrite] = field(default_factory=list)
    misses: list[NearMiss] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    limit: int | None = None
    least_depth: int = NEAR
    looking_at: tuple[str, Node] | None = None
    learned: dict[str, Any] | None = None

    def rewrote(self, rule: str, node: Node) -> None:
        """Count one rewrite; called when it is complete and the program valid again.

        Raises:
            Enough: this was the last one that may happen.
        """
        self.rewrites.append(Rewrite(rule, node.name, source_line(node)))
        if len(self.rewrites) == self.limit:
            raise Enough

    def changed_weight(self, rule: str, name: str) -> None:
        """Count new values of a weight as one rewrite.

        Raises:
            Enough: this was the last one that may happen.
        """
        self.rewrites.append(Rewrite(rule, f"@{name}", None))
        if len(self.rewrites) == self.limit:
            raise Enough

    def place(self) -> str:
        """The rule and the root that the pass tries, in words, or those of its last rewrite."""
        if self.looking_at is not None:
            rule, root = self.looking_at
            return f"rule '{rule}' at {describe(root)}"
        if not self.rewrites:
            return "before its first rewrite"
        last = self.rewrites[-1]
        where = f" ({last.source})" if last.source else ""
        return f"rule '{last.rule}' at %{last.node}{where}"

    def missed(self, rule: str, root: Node, miss: Miss) -> None:
        """Record why a root was not rewritten, if it matched in part."""
        if miss.depth >= self.least_depth:
            lines = [source_line(n) for n in (root, miss.node) if n is not None]
            known = tuple(dict.fromkeys(line for line in lines if line))
            kind = miss.without_names()
            self.misses.append(NearMiss(rule, describe(root), str(miss), known, root.name, kind))


class Rule(ABC):
    """One rewrite: a pattern with its root, a check that may say why not, and the new nodes.

    A subclass gives ``name`` and either ``pattern`` (whose outermost ``Op`` names the roots)
    or ``roots`` with a ``match`` of its own.

    Attributes:
        target: where the program will run; what it can do may decide a ``check``.
    """

    target: Target = CPU

    name: ClassVar[str]
    pattern: ClassVar[Pattern | None] = None
    roots: ClassVar[tuple[OpOverload[Any, Any], ...]] = ()

    def targets(self) -> tuple[OpOverload[Any, Any], ...]:
        """The operators at which this rule looks."""
        return self.roots or _roots(self.pattern)

    def on(self, target: Target) -> Self:
        """The same rule for a target."""
        rule = copy(self)
        object.__setattr__(rule, "target", target)  # rules may be frozen dataclasses
        return rule

    def match(self, root: Node, program: Program) -> Match | Miss:
        """Try the pattern at one root."""
        assert self.pattern is not None, f"{type(self).__name__} has no pattern and no match"
        match = Match(root)
        return self.pattern.match(root, match) or match

    def check(self, match: Match, program: Program) -> str | None:
        """The condition that fails, in words, or None if the rewrite is valid here."""
        return None

    @abstractmethod
    def rewrite(self, match: Match, build: Builder) -> Node | None:
        """Create the replacement for ``match.root``; None if the rule replaced it itself."""


def _roots(pattern: Any) -> tuple[OpOverload[Any, Any], ...]:
    if isinstance(pattern, Op):
        return pattern.targets
    return tuple(dict.fromkeys(t for option in pattern.options for t in _roots(option)))


def apply_rules(program: Program, rules: Iterable[Rule], log: Log) -> None:
    """Try each rule once at each of its roots, in program order.

    Linear in the number of roots: nodes are indexed by target, a rewrite touches only its own
    neighbourhood, and nothing restarts.
    """
    for rule in rules:
        for root in program.find(*rule.targets()):
            if not root._erased:
                log.looking_at = (rule.name, root)
                _try(program, rule, root, log)
    log.looking_at = None


def _try(program: Program, rule: Rule, root: Node, log: Log) -> None:
    found = rule.match(root, program)
    if isinstance(found, Match):
        reason = rule.check(found, program)
        if reason is None:
            _replace(program, rule, found, log)
            return
        found = Miss(reason, root, depth=len(found.inside) + 1)
    log.missed(rule.name, root, found)


def _replace(program: Program, rule: Rule, match: Match, log: Log) -> None:
    build = Builder(program, match.root, rule.name)
    new = rule.rewrite(match, build)
    if new is not None:
        match.root.replace_all_uses_with(new)
    program.erase_dead([match.root, *match.inside, *build.created])
    log.rewrote(rule.name, match.root)
