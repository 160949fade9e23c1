"""The inputs that a build is checked with, and what the original gives for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from strop.compiler.frontend.inputs import Signature, resize
from strop.compiler.frontend.original import run_original
from strop.compiler.ir.running import Inputs
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import UsageError
from strop.compiler.util.numerics import Array

# Large enough for masks, positions and batches to matter, small enough to run after every pass.
PROBE = 8


@dataclass(frozen=True)
class Case:
    """One set of inputs and what the original module gives for it.

    Attributes:
        rounding: by output, how far the original's rounding to 16 bits moves it, relative as a
            ``Comparison``'s error is.
    """

    name: str
    inputs: Inputs
    expected: dict[str, Array]
    rounding: Mapping[str, float] = field(default_factory=dict)


def make_cases(
    module: torch.nn.Module, signature: Signature, calibration: Sequence[Inputs]
) -> list[Case]:
    """Reference outputs on the calibration inputs, and at sizes over the whole of the ranges.

    Raises:
        UsageError: the module itself fails, or returns no tensor, on such inputs.
    """
    cases = [
        _case(f"calibration[{i}]", module, signature, inputs)
        for i, inputs in enumerate(calibration)
    ]
    first = calibration[0]
    for label, sizes in _sizes_to_check(signature, first).items():
        text = ", ".join(f"{k}={v}" for k, v in sizes.items())
        inputs = resize(first, signature, sizes)
        cases.append(_case(f"{label}: {text}", module, signature, inputs, inputs is not first))
    return cases


def _sizes_to_check(signature: Signature, example: Inputs) -> dict[str, dict[str, int]]:
    """The smallest sizes, the largest, and odd ones between, at which divisions leave a rest.

    An unbounded dim goes to twice its example size plus one.
    """
    known, dims = signature.sizes(example), signature.dims.values()
    low = {d.name: d.min for d in dims}
    high = {d.name: 2 * known[d.name] + 1 if d.max is None else d.max for d in dims}
    between = {name: min((low[name] + high[name]) // 2 | 1, high[name]) for name in low}
    found = {"smallest": low, "between": between, "largest": high}
    new = {tuple(sizes.values()): label for label, sizes in reversed(found.items())}
    return {label: found[label] for label in found if label in new.values() and signature.dims}


def make_probe(module: torch.nn.Module, signature: Signature, inputs: Inputs) -> Case:
    """A small case to run after every pass: the inputs, dynamic dims no larger than ``PROBE``."""
    sizes = {
        dim: max(min(size, PROBE), signature.dims[dim].min)
        for dim, size in signature.sizes(inputs).items()
    }
    small = resize(inputs, signature, sizes)
    return _case("probe", module, signature, small, small is not inputs)


def _case(
    name: str, module: torch.nn.Module, signature: Signature, inputs: Inputs, resized: bool = False
) -> Case:
    try:
        outputs = run_original(module, signature, inputs)
    except Exception as error:  # the owner's module may raise anything
        said = str(error).splitlines()[0] if str(error) else ""
        raise UsageError(
            f"the module fails in case '{name}': {type(error).__name__}: {said}. "
            f"{_advice(signature, resized)}"
        ) from error
    arrays = {n: to_array(t).copy() for n, t in outputs.items()}
    if not arrays:
        raise UsageError(f"the module returns no tensor (case '{name}')")
    return Case(name, inputs, arrays)


def _advice(signature: Signature, resized: bool) -> str:
    if not resized:
        return "Check example_inputs and calibration."
    if signature.inputs_at is not None:
        return "Its inputs come from inputs_at: check that, and the ranges in `dynamic`."
    return (
        "Its inputs are the example's, cut or repeated to these sizes: if the module does not take "
        "the sizes, narrow the ranges in `dynamic`; if values depend on them (positions, lengths, "
        "indices), give Model(inputs_at=...), which returns inputs at given sizes."
    )
