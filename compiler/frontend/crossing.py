"""What one program computes for another, such as an encoder's keys and values for a decoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from strop.compiler.frontend.cases import first_cases
from strop.compiler.frontend.inputs import Signature, read_inputs
from strop.compiler.frontend.model import Model
from strop.compiler.frontend.prepare import require_ready
from strop.compiler.frontend.programs import Programs
from strop.compiler.ir.running import Inputs
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.numerics import Array


def require_agreement(programs: Programs) -> None:
    """Check on the examples that programs give what others take, by ``Generation.cross``.

    Each program that gives something runs once, on its example.

    Raises:
        UsageError: an input or output is not there, or the two have other dtypes or shapes.
    """
    cross = programs.generation.cross if programs.generation is not None else {}
    if not cross:
        return
    taker = _taker(programs, cross)
    signature, example, _ = read_inputs(programs.models[taker])
    givers = {name: model for name, model in programs.models.items() if name != taker}
    given = {
        output: (name, array)
        for name, model in givers.items()
        for output, array in _given(name, model).items()
    }
    for wanted, output in cross.items():
        if output not in given:
            raise UsageError(
                f"Generation.cross: no program beside '{taker}' gives '{output}'"
                f"{did_you_mean(output, list(given))}"
            )
        giver, array = given[output]
        apart = _apart(array, wanted, example, signature)
        if apart:
            raise UsageError(
                f"Generation.cross: '{giver}' gives '{output}' as {apart[0]}, and '{taker}' takes "
                f"it as '{wanted}', {apart[1]}"
            )


def _taker(programs: Programs, cross: Mapping[str, str]) -> str:
    """The program that has these inputs.

    Raises:
        UsageError: none has all of them.
    """
    known = {name: list(read_inputs(model)[1]) for name, model in programs.models.items()}
    for name, inputs in known.items():
        if cross.keys() <= set(inputs):
            return name
    every = [one for inputs in known.values() for one in inputs]
    lost = next((one for one in cross if one not in every), next(iter(cross)))
    raise UsageError(
        f"Generation.cross: no program takes {', '.join(map(repr, cross))} together"
        f"{did_you_mean(lost, every)}"
    )


def _given(name: str, model: Model) -> dict[str, Array]:
    """What a program gives on its example."""
    try:
        require_ready(model.module)
        with torch.no_grad():
            signature, example, _ = read_inputs(model)
            return first_cases(model.module, signature, [example])[0].expected
    except UsageError as error:
        raise UsageError(f"program '{name}': {error}") from error


def _apart(
    given: Array, wanted: str, example: Inputs, signature: Signature
) -> tuple[str, str] | None:
    """How what is given and what is taken are described, where they do not fit."""
    taken, varying = to_array(example[wanted]), signature.axes.get(wanted, {})
    fits = (
        given.dtype == taken.dtype
        and given.ndim == taken.ndim
        and all(
            axis in varying or given.shape[axis] == size for axis, size in enumerate(taken.shape)
        )
    )
    if fits:
        return None
    sizes = [
        "+".join(varying[axis]) if axis in varying else str(size)
        for axis, size in enumerate(taken.shape)
    ]
    shape = ", ".join(map(str, given.shape))
    return f"{given.dtype} [{shape}]", f"{taken.dtype} [{', '.join(sizes)}]"
