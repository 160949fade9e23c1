"""What tests of launch plans share: programs lowered and run, by the interpreter or on a GPU."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from strop.bench.harness.interpreted import interpreted, uncompiled
from strop.compiler.ir.program import Program
from strop.compiler.lower.lowering import lowering_of
from strop.compiler.lower.triton.lowering import Traced
from strop.compiler.targets.target import get_target
from strop.compiler.targets.triton.plan import Plan
from strop.compiler.targets.triton.session import PlanSession

TARGET = "triton:sm90"


def plan_of(program: Program) -> tuple[Plan, Traced]:
    """The plan of a program, its kernels not compiled: enough for the interpreter."""
    return uncompiled(program, TARGET)


def session_of(program: Program) -> PlanSession:
    """The plan of a program, opened: on a GPU with compiled kernels where there is one."""
    if torch.cuda.is_available():
        from strop.compiler.targets.triton.cuda import open_on_cuda

        major, minor = torch.cuda.get_device_capability()
        target = get_target(f"triton:sm{major}{minor}")
        with tempfile.TemporaryDirectory() as folder:
            lowering_of(target).lower(program, target).write(Path(folder))
            return open_on_cuda(Path(folder))
    return interpreted(program, TARGET)


def run_plan(program: Program, *inputs: Tensor) -> list[Tensor]:
    """Lower a program and run its plan once."""
    session = session_of(program)
    feeds = {name: tensor.numpy() for name, tensor in zip(session.inputs, inputs)}
    return [torch.from_numpy(array) for array in session.run(feeds).values()]


def kernels_of(program: Program) -> list[str]:
    """What each step runs: the name of a kernel, or of torch's operator."""
    plan, _ = plan_of(program)
    names = []
    for step in plan.steps:
        if step.kind == "choice":
            names.append("choice")
        else:
            names.append(step.kernel if step.kind == "launch" else step.operator)
    return names
