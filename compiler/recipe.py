"""Named pipelines: which passes, in which order, with which options, to which budget."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import pydantic

from strop.compiler.errors import UsageError, did_you_mean
from strop.compiler.passes import Pass, Pipeline, RulePass
from strop.compiler.rewrite import Rule
from strop.compiler.source import load_object

RECIPES = resources.files("strop.compiler") / "recipes"


class Budget(pydantic.BaseModel):
    """How far the artifact may be from the original model, output by output.

    Attributes:
        max_error: largest absolute difference, over the output's largest magnitude where that
            is above 1. None: not limited.
        min_cosine: least mean cosine of the rows of a float output. None: not limited.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    max_error: float | None = None
    min_cosine: float | None = None


class PassEntry(pydantic.BaseModel):
    """One pass in a recipe; every further key is an option of that pass."""

    model_config = pydantic.ConfigDict(extra="allow")

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options as written."""
        return dict(self.__pydantic_extra__ or {})


class Recipe(pydantic.BaseModel):
    """What ``--recipe`` names, and ``--print-recipe`` writes."""

    model_config = pydantic.ConfigDict(extra="forbid")

    name: str
    target: str = "cpu"
    budget: Budget = Budget()
    passes: list[PassEntry] = []

    def pipeline(self) -> Pipeline:
        """The passes as they will run.

        Raises:
            UsageError: an unknown pass or option, or an order that a pass forbids.
        """
        made = [make_pass(entry.name, entry.options) for entry in self.passes]
        for place, one in enumerate(made):
            for needed in one.after:
                if needed not in (p.name for p in made[:place]):
                    raise UsageError(f"pass '{one.name}' needs '{needed}' before it")
        return Pipeline.of(made)


@cache
def pass_classes() -> dict[str, type[Pass]]:
    """The passes that come with strop, by name."""
    return {c.name: c for c in import_module("strop.passes").PASSES}


def make_pass(name: str, options: dict[str, Any]) -> Pass:
    """Make a pass by its name, or by ``FILE.py:Class``, with checked options.

    Raises:
        UsageError: no such pass, no such option, or a value of the wrong type.
    """
    if ".py:" in name:
        return _user_pass(name, options)
    if name not in pass_classes():
        raise UsageError(f"unknown pass '{name}'{did_you_mean(name, list(pass_classes()))}")
    return _with_options(pass_classes()[name], options, name)


def _with_options(kind: type[Pass], options: dict[str, Any], name: str) -> Pass:
    import dataclasses

    known = [f.name for f in dataclasses.fields(kind)]
    for key in options:
        if key not in known:
            hint = did_you_mean(key, known) if known else "; it has none"
            raise UsageError(f"pass '{name}' has no option '{key}'{hint}")
    try:
        made: Pass = pydantic.TypeAdapter(kind).validate_python(options)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise UsageError(f"pass '{name}', option '{where}': {first['msg']}") from error
    return made


def _user_pass(name: str, options: dict[str, Any]) -> Pass:
    kind = load_object(name, "a pass")
    if isinstance(kind, type) and issubclass(kind, Pass):
        return _with_options(kind, options, name)
    rules = kind if isinstance(kind, (list, tuple)) else [kind]
    made = [r() if isinstance(r, type) and issubclass(r, Rule) else r for r in rules]
    if not made or not all(isinstance(r, Rule) for r in made):
        raise UsageError(f"{name} is neither a Pass, nor a Rule, nor a list of rules")
    if options:
        raise UsageError(f"{name} is a set of rules, which has no options")
    return _RuleSet.named(name.rpartition(":")[2], tuple(made))


@dataclass(frozen=True)
class _RuleSet(RulePass):
    """A user's rules as a pass."""

    given: tuple[Rule, ...]
    name = "rules"

    @staticmethod
    def named(name: str, rules: tuple[Rule, ...]) -> Pass:
        kind = type(name, (_RuleSet,), {"name": name})
        made: Pass = kind(rules)
        return made

    def rules(self) -> Sequence[Rule]:
        return self.given

    def options(self) -> dict[str, Any]:
        return {}


def load_recipe(name: str) -> Recipe:
    """Read a built-in recipe by name, or a TOML file by path.

    Raises:
        UsageError: no such recipe, bad TOML, unknown keys.
    """
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise UsageError(f"recipe file {name} does not exist")
        return parse_recipe(Path(name).read_text(), name)
    built_in = recipe_names()
    if name not in built_in:
        raise UsageError(f"unknown recipe '{name}'{did_you_mean(name, built_in)}")
    return parse_recipe((RECIPES / f"{name}.toml").read_text(), name)


