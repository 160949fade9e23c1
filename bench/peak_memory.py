"""Peak memory of building a 3.4 GB Llama through the command line, measured from outside.

``python -m strop.bench.peak_memory``
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.bench.figures import RESULTS, Figure, console, save, show
from strop.bench.launch import strop_command
from strop.bench.machine import environment

# Seconds between two looks at the process tree.
PERIOD = 0.02
ALLOWED_RATIO, ALLOWED_GB = 1.3, 0.6


@dataclass
class Memory:
    """Resident memory of a process tree, in GB.

    Attributes:
        total: everything resident; shared pages count once per process.
        anonymous: what the processes allocated.
        file: pages of mapped files, which the system may drop at any time.
        at: seconds since the start.
    """

    total: float = 0.0
    anonymous: float = 0.0
    file: float = 0.0
    at: float = 0.0


def tree_memory(root: int) -> Memory:
    """Resident memory of a process and all its descendants, now."""
    memory = Memory()
    for pid in _tree(root):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        sizes = [int(fields.get(k, "0 kB").split()[0]) * 1024 / 1e9 for k in _FIELDS]
        memory.anonymous += sizes[0]
        memory.file += sizes[1] + sizes[2]
        memory.total += sum(sizes)
    return memory


_FIELDS = ("RssAnon", "RssFile", "RssShmem")


def _tree(root: int) -> list[int]:
    found = [root]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            try:
                found += [int(child) for child in (task / "children").read_text().split()]
            except OSError:
                continue
    return found


def watch(command: list[str], environ: dict[str, str]) -> tuple[list[Memory], float, int]:
    """Run a command; returns samples of its memory, its own peak in GB, and the exit status.

    The peak is the kernel's ``ru_maxrss`` of the largest single process: nothing falls between
    two samples there.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environ)
    samples: list[Memory] = []
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return samples, usage.ru_maxrss * 1024 / 1e9, process.returncode
        memory = tree_memory(process.pid)
        memory.at = time.perf_counter() - start
        samples.append(memory)
        time.sleep(PERIOD)


def measure(source: str, recipe: str, folder: Path) -> dict[str, Any]:
    """Build once and report sizes in GB and the stage times."""
    out = folder / "artifact"
    command = strop_command("build", source, "-o", str(out), "--recipe", recipe)
    samples, peak, status = watch(command, dict(os.environ))
    if status:
        raise SystemExit(f"the build ended with exit status {status}")
    manifest = json.loads((out / "manifest.json").read_text())
    record = json.loads((out / "build.json").read_text())
    top = max(samples, key=lambda m: m.total)
    return {
        "artifact_gb": sum(f["bytes"] for f in manifest["files"].values()) / 1e9,
        "kernel_peak_gb": peak,
        "sampled_peak": asdict(top),
        "anonymous_peak_gb": max(m.anonymous for m in samples),
        "samples": len(samples),
        "seconds": samples[-1].at,
        "stage_seconds": record["seconds"],
        "timeline": [asdict(m) for m in samples[:: max(1, len(samples) // 100)]],
    }


def weights_gb(source: str) -> float:
    """Bytes of the module's parameters, counted in this process without allocating them."""
    import torch

    from strop.compiler.util.user_code import load_object

    with torch.device("meta"):
        module = load_object(source, "a model factory")().module
    return float(sum(p.numel() * p.element_size() for p in module.parameters()) / 1e9)


def main(
    recipe: Annotated[str, typer.Option(help="The recipe to build with.")] = "cpu-fp32",
    source: Annotated[str, typer.Option(help="FILE.py:make; the 3.4 GB Llama by default.")] = "",
    results: Annotated[Path, typer.Option(help="Folder for the JSON.")] = RESULTS,
) -> None:
    """Build a large model in a separate process and compare its peak memory with the bound."""
    source = source or f"{Path(__file__).with_name('llama.py')}:large"
    with tempfile.TemporaryDirectory() as folder, console.status("building"):
        found = {"weights_gb": weights_gb(source)} | measure(source, recipe, Path(folder))
    peak = max(found["kernel_peak_gb"], found["sampled_peak"]["total"])
    allowed = ALLOWED_RATIO * found["weights_gb"] + ALLOWED_GB
    figures = [Figure("peak memory, GB", peak, at_most=round(allowed, 3))]
    show(figures, f"{found['weights_gb']:.2f} GB of weights, recipe {recipe}")
    save("peak_memory", environment(), figures, found | {"recipe": recipe}, results)


if __name__ == "__main__":
    typer.run(main)
