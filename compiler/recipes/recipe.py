"""A recipe as it runs: the passes with their order and options, and the budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic

from strop.compiler.recipes.budget import Budget
from strop.compiler.recipes.entry import PassEntry
from strop.compiler.recipes.ids import step_ids, with_fixed_ids, with_new_ids
from strop.compiler.recipes.order import require_order
from strop.compiler.recipes.registry import UserPass, as_pass, origin
from strop.compiler.recipes.schema import Expect, RecipeFile, checked
from strop.compiler.recipes.syntax import parse_pass, parse_value
from strop.compiler.rewriting.passes import Pipeline, Step
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.sources import source_path


class Recipe(pydantic.BaseModel):
    """What ``--recipe`` names, and ``--print-recipe`` writes; it extends no other recipe.

    Attributes:
        expect: how often a step, by its id, or a rule must rewrite; another count is a missed
            budget.
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    name: str
    target: str = "cpu"
    budget: Budget = Budget()
    expect: Expect = {}
    passes: list[PassEntry] = []

    def pipeline(self) -> Pipeline:
        """The passes as they will run, each called by its id.

        Raises:
            UsageError: an unknown pass or option, an id that is there twice, or an order that a
                pass forbids.
        """
        made = [entry.make() for entry in self.passes]
        steps = tuple(map(Step, step_ids(self.passes), made))
        require_order(steps)
        return Pipeline(steps)

    def in_folder(self, folder: Path) -> Recipe:
        """The recipe with the user's own files looked up from a folder."""
        return self.model_copy(update={"passes": [p.in_folder(folder) for p in self.passes]})

    def without_folders(self) -> Recipe:
        """The recipe with no path of the machine in it: the user's own files by name alone."""
        return self.model_copy(update={"passes": [p.without_folders() for p in self.passes]})

    def files(self) -> list[Path]:
        """The files that hold the user's own passes, and what options of passes name."""
        return [source_path(source) for p in self.passes for source in p.sources().values()]

    def insert(self, *added: str | UserPass, before: str = "", after: str = "") -> Recipe:
        """The recipe with more passes, in the order given, at one place; at the end by default.

        The steps that it has keep their ids. A pass that is added is called by its name, or where
        another step is called so, by ``name-2``.

        Args:
            added: each a pass in Python, or text as after ``--pass``.
            before: the id of the step that they precede.
            after: the id of the step that they follow.

        Raises:
            UsageError: there is no such step, both places are named, or an id is taken.
        """
        if before and after:
            raise UsageError("give either 'before' or 'after', not both")
        place = len(self.passes)
        if before or after:
            place = self._place(before or after) + (1 if after else 0)
        kept = with_fixed_ids(self.passes)
        new = with_new_ids([_entry(one) for one in added], step_ids(self.passes))
        return self.model_copy(update={"passes": [*kept[:place], *new, *kept[place:]]})

    def override(self, *settings: str) -> Recipe:
        """The recipe with ``id.option=value``, ``budget.key=value`` or ``expect.name=count``.

        A metric's budget is ``budget.metrics.NAME.key=value``.

        Raises:
            UsageError: no such step or budget, or the text has another form.
        """
        limits, passes = _Limits(self), list(self.passes)
        for setting in settings:
            path, equals, text = setting.partition("=")
            owner, dot, key = path.strip().rpartition(".")
            if not equals or not dot:
                raise UsageError(f"--set '{setting}' is not of the form pass.option=value")
            if not limits.set(path.strip(), parse_value(text)):
                place = self._place(owner)
                passes[place] = passes[place].with_options({key: parse_value(text)})
        return self.model_copy(update={**limits.parts(), "passes": passes})

    def values(self) -> dict[str, Any]:
        """The recipe as TOML and JSON hold it."""
        return {
            "name": self.name,
            "target": self.target,
            "budget": self.budget.values(),
            "expect": self.expect,
            "passes": [entry.values() for entry in self.passes],
        }

    def _place(self, step: str) -> int:
        ids = step_ids(self.passes)
        if step not in ids:
            raise UsageError(f"the recipe has no pass '{step}'{did_you_mean(step, ids)}")
        return ids.index(step)


class _Limits:
    """The budget and the expectations of a recipe, while settings change them."""

    def __init__(self, recipe: Recipe) -> None:
        self._budget = recipe.budget.values()
        self._expect = dict(recipe.expect)
        self._name = recipe.name

    def set(self, path: str, value: Any) -> bool:
        """Change what a path names; False if that is neither a budget nor an expectation.

        Raises:
            UsageError: a key is unknown, or a value is not as it must be.
        """
        match path.split("."):
            case ["expect", *name]:
                self._expect[".".join(name)] = value
            case ["budget", "metrics", name]:
                self._budget.setdefault("metrics", {})[name] = value
            case ["budget", "metrics", *name, key]:
                metrics = self._budget.setdefault("metrics", {})
                metrics.setdefault(".".join(name), {})[key] = value
            case ["budget", *key]:
                self._budget[".".join(key)] = value
            case _:
                return False
        self.parts()  # at once: the next setting may go into what this one has put there
        return True

    def parts(self) -> dict[str, Any]:
        """Both as a recipe has them."""
        values = {"name": self._name, "budget": self._budget, "expect": self._expect}
        file = checked(RecipeFile, values, "--set")
        return {"budget": file.budget, "expect": file.expect}


def _entry(given: str | UserPass) -> PassEntry:
    """An entry for ``name{option=value}``, or for a pass or rules made in Python."""
    if isinstance(given, str):
        return parse_pass(given)
    entry = PassEntry(name=origin(given), **as_pass(given, origin(given), {}).options())
    entry._given = given
    return entry