def recipe_names() -> list[str]:
    """The built-in recipes."""
    return sorted(p.name.removesuffix(".toml") for p in RECIPES.iterdir() if ".toml" in p.name)


def parse_recipe(text: str, where: str) -> Recipe:
    """Read a recipe from TOML.

    Raises:
        UsageError: with the place and, for an unknown key, the nearest known one.
    """
    try:
        return Recipe.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}: {error}") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][-1])
        if first["type"] == "extra_forbidden":
            model = Budget if first["loc"][0] == "budget" else Recipe
            hint = did_you_mean(key, list(model.model_fields))
            raise UsageError(f"{where}: unknown key '{key}'{hint}") from error
        place = ".".join(str(p) for p in first["loc"])
        raise UsageError(f"{where}: {place}: {first['msg']}") from error


_SPEC = re.compile(r"^(?P<name>[^{}]+)(?:\{(?P<options>.*)\})?$")


def parse_pass(text: str) -> PassEntry:
    """Read ``name{option=value,...}``; a value is TOML, or a bare word.

    Raises:
        UsageError: not of that form.
    """
    found = _SPEC.match(text.strip())
    if not found:
        raise UsageError(f"'{text}' is not of the form name{{option=value,...}}")
    options = {}
    for item in _split(found["options"] or ""):
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"'{item}' in '{text}' is not of the form option=value")
        options[key.strip()] = parse_value(value.strip())
    return PassEntry(name=found["name"].strip(), **options)


def _split(text: str) -> list[str]:
    """Split at commas that are not inside brackets or quotes."""
    return [p for p in re.findall(r"(?:\[[^\]]*\]|\"[^\"]*\"|[^,\[\"])+", text) if p.strip()]


def parse_value(text: str) -> Any:
    """A TOML value, or the text itself where it is none."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def recipe_text(recipe: Recipe) -> str:
    """The recipe as TOML that ``load_recipe`` reads back."""
    lines = [f"name = {_toml(recipe.name)}", f"target = {_toml(recipe.target)}", "", "[budget]"]
    lines += [f"{k} = {_toml(v)}" for k, v in recipe.budget.model_dump(exclude_none=True).items()]
    for entry in recipe.passes:
        lines += ["", "[[passes]]", f"name = {_toml(entry.name)}"]
        lines += [f"{k} = {_toml(v)}" for k, v in entry.options.items()]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    import json

    return json.dumps(value) if not isinstance(value, float) else repr(value)


def override(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Apply ``pass.option=value`` and ``budget.key=value`` settings.

    Raises:
        UsageError: the recipe has no such pass, or the text has another form.
    """
    changed = recipe.model_dump()
    for setting in settings:
        path, equals, text = setting.partition("=")
        owner, dot, key = path.rpartition(".")
        if not equals or not dot:
            raise UsageError(f"--set '{setting}' is not of the form pass.option=value")
        value = parse_value(text)
        if owner == "budget":
            changed["budget"][key] = value
            continue
        named = [p for p in changed["passes"] if p["name"] == owner]
        if not named:
            names = [p["name"] for p in changed["passes"]]
            raise UsageError(f"--set {setting}: no pass '{owner}'{did_you_mean(owner, names)}")
        for entry in named:
            entry[key] = value
    changed["budget"] = {k: v for k, v in changed["budget"].items() if v is not None}
    return parse_recipe(recipe_text_of(changed), "--set")


def recipe_text_of(values: dict[str, Any]) -> str:
    """TOML of a recipe given as plain values; not validated."""
    return recipe_text(
        Recipe.model_construct(
            name=values["name"],
            target=values["target"],
            budget=_LooseBudget(**values["budget"]),
            passes=[PassEntry(**p) for p in values["passes"]],
        )
    )


class _LooseBudget(pydantic.BaseModel):
    """Takes any key, so that the one reader of recipes reports it."""

    model_config = pydantic.ConfigDict(extra="allow")


def insert(recipe: Recipe, entry: PassEntry, before: str | None, after: str | None) -> Recipe:
    """The recipe with one more pass: before or after a named one, else at the end.

    Raises:
        UsageError: the named pass is not in the recipe.
    """
    names = [p.name for p in recipe.passes]
    anchor = before or after
    place = len(names)
    if anchor is not None:
        if anchor not in names:
            raise UsageError(f"no pass '{anchor}' in the recipe{did_you_mean(anchor, names)}")
        place = names.index(anchor) + (0 if before else 1)
    passes = [*recipe.passes[:place], entry, *recipe.passes[place:]]
    return recipe.model_copy(update={"passes": passes})
