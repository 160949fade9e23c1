"""What of a program's outputs is compared with the original's, and in which form."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from strop.compiler.ir.contract import DTYPE_NAMES, Contract
from strop.compiler.ir.running import Inputs
from strop.compiler.ir.stored import from_stored
from strop.compiler.util.arrays import to_array
from strop.compiler.util.numerics import Array


def comparable(
    outputs: Mapping[str, Array], contract: Contract, inputs: Inputs
) -> dict[str, Array]:
    """Outputs by name, as those of the model and of a program are compared.

    Args:
        outputs: of one run of the program, or of the original.
        contract: of the program.
        inputs: of that run, as the model takes them.
    """
    return real_positions(in_own_dtypes(outputs, contract), contract, inputs)


def in_own_dtypes(outputs: Mapping[str, Array], contract: Contract) -> dict[str, Array]:
    """Outputs by name; caches that a program keeps in another dtype in the model's own."""
    found = dict(outputs)
    for spec in contract.outputs:
        if spec.stored is not None and spec.name in found:
            kept = torch.from_numpy(found[spec.name])
            if DTYPE_NAMES[kept.dtype] == spec.dtype:
                found[spec.name] = to_array(from_stored(kept, spec))
    return found


def real_positions(
    outputs: Mapping[str, Array], contract: Contract, inputs: Inputs
) -> dict[str, Array]:
    """Outputs by name; those with zeros at padded positions as [real positions, ...]."""
    found = dict(outputs)
    for spec in contract.outputs:
        if spec.padded is not None and spec.name in found:
            mask = to_array(inputs[spec.padded.mask])
            found[spec.name] = found[spec.name][mask != spec.padded.value]
    return found
