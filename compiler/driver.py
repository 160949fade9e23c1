"""``build()``: capture, passes, lowering, writing, the check, in that order."""

from __future__ import annotations

import gc
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import strop.compiler.dialect  # noqa: F401  (registers the strop:: operators)
from strop.compiler.artifact import (
    FORMAT,
    MANIFEST,
    MODEL,
    Artifact,
    file_hash,
    read_artifact,
    require_free,
    write_json,
)
from strop.compiler.capture import capture, in_dtype, weights_not_finite
from strop.compiler.check import (
    Case,
    Comparison,
    check_file,
    check_program,
    make_cases,
)
from strop.compiler.errors import BudgetError, UsageError, did_you_mean
from strop.compiler.inputs import Inputs, read_inputs
from strop.compiler.instrument import Dump, Recorder
from strop.compiler.lower.onnx.choices import Choices, shipped
from strop.compiler.lower.onnx.emitter import lower_to_onnx
from strop.compiler.lower.onnx.write import write_model
from strop.compiler.model import Model
from strop.compiler.passes import Instrument
from strop.compiler.program import Program
from strop.compiler.recipe import Budget, Recipe, load_recipe
from strop.compiler.staging import staged
from strop.compiler.target import Target, get_target
from strop.compiler.verify import verify

PACKAGES = ("torch", "onnx", "onnx-ir", "onnxscript", "numpy")
Progress = Callable[[str], None]


@dataclass
class Stages:
    """Wall time of every stage, and who is told that it begins."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage."""
        self.progress(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - start, 4)


