"""Write a compiled plan: the plan itself, weights, kernels, and what the gate read of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from strop.compiler.lower.triton.compiled import Compiled
from strop.compiler.lower.triton.weights import write_weights
from strop.compiler.targets.target import GATE_FILE, PLAN_FILE, WEIGHTS_FILE
from strop.compiler.targets.triton.plan import kernel_file
from strop.kernels.gate import Checked


def write_plan(
    compiled: Compiled, arch: str, weight: Callable[[str], Tensor], folder: Path
) -> list[str]:
    """Write all files of an artifact that a plan needs.

    Args:
        compiled: the plan and its kernels.
        arch: the architecture that they are for.
        weight: gives a weight by name, when it is written.
        folder: where to write.

    Returns:
        Their names.
    """
    plan = compiled.plan
    text = json.dumps(plan.model_dump(), separators=(",", ":"), allow_nan=False)
    (folder / PLAN_FILE).write_text(text + "\n")
    report = {name: _report(one) for name, one in compiled.kernels.items()}
    (folder / GATE_FILE).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    write_weights(folder / WEIGHTS_FILE, {known.name: known for known in plan.weights}, weight)
    return [PLAN_FILE, WEIGHTS_FILE, GATE_FILE, *_write_kernels(compiled.kernels, arch, folder)]


def _write_kernels(kernels: Mapping[str, Checked], arch: str, folder: Path) -> list[str]:
    names = []
    for variant, one in kernels.items():
        for ending, content in (("cubin", one.binary.cubin), ("ptx", one.binary.ptx.encode())):
            name = kernel_file(arch, variant, ending)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            names.append(name)
    return names


def _report(one: Checked) -> dict[str, Any]:
    """What the gate read of a kernel."""
    return {
        **one.variant.to_json(),
        "reading": asdict(one.reading),
        "occupancy": asdict(one.occupancy),
        "dots": list(one.binary.dots),
        "minimum_driver": one.binary.minimum_driver,
        "triton": one.binary.triton,
    }
