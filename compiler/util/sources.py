"""Texts that name what is the user's: ``FILE.py:name`` code, ``hf:PATH[#task]`` a model folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

_FOLDER, _CODE = "hf:", ".py:"


def names_code(text: object) -> bool:
    """Whether a text names an object in a file of the user's."""
    return isinstance(text, str) and _CODE in text


def is_source(value: object) -> bool:
    """Whether the value of an option names code or a model folder of the user's."""
    return isinstance(value, str) and (names_code(value) or value.startswith(_FOLDER))


def in_folder(source: str, folder: Path) -> str:
    """The source with its path looked up from a folder; what names no file stays as it is."""
    start, path, end = _parts(source)
    return f"{start}{folder / path}{end}" if path else source


def without_folder(source: str) -> str:
    """The source with no folder in its path: what it says is the same on every machine."""
    start, path, end = _parts(source)
    return f"{start}{PurePath(path).name}{end}"


def with_sources(options: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Options by name, those that are sources changed."""
    return {name: change(v) if is_source(v) else v for name, v in options.items()}


def source_path(source: str) -> Path:
    """The file or the folder of a source."""
    return Path(_parts(source)[1])


def _parts(source: str) -> tuple[str, str, str]:
    """What stands before the path, the path, and what stands behind it."""
    if source.startswith(_FOLDER):
        path, mark, task = source.removeprefix(_FOLDER).partition("#")
        return _FOLDER, path, mark + task
    path, colon, name = source.rpartition(":")
    return "", path, colon + name
