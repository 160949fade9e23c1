"""How the programs of an artifact are called token by token, as its manifest says it."""

from __future__ import annotations

from typing import Any

import pydantic

from strop.compiler.artifact.manifest_schema import GenerationValues
from strop.compiler.frontend.generation import Generation
from strop.compiler.util.errors import UsageError


def generation_values(
    generation: Generation, shared_buffers: bool = False, prefill: str = ""
) -> dict[str, Any]:
    """The section of the manifest.

    Args:
        generation: as a factory declares it.
        shared_buffers: whether a cache may be given as one buffer that is input and output at once.
        prefill: the name of a second file of the same decoder, for many new tokens.

    Raises:
        UsageError: a value is of another type than it must be.
    """
    values = vars(generation) | {
        "caches": dict(generation.caches),
        "cross": dict(generation.cross),
        "sizes": dict(generation.sizes),
        "eos": list(generation.eos),
        "start": list(generation.start),
        "suppressed": list(generation.suppressed),
        "suppressed_first": list(generation.suppressed_first),
        "shared_buffers": shared_buffers,
        "prefill": prefill,
    }
    try:
        return GenerationValues.model_validate(values).model_dump()
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"Generation.{place}: {first['msg']}") from error
