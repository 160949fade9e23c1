"""What of outputs is compared where padded positions hold zeros by contract."""

from __future__ import annotations

from collections.abc import Mapping

from strop.compiler.ir.contract import Contract
from strop.compiler.ir.running import Inputs
from strop.compiler.util.arrays import to_array
from strop.compiler.util.numerics import Array


def real_positions(
    outputs: Mapping[str, Array], contract: Contract, inputs: Inputs
) -> dict[str, Array]:
    """Outputs by name; those with zeros at padded positions as [real positions, ...].

    Args:
        outputs: of one run, by name.
        contract: it says which outputs hold zeros where.
        inputs: of that run.
    """
    found = dict(outputs)
    for spec in contract.outputs:
        if spec.padded is not None and spec.name in found:
            mask = to_array(inputs[spec.padded.mask])
            found[spec.name] = found[spec.name][mask != spec.padded.value]
    return found
