"""What is searched: options of a recipe's passes, and what of a build is to be good."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from strop.compiler.recipes.entry import PassEntry
from strop.compiler.recipes.ids import step_ids
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.files.parsing import parse_toml
from strop.compiler.util.files.reading import MOST_TOML, read_text

Direction = Literal["minimize", "maximize"]
Number = int | float
# What every build can be measured by, and which way is better.
OBJECTIVES: dict[str, Direction] = {
    "latency": "minimize",
    "size": "minimize",
    "fidelity": "maximize",
}
# What is drawn of a step that may be left out: whether it is there.
PRESENT = "present"


class Dimension(pydantic.BaseModel):
    """The values that one option may have: a list of them, or a range of numbers.

    Attributes:
        choices: at least one value, as the option takes it.
        low: the least number.
        high: the largest; both are whole numbers for an option that is one.
        step: what lies between neighbours; None for all numbers between.
        log: numbers are drawn by their logarithm.
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    choices: Annotated[list[Any], pydantic.Field(min_length=1)] | None = None
    low: Number | None = None
    high: Number | None = None
    step: Annotated[Number, pydantic.Field(gt=0)] | None = None
    log: bool = False

    @pydantic.model_validator(mode="after")
    def _require_one_form(self) -> Dimension:
        ranged = self.low is not None and self.high is not None
        if (self.choices is not None) == ranged or (self.low is None) != (self.high is None):
            raise ValueError("give either choices, or low and high")
        if self.choices is not None and (self.step is not None or self.log):
            raise ValueError("step and log are for ranges")
        if self.low is not None and self.high is not None:
            if self.low > self.high:
                raise ValueError(f"low is {self.low}, above high, {self.high}")
            if self.log and (self.low <= 0 or self.step is not None):
                raise ValueError("log needs low above 0, and no step")
        return self

    @property
    def samples(self) -> list[Any]:
        """Values that stand for all: every choice, or both ends of a range."""
        return [self.low, self.high] if self.choices is None else self.choices

    @property
    def whole(self) -> bool:
        """Whether a range is of whole numbers."""
        return all(isinstance(n, int) for n in (self.low, self.high, self.step or 1))


class Space(pydantic.BaseModel):
    """The file that ``--space`` names.

    Attributes:
        options: by the id of a step and the name of its option, the values that it may have.
        optional: ids of steps that may be left out.
        objectives: those of ``OBJECTIVES`` that count.
        metrics: metrics of the model's ``evaluate`` that count, and which way is better.
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    options: dict[str, dict[str, Dimension]] = {}
    optional: list[str] = []
    objectives: list[Literal["latency", "size", "fidelity"]] = ["latency", "size", "fidelity"]
    metrics: dict[str, Direction] = {}

    @property
    def directions(self) -> dict[str, Direction]:
        """By the name of each objective, which way is better."""
        return {name: OBJECTIVES[name] for name in self.objectives} | self.metrics

    def dimensions(self) -> Iterator[tuple[str, Dimension]]:
        """What is drawn, by the name of the parameter: ``ID.option``, or ``ID.present``."""
        for step, options in self.options.items():
            for option, dimension in options.items():
                yield f"{step}.{option}", dimension
        for step in self.optional:
            yield f"{step}.{PRESENT}", Dimension(choices=[True, False])


def read_space(path: Path, recipe: Recipe) -> Space:
    """Read a space, and check it against a recipe before anything is built.

    Raises:
        UsageError: an unknown key, step or option, with the nearest known one; or a value that an
            option does not take.
    """
    text = read_text(path, "the space", most_bytes=MOST_TOML)
    try:
        space = Space.model_validate(parse_toml(text, str(path)))
    except pydantic.ValidationError as error:
        problems = [_problem(e["type"], e["loc"], e["msg"]) for e in error.errors()]
        raise UsageError(f"{path}: {'; '.join(problems)}") from error
    if not any(space.dimensions()):
        raise UsageError(f"{path}: there is nothing to search: give [options.ID] or optional")
    if not space.directions:
        raise UsageError(f"{path}: there is nothing to search for: give objectives or metrics")
    _require_known(space, recipe, str(path))
    return space


def recipe_of(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with the values that were drawn, by the names of parameters."""
    kept = []
    for step, entry in zip(step_ids(recipe.passes), recipe.passes):
        if not values.get(f"{step}.{PRESENT}", True):
            continue
        own = {k.removeprefix(f"{step}."): v for k, v in values.items() if k.startswith(f"{step}.")}
        own.pop(PRESENT, None)
        kept.append(entry.with_options(own).model_copy(update={"id": _id(step, entry)}))
    return recipe.model_copy(update={"passes": kept})


def _id(step: str, entry: PassEntry) -> str:
    """The id of an entry that keeps it, whichever others are left out."""
    return entry.id or ("" if step == entry.pass_name else step)


def _problem(kind: str, place: tuple[int | str, ...], message: str) -> str:
    if kind == "extra_forbidden":
        known = list((Space if len(place) == 1 else Dimension).model_fields)
        return f"unknown key '{place[-1]}'{did_you_mean(str(place[-1]), known)}"
    at = ".".join(str(part) for part in place if part not in ("int", "float"))
    return f"{at}: {message.removeprefix('Value error, ')}"


def _require_known(space: Space, recipe: Recipe, where: str) -> None:
    """Try every step, option and value that the space names."""
    entries = dict(zip(step_ids(recipe.passes), recipe.passes))
    for step in (*space.options, *space.optional):
        if step not in entries:
            raise UsageError(
                f"{where}: the recipe has no pass '{step}'{did_you_mean(step, list(entries))}"
            )
    for step, options in space.options.items():
        for option, dimension in options.items():
            for value in dimension.samples:
                try:
                    entries[step].with_options({option: value}).make()
                except UsageError as error:
                    raise UsageError(f"{where}: {error}") from error
    for present in (True, False):
        recipe_of(recipe, {f"{step}.{PRESENT}": present for step in space.optional}).pipeline()


def as_text(value: Any) -> str:
    """One value of a choice as a study holds it, which knows no lists."""
    return json.dumps(value, sort_keys=True)
