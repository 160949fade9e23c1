"""Programs as launch plans whose kernels are interpreted, not compiled: in seconds, without a GPU.

Triton becomes an interpreter where ``TRITON_INTERPRET`` is 1 before it is imported.
"""

from __future__ import annotations

from strop.compiler.ir.constants import evaluate
from strop.compiler.ir.program import Program
from strop.compiler.lower.triton.compiled import described
from strop.compiler.lower.triton.lowering import Traced, lower_to_plan
from strop.compiler.targets.triton.checks import require_sound
from strop.compiler.targets.triton.interpreter import Interpreter
from strop.compiler.targets.triton.plan import Plan
from strop.compiler.targets.triton.session import PlanSession
from strop.kernels.selection import usual_buckets
from strop.kernels.specialization import variant_of


def uncompiled(program: Program, target: str) -> tuple[Plan, Traced]:
    """The plan of a program with the usual configurations: enough for the interpreter."""
    traced = lower_to_plan(program, target)
    variants = [
        variant_of(launch, bucket.configuration)
        for _, launch in traced.launches
        for bucket in usual_buckets(launch)
    ]
    known = {one.name: described(one, "", 0) for one in variants}
    return traced.plan.model_copy(update={"variants": known}), traced


def interpreted(program: Program, target: str) -> PlanSession:
    """The plan of a program, opened in this process."""
    plan, traced = uncompiled(program, target)
    require_sound(plan)
    weights = {n: evaluate(node, program).contiguous() for n, node in traced.weights.items()}
    return PlanSession(plan, weights, Interpreter())
