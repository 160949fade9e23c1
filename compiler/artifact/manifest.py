"""What is recorded of a build: in the manifest what is always the same, the rest beside it."""

from __future__ import annotations

import platform
import resource
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from strop.compiler.artifact.folder import FORMAT, provenance_file
from strop.compiler.check.comparison import Comparison
from strop.compiler.frontend.programs import is_several
from strop.compiler.ir.contract import Contract
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.rewriting.recorder import StepRecord
from strop.compiler.targets.runtime import runtime_of
from strop.compiler.targets.target import MAIN, get_target
from strop.compiler.util.files.reading import file_hash
from strop.compiler.util.sources import with_sources, without_folder

PACKAGES = ("strop", "torch", "onnx", "onnx-ir", "onnxscript", "numpy")


@dataclass(frozen=True)
class ProgramRecord:
    """What the manifest and the build record say of one program.

    Attributes:
        sizes: at which sizes the checks ran, and which were left out.
        metrics: what the user's ``evaluate`` gave, for "original" and "artifact".
        spanning: operators by which rows of a batch depend on each other, and how many of each.
        notes: what the user should know, in sentences.
        milliseconds: a quick look at one run of the "original" and of the "artifact", and of a
            quantized model's form in "float"; None for what was not timed.
    """

    contract: Contract
    steps: Sequence[StepRecord]
    checks: Sequence[Comparison]
    sizes: Mapping[str, Any]
    metrics: dict[str, dict[str, float]]
    spanning: Mapping[str, int]
    notes: Sequence[str]
    milliseconds: Mapping[str, float | None]


@dataclass(frozen=True)
class Record:
    """Everything that the manifest is made of, but for the files themselves.

    Attributes:
        programs: by name; one that is named ``MAIN`` is the whole of the artifact.
        assets: names of the user's files that are shipped beside the model.
        labels: class names by index; empty if there are none.
        generation: how the programs generate together, as plain data; None where they do not.
        generated: what came of it when they did.
        beside: names of files that other runtimes read.
        notes: what the user should know of all programs together, in sentences.
    """

    recipe: Recipe
    programs: Mapping[str, ProgramRecord]
    assets: Sequence[str]
    labels: Mapping[int, str]
    generation: Mapping[str, Any] | None
    generated: Mapping[str, Any] | None
    beside: Sequence[str]
    notes: Sequence[str]


def manifest(record: Record, folder: Path, files: Sequence[str]) -> dict[str, Any]:
    """The manifest of the model files in a folder; equal builds give equal manifests."""
    side_files = [*(provenance_file(program) for program in record.programs), *record.beside]
    values: dict[str, Any] = {
        "strop_format": FORMAT,
        "target": record.recipe.target,
        "recipe": record.recipe.without_folders().values(),
        "files": {name: _file(folder / name) for name in files},
        "side_files": {name: _file(folder / name) for name in side_files},
        "assets": {name: _file(folder / name) for name in record.assets},
        "labels": {str(index): name for index, name in record.labels.items()},
        "versions": {p: version(p) for p in PACKAGES}
        | runtime_of(get_target(record.recipe.target)).versions(),
        "notes": list(record.notes),
    }
    if record.generation is not None:
        values["generation"] = dict(record.generation)
    if record.generated is not None:
        values["generated"] = dict(record.generated)
    programs = {name: _program(one) for name, one in record.programs.items()}
    if is_several(programs):
        return values | {"programs": programs}
    alone = programs[MAIN]
    return values | alone | {"notes": [*values["notes"], *alone["notes"]]}


def _program(record: ProgramRecord) -> dict[str, Any]:
    return {
        "contract": _contract(record.contract),
        "passes": [_step(step) for step in record.steps],
        "checks": [check.record() for check in record.checks],
        "sizes": dict(record.sizes),
        "batch_invariant": not record.spanning,
        "spanning_operators": dict(record.spanning),
        "metrics": record.metrics,
        "notes": list(record.notes),
    }


def _contract(contract: Contract) -> dict[str, Any]:
    """Without the scales of caches, which the files hold as initializers."""
    values = asdict(contract)
    for spec in (*values["inputs"], *values["outputs"]):
        if spec["stored"] is not None:
            del spec["stored"]["scales"]
    return values


def _step(step: StepRecord) -> dict[str, Any]:
    return {
        "name": step.name,
        "options": with_sources(step.options, without_folder),
        "modified": step.modified,
        "nodes_before": step.before.nodes,
        "nodes_after": step.after.nodes,
        "parameters_before": step.before.parameters,
        "parameters_after": step.after.parameters,
        "bytes_before": step.before.bytes,
        "bytes_after": step.after.bytes,
        "rewrites": step.rewrites,
        "previous": step.previous.rounded() if step.previous else None,
        "original": step.original.rounded() if step.original else None,
        "learned": step.learned,
        "notes": step.notes,
        "misses": [asdict(miss) for miss in step.misses],
    }


def _file(path: Path) -> dict[str, Any]:
    return {"sha256": file_hash(path), "bytes": path.stat().st_size}


def build_record(
    seconds: dict[str, float], programs: Mapping[str, ProgramRecord], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """What differs from build to build: times, memory, the machine.

    Args:
        seconds: of every stage.
        programs: by name, as in ``Record``.
        notes: what the user should know of this one build.
    """
    times = {name: _times(one) for name, one in programs.items()}
    return {
        "seconds": seconds,
        **({"programs": times} if is_several(times) else times[MAIN]),
        "notes": list(notes),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "machine": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "threads": torch.get_num_threads(),
        },
    }


def _times(record: ProgramRecord) -> dict[str, Any]:
    return {
        "pass_seconds": {step.name: round(step.seconds, 4) for step in record.steps},
        "pass_peak_bytes": {step.name: step.peak_bytes for step in record.steps},
        "milliseconds": {
            name: None if ms is None else round(ms, 4) for name, ms in record.milliseconds.items()
        },
    }
