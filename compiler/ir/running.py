"""Run a program in eager torch on named inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from strop.compiler.ir.contract import DTYPE_NAMES, Contract, TensorSpec
from strop.compiler.ir.program import Program
from strop.compiler.ir.stored import to_stored
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import UsageError
from strop.compiler.util.numerics import Array

Inputs = dict[str, torch.Tensor]


def run_program(program: Program, inputs: Inputs) -> dict[str, Array]:
    """Run a program in eager torch; outputs by name."""
    with torch.no_grad():
        outputs = program.run(**in_contract(inputs, program.contract))
    names = [o.name for o in program.contract.outputs]
    return {name: to_array(o) for name, o in zip(names, outputs)}


@contextmanager
def refusing(contract: Contract, inputs: Inputs) -> Iterator[None]:
    """A program runs in this block on inputs of the user's that nobody has tried before.

    Raises:
        UsageError: an operator does not take their sizes, dtypes or values.
    """
    try:
        yield
    except (IndexError, RuntimeError, TypeError, ValueError) as error:  # what operators raise
        told = ", ".join(_told(spec, inputs[spec.name]) for spec in contract.inputs)
        why = str(error).splitlines()[0] if str(error) else ""
        raise UsageError(
            f"the model does not run on these inputs: {told}: {type(error).__name__}: {why}"
        ) from error


def _told(spec: TensorSpec, given: torch.Tensor) -> str:
    """A tensor, and what it stands for."""
    dtype = DTYPE_NAMES.get(given.dtype, str(given.dtype))
    wanted = ", ".join(map(str, spec.shape))
    return f"{spec.name} {dtype}{list(given.shape)} for {spec.dtype}[{wanted}]"


def in_contract(inputs: Inputs, contract: Contract) -> Inputs:
    """The inputs of the model, or some of them, as a program takes them after its passes.

    bfloat16 may have become float32, and a cache may be kept in another dtype. Caches that come
    from the program itself stay as they are.
    """
    specs = {spec.name: spec for spec in contract.inputs}
    found = in_dtypes(inputs, {name: spec.dtype for name, spec in specs.items()})
    for name, tensor in found.items():
        spec = specs.get(name)
        if spec is not None and spec.stored and DTYPE_NAMES[tensor.dtype] == spec.stored.of:
            found[name] = to_stored(tensor, spec)
    return found


def in_dtypes(inputs: Inputs, wanted: Mapping[str, str]) -> Inputs:
    """bfloat16 inputs in float32 where that is what a contract, ``{input: dtype}``, asks for.

    NumPy and so the runtime's callers have no bfloat16. Any other difference stays as it is.
    """
    return {
        name: tensor.float()
        if tensor.dtype == torch.bfloat16 and wanted.get(name) == "f32"
        else tensor
        for name, tensor in inputs.items()
    }
