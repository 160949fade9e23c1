"""One build through the command line, with its time, memory and stages."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.bench.processes.launch import strop_command
from strop.bench.processes.memory import Watched, watch
from strop.compiler.util.user_code import load_object


@dataclass(frozen=True)
class WatchedBuild:
    """A build that was watched.

    Attributes:
        process: of the command.
        artifact_gb: size of the artifact's files.
        stage_seconds: seconds of each stage after the import.
    """

    process: Watched
    artifact_gb: float
    stage_seconds: dict[str, float]

    def record(self) -> dict[str, Any]:
        """What a record says about it."""
        return {
            "artifact_gb": self.artifact_gb,
            "stage_seconds": self.stage_seconds,
            **self.process.record(),
        }


def watched_build(source: str, recipe: str) -> WatchedBuild:
    """Build once in a new process.

    Raises:
        SystemExit: the build failed; what it says went to the terminal.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "artifact"
        command = strop_command("build", source, "-o", str(out), "--recipe", recipe)
        process = watch(command)
        if process.status:
            raise SystemExit(f"the build ended with exit status {process.status}")
        manifest = json.loads((out / "manifest.json").read_text())
        seconds = json.loads((out / "build.json").read_text())["seconds"]
    size = sum(f["bytes"] for f in manifest["files"].values()) / 1e9
    return WatchedBuild(process, size, seconds)


def weights_gb(source: str) -> float:
    """Size of the module's parameters, counted in this process without allocating them."""
    import torch

    with torch.device("meta"):
        module = load_object(source, "a model factory")().module
    return float(sum(p.numel() * p.element_size() for p in module.parameters()) / 1e9)
