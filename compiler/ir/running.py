"""Run a program in eager torch on named inputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from strop.compiler.ir.contract import Contract
from strop.compiler.ir.program import Program
from strop.compiler.util.arrays import to_array
from strop.compiler.util.numerics import Array

Inputs = dict[str, torch.Tensor]


def run_program(program: Program, inputs: Inputs) -> dict[str, Array]:
    """Run a program in eager torch; outputs by name."""
    with torch.no_grad():
        outputs = program.run(**in_contract(inputs, program.contract))
    names = [o.name for o in program.contract.outputs]
    return {name: to_array(o) for name, o in zip(names, outputs)}


def in_contract(inputs: Inputs, contract: Contract) -> Inputs:
    """The inputs as a program takes them whose pass changed bfloat16 inputs to float32."""
    return in_dtypes(inputs, {spec.name: spec.dtype for spec in contract.inputs})


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
