"""Named pipelines: which passes, in which order, with which options, to which budget."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path, PurePath
from typing import Annotated, Any

import pydantic

from strop.compiler.recipes.registry import UserPass, as_pass, is_users, make_pass, origin
from strop.compiler.rewriting.passes import Pass, Pipeline
from strop.compiler.targets.target import get_target
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.files.parsing import parse_toml
from strop.compiler.util.files.reading import MOST_TOML, read_text

RECIPES = resources.files("strop.compiler") / "recipes"


class Budget(pydantic.BaseModel):
    """How far the artifact may be from the original model, output by output.

    Attributes:
        max_error: largest absolute difference, over the output's largest magnitude where that
            is above 1. None: not limited.
        min_cosine: least mean cosine of the rows of a float output. None: not limited.
        min_agreement: least share of equal elements of an output that is not float, over all
            cases together. None: what differs is held to ``max_error``, as a share.
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    max_error: Annotated[float, pydantic.Field(ge=0)] | None = None
    min_cosine: Annotated[float, pydantic.Field(ge=-1, le=1)] | None = None
    min_agreement: Annotated[float, pydantic.Field(ge=0, le=1)] | None = None

    @property
    def least_agreement(self) -> float:
        """The least share of equal elements of an output that is not float."""
        if self.min_agreement is not None:
            return self.min_agreement
        return 0.0 if self.max_error is None else 1 - self.max_error


class PassEntry(pydantic.BaseModel):
    """One pass in a recipe; every further key is an option of that pass."""

    model_config = pydantic.ConfigDict(extra="allow", strict=True)

    name: str
    _given: UserPass | None = None

    @staticmethod
    def of(given: str | UserPass) -> PassEntry:
        """An entry for ``name{option=value}`` or for a pass or rules made in Python.

        Raises:
            UsageError: the text is not of that form.
        """
        if isinstance(given, str):
            return parse_pass(given)
        entry = PassEntry(name=origin(given), **as_pass(given, origin(given), {}).options())
        entry._given = given
        return entry

    @property
    def options(self) -> dict[str, Any]:
        """The options as written."""
        return dict(self.__pydantic_extra__ or {})

    def make(self) -> Pass:
        """The pass itself.

        Raises:
            UsageError: no such pass or option, or a value of the wrong type.
        """
        if self._given is not None:
            return as_pass(self._given, self.name, self.options)
        return make_pass(self.name, self.options)

    def with_option(self, key: str, value: Any) -> PassEntry:
        """The entry with one more option, or another value for one.

        Raises:
            UsageError: the option would rename the pass.
        """
        if key == "name":
            raise UsageError(f"pass '{self.name}' has no option 'name'")
        entry = PassEntry(name=self.name, **{**self.options, key: value})
        entry._given = self._given
        return entry

    def in_folder(self, folder: Path) -> PassEntry:
        """The entry with the user's file looked up from a folder, as a recipe file means it."""
        if not is_users(self.name):
            return self
        return self.model_copy(update={"name": str(folder / self.name)})


class Recipe(pydantic.BaseModel):
    """What ``--recipe`` names, and ``--print-recipe`` writes.

    Attributes:
        expect: how often a step or a rule must rewrite; another count is a missed budget.
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    name: str
    target: str = "cpu"
    budget: Budget = Budget()
    expect: dict[str, Annotated[int, pydantic.Field(ge=0)]] = {}
    passes: list[PassEntry] = []

    def pipeline(self) -> Pipeline:
        """The passes as they will run.

        Raises:
            UsageError: an unknown pass or option, or an order that a pass forbids.
        """
        made = [entry.make() for entry in self.passes]
        for place, one in enumerate(made):
            for needed in one.after:
                if needed not in (p.name for p in made[:place]):
                    raise UsageError(f"pass '{one.name}' needs '{needed}' before it")
        return Pipeline.of(made)

    def in_folder(self, folder: Path) -> Recipe:
        """The recipe with the user's own files looked up from a folder."""
        return self.model_copy(update={"passes": [p.in_folder(folder) for p in self.passes]})

    def files(self) -> list[Path]:
        """The files that hold the user's own passes."""
        return [Path(p.name.rpartition(":")[0]) for p in self.passes if is_users(p.name)]

    def insert(self, *added: str | UserPass, before: str = "", after: str = "") -> Recipe:
        """The recipe with more passes, in the order given, at one place; at the end by default.

        Args:
            added: each a pass in Python, or text as after ``--pass``.
            before: the step that they precede, by its name in the pipeline.
            after: the step that they follow.

        Raises:
            UsageError: there is no such step, or both places are named.
        """
        if before and after:
            raise UsageError("give either 'before' or 'after', not both")
        place = len(self.passes)
        if before or after:
            place = self._place(before or after) + (1 if after else 0)
        entries = [PassEntry.of(one) for one in added]
        passes = [*self.passes[:place], *entries, *self.passes[place:]]
        return self.model_copy(update={"passes": passes})

    def override(self, *settings: str) -> Recipe:
        """The recipe with ``step.option=value``, ``budget.key=value`` or ``expect.name=count``.

        Raises:
            UsageError: no such step or budget, or the text has another form.
        """
        budget, expect = self.budget.model_dump(exclude_unset=True), dict(self.expect)
        passes = list(self.passes)
        for setting in settings:
            path, equals, text = setting.partition("=")
            owner, dot, key = path.strip().rpartition(".")
            if not equals or not dot:
                raise UsageError(f"--set '{setting}' is not of the form pass.option=value")
            if owner in ("budget", "expect"):
                (budget if owner == "budget" else expect)[key] = parse_value(text)
                continue
            place = self._place(owner)
            passes[place] = passes[place].with_option(key, parse_value(text))
        values = {"name": self.name, "target": self.target, "budget": budget, "expect": expect}
        return _validated(values, "--set").model_copy(update={"passes": passes})

    def record(self) -> dict[str, Any]:
        """The recipe for a manifest, which holds no path of the machine that built it."""
        values = self.model_dump(exclude_none=True)
        for entry in values["passes"]:
            entry["name"] = PurePath(entry["name"]).name
        return values

    def _place(self, step: str) -> int:
        names = [s.name for s in self.pipeline().steps]
        written = [entry.name for entry in self.passes]
        for known in (names, written):
            if step in known:
                return known.index(step)
        raise UsageError(f"the recipe has no pass '{step}'{did_you_mean(step, names)}")


