"""Several programs of one artifact, such as an encoder and a decoder, that share weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strop.compiler.frontend.model import Model
from strop.compiler.targets.target import MAIN
from strop.compiler.util.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from strop.compiler.frontend.generation import Generation

PROGRAM_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
# What belongs to the artifact as a whole, and not to one of its programs.
_OF_ALL = ("files", "labels", "generation")


@dataclass
class Programs:
    """Entry points of one artifact; weights that they share are stored once.

    Each of them is captured, optimized, lowered and checked by itself: a pass sees one program at a
    time. Where passes give a weight that programs share another form in each, it is stored for
    each, and a note of the artifact says how many bytes that takes. A Model is the same as the
    Programs of one program that is named "model".

    Attributes:
        models: what each program is made of, by name; a name is an identifier of ASCII letters,
            and files are named after it. Modules share a weight by holding the same tensor.
        generation: how they generate together, where one of them is a decoder with caches.
        files: copied beside the programs; see ``Model.files``.
        labels: names of the classes by index; see ``Model.labels``.
        notes: what whoever builds them should know, in sentences, beside the notes of each model.
    """

    models: Mapping[str, Model]
    generation: Generation | None = None
    files: Sequence[Path] = ()
    labels: Mapping[int, str] | None = None
    notes: Sequence[str] = ()


def is_several(names: Iterable[str]) -> bool:
    """Whether these are programs with files of their own, and not the one that a Model becomes."""
    return list(names) != [MAIN]


def choose_program(name: str, known: Sequence[str], of: object) -> str:
    """The name of a program that was asked for.

    Args:
        name: as the user gave it; "" where they gave none.
        known: the names of all programs.
        of: what has these programs, for messages.

    Raises:
        UsageError: there is no such program, or there are several and none is named.
    """
    if name in known:
        return name
    if name:
        raise UsageError(f"{of} has no program '{name}'{did_you_mean(name, list(known))}")
    if len(known) > 1:
        raise UsageError(
            f"{of} has {len(known)} programs: {', '.join(known)}; say which one: --program NAME"
        )
    return known[0]


def as_programs(given: Model | Programs) -> Programs:
    """What a factory returned, as programs by name.

    Raises:
        UsageError: a name is no identifier, two names differ in case only, there is no model, or a
            model holds what belongs to all of them.
    """
    if isinstance(given, Model):
        return Programs({MAIN: given}, given.generation, given.files, given.labels)
    if not isinstance(given.models, Mapping) or not given.models:
        raise UsageError("Programs.models is empty or no mapping; write {'encoder': Model(...)}")
    known: dict[str, str] = {}
    for name, model in given.models.items():
        _require_name(name)
        if name.lower() in known:
            raise UsageError(
                f"Programs.models: '{known[name.lower()]}' and '{name}' differ in case only; "
                "their files would have the same name on some systems"
            )
        known[name.lower()] = name
        _require_model(name, model)
    return given


def _require_name(name: object) -> None:
    if not isinstance(name, str) or not re.fullmatch(PROGRAM_NAME, name):
        raise UsageError(
            f"Programs.models: {name!r} is no name for a program; take at most 64 ASCII letters, "
            "digits and underscores, without a digit in front"
        )


def _require_model(name: str, model: object) -> None:
    if not isinstance(model, Model):
        raise UsageError(
            f"Programs.models['{name}'] is {type(model).__name__}; it must be a "
            "strop.compiler.Model(...)"
        )
    for of_all in _OF_ALL:
        if getattr(model, of_all):
            raise UsageError(
                f"Programs.models['{name}'] has {of_all}, which belong to all programs together: "
                f"give Programs({of_all}=...)"
            )
