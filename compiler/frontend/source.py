"""Where models come from: a factory in a file, or a local Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

from strop.compiler.frontend.model import Model
from strop.compiler.util.errors import UsageError
from strop.compiler.util.user_code import call, load_object


def load_model(source: str) -> Model:
    """Make the model that ``FILE.py:make`` or ``hf:PATH[#task]`` names.

    Raises:
        UsageError: the source is missing, raises, or returns something else.
    """
    if source.startswith("hf:"):
        from strop.compiler.frontend.huggingface import load_folder

        return load_folder(source.removeprefix("hf:"))
    factory = load_object(source, "a model factory")
    if not callable(factory):
        kind = type(factory).__name__
        raise UsageError(f"{source} is {kind}, not a function that returns a Model")
    model = call(factory, source)
    if not isinstance(model, Model):
        raise UsageError(
            f"{source}() returned {type(model).__name__}; it must return strop.compiler.Model(...)"
        )
    return model


def absolute_source(source: str) -> str:
    """``FILE.py:make`` or ``hf:PATH`` with its path made absolute; anything else as it is."""
    if source.startswith("hf:"):
        path, mark, task = source.removeprefix("hf:").partition("#")
        return f"hf:{Path(path).absolute()}{mark}{task}"
    file, colon, name = source.rpartition(":")
    return f"{Path(file).absolute()}{colon}{name}" if colon else source


def source_path(source: str) -> Path:
    """The file or the folder of a source."""
    if source.startswith("hf:"):
        return Path(source.removeprefix("hf:").partition("#")[0])
    return Path(source.rpartition(":")[0])
