"""Write a traced plan: compiled kernels that hold to the limits, weights, and the plan itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from strop.compiler.ir.constants import evaluate
from strop.compiler.ir.program import Program
from strop.compiler.lower.triton.lowering import Traced
from strop.compiler.lower.triton.weights import write_weights
from strop.compiler.targets.target import GATE_FILE, PLAN_FILE, WEIGHTS_FILE, TritonTarget
from strop.compiler.targets.triton.plan import (
    Plan,
    VariantValues,
    kernel_file,
)
from strop.compiler.util.errors import RuntimeRefusedError
from strop.kernels.architecture import ARCHITECTURES
from strop.kernels.compiler import CompileError
from strop.kernels.gate import Checked, GateError, compile_and_check


def write_plan(traced: Traced, program: Program, target: TritonTarget, folder: Path) -> list[str]:
    """Write all files of an artifact that a plan needs.

    Returns:
        Their names.

    Raises:
        RuntimeRefusedError: a kernel cannot be compiled, or breaks a limit of the gate's.
    """
    checked = _checked(traced, target)
    plan = traced.plan.model_copy(
        update={
            "variants": {one.variant.name: _variant(one) for one in checked},
            "driver": max((one.binary.minimum_driver for one in checked), key=_version, default=""),
        }
    )
    (folder / PLAN_FILE).write_text(_text(plan))
    names = [PLAN_FILE, WEIGHTS_FILE, GATE_FILE, *_write_kernels(checked, target, folder)]
    report = {one.variant.name: _report(one) for one in checked}
    (folder / GATE_FILE).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    write_weights(
        folder / WEIGHTS_FILE,
        {weight.name: weight for weight in plan.weights},
        lambda name: evaluate(traced.weights[name], program),
    )
    return names


def _checked(traced: Traced, target: TritonTarget) -> Sequence[Checked]:
    variants = [traced.variants[name] for name in sorted(traced.variants)]
    try:
        return compile_and_check(variants, ARCHITECTURES[target.arch])
    except (CompileError, GateError) as error:
        raise RuntimeRefusedError(str(error)) from error


def _version(driver: str) -> list[int]:
    return [int(part) for part in driver.split(".")]


def _variant(one: Checked) -> VariantValues:
    variant = one.variant
    return VariantValues(
        kernel=variant.kernel,
        types=dict(variant.types),
        aligned=list(variant.aligned),
        constants=dict(variant.constants),
        num_warps=variant.num_warps,
        num_stages=variant.num_stages,
        entry=one.binary.entry,
        shared_memory=one.binary.shared_memory,
    )


def _text(plan: Plan) -> str:
    return json.dumps(plan.model_dump(), separators=(",", ":"), allow_nan=False) + "\n"


def _write_kernels(checked: Sequence[Checked], target: TritonTarget, folder: Path) -> list[str]:
    names = []
    for one in checked:
        for ending, content in (("cubin", one.binary.cubin), ("ptx", one.binary.ptx.encode())):
            name = kernel_file(target.arch, one.variant.name, ending)
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
