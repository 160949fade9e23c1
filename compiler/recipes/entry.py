"""One entry of a recipe's list of passes: a pass with its options, or a slot for passes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pydantic

from strop.compiler.recipes.registry import UserPass, as_pass, make_pass
from strop.compiler.rewriting.passes import Pass
from strop.compiler.util.errors import UsageError
from strop.compiler.util.sources import in_folder, is_source, names_code, without_folder

# As an id these would mean something else in `--set budget.…`, `--set expect.…`, `--stop-after`.
NO_IDS = ("budget", "expect", "capture")


class PassEntry(pydantic.BaseModel):
    """One pass in a recipe; every key that is no attribute here is an option of that pass.

    Attributes:
        name: of a pass that comes with strop, or ``FILE.py:Name``.
        id: what the step is called. By default the name of the pass; where entries without an
            id repeat a pass, the second is ``name-2``.
        why: the reason for the position of the pass, for readers.
    """

    model_config = pydantic.ConfigDict(extra="allow", strict=True)

    name: str
    id: str = ""
    why: str = ""
    _given: UserPass | None = None

    @pydantic.field_validator("id")
    @classmethod
    def _require_id(cls, value: str) -> str:
        if value in NO_IDS:
            raise ValueError(f"'{value}' cannot be the id of a pass: it has a meaning of its own")
        if re.fullmatch(r"[\w-]*", value) is None:
            raise ValueError(f"the id '{value}' must be of letters, digits, '-' and '_'")
        return value

    @property
    def options(self) -> dict[str, Any]:
        """The options as written."""
        return dict(self.__pydantic_extra__ or {})

    @property
    def pass_name(self) -> str:
        """What the pass calls itself; for a user's own its file is run to know.

        Raises:
            UsageError: the user's file has no such pass.
        """
        if self._given is None and not names_code(self.name):
            return self.name
        return self.make().name

    def make(self) -> Pass:
        """The pass itself.

        Raises:
            UsageError: no such pass or option, or a value of the wrong type.
        """
        if self._given is not None:
            return as_pass(self._given, self.name, self.options)
        return make_pass(self.name, self.options)

    def with_options(self, options: dict[str, Any]) -> PassEntry:
        """The entry with more options, or other values for those that it has.

        Raises:
            UsageError: a key is no option but another part of the entry.
        """
        for key in options:
            if key in PassEntry.model_fields:
                raise UsageError(f"pass '{self.id or self.name}' has no option '{key}'")
        return self.model_copy(update=options)

    def sources(self) -> dict[str, str]:
        """What names code or a model of the user's, by key: ``name``, or an option."""
        own = {"name": self.name} if names_code(self.name) else {}
        return own | {key: value for key, value in self.options.items() if is_source(value)}

    def in_folder(self, folder: Path) -> PassEntry:
        """The entry with the user's files looked up from a folder, as a recipe file means them."""
        return self._with_sources(lambda source: in_folder(source, folder))

    def without_folders(self) -> PassEntry:
        """The entry with the user's files by name alone."""
        return self._with_sources(without_folder)

    def _with_sources(self, change: Callable[[str], str]) -> PassEntry:
        return self.model_copy(update={k: change(text) for k, text in self.sources().items()})

    def values(self) -> dict[str, Any]:
        """The entry as a table for TOML and JSON; options that are None are left out."""
        named = {"name": self.name, "id": self.id, "why": self.why}
        options = {key: value for key, value in self.options.items() if value is not None}
        return {key: value for key, value in named.items() if value} | options


class Slot(pydantic.BaseModel):
    """A named place between passes, which recipes that extend this one may fill.

    Attributes:
        why: what the place is for.
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    slot: Annotated[str, pydantic.Field(min_length=1)]
    why: str = ""


Entry = PassEntry | Slot


def all_in_folder(entries: list[Entry], folder: Path) -> list[Entry]:
    """The entries with the user's own files looked up from a folder."""
    return [e.in_folder(folder) if isinstance(e, PassEntry) else e for e in entries]
