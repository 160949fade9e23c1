"""A recipe as TOML."""

from __future__ import annotations

import tomli_w

from strop.compiler.recipes.recipe import Recipe


def recipe_text(recipe: Recipe) -> str:
    """The recipe as TOML that ``load_recipe`` reads back equal; it extends nothing."""
    return tomli_w.dumps(
        {key: part for key, part in recipe.values().items() if part not in ({}, [])}
    )
