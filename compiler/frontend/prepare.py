"""The front of every command: check what the user gave, run the original, capture it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

import strop.compiler.ir.dialect  # noqa: F401  (registers the strop:: operators)
from strop.compiler.frontend.cases import Case, first_cases, make_cases, make_probe
from strop.compiler.frontend.coverage import CheckScope, Coverage
from strop.compiler.frontend.evaluation import evaluate, module_runner
from strop.compiler.frontend.export.capture import trace
from strop.compiler.frontend.export.corners import try_corners
from strop.compiler.frontend.export.stand_ins import Seen
from strop.compiler.frontend.export.unraised import unraised
from strop.compiler.frontend.inputs import Signature, read_inputs
from strop.compiler.frontend.model import Model
from strop.compiler.frontend.original import run_original, weights_not_finite
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs
from strop.compiler.ir.verifier import verify
from strop.compiler.util.errors import UnsupportedError, UsageError
from strop.compiler.util.latency import quick_look
from strop.compiler.util.stages import Stages


@dataclass
class Captured:
    """What the original module leaves behind.

    Attributes:
        program: the module as captured.
        cases: inputs with what the module gives for them: calibration, and at sizes
            over the ranges of the dims.
        coverage: which sizes and calibration inputs became cases, and which did not.
        probe: one small case, to run after every pass.
        metrics: what the user's ``evaluate`` says of the module.
        notes: what the user should know, in sentences.
        milliseconds: a quick look at one run on the first case.
    """

    program: Program
    cases: list[Case]
    coverage: Coverage
    probe: Case
    metrics: dict[str, float]
    notes: list[str]
    milliseconds: float


def capture_model(model: Model, stages: Stages, check: CheckScope = "bounded") -> Captured:
    """Compute references and capture; the module itself is not needed afterwards.

    The module is captured before it runs at large sizes: the graph tells what those cost.
    Dims that the user calls optional are fixed where it cannot be captured with them.

    Raises:
        UsageError: the module or its inputs are not as they must be.
        UnsupportedError: the module cannot be captured.
    """
    try:
        return _capture_as_declared(model, stages, check)
    except (UnsupportedError, UsageError) as error:
        # The module itself may fail at sizes between those at which it was tried.
        if not model.optional_dims:
            raise
        why = str(error).splitlines()[0]
    return _capture_as_declared(model.without_optional_dims(why), stages, check)


def _capture_as_declared(model: Model, stages: Stages, check: CheckScope) -> Captured:
    module, coverage = model.module, Coverage(check)
    require_ready(module)
    with torch.no_grad():
        signature, example, calibration = read_inputs(model)
        calibration = calibration or [example]
        with stages.stage("reference"):
            first = first_cases(module, signature, calibration)
            probe = make_probe(module, signature, calibration[0])
            run = partial(module_runner, module, signature)
            metrics = evaluate(model.evaluate, run, "the original")
            took = quick_look(lambda: run_original(module, signature, calibration[0]))
            with Seen() as seen:
                notes = _written(module, signature, probe.inputs)
        with stages.stage("capture"):
            traced = trace(module, signature, example)
            program = traced.program
            verify(program)
        with stages.stage("reference"):
            cases = make_cases(module, signature, calibration, coverage, program, first)
        with stages.stage("capture"):
            try_corners(module, signature, program, traced.corners, traced.example, coverage)
        notes = [*model.notes, *notes, *seen.unraised(), *_not_numbers(cases), *unraised(program)]
    return Captured(program, cases, coverage, probe, metrics, notes, took)


def require_ready(module: object) -> None:
    """Check that a module is a module, in eval mode, with finite weights.

    Raises:
        UsageError: it is not.
    """
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"Model.module is {type(module).__name__}, not a torch.nn.Module")
    training = [name for name, part in module.named_modules() if part.training]
    if training:
        which = f"its submodule '{training[0]}'" if training[0] else "the module"
        raise UsageError(
            f"{which} is in train mode: dropout and batch norm would behave as in training. "
            "Call module.eval() in the factory."
        )
    bad = list(weights_not_finite(module))
    if bad:
        shown = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise UsageError(f"weights hold NaN or Inf: {shown}")


def _written(module: torch.nn.Module, signature: Signature, inputs: Inputs) -> list[str]:
    """A note where the module writes to an input of its caller's."""
    copies = {name: tensor.clone() for name, tensor in inputs.items()}
    signature.call(module, copies)
    written = [n for n, t in inputs.items() if not _same(t, copies[n])]
    if not written:
        return []
    return [f"the model writes to its input '{written[0]}'; the artifact leaves inputs as they are"]


def _not_numbers(cases: list[Case]) -> list[str]:
    """A note for each output in which the original itself gives NaN, or no finite number."""
    notes = []
    for name, first in cases[0].expected.items():
        found = {case.name: case.expected[name] for case in cases if case.expected[name].size}
        if first.dtype.kind != "f" or not found:
            continue
        if not any(np.isfinite(array).any() for array in found.values()):
            notes.append(
                f"WARNING: the original gives nothing but NaN or infinities in '{name}', in every "
                "case. The check compared their positions only, and no numbers: give example "
                "inputs for which the model computes numbers"
            )
        elif case := next((c for c, array in found.items() if np.isnan(array).any()), None):
            notes.append(
                f"the original gives NaN in '{name}' (case '{case}'); the artifact gives it there "
                "too"
            )
    return notes


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
