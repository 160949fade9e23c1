"""strop: a compiler for trained models.

The public names are loaded on first use, so that importing this package imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from strop.compiler.model import Model

if TYPE_CHECKING:
    from strop.compiler.artifact import Artifact, load
    from strop.compiler.driver import build
    from strop.compiler.passes import Pass, RulePass
    from strop.compiler.pattern import Match, Miss, Op, Var
    from strop.compiler.program import Program
    from strop.compiler.recipe import Recipe, load_recipe
    from strop.compiler.rewrite import Rule

_HOMES = {
    "Artifact": "artifact",
    "load": "artifact",
    "build": "driver",
    "Pass": "passes",
    "RulePass": "passes",
    "Match": "pattern",
    "Miss": "pattern",
    "Op": "pattern",
    "Var": "pattern",
    "Program": "program",
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "Rule": "rewrite",
}

__all__ = [
    "Artifact",
    "Match",
    "Miss",
    "Model",
    "Op",
    "Pass",
    "Program",
    "Recipe",
    "Rule",
    "RulePass",
    "Var",
    "build",
    "load",
    "load_recipe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'strop.compiler' has no attribute '{name}'")
    return getattr(import_module(f"strop.compiler.{_HOMES[name]}"), name)
