"""Where models come from: a factory in a file, or a local Hugging Face folder."""

from __future__ import annotations

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
