"""Where models come from: a factory in a file, or a local Hugging Face folder."""

from __future__ import annotations

from strop.compiler.frontend.model import Model
from strop.compiler.frontend.programs import Programs, as_programs, choose_program
from strop.compiler.util.errors import UsageError
from strop.compiler.util.user_code import call, load_object


def load_source(source: str) -> Model | Programs:
    """Make what ``FILE.py:make`` or ``hf:PATH[#task]`` names.

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
    made = call(factory, source)
    if not isinstance(made, (Model, Programs)):
        raise UsageError(
            f"{source}() returned {type(made).__name__}; it must return strop.compiler.Model(...) "
            "or Programs(...)"
        )
    return made


def load_model(source: str, program: str = "") -> Model:
    """Make the model that a source names; where it names several programs, one of them.

    Raises:
        UsageError: as ``load_source``, or there are several programs and none of them is named.
    """
    programs = as_programs(load_source(source)).models
    return programs[choose_program(program, list(programs), source)]
