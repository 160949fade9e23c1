"""Another model of the user's as a program with the inputs of the one that is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import Signature
from strop.compiler.frontend.model import Model
from strop.compiler.frontend.original import run_original
from strop.compiler.frontend.prepare import require_ready
from strop.compiler.frontend.programs import as_programs, choose_program
from strop.compiler.frontend.source import load_source
from strop.compiler.ir.contract import Contract, dims_of
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs
from strop.compiler.util.errors import StropError, UsageError
from strop.compiler.util.user_code import blame


def capture_teacher(source: str, contract: Contract, example: Inputs, name: str = "") -> Program:
    """Capture a model at the sizes of another one, with that one's dynamic dims.

    Args:
        source: ``FILE.py:make`` or ``hf:PATH[#task]``.
        contract: of the student.
        example: inputs of the student's, by name.
        name: of the program, where the source makes several.

    Raises:
        UsageError: there is no such model, or it does not take these inputs.
        UnsupportedError: it cannot be captured.
    """
    try:
        models = as_programs(load_source(source)).models
        model = models.get(name) or models[choose_program("", list(models), source)]
        require_ready(model.module)
        signature = _signature(model, contract)
        with torch.no_grad():
            _require_running(model, signature, example)
            return capture(model.module, signature, example)
    except StropError as error:
        raise type(error)(f"teacher {source}: {error}") from error


def _signature(model: Model, contract: Contract) -> Signature:
    """How the model is called with the student's inputs.

    Raises:
        UsageError: it has others.
    """
    names = tuple(spec.name for spec in contract.inputs)
    _require_names(model.example_inputs, names)
    dims = {dim.name: dim for dim in contract.dims}
    axes = {
        spec.name: {i: dims_of(size) for i, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in contract.inputs
    }
    positional = not isinstance(model.example_inputs, Mapping)
    return Signature(names, positional, axes, dims)


def _require_names(given: Mapping[str, object] | Sequence[object], names: Sequence[str]) -> None:
    """Check that example inputs are those of the student: by name, or as many by position."""
    if isinstance(given, Mapping) and set(given) != set(names):
        theirs = ", ".join(given)
    elif not isinstance(given, Mapping) and len(given) != len(names):
        theirs = f"{len(given)} by position"
    else:
        return
    raise UsageError(
        f"its inputs are {theirs}, those of the model that learns from it {', '.join(names)}; wrap "
        "it in a module that takes the same"
    )


def _require_running(model: Model, signature: Signature, example: Inputs) -> None:
    try:
        run_original(model.module, signature, example)
    except Exception as error:  # whatever a module raises for inputs that are not its own
        shapes = ", ".join(f"{n} {list(t.shape)}" for n, t in example.items())
        raise UsageError(
            f"it does not take the inputs of the model that learns from it ({shapes}): "
            f"{blame(error, '')}"
        ) from error
