"""Which tensors of the original modules are weights of more than one program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch

from strop.compiler.frontend.model import Model
from strop.compiler.ir.program import Program

Shared = Mapping[str, int]
"""By name of a parameter or buffer in a module, the number of the tensor that is behind it."""


def shared_tensors(models: Mapping[str, Model]) -> dict[str, Shared]:
    """Number the tensors that more than one module holds; by program, its names for them.

    To be asked while all modules are there: afterwards, other tensors may take their memory.
    """
    # What is no module is refused, with a sentence, when it is captured.
    held = {
        program: list(_tensors(model.module)) if isinstance(model.module, torch.nn.Module) else []
        for program, model in models.items()
    }
    users: dict[Any, set[str]] = {}
    for program, tensors in held.items():
        for _, key in tensors:
            users.setdefault(key, set()).add(program)
    numbers = {key: i for i, (key, found) in enumerate(users.items()) if len(found) > 1}
    return {
        program: {name: numbers[key] for name, key in tensors if key in numbers}
        for program, tensors in held.items()
    }


def _tensors(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Every tensor of a module by each of its names, and what tells it from others."""
    named = (
        module.named_parameters(remove_duplicate=False),
        module.named_buffers(remove_duplicate=False),
    )
    for name, tensor in chain(*named):
        if not tensor.numel():
            continue
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        yield name, place


def owners(program: Program, shared: Shared) -> dict[str, frozenset[int]]:
    """The weights of a program that come from shared tensors alone, and the numbers of those."""
    return {
        name: frozenset(shared[source] for source in origin.sources)
        for name, origin in program.origins.items()
        if origin.sources and all(source in shared for source in origin.sources)
    }
