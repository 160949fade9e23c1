"""The launch plan of an artifact: what is run, in which order, on which memory. All of it is data.

Sizes are text over the names of dims (``strop.kernels.expression``), so that one plan serves all
sizes. Memory is of four kinds: inputs, weights, slots of one arena, and what torch makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import torch

from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.parsing import Strict, validated
from strop.compiler.util.files.reading import read_json

FORMAT: Literal[1] = 1
DTYPES: dict[str, torch.dtype] = {
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f32": torch.float32,
    "f64": torch.float64,
    "f8e4m3": torch.float8_e4m3fn,
    "i8": torch.int8,
    "u8": torch.uint8,
    "i16": torch.int16,
    "i32": torch.int32,
    "i64": torch.int64,
    "bool": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

Size = Annotated[str, pydantic.Field(max_length=2_000)]
"""A whole number as text over the names of dims."""
Number = Annotated[int, pydantic.Field(ge=0, lt=2**31)]
Dtype = Annotated[str, pydantic.Field(pattern="^(" + "|".join(DTYPES) + ")$")]
# Steps and values of a model of thousands of layers.
_MOST = 1_000_000


class DimValues(Strict):
    """A dim: which axis of which input has its size, and what it may be."""

    name: str
    input: Number
    axis: Number
    min: int
    max: int | None


class InputValues(Strict):
    """An input; it is contiguous."""

    name: str
    dtype: Dtype
    shape: list[Size]


class WeightValues(Strict):
    """A tensor of the weights' file; it is contiguous."""

    name: str
    dtype: Dtype
    shape: list[Annotated[int, pydantic.Field(ge=0, lt=2**63)]]


class TensorValues(Strict):
    """A view of memory.

    Attributes:
        name: of the memory or of what fills it, with the number of the view behind it.
        of: the kind of memory.
        number: which one of its kind.
        offset: elements before its first one.
    """

    name: str
    of: Literal["input", "weight", "slot", "made"]
    number: Number
    dtype: Dtype
    shape: list[Size]
    stride: list[Size]
    offset: Size


class TensorArgument(Strict):
    """The pointer to a value."""

    value: Number


class SizeArgument(Strict):
    """A whole number."""

    size: Size


class NumberArgument(Strict):
    """A float, which kernels take as fp32."""

    number: float


Argument = TensorArgument | SizeArgument | NumberArgument | None
Constant = bool | int | str


class VariantValues(Strict):
    """A compiled kernel; see ``strop.kernels.variant``.

    Attributes:
        types: of the arguments, in order: "*fp16", "i32", "fp32", "none" for one not there.
        aligned: arguments that are multiples of 16: addresses and whole numbers.
        constants: compile-time values.
        entry: the name of the function in the binary.
        shared_memory: bytes that a block asks for.
    """

    kernel: str
    types: dict[str, str]
    aligned: list[str]
    constants: dict[str, Constant]
    num_warps: Annotated[int, pydantic.Field(ge=1, le=32)]
    num_stages: Annotated[int, pydantic.Field(ge=1, le=16)]
    entry: str
    shared_memory: Number


class BucketValues(Strict):
    """A variant, and the condition for which it is taken; "" for all."""

    when: Size
    variant: str


class LaunchValues(Strict):
    """A launch of a kernel.

    Attributes:
        node: the call of the program that it is for.
        makes: values of the program that are complete now, by name.
        arguments: by parameter, in order; None for a tensor that is not there.
        grid: programs along each axis, over whole arguments and a variant's constants.
        buckets: the first one that holds is taken, over whole arguments and constants.
    """

    kind: Literal["launch"]
    node: str
    makes: dict[str, Number]
    kernel: str
    arguments: dict[str, Argument]
    grid: Annotated[list[Size], pydantic.Field(min_length=1, max_length=3)]
    buckets: Annotated[list[BucketValues], pydantic.Field(min_length=1)]


