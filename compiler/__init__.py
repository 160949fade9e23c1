"""strop: a compiler for trained models.

The public names are loaded on first use, so that importing this package imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from strop.compiler.frontend.model import Model
from strop.compiler.frontend.programs import Programs

if TYPE_CHECKING:
    from strop.compiler.artifact.folder import Artifact
    from strop.compiler.artifact.loaded import load
    from strop.compiler.driver.driver import build
    from strop.compiler.ir.program import Program
    from strop.compiler.recipes.loading import load_recipe
    from strop.compiler.recipes.recipe import Recipe
    from strop.compiler.rewriting.context import Context
    from strop.compiler.rewriting.learning import Learned, LearningPass
    from strop.compiler.rewriting.passes import Pass, RulePass
    from strop.compiler.rewriting.pattern import Lit, Match, Miss, Op, Var
    from strop.compiler.rewriting.rules import Rule

_HOMES = {
    "Artifact": "artifact.folder",
    "load": "artifact.loaded",
    "build": "driver.driver",
    "Context": "rewriting.context",
    "Learned": "rewriting.learning",
    "LearningPass": "rewriting.learning",
    "Pass": "rewriting.passes",
    "RulePass": "rewriting.passes",
    "Lit": "rewriting.pattern",
    "Match": "rewriting.pattern",
    "Miss": "rewriting.pattern",
    "Op": "rewriting.pattern",
    "Var": "rewriting.pattern",
    "Program": "ir.program",
    "Recipe": "recipes.recipe",
    "load_recipe": "recipes.loading",
    "Rule": "rewriting.rules",
}

__all__ = [
    "Artifact",
    "Context",
    "Learned",
    "LearningPass",
    "Lit",
    "Match",
    "Miss",
    "Model",
    "Op",
    "Pass",
    "Program",
    "Programs",
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
