"""The ids of the steps of a recipe: an id stays the same when other steps are added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import count

from strop.compiler.recipes.entry import Entry, PassEntry
from strop.compiler.rewriting.passes import numbered
from strop.compiler.util.errors import UsageError


def step_ids(entries: Sequence[PassEntry]) -> list[str]:
    """The id of every entry, in order.

    Raises:
        UsageError: two have the same, or a user's file has no such pass.
    """
    defaults = iter(numbered(entry.pass_name for entry in entries if not entry.id))
    ids = [entry.id or next(defaults) for entry in entries]
    for name, times in Counter(ids).items():
        if times > 1:
            raise _doubled(name)
    return ids


def with_fixed_ids(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, each with the id that it has now, whatever will be put before it.

    An id that is the pass's own name is left out: the first entry without an id has it.
    """
    passes = [entry for entry in entries if isinstance(entry, PassEntry)]
    ids = iter(step_ids(passes))
    return [_called(e, next(ids)) if isinstance(e, PassEntry) else e for e in entries]


def with_new_ids(entries: Iterable[Entry], taken: Collection[str]) -> list[Entry]:
    """Entries to be put among others, with ids that none of these has.

    Args:
        entries: an entry without an id gets the name of its pass, with a number where that is
            taken: ``cse``, ``cse-2``.
        taken: the ids of the others.

    Raises:
        UsageError: an entry has an id that is taken.
    """
    used, made = set(taken), []
    for entry in entries:
        if isinstance(entry, PassEntry):
            free = _free_id(entry, used)
            used.add(free)
            entry = _called(entry, free)
        made.append(entry)
    return made


def _free_id(entry: PassEntry, used: Collection[str]) -> str:
    if entry.id in used:
        raise _doubled(entry.id)
    if entry.id:
        return entry.id
    name = entry.pass_name
    tries = (name if n == 1 else f"{name}-{n}" for n in count(1))
    return next(one for one in tries if one not in used)


def _called(entry: PassEntry, name: str) -> PassEntry:
    if entry.id or name == entry.pass_name:
        return entry
    return entry.model_copy(update={"id": name})


def _doubled(name: str) -> UsageError:
    return UsageError(f"two passes have the id '{name}'; give one of them another: id = \"...\"")
