"""Load recipes: by built-in name, from TOML files, and with the changes of a command line."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from strop.compiler.recipes.composition import Layer, compose
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.recipes.schema import read_recipe
from strop.compiler.targets.target import get_target
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.files.reading import MOST_TOML, is_there, read_text

RECIPES = resources.files("strop.compiler") / "recipes"
_SUFFIX = ".toml"


def load_recipe(name: str) -> Recipe:
    """Read a built-in recipe by name, or a TOML file by path, with all that it extends.

    Raises:
        UsageError: no such recipe, bad TOML, unknown keys; or it extends itself, or changes what
            the recipe that it extends has not.
    """
    if not _is_file(name) and name not in recipe_names():
        raise UsageError(f"unknown recipe '{name}'{did_you_mean(name, recipe_names())}")
    chain = [_layer(name)]
    read = [_identity(name)]
    while (extended := chain[-1].file.extends) is not None:
        base = _base(extended, chain[-1].where)
        chain.append(_layer(base))
        if _identity(base) in read:
            raise UsageError(
                _circle([layer.where for layer in chain[read.index(_identity(base)) :]])
            )
        read.append(_identity(base))
    return compose(chain[::-1])


def parse_recipe(text: str, where: str) -> Recipe:
    """Read a recipe that stands alone: its text names no other file to read.

    Raises:
        UsageError: with the place and, for an unknown key, the nearest known one; or it extends
            another recipe.
    """
    file = read_recipe(text, where)
    if file.extends is not None:
        raise UsageError(f"{where}: a recipe that extends another cannot stand here")
    return compose([Layer(where, file)])


def asked_recipe(
    name: str,
    settings: Sequence[str] = (),
    passes: Sequence[str] = (),
    before: str = "",
    after: str = "",
    target: str = "",
) -> Recipe:
    """The recipe that a command line asks for, checked before anything is built.

    Args:
        name: of a built-in one, or a TOML file.
        settings: ``id.option=value``, ``budget.key=value``, ``expect.name=count``.
        passes: more passes, as after ``--pass``.
        before: the id of the step that they precede.
        after: the id of the step that they follow.
        target: instead of the recipe's own.

    Raises:
        UsageError: something is unknown, or not as it must be.
    """
    if (before or after) and not passes:
        raise UsageError("--before and --after say where a --pass goes; there is no --pass")
    recipe = load_recipe(name).insert(*passes, before=before, after=after).override(*settings)
    recipe = recipe.model_copy(update={"target": get_target(target or recipe.target).name})
    recipe.pipeline()
    return recipe


def recipe_names() -> list[str]:
    """The built-in recipes."""
    return sorted(p.name.removesuffix(_SUFFIX) for p in RECIPES.iterdir() if _is_file(p.name))


def _is_file(name: str) -> bool:
    return name.endswith(_SUFFIX)


def _layer(name: str) -> Layer:
    """A built-in recipe or a recipe file, before ``extends`` is applied."""
    if not _is_file(name):
        return Layer(name, read_recipe((RECIPES / f"{name}{_SUFFIX}").read_text(), name))
    text = read_text(Path(name), "the recipe", most_bytes=MOST_TOML)
    return Layer(name, read_recipe(text, name).in_folder(Path(name).parent))


def _identity(name: str) -> str:
    """One text for all ways to name a recipe."""
    return str(Path(name).resolve())


def _base(name: str, where: str) -> str:
    """The recipe that another extends: a built-in name, or a path from the working folder."""
    folder = Path(where).parent
    path = folder / name
    if name in recipe_names():
        return name
    if _is_file(name) and is_there(path):
        return str(path)
    near = sorted(p.name for p in folder.glob(f"*{_SUFFIX}") if p != Path(where))
    known = [*recipe_names(), *near]
    raise UsageError(f"{where} extends '{name}', which is not a recipe{did_you_mean(name, known)}")


def _circle(names: Sequence[str]) -> str:
    first, *others, _ = names
    by = f", by way of {', '.join(others)}" if others else ""
    return f"the recipe {first} extends itself{by}"
