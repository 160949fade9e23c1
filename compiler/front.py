"""The front of every command: check what the user gave, run the original, capture it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

import strop.compiler.dialect  # noqa: F401  (registers the strop:: operators)
from strop.compiler.capture import capture
from strop.compiler.check import Case, make_cases, make_probe
from strop.compiler.errors import UsageError
from strop.compiler.evaluation import evaluate, module_runner
from strop.compiler.inputs import in_float32, read_inputs
from strop.compiler.latency import quick_look
from strop.compiler.model import Model
from strop.compiler.original import in_dtype, run_original, weights_not_finite
from strop.compiler.program import Program
from strop.compiler.stages import Stages
from strop.compiler.target import Target
from strop.compiler.verify import verify


@dataclass
class Captured:
    """What the original module leaves behind.

    Attributes:
        program: the module as captured.
        cases: inputs with what the module gives for them: calibration, smallest, largest.
        probe: one small case, to run after every pass.
        metrics: what the owner's ``evaluate`` says of the module.
        notes: what the user should know, in sentences.
        milliseconds: a quick look at one run on the first case.
    """

    program: Program
    cases: list[Case]
    probe: Case
    metrics: dict[str, float]
    notes: list[str]
    milliseconds: float


def capture_model(model: Model, target: Target, stages: Stages) -> Captured:
    """Compute references and capture; the module itself is not needed afterwards.

    Raises:
        UsageError: the module or its inputs are not as they must be.
        UnsupportedError: the module cannot be captured.
    """
    module, notes = _ready_module(model, target)
    with torch.no_grad():
        signature, example, calibration = read_inputs(model)
        example = in_float32(example)
        calibration = [in_float32(c) for c in calibration] or [example]
        with stages.stage("reference"):
            cases = make_cases(module, signature, calibration)
            probe = make_probe(module, signature, calibration[0])
            metrics = evaluate(model.evaluate, lambda: module_runner(module, signature))
            took = quick_look(lambda: run_original(module, signature, calibration[0]))
        with stages.stage("capture"):
            program = capture(module, signature, example)
            verify(program)
    return Captured(program, cases, probe, metrics, [*model.notes, *notes], took)


def _ready_module(model: Model, target: Target) -> tuple[torch.nn.Module, list[str]]:
    module = model.module
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
    ready = in_dtype(module, torch.float32)
    if ready is module:
        return module, []
    found = sorted({str(p.dtype).removeprefix("torch.") for p in module.parameters()})
    return ready, [f"weights were {', '.join(found)}; built in float32 for {target.name}"]