def load_recipe(name: str) -> Recipe:
    """Read a built-in recipe by name, or a TOML file by path.

    Raises:
        UsageError: no such recipe, bad TOML, unknown keys.
    """
    if not name.endswith(".toml"):
        if name not in recipe_names():
            raise UsageError(f"unknown recipe '{name}'{did_you_mean(name, recipe_names())}")
        return parse_recipe((RECIPES / f"{name}.toml").read_text(), name)
    text = read_text(Path(name), "the recipe", most_bytes=MOST_TOML)
    return parse_recipe(text, name).in_folder(Path(name).parent)


def asked_recipe(
    name: str,
    settings: Sequence[str] = (),
    passes: Sequence[str] = (),
    before: str = "",
    after: str = "",
    target: str = "",
) -> Recipe:
    """The recipe that a command line asks for, looked at before anything is done with it.

    Args:
        name: of a built-in one, or a TOML file.
        settings: ``pass.option=value``, ``budget.key=value``, ``expect.name=count``.
        passes: more passes, as after ``--pass``.
        before: the step that they precede.
        after: the step that they follow.
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
    return sorted(p.name.removesuffix(".toml") for p in RECIPES.iterdir() if ".toml" in p.name)


def parse_recipe(text: str, where: str) -> Recipe:
    """Read a recipe from TOML.

    Raises:
        UsageError: with the place and, for an unknown key, the nearest known one.
    """
    return _validated(parse_toml(text, where), where)


def _validated(values: dict[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except pydantic.ValidationError as error:
        problems = [_problem(e["type"], e["loc"], e["msg"]) for e in error.errors()]
        raise UsageError(f"{where}: {'; '.join(problems)}") from error


def _problem(kind: str, place: tuple[int | str, ...], message: str) -> str:
    if kind != "extra_forbidden":
        return f"{'.'.join(str(p) for p in place)}: {message}"
    model = Budget if place[0] == "budget" else Recipe
    return f"unknown key '{place[-1]}'{did_you_mean(str(place[-1]), list(model.model_fields))}"


_SPEC = re.compile(r"(?P<name>[^{}]+)(?:\{(?P<options>.*)\})?", re.DOTALL)
# Commas inside brackets, braces or quotes do not part options.
_ITEM = r"""(?:\[[^\]]*\]|\{[^}]*\}|"(?:\\.|[^"\\])*"|'[^']*'|[^,\[\]{}"'])+"""


def parse_pass(text: str) -> PassEntry:
    """Read ``name{option=value,...}``; a value is TOML, or a bare word.

    Raises:
        UsageError: not of that form.
    """
    found = _SPEC.fullmatch(text.strip())
    options = (found["options"] or "").strip() if found else ""
    if not found or not re.fullmatch(rf"(?:{_ITEM}(?:,{_ITEM})*)?", options):
        raise UsageError(f"'{text}' is not of the form name{{option=value,...}}")
    entry = PassEntry(name=found["name"].strip())
    for item in re.findall(_ITEM, options):
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"'{item}' in '{text}' is not of the form option=value")
        entry = entry.with_option(key.strip(), parse_value(value))
    return entry


def parse_value(text: str) -> Any:
    """A TOML value, or the text itself where it is none."""
    try:
        values = parse_toml(f"v = {text}", "the value")
    except UsageError:
        return text.strip()
    return values["v"] if set(values) == {"v"} else text.strip()


def recipe_text(recipe: Recipe) -> str:
    """The recipe as TOML that ``load_recipe`` reads back."""
    lines = [f"name = {_toml(recipe.name)}", f"target = {_toml(recipe.target)}", "", "[budget]"]
    lines += [f"{k} = {_toml(v)}" for k, v in recipe.budget.model_dump(exclude_none=True).items()]
    if recipe.expect:
        lines += ["", "[expect]", *(f"{_toml(k)} = {v}" for k, v in recipe.expect.items())]
    for entry in recipe.passes:
        lines += ["", "[[passes]]", f"name = {_toml(entry.name)}"]
        lines += [f"{k} = {_toml(v)}" for k, v in entry.options.items()]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(_toml(v) for v in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(k)} = {_toml(v)}' for k, v in value.items())}}}"
    if isinstance(value, float):
        return repr(value)
    # TOML has JSON's strings, but no surrogate pairs, and bars DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
