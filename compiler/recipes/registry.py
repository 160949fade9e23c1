"""From a name to a pass: those that come with strop, and the user's own."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, ClassVar

from strop.compiler.rewriting.options import with_options
from strop.compiler.rewriting.passes import Pass, RulePass
from strop.compiler.rewriting.rules import Rule
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.sources import names_code
from strop.compiler.util.user_code import load_object

# What an entry of a recipe says of a pass; everything else there is an option.
RESERVED = ("name", "id", "why", "slot")
UserPass = Pass | Rule | type[Pass] | type[Rule]
"""What a user may put into a pipeline from Python; a file may hold a list of rules too."""


@cache
def pass_classes() -> dict[str, type[Pass]]:
    """The passes that come with strop, by name."""
    return {c.name: c for c in import_module("strop.passes").PASSES}


def make_pass(name: str, options: Mapping[str, Any]) -> Pass:
    """Make a pass by its name, or by ``FILE.py:Name``, with checked options.

    Raises:
        UsageError: no such pass, no such option, or a value of the wrong type.
    """
    if names_code(name):
        return as_pass(load_object(name, "a pass"), name, options)
    if name not in pass_classes():
        raise UsageError(f"unknown pass '{name}'{did_you_mean(name, list(pass_classes()))}")
    return _with_options(pass_classes()[name], options, name)


def as_pass(given: Any, name: str, options: Mapping[str, Any]) -> Pass:
    """A pass from what a user wrote: a ``Pass``, a ``Rule``, or a list of rules.

    Raises:
        UsageError: it is none of these, or does not take the options.
    """
    if isinstance(given, type) and issubclass(given, Pass):
        return _with_options(given, options, name)
    if isinstance(given, Pass):
        return _with_options(type(given), {**given.options(), **options}, name)
    rules = given if isinstance(given, (list, tuple)) else [given]
    made = tuple(r() if isinstance(r, type) and issubclass(r, Rule) else r for r in rules)
    if not made or not all(isinstance(r, Rule) for r in made):
        raise UsageError(f"{name} is neither a Pass, nor a Rule, nor a list of rules")
    if options:
        raise UsageError(f"{name} is a set of rules, which has no options")
    return _rule_set(name.rpartition(":")[2], made)


def origin(given: UserPass) -> str:
    """``FILE.py:Name`` of a pass made in Python: what a recipe calls it."""
    kind = given if isinstance(given, type) else type(given)
    return f"{inspect.getsourcefile(kind)}:{kind.__qualname__}"


def _with_options(kind: type[Pass], options: Mapping[str, Any], name: str) -> Pass:
    if not isinstance(getattr(kind, "name", None), str):
        raise UsageError(f'pass {name} has no name; give its class `name = "..."`')
    known = [f.name for f in dataclasses.fields(kind)]
    for key in RESERVED:
        if key in known:
            raise UsageError(f"pass {name} has an option '{key}', which recipes use; rename it")
    return with_options(kind, options, name)


@dataclass(frozen=True)
class _RuleSet(RulePass):
    """A user's rules as a pass."""

    given: ClassVar[tuple[Rule, ...]]

    def rules(self) -> Sequence[Rule]:
        return self.given


def _rule_set(name: str, rules: tuple[Rule, ...]) -> Pass:
    # The class says that it is the user's: messages about a broken pass depend on whose it is.
    namespace = {"name": name, "given": rules, "__module__": type(rules[0]).__module__}
    made: Pass = type(name, (_RuleSet,), namespace)()
    return made
