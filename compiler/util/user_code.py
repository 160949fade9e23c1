"""Code of the user's: importing it, calling it, and saying where it went wrong."""

from __future__ import annotations

import importlib.util
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from strop.compiler.util.errors import StropError, UsageError, did_you_mean
from strop.compiler.util.interrupts import Interrupted


def load_object(source: str, what: str) -> Any:
    """The object that ``FILE.py:name`` names.

    Raises:
        UsageError: no such file or name, or the file fails when it is imported.
    """
    file, colon, name = source.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise UsageError(f"'{source}' does not name {what}; write FILE.py:name")
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"{file} does not exist")
    module = _import(path.resolve(), path.stat().st_mtime_ns)
    if not hasattr(module, name):
        names = [n for n in vars(module) if not n.startswith("_")]
        raise UsageError(f"{file} has no '{name}'{did_you_mean(name, names)}")
    return getattr(module, name)


def load_function(source: str, what: str) -> Callable[..., Any]:
    """The function that ``FILE.py:name`` names.

    Raises:
        UsageError: as ``load_object``, or it cannot be called.
    """
    found = load_object(source, what)
    if not callable(found):
        raise UsageError(f"{source} is {type(found).__name__}, not a function")
    function: Callable[..., Any] = found
    return function


@cache
def _import(path: Path, changed: int) -> ModuleType:
    """Run a file once per process and version of it: it may register operators."""
    name = f"_strop_source_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # As when Python runs the file: its neighbours can be imported, also later, by its functions.
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    call(partial(spec.loader.exec_module, module), str(path))
    return module


def call(function: Callable[[], Any], source: str) -> Any:
    """Call the user's code; their exception becomes a sentence with their line.

    Raises:
        UsageError: it raised anything, ``SystemExit`` included.
    """
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise UsageError(f"{source} raised {blame(error, source.split(':')[0])}") from error


def given_to(function: Callable[..., Any], what: str, *given: Any) -> Any:
    """What a function of the user's returns for these arguments.

    Args:
        function: the user's.
        what: it is, for messages: "loss".
        given: its arguments.

    Raises:
        UsageError: it raised, with its line.
    """
    try:
        return function(*given)
    except StropError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise UsageError(f"{what} raised {blame(error, file_of(function))}") from error


@contextmanager
def held_to_return() -> Iterator[None]:
    """The user's code may raise in this block, and may not end the process.

    Raises:
        UsageError: it called ``sys.exit``, or raised another exception that is no ``Exception``.
    """
    try:
        yield
    except (Exception, Interrupted):
        raise
    except BaseException as error:
        # Where Python's own handler is in force, it may be a real Ctrl-C.
        default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if isinstance(error, KeyboardInterrupt) and default:
            raise
        raise UsageError(
            f"code of the model, its data or a pass raised {blame(error, '')}\n"
            "It must return, or raise an exception that is an Exception."
        ) from error


def file_of(function: Any) -> str:
    """The file of a function of the user's; "" where it has none."""
    return function.__code__.co_filename if hasattr(function, "__code__") else ""


def blame(error: BaseException, file: str) -> str:
    """``Type: message`` and the innermost line of the user's file that led to it."""
    sentence = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):  # its message names the file and the line
        return sentence
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).name == Path(file).name]
    place = (own or frames)[-1]
    return f"{sentence}\n  at {place.filename}:{place.lineno}: {place.line}"
