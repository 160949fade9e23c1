"""A plan as text, one step a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from strop.compiler.targets.triton.plan import (
    Argument,
    ChoiceValues,
    LaunchValues,
    NumberArgument,
    Plan,
    SizeArgument,
    Step,
    TensorArgument,
)
from strop.compiler.util.visible import visible


def plan_text(plan: Plan) -> str:
    """``%norm = norm(x=%x, rows=batch*seq) [cdiv(rows, ROWS)]``, and so on."""
    lines = [*_lines(plan.steps, plan, "")]
    results = ", ".join(f"{o.name}: %{plan.values[o.value].name}" for o in plan.outputs)
    return "\n".join(map(visible, [*lines, f"return {results}"]))


def _lines(steps: Sequence[Step], plan: Plan, indent: str) -> Iterator[str]:
    for step in steps:
        if isinstance(step, ChoiceValues):
            named = ", ".join(f"{name}={text}" for name, text in step.sizes.items())
            yield f"{indent}if {step.when} ({named}):"
            yield from _lines(step.then, plan, indent + "  ")
            yield f"{indent}else:"
            yield from _lines(step.otherwise, plan, indent + "  ")
        elif isinstance(step, LaunchValues):
            parts = (f"{n}={_argument(a, plan)}" for n, a in step.arguments.items() if a)
            call = f"{step.kernel}({', '.join(parts)}) [{', '.join(step.grid)}]"
            yield f"{indent}{_made(step)} = {call}"
        else:
            parts = (_value(a, plan) for a in (*step.args, *step.kwargs.values()))
            yield f"{indent}{_made(step)} = {step.operator}({', '.join(parts)})"


def _made(step: Step) -> str:
    return ", ".join(f"%{name}" for name in step.makes) or f"%{step.node}"


def _argument(argument: Argument, plan: Plan) -> str:
    match argument:
        case TensorArgument():
            return f"%{plan.values[argument.value].name}"
        case SizeArgument():
            return argument.size
        case NumberArgument():
            return str(argument.number)
    return "-"


def _value(argument: Any, plan: Plan) -> str:
    if isinstance(argument, list):
        return f"[{', '.join(_value(a, plan) for a in argument)}]"
    if isinstance(argument, dict):
        ((kind, content),) = argument.items()
        return f"%{plan.values[content].name}" if kind == "value" else str(content)
    return str(argument)
