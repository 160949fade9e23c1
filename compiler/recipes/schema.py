"""The schema of a recipe file, and the messages about mistakes in it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic

from strop.compiler.recipes.budget import Budget, MetricBudget
from strop.compiler.recipes.entry import PassEntry, Slot, all_in_folder
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.files.parsing import parse_toml
from strop.compiler.util.sources import in_folder, with_sources

# pydantic puts them into the place of a problem; no key of a recipe looks like them.
_PASS, _SLOT = "<pass>", "<slot>"
_Checked = TypeVar("_Checked", bound=pydantic.BaseModel)


def _kind(entry: Any) -> str:
    is_slot = isinstance(entry, Slot) or (isinstance(entry, dict) and "slot" in entry)
    return _SLOT if is_slot else _PASS


Entries = list[
    Annotated[
        Annotated[PassEntry, pydantic.Tag(_PASS)] | Annotated[Slot, pydantic.Tag(_SLOT)],
        pydantic.Discriminator(_kind),
    ]
]
Expect = dict[str, Annotated[int, pydantic.Field(ge=0)]]


class RecipeFile(pydantic.BaseModel):
    """A recipe as its file holds it: a whole one, or what it changes of another.

    Attributes:
        extends: the recipe that this one changes: a built-in name, or the path of a TOML file,
            from this one's folder.
        target: where it runs.
        budget: in place of the whole budget of the recipe that it extends.
        expect: likewise.
        passes: in order, with slots between them; only where it extends nothing.
        without: ids of passes that it drops.
        options: options of passes that it changes, by id.
        slots: the passes that it puts into the slots, by slot.
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    name: str
    extends: str | None = None
    target: str | None = None
    budget: Budget | None = None
    expect: Expect | None = None
    passes: Entries = []
    without: list[str] = []
    options: dict[str, dict[str, Any]] = {}
    slots: dict[str, Entries] = {}

    def in_folder(self, folder: Path) -> RecipeFile:
        """The same with the user's own files looked up from a folder."""
        found = partial(in_folder, folder=folder)
        options = {name: with_sources(values, found) for name, values in self.options.items()}
        slots = {name: all_in_folder(entries, folder) for name, entries in self.slots.items()}
        passes = all_in_folder(self.passes, folder)
        return self.model_copy(update={"passes": passes, "slots": slots, "options": options})


def read_recipe(text: str, where: str) -> RecipeFile:
    """Read a recipe file's TOML.

    Raises:
        UsageError: with the place and, for an unknown key, the nearest known one.
    """
    return checked(RecipeFile, parse_toml(text, where), where)


def checked(kind: type[_Checked], values: Any, where: str) -> _Checked:
    """Check values against a part of the schema.

    Raises:
        UsageError: with every place that is wrong.
    """
    try:
        return kind.model_validate(values)
    except pydantic.ValidationError as error:
        problems = [_problem(e["type"], e["loc"], e["msg"]) for e in error.errors()]
        raise UsageError(f"{where}: {'; '.join(problems)}") from error


def _problem(kind: str, place: tuple[int | str, ...], message: str) -> str:
    if kind == "extra_forbidden":
        known = list(_model_at(place).model_fields)
        return f"unknown key '{place[-1]}'{did_you_mean(str(place[-1]), known)}"
    at = ".".join(str(part) for part in place if part not in (_PASS, _SLOT))
    return f"{at}: {message.removeprefix('Value error, ')}"


def _model_at(place: tuple[int | str, ...]) -> type[pydantic.BaseModel]:
    """The part of the schema whose key is at that place."""
    if place[:2] == ("budget", "metrics"):
        return MetricBudget
    if _SLOT in place:
        return Slot
    return Budget if place[0] == "budget" else RecipeFile
