"""What a plan from a file must hold to before anything of it is run, at whatever sizes."""

from __future__ import annotations

from collections.abc import Sequence

from strop.compiler.targets.triton.plan import (
    ExternValues,
    LaunchValues,
    NumberArgument,
    Plan,
    SizeArgument,
    TensorArgument,
    TensorValues,
    VariantValues,
    all_steps,
    values_of,
)
from strop.compiler.util.errors import UsageError

_TYPES = {
    "f16": "fp16", "bf16": "bf16", "f32": "fp32", "f64": "fp64", "f8e4m3": "fp8e4nv", "i8": "i8",
    "u8": "u8", "i16": "i16", "i32": "i32", "i64": "i64", "bool": "i1",
}  # fmt: skip


def require_sound(plan: Plan) -> None:
    """Check that all that a plan names is there, and fits together.

    Raises:
        UsageError: with the first thing that does not.
    """
    counts = {"input": len(plan.inputs), "weight": len(plan.weights), "slot": len(plan.slots)}
    for value in plan.values:
        if value.of in counts and value.number >= counts[value.of]:
            raise UsageError(f"the plan's value {value.name} lies in memory that is not there")
        if len(value.shape) != len(value.stride):
            raise UsageError(f"the plan's value {value.name} has other strides than axes")
    for dim in plan.dims:
        if dim.input >= len(plan.inputs) or dim.axis >= len(plan.inputs[dim.input].shape):
            raise UsageError(f"the plan's dim {dim.name} is the size of no axis")
    _require_values(plan)
    for step in all_steps(plan.steps):
        if isinstance(step, LaunchValues):
            _require_launch(step, plan)
    _require_order(plan)


def _require_values(plan: Plan) -> None:
    named = [number for step in plan.steps for number in values_of(step)]
    named += [output.value for output in plan.outputs]
    named += [number for step in plan.steps for number in step.makes.values()]
    if any(not 0 <= number < len(plan.values) for number in named):
        raise UsageError("the plan names a value that it does not have")


def _require_launch(step: LaunchValues, plan: Plan) -> None:
    for bucket in step.buckets:
        variant = plan.variants.get(bucket.variant)
        if variant is None or variant.kernel != step.kernel:
            raise UsageError(f"the plan has no variant {bucket.variant} of kernel {step.kernel}")
        if list(variant.types) != list(step.arguments):
            raise UsageError(f"the launch %{step.node} has other arguments than {bucket.variant}")
        _require_types(step, variant, plan.values)
    if step.buckets[-1].when:
        raise UsageError(f"the launch %{step.node} has no variant for all other sizes")


def _require_types(
    step: LaunchValues, variant: VariantValues, values: Sequence[TensorValues]
) -> None:
    for name, argument in step.arguments.items():
        match argument:
            case TensorArgument():
                fits = variant.types[name] == f"*{_TYPES[values[argument.value].dtype]}"
            case SizeArgument():
                fits = variant.types[name] in ("i32", "i64")
            case NumberArgument():
                fits = variant.types[name] == "fp32"
            case _:
                fits = variant.types[name] == "none"
        if not fits:
            raise UsageError(f"the argument {name} of %{step.node} is no {variant.types[name]}")


def _require_order(plan: Plan) -> None:
    """Check that torch makes each value once, and before it is read."""
    made: set[int] = set()
    for step in all_steps(plan.steps):
        results = _results(step)
        for number in values_of(step):
            value = plan.values[number]
            if value.of == "made" and number not in results and value.number not in made:
                raise UsageError(f"the step %{step.node} reads {value.name}, which nothing made")
        for number in results:
            value = plan.values[number]
            if value.of != "made" or value.number in made:
                raise UsageError(f"the step %{step.node} makes {value.name}, which is there")
            made.add(value.number)
    for output in plan.outputs:
        value = plan.values[output.value]
        if value.of == "made" and value.number not in made:
            raise UsageError(f"the output {output.name} is made by nothing")


def _results(step: LaunchValues | ExternValues) -> list[int]:
    if isinstance(step, LaunchValues):
        return []
    return [number for number in step.results if number is not None]
