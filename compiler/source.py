"""Where models come from: a factory in a file, or a local Hugging Face folder."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from strop.compiler.errors import UsageError, did_you_mean
from strop.compiler.model import Model


def load_model(source: str) -> Model:
    """Make the model that ``FILE.py:make`` or ``hf:PATH[#task]`` names.

    Raises:
        UsageError: the source is missing, raises, or returns something else.
    """
    if source.startswith("hf:"):
        from strop.compiler.huggingface import load_folder

        path, _, task = source.removeprefix("hf:").partition("#")
        return load_folder(Path(path), task or None)
    factory = load_object(source, "a model factory")
    if not callable(factory):
        raise UsageError(f"{source} is {type(factory).__name__}, not a function that returns a Model")
    model = _call(factory, source)
    if not isinstance(model, Model):
        raise UsageError(
            f"{source}() returned {type(model).__name__}; it must return strop.compiler.Model(...)"
        )
    return model


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
    module = _import(path)
    if not hasattr(module, name):
        names = [n for n in vars(module) if not n.startswith("_")]
        raise UsageError(f"{file} has no '{name}'{did_you_mean(name, names)}")
    return getattr(module, name)


def _import(path: Path) -> ModuleType:
    name = f"_strop_source_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        _call(lambda: spec.loader.exec_module(module), str(path))  # type: ignore[union-attr]
    finally:
        sys.path.pop(0)
    return module


def _call(function: Callable[[], Any], source: str) -> Any:
    """Call the user's code; their exception becomes a sentence with their line."""
    try:
        return function()
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if Path(f.filename).name == Path(source.split(":")[0]).name]
        place = own[-1] if own else frames[-1]
        raise UsageError(
            f"{source} raised {type(error).__name__}: {error}\n"
            f"  at {place.filename}:{place.lineno}: {place.line}"
        ) from error
