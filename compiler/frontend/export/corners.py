"""Compare program and module at sizes at which an assumption made in tracing does not hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import fx, nn

from strop.compiler.frontend.coverage import Coverage, complete
from strop.compiler.frontend.export.explain import first_line
from strop.compiler.frontend.export.guards import Corner, Watch
from strop.compiler.frontend.export.shapes import misshapen
from strop.compiler.frontend.inputs import Signature, resize
from strop.compiler.frontend.original import run_original
from strop.compiler.ir.cost import CostModel
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs
from strop.compiler.util.errors import UnsupportedError


def corners_of(watch: Watch, graph: fx.Graph) -> list[Corner]:
    """Sizes at which an assumption made in tracing does not hold, and ends of uncovered ranges."""
    ends = [
        Corner({name: end}, watch.place(name))
        for name in watch.narrowed()
        for end in (watch.signature.dims[name].min, watch.signature.dims[name].max)
        if end is not None
    ]
    return [*watch.corners(graph), *ends]


def try_corners(
    module: nn.Module,
    signature: Signature,
    program: Program,
    corners: Sequence[Corner],
    example: Inputs,
    coverage: Coverage,
) -> None:
    """Compare program and module at corners.

    Args:
        module: the original.
        signature: how it is called.
        program: the module as captured.
        corners: sizes of some dims.
        example: inputs at the sizes that were traced, which other dims keep.
        coverage: whether what costs too much is left out, and what was.

    Raises:
        UnsupportedError: they differ: the model behaves differently at those sizes.
    """
    traced = signature.sizes(example)
    wanted = [corner.sizes for corner in corners]
    chosen = complete(wanted, traced, signature, CostModel(program).at, coverage)
    for corner, sizes in zip(corners, chosen):
        if sizes is None:
            continue
        inputs = resize(example, signature, sizes)
        different = _difference(module, program, signature, inputs)
        different = different or misshapen(program, inputs)
        if different:
            others = _text(traced) if sizes != traced else "other sizes"
            raise UnsupportedError(
                f"the model behaves differently at {_text(sizes)} than at {others}"
                f"{corner.place}: {different}. Narrow the ranges in `dynamic`, or remove the "
                "branch on sizes."
            )


def _text(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {size}" for name, size in sizes.items())


def _difference(
    module: nn.Module, program: Program, signature: Signature, inputs: Inputs
) -> str | None:
    with torch.no_grad():
        try:
            expected = list(run_original(module, signature, inputs).values())
        except Exception as error:
            own = " on inputs of inputs_at" if signature.inputs_at else " on the resized example"
            return f"the module itself fails there{own} ({first_line(error)})"
        try:
            got = program.run(**inputs)
        except Exception as error:
            return f"the captured graph fails there ({first_line(error)})"
    for spec, a, b in zip(program.contract.outputs, got, expected):
        if a.shape != b.shape or not torch.allclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True):
            return f"'{spec.name}' differs there"
    return None
