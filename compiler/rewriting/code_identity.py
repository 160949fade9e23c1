"""Which code it is: what makes functions and classes count for a cache."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import Any

from strop.compiler.util.files.reading import file_hash

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def code_identity(thing: Any) -> list[str]:
    """What tells a class or what can be called from all others.

    The hash of its file and its place in it, and of what it is bound to (arguments of a
    ``partial``, defaults, variables of an enclosing function, attributes of an object) the plain
    values; of other values their type alone, since nothing else of them stays from run to run.
    """
    thing = inspect.unwrap(thing)
    if isinstance(thing, partial):
        bound = _plain([*thing.args, *sorted(thing.keywords.items())])
        return [*code_identity(thing.func), bound]
    if inspect.ismethod(thing):
        return [*code_identity(thing.__func__), *code_identity(thing.__self__)]
    if inspect.isfunction(thing):
        line = str(thing.__code__.co_firstlineno)
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        bound = _plain([*(thing.__defaults__ or ()), *cells])
        return [_file_hash(thing), thing.__qualname__, line, bound]
    if inspect.isclass(thing):
        return [_file_hash(thing), thing.__qualname__]
    return [*code_identity(type(thing)), _plain(sorted(getattr(thing, "__dict__", {}).items()))]


def _plain(values: Any) -> str:
    if isinstance(values, _PLAIN):
        return repr(values)
    if isinstance(values, (list, tuple)):
        return f"[{', '.join(map(_plain, values))}]"
    return type(values).__qualname__


def _file_hash(thing: Any) -> str:
    """The hash of the file that holds a class or a function; "" where there is none."""
    try:
        file = inspect.getsourcefile(thing)
    except TypeError:
        return ""
    return file_hash(Path(file)) if file and Path(file).is_file() else ""