class ExternValues(Strict):
    """A call of an operator of ATen's.

    Attributes:
        node: the call of the program that it is for.
        makes: values of the program that are complete now, by name.
        args: encoded by ``strop.compiler.targets.triton.externs``.
        results: the values that it makes; None for what is a view of its arguments.
    """

    kind: Literal["extern"]
    node: str
    makes: dict[str, Number]
    operator: str
    args: list[Any]
    kwargs: dict[str, Any]
    results: list[Number | None]


class ChoiceValues(Strict):
    """Launches of which either the first or the second list is made.

    Attributes:
        node: the call of the program that they are for.
        makes: values of the program that are complete now, by name.
        when: the condition, over ``sizes``.
    """

    kind: Literal["choice"]
    node: str
    makes: dict[str, Number]
    when: Size
    sizes: dict[str, Size]
    then: Launching
    otherwise: Launching


Launching = Annotated[
    list[Annotated[LaunchValues | ChoiceValues, pydantic.Field(discriminator="kind")]],
    pydantic.Field(min_length=1, max_length=100),
]
Step = Annotated[LaunchValues | ExternValues | ChoiceValues, pydantic.Field(discriminator="kind")]


class OutputValues(Strict):
    """An output, and the value that it is."""

    name: str
    value: Number


class Plan(Strict):
    """The whole of it.

    Attributes:
        target: the name of the target.
        kernels: the hash of the sources that its kernels were compiled from.
        driver: the oldest of NVIDIA's drivers that loads the kernels: "580.65.06".
        slots: of the arena: sizes in bytes, of which a slot has the largest.
    """

    strop_plan: Literal[1]
    target: str
    kernels: str
    driver: str
    dims: list[DimValues]
    inputs: list[InputValues]
    weights: Annotated[list[WeightValues], pydantic.Field(max_length=_MOST)]
    slots: Annotated[list[list[Size]], pydantic.Field(max_length=_MOST)]
    values: Annotated[list[TensorValues], pydantic.Field(max_length=_MOST)]
    variants: dict[str, VariantValues]
    steps: Annotated[list[Step], pydantic.Field(max_length=_MOST)]
    outputs: list[OutputValues]


def kernel_file(arch: str, variant: str, ending: str) -> str:
    """Where a compiled kernel lies: ``kernels/sm90/norm-3f9a1c04.cubin``."""
    return f"kernels/{arch}/{variant}.{ending}"


def all_steps(steps: Sequence[Step]) -> Iterator[LaunchValues | ExternValues]:
    """Launches and calls, those inside choices too, in order."""
    for step in steps:
        if isinstance(step, ChoiceValues):
            yield from all_steps(step.then)
            yield from all_steps(step.otherwise)
        else:
            yield step


def values_of(step: Step) -> Iterator[int]:
    """The numbers of the values that a step reads or writes."""
    for one in all_steps([step]):
        if isinstance(one, LaunchValues):
            for argument in one.arguments.values():
                if isinstance(argument, TensorArgument):
                    yield argument.value
        else:
            yield from _values_in([*one.args, *one.kwargs.values()])
            yield from (number for number in one.results if number is not None)


def _values_in(arguments: Sequence[Any]) -> Iterator[int]:
    for argument in arguments:
        if isinstance(argument, list):
            yield from _values_in(argument)
        elif isinstance(argument, dict) and isinstance(argument.get("value"), int):
            yield argument["value"]


def read_plan(path: Path) -> Plan:
    """Read the plan in a file; ``checked`` has still to look at what it names.

    Raises:
        UsageError: it is no plan, or was damaged.
    """
    values = read_json(path, "the plan", within=path.parent)
    if isinstance(values, dict) and values.get("strop_plan") != FORMAT:
        raise UsageError(f"the plan {path} has format {values.get('strop_plan')!r}, not {FORMAT}")
    return validated(Plan, values, f"the plan {path}")


ChoiceValues.model_rebuild()
Plan.model_rebuild()