def build(
    model: Model,
    out: str | os.PathLike[str],
    recipe: str | Recipe = "cpu-fp32",
    target: str | None = None,
    *,
    force: bool = False,
    dump_ir: str | os.PathLike[str] | None = None,
    choices: Choices | None = None,
    progress: Progress = lambda stage: None,
) -> Artifact:
    """Build a model into an artifact folder, and check the written file against the original.

    Args:
        model: what to build.
        out: the folder to write; replaced if it is an artifact.
        recipe: a built-in name, a TOML path, or a ``Recipe``.
        target: overrides the recipe's.
        force: replace ``out`` even if it is not an artifact.
        dump_ir: a folder for numbered IR text, one file per pass that changed something.
        choices: measured emitter choices; those shipped for the target by default.
        progress: told the name of each stage as it begins.

    Raises:
        UsageError: the model or the recipe is wrong.
        UnsupportedError: the model cannot be captured or lowered.
        RuntimeRefusedError: the runtime does not take the file.
        BudgetError: the file is too far from the original; nothing is written.
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    place = get_target(target or recipe.target)
    recipe = recipe.model_copy(update={"target": place.name})
    folder = Path(out)
    require_free(folder, force)
    stages = Stages(progress)
    recorder = Recorder(announce=lambda name: progress(f"pass {name}"))
    dumps: list[Instrument] = [Dump(Path(dump_ir))] if dump_ir else []
    program, cases, notes = _front(model, place, stages)
    # The original weights are not needed any more; a caller that kept none of its own frees them.
    del model
    program = _optimize(program, recipe, stages, [recorder, *dumps])
    _check_passes(recorder, cases, recipe.budget, stages)
    recorder.programs.clear()
    with stages.stage("lower"):
        lowered = lower_to_onnx(program, place, choices or shipped(place.name))
    with staged(folder) as stage:
        with stages.stage("write"):
            files = write_model(lowered, stage / MODEL)
        contract = asdict(program.contract)
        program.weights.clear()
        del lowered
        gc.collect()
        with stages.stage("check"):
            results = check_file(stage / MODEL, place, cases)
        _hold_to_budget(results, recipe.budget, "the lowering or the runtime")
        manifest = _manifest(recipe, contract, recorder, results, files, notes, stage)
        write_json(stage / MANIFEST, manifest)
        write_json(stage / "build.json", _build_record(stages, recorder))
    return read_artifact(folder)


def compile_program(
    model: Model, recipe: Recipe, stop_after: str = "", dump_ir: str | None = None
) -> Program:
    """Capture and run the passes, up to and including one: what ``--stop-after`` prints."""
    stages = Stages(lambda stage: None)
    program, _, _ = _front(model, get_target(recipe.target), stages)
    steps = recipe.pipeline()
    names = [s.name for s in steps.steps]
    if stop_after and stop_after != "capture" and stop_after not in names:
        raise UsageError(f"--stop-after: no pass '{stop_after}'{did_you_mean(stop_after, names)}")
    if stop_after == "capture":
        return program
    return steps.run(program, [Dump(Path(dump_ir))] if dump_ir else [], stop_after)


def _front(model: Model, target: Target, stages: Stages) -> tuple[Program, list[Case], list[str]]:
    """Check what the user gave, compute references, capture."""
    module, notes = _ready_module(model, target)
    with torch.no_grad():
        signature, example, calibration = read_inputs(model)
        example = _as_computed(example)
        calibration = [_as_computed(c) for c in calibration]
        with stages.stage("reference"):
            cases = make_cases(module, signature, calibration or [example])
        with stages.stage("capture"):
            program = capture(module, signature, example)
            verify(program)
    return program, cases, notes


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


def _as_computed(inputs: Inputs) -> Inputs:
    return {
        n: t.float() if t.is_floating_point() and t.dtype != torch.float64 else t
        for n, t in inputs.items()
    }


def _optimize(
    program: Program, recipe: Recipe, stages: Stages, instruments: Sequence[Instrument]
) -> Program:
    with stages.stage("passes"):
        return recipe.pipeline().run(program, instruments)


def _check_passes(recorder: Recorder, cases: list[Case], budget: Budget, stages: Stages) -> None:
    """Run the optimized program in torch; on a miss, find the pass after which it is missed."""
    if not recorder.programs:
        return
    with stages.stage("check passes"):
        smallest = [min(cases, key=lambda c: sum(t.numel() for t in c.inputs.values()))]
        results = check_program(recorder.programs[-1][1], smallest)
        if not any(r.misses(budget) for r in results):
            return
        for name, program in recorder.programs:
            step = check_program(program, smallest)
            if any(r.misses(budget) for r in step):
                _hold_to_budget(results, budget, f"pass '{name}'")


def _hold_to_budget(results: list[Comparison], budget: Budget, suspect: str) -> None:
    missed = [r for r in results if r.misses(budget)]
    if not missed:
        return
    worst = sorted(missed, key=lambda r: -r.max_error)[:5]
    lines = "\n  ".join(r.misses(budget) or "" for r in worst)
    raise BudgetError(
        f"{len(missed)} of {len(results)} comparisons with the original miss the budget:\n"
        f"  {lines}\nSuspected: {suspect}. Nothing was written."
    )


def _manifest(
    recipe: Recipe,
    contract: dict[str, Any],
    recorder: Recorder,
    results: list[Comparison],
    files: list[str],
    notes: list[str],
    stage: Path,
) -> dict[str, Any]:
    return {
        "strop_format": FORMAT,
        "target": recipe.target,
        "recipe": recipe.record(),
        "contract": contract,
        "passes": [
            {k: v for k, v in asdict(r).items() if k not in ("seconds", "misses")}
            | {"misses": [asdict(m) for m in r.misses]}
            for r in recorder.records
        ],
        "checks": [r.record() for r in results],
        "files": {
            name: {"sha256": file_hash(stage / name), "bytes": (stage / name).stat().st_size}
            for name in files
        },
        "versions": {p: version(p) for p in ("strop", *PACKAGES)} | {"onnxruntime": _ort()},
        "notes": notes,
    }


def _ort() -> str:
    import onnxruntime

    found: str = onnxruntime.__version__
    return found


def _build_record(stages: Stages, recorder: Recorder) -> dict[str, Any]:
    return {
        "seconds": stages.seconds,
        "pass_seconds": {r.name: round(r.seconds, 4) for r in recorder.records},
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "machine": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "threads": torch.get_num_threads(),
        },
    }
