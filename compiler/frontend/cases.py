"""The inputs that a build is checked with, and what the original gives for them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from strop.compiler.frontend.allowance import TOGETHER, seconds
from strop.compiler.frontend.coverage import Coverage, choose_sizes, smallest_sizes
from strop.compiler.frontend.inputs import Signature, resize
from strop.compiler.frontend.original import run_original
from strop.compiler.ir.cost import CostModel
from strop.compiler.ir.program import Program
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
        seconds: how long the original took.
    """

    name: str
    inputs: Inputs
    expected: dict[str, Array]
    rounding: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class _Wanted:
    """A case before the original has run."""

    name: str
    inputs: Inputs
    resized: bool = False


def first_cases(
    module: torch.nn.Module, signature: Signature, calibration: Sequence[Inputs]
) -> list[Case]:
    """The first calibration inputs, and the smallest sizes: what costs little whatever the model.

    Raises:
        UsageError: the module itself fails, or returns no tensor, on such inputs.
    """
    first = calibration[0]
    wanted = [_calibration(0, first)]
    if signature.dims:
        wanted.append(_resized(first, signature, "smallest", smallest_sizes(signature)))
    return [_case(module, signature, one) for one in wanted]


def make_cases(
    module: torch.nn.Module,
    signature: Signature,
    calibration: Sequence[Inputs],
    coverage: Coverage | None = None,
    program: Program | None = None,
    known: Sequence[Case] = (),
) -> list[Case]:
    """Reference outputs on the calibration inputs, and at sizes over the whole of the ranges.

    Args:
        module: the original.
        signature: how it is called.
        calibration: at least one set of inputs.
        coverage: how sizes are chosen, all corners by default; takes down which were.
        program: the module as captured, which tells what its runs cost; for bounded checks.
        known: cases that are there already.

    Raises:
        UsageError: the module itself fails, or returns no tensor, on such inputs.
    """
    coverage = coverage or Coverage("full")
    first, costs = calibration[0], CostModel(program) if program is not None else None
    count = _affordable(signature, calibration, costs, coverage)
    coverage.calibration = {"given": len(calibration), "run": count}
    wanted = [_calibration(i, inputs) for i, inputs in enumerate(calibration[:count])]
    for label, sizes in choose_sizes(signature, first, costs, coverage).items():
        wanted.append(_resized(first, signature, label, sizes))
        coverage.run.append(sizes)
    made = {case.name: case for case in known}
    return [made.get(one.name) or _case(module, signature, one) for one in wanted]


def _affordable(
    signature: Signature,
    calibration: Sequence[Inputs],
    costs: CostModel | None,
    coverage: Coverage,
) -> int:
    """How many of the calibration inputs, from the first on, fit one allowance together."""
    if coverage.check == "full" or costs is None:
        return len(calibration)
    spent = kept = 0.0
    for i, inputs in enumerate(calibration[1:], 1):
        cost = costs.at(signature.sizes(inputs))
        spent, kept = spent + seconds(cost), kept + cost.outputs
        if not TOGETHER.admits(cost) or spent > TOGETHER.seconds or kept > TOGETHER.kept:
            return i
    return len(calibration)


def _calibration(index: int, inputs: Inputs) -> _Wanted:
    return _Wanted(f"calibration[{index}]", inputs)


def _resized(first: Inputs, signature: Signature, label: str, sizes: Mapping[str, int]) -> _Wanted:
    text = ", ".join(f"{name}={size}" for name, size in sizes.items())
    inputs = resize(first, signature, sizes)
    return _Wanted(f"{label}: {text}", inputs, inputs is not first)


def make_probe(module: torch.nn.Module, signature: Signature, inputs: Inputs) -> Case:
    """A small case to run after every pass: the inputs, dynamic dims no larger than ``PROBE``."""
    sizes = {
        dim: max(min(size, PROBE), signature.dims[dim].min)
        for dim, size in signature.sizes(inputs).items()
    }
    small = resize(inputs, signature, sizes)
    return _case(module, signature, _Wanted("probe", small, small is not inputs))


def _case(module: torch.nn.Module, signature: Signature, wanted: _Wanted) -> Case:
    name, start = wanted.name, time.perf_counter()
    try:
        outputs = run_original(module, signature, wanted.inputs)
    except Exception as error:  # the user's module may raise anything
        said = str(error).splitlines()[0] if str(error) else ""
        raise UsageError(
            f"the module fails in case '{name}': {type(error).__name__}: {said}. "
            f"{_advice(signature, wanted.resized)}"
        ) from error
    took = time.perf_counter() - start
    arrays = {n: to_array(t).copy() for n, t in outputs.items()}
    if not arrays:
        raise UsageError(f"the module returns no tensor (case '{name}')")
    return Case(name, wanted.inputs, arrays, seconds=took)


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
