"""From a chain of recipe files, each of which extends the one before it, to one flat recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from strop.compiler.recipes.budget import Budget
from strop.compiler.recipes.entry import Entry, PassEntry, Slot
from strop.compiler.recipes.ids import step_ids, with_fixed_ids, with_new_ids
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.recipes.schema import RecipeFile
from strop.compiler.util.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Layer:
    """One recipe file of a chain.

    Attributes:
        where: a built-in name or a path, for messages.
    """

    where: str
    file: RecipeFile


def compose(chain: Sequence[Layer]) -> Recipe:
    """The recipe that a chain of files makes.

    Args:
        chain: first the file that extends nothing, then each that extends the one before it.

    Raises:
        UsageError: a file names a pass or a slot that the one before it has not, an id or a slot
            is there twice, or a file holds what only the other kind of recipe may.
    """
    for layer in chain:
        _require_own_parts(layer)
    file = reduce(_extended, chain).file
    return Recipe(
        name=file.name,
        target=file.target or "cpu",
        budget=file.budget or Budget(),
        expect=file.expect or {},
        passes=[entry for entry in file.passes if isinstance(entry, PassEntry)],
    )


def _require_own_parts(layer: Layer) -> None:
    """Check that a file has only the keys of its kind: a whole recipe, or an extension of one."""
    file = layer.file
    if file.extends is None:
        for part in ("without", "options", "slots"):
            if getattr(file, part):
                raise UsageError(
                    f"{layer.where}: '{part}' changes a recipe that this one extends; say which: "
                    'extends = "..."'
                )
    elif file.passes:
        raise UsageError(
            f"{layer.where}: a recipe that extends another has no [[passes]] of its own; put them "
            f"into a slot of '{file.extends}': [[slots.NAME]]"
        )
    _require_once(layer.where, [file.passes, *file.slots.values()])


def _require_once(where: str, lists: Iterable[Sequence[Entry]]) -> None:
    names = Counter(e.slot for entries in lists for e in entries if isinstance(e, Slot))
    for name, times in names.items():
        if times > 1:
            raise UsageError(f"{where}: the slot '{name}' is there {times} times")


def _extended(base: Layer, child: Layer) -> Layer:
    """The child with everything that it takes over from its base."""
    own, old = child.file, base.file
    said = _Names(child.where, base.where)
    entries = with_fixed_ids(old.passes)
    entries = _without(entries, own.without, said)
    entries = _with_options(entries, own.options, said)
    entries = _filled(entries, own.slots, said)
    _require_once(child.where, [entries])
    taken_over = {
        "target": own.target or old.target,
        "budget": old.budget if own.budget is None else own.budget,
        "expect": old.expect if own.expect is None else own.expect,
    }
    return Layer(child.where, own.model_copy(update={**taken_over, "passes": entries}))


@dataclass(frozen=True)
class _Names:
    """What a recipe and its base are called in messages."""

    child: str
    base: str

    def unknown(self, what: str, name: str, known: list[str]) -> UsageError:
        """The child names something that the base has not."""
        hint = did_you_mean(name, known) if known else f"; it has no {what} at all"
        return UsageError(f"{self.child}: '{self.base}' has no {what} '{name}'{hint}")


def _places(entries: Sequence[Entry]) -> dict[str, int]:
    """Where each pass stands, by its id."""
    places = [i for i, entry in enumerate(entries) if isinstance(entry, PassEntry)]
    ids = step_ids([entry for entry in entries if isinstance(entry, PassEntry)])
    return dict(zip(ids, places))


def _without(entries: list[Entry], ids: Sequence[str], said: _Names) -> list[Entry]:
    places = _places(entries)
    for name in ids:
        if name not in places:
            raise said.unknown("pass", name, list(places))
    dropped = {places[name] for name in ids}
    return [entry for i, entry in enumerate(entries) if i not in dropped]


def _with_options(
    entries: list[Entry], options: Mapping[str, dict[str, Any]], said: _Names
) -> list[Entry]:
    places, changed = _places(entries), list(entries)
    for name, values in options.items():
        if name not in places:
            raise said.unknown("pass", name, list(places))
        entry = entries[places[name]]
        assert isinstance(entry, PassEntry)
        changed[places[name]] = entry.with_options(values)
    return changed


def _filled(
    entries: list[Entry], slots: Mapping[str, Sequence[Entry]], said: _Names
) -> list[Entry]:
    """The entries with others in front of their slots, which stay open for the next recipe."""
    for name, added in slots.items():
        known = [entry.slot for entry in entries if isinstance(entry, Slot)]
        if name not in known:
            raise said.unknown("slot", name, known)
        place = next(i for i, e in enumerate(entries) if isinstance(e, Slot) and e.slot == name)
        try:
            new = with_new_ids(added, list(_places(entries)))
        except UsageError as error:
            raise UsageError(f"{said.child}: {error}") from error
        entries = [*entries[:place], *new, *entries[place:]]
    return entries
