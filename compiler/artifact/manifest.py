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

from strop.compiler.artifact.folder import FORMAT, PROVENANCE
from strop.compiler.check.comparison import Comparison
from strop.compiler.ir.contract import Contract
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.rewriting.recorder import StepRecord
from strop.compiler.targets.runtime import runtime_of
from strop.compiler.targets.target import get_target
from strop.compiler.util.files.reading import file_hash
from strop.compiler.util.sources import with_sources, without_folder

PACKAGES = ("strop", "torch", "onnx", "onnx-ir", "onnxscript", "numpy")


@dataclass(frozen=True)
class Record:
    """Everything that the manifest is made of, but for the files themselves.

    Attributes:
        sizes: at which sizes the checks ran, and which were left out.
        metrics: what the user's ``evaluate`` gave, for "original" and "artifact".
        spanning: operators by which rows of a batch depend on each other, and how many of each.
        notes: what the user should know, in sentences.
        assets: names of the user's files that are shipped beside the model.
        labels: class names by index; empty if there are none.
    """

    recipe: Recipe
    contract: Contract
    steps: Sequence[StepRecord]
    checks: Sequence[Comparison]
    sizes: Mapping[str, Any]
    metrics: dict[str, dict[str, float]]
    spanning: Mapping[str, int]
    notes: Sequence[str]
    assets: Sequence[str]
    labels: Mapping[int, str]


def manifest(record: Record, folder: Path, files: Sequence[str]) -> dict[str, Any]:
    """The manifest of the model files in a folder; equal builds give equal manifests."""
    return {
        "strop_format": FORMAT,
        "target": record.recipe.target,
        "recipe": record.recipe.without_folders().values(),
        "contract": asdict(record.contract),
        "passes": [_step(step) for step in record.steps],
        "checks": [check.record() for check in record.checks],
        "sizes": dict(record.sizes),
        "batch_invariant": not record.spanning,
        "spanning_operators": dict(record.spanning),
        "metrics": record.metrics,
        "files": {name: _file(folder / name) for name in files},
        "side_files": {PROVENANCE: _file(folder / PROVENANCE)},
        "assets": {name: _file(folder / name) for name in record.assets},
        "labels": {str(index): name for index, name in record.labels.items()},
        "versions": {p: version(p) for p in PACKAGES}
        | runtime_of(get_target(record.recipe.target)).versions(),
        "notes": list(record.notes),
    }


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
    seconds: dict[str, float],
    steps: Sequence[StepRecord],
    milliseconds: Mapping[str, float | None],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """What differs from build to build: times, memory, the machine.

    Args:
        seconds: of every stage.
        steps: the passes.
        milliseconds: a quick look at one run of the "original" and of the "artifact", and of a
            quantized model's form in "float"; None for what was not timed.
        notes: what the user should know of this one build.
    """
    return {
        "seconds": seconds,
        "pass_seconds": {step.name: round(step.seconds, 4) for step in steps},
        "pass_peak_bytes": {step.name: step.peak_bytes for step in steps},
        "milliseconds": {
            name: None if ms is None else round(ms, 4) for name, ms in milliseconds.items()
        },
        "notes": list(notes),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "machine": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "threads": torch.get_num_threads(),
        },
    }
