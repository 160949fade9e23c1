"""Make a pass of its class and of options as a recipe holds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pydantic

from strop.compiler.rewriting.passes import Pass
from strop.compiler.util.errors import UsageError, did_you_mean

_LISTS = 'it takes a list, in brackets, of texts in quotes: ["a", "b"]'


def with_options(kind: type[Pass], options: Mapping[str, Any], name: str) -> Pass:
    """A pass of a class with checked options.

    Args:
        kind: the class.
        options: by name; others have their defaults.
        name: what the pass is called, for messages.

    Raises:
        UsageError: no such option, or a value of the wrong type.
    """
    known = [f.name for f in dataclasses.fields(kind)]
    for key in options:
        if key not in known:
            hint = did_you_mean(key, known) if known else "; it has none"
            raise UsageError(f"pass '{name}' has no option '{key}'{hint}")
    try:
        made: Pass = pydantic.TypeAdapter(kind).validate_python(dict(options))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        said = _LISTS if first["type"] == "tuple_type" else first["msg"]
        raise UsageError(f"pass '{name}', option '{where}': {said}") from error
    return made
