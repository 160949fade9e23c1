"""A plan at given sizes: every expression as a number, and every view within its memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from strop.compiler.targets.triton.plan import (
    DTYPES,
    ChoiceValues,
    ExternValues,
    LaunchValues,
    NumberArgument,
    Plan,
    SizeArgument,
    Step,
    TensorArgument,
    TensorValues,
    VariantValues,
    values_of,
)
from strop.compiler.util.errors import RuntimeRefusedError
from strop.kernels.expression import cdiv, evaluate

Sizes = Mapping[str, int]
# Bytes. Slots begin at a multiple: that is what GPUs read at once, and more than kernels ask for.
SLOT_ALIGNMENT = 256
_LARGEST = {"i32": 2**31 - 1, "i64": 2**63 - 1}
# Of a grid, by axis: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
_MOST_PROGRAMS = (2**31 - 1, 65535, 65535)
_ALIGNMENT = 16


@dataclass(frozen=True)
class View:
    """A view of memory, in numbers of elements.

    Attributes:
        name: for messages.
        of: the kind of memory.
        number: which one of its kind.
    """

    name: str
    of: str
    number: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @property
    def extent(self) -> int:
        """Elements from the first one to the last one, both included."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride))


@dataclass(frozen=True)
class BoundLaunch:
    """A launch in numbers.

    Attributes:
        node: the call of the program that it is for.
        makes: values of the program that are complete after it, by name.
        name: of the variant.
        arguments: by name, in order: a number, the number of a view, or None.
        is_view: the names of those that are views.
    """

    node: str
    makes: Mapping[str, int]
    name: str
    variant: VariantValues
    grid: tuple[int, int, int]
    arguments: Mapping[str, int | float | None]
    is_view: frozenset[str]

    def views(self) -> dict[str, int]:
        """The numbers of its views, by the names of arguments."""
        return {n: int(a or 0) for n, a in self.arguments.items() if n in self.is_view}

    def numbers(self) -> dict[str, int]:
        """Its whole numbers by name: arguments and constants."""
        given = {n: a for n, a in self.arguments.items() if n not in self.is_view}
        both = {**given, **self.variant.constants}
        return {name: value for name, value in both.items() if isinstance(value, int)}


def views_of(step: BoundLaunch | ExternValues) -> list[int]:
    """The numbers of the views that a step reads or writes."""
    if isinstance(step, ExternValues):
        return list(values_of(step))
    return list(step.views().values())


@dataclass(frozen=True)
class Bound:
    """A plan at given sizes.

    Attributes:
        views: by number.
        offsets: bytes before each slot of the arena.
        arena: bytes of all of it.
        steps: in order, choices made.
        done: after each step, the numbers of what torch made and nothing reads any more.
    """

    sizes: Sizes
    views: Sequence[View]
    offsets: Sequence[int]
    arena: int
    steps: Sequence[BoundLaunch | ExternValues]
    done: Sequence[Sequence[int]]


def sizes_of(plan: Plan, shapes: Sequence[Sequence[int]]) -> dict[str, int]:
    """The size of each dim.

    Args:
        plan: whose dims.
        shapes: of the inputs, in order.

    Raises:
        RuntimeRefusedError: an input has a shape that the plan does not take.
    """
    for known, shape in zip(plan.inputs, shapes):
        if len(known.shape) != len(shape):
            raise RuntimeRefusedError(
                f"'{known.name}' has {len(shape)} axes; it takes [{', '.join(known.shape)}]"
            )
    sizes = {dim.name: shapes[dim.input][dim.axis] for dim in plan.dims}
    for dim in plan.dims:
        size = sizes[dim.name]
        if size < dim.min or (dim.max is not None and size > dim.max):
            most = "any size" if dim.max is None else dim.max
            raise RuntimeRefusedError(f"{dim.name} is {size}; it was built for {dim.min} to {most}")
    for known, shape in zip(plan.inputs, shapes):
        wanted = [_number(text, sizes) for text in known.shape]
        if wanted != list(shape):
            raise RuntimeRefusedError(f"'{known.name}' is {list(shape)}; it has to be {wanted}")
    return sizes


def bind(plan: Plan, sizes: Sizes) -> Bound:
    """Compute every expression of a plan that ``require_sound`` has passed.

    Raises:
        RuntimeRefusedError: an expression cannot be computed, a view leaves its memory, or a
            number does not fit the kernel that takes it.
    """
    views = [_view(value, sizes) for value in plan.values]
    slots = [max((_number(text, sizes) for text in texts), default=0) for texts in plan.slots]
    if min(slots, default=0) < 0:
        raise RuntimeRefusedError("the plan has memory of a negative size")
    offsets, end = [], 0
    for size in slots:
        offsets.append(end)
        end += cdiv(size, SLOT_ALIGNMENT) * SLOT_ALIGNMENT
    steps = list(_steps(plan.steps, plan, views, sizes))
    _require_inside(plan, views, slots, sizes, steps)
    return Bound(dict(sizes), views, offsets, end, steps, _done(plan, views, steps))


def _done(
    plan: Plan, views: Sequence[View], steps: Sequence[BoundLaunch | ExternValues]
) -> list[list[int]]:
    last: dict[int, int] = {}
    for i, step in enumerate(steps):
        made = (views[n] for n in views_of(step))
        last |= {view.number: i for view in made if view.of == "made"}
    for output in plan.outputs:
        last.pop(views[output.value].number if views[output.value].of == "made" else -1, None)
    done: list[list[int]] = [[] for _ in steps]
    for number, i in last.items():
        done[i].append(number)
    return done


def _number(text: str, sizes: Sizes) -> int:
    try:
        return evaluate(text, sizes)
    except ValueError as error:
        raise RuntimeRefusedError(f"the plan's size {error}") from error


def _view(value: TensorValues, sizes: Sizes) -> View:
    shape, stride = (tuple(_number(t, sizes) for t in ts) for ts in (value.shape, value.stride))
    view = View(
        value.name, value.of, value.number, DTYPES[value.dtype], shape, stride,
        _number(value.offset, sizes),
    )  # fmt: skip
    if min((*shape, *stride, view.offset), default=0) < 0:
        raise RuntimeRefusedError(f"the plan's value {value.name} has a negative size or stride")
    return view


def _require_inside(
    plan: Plan,
    views: Sequence[View],
    slots: Sequence[int],
    sizes: Sizes,
    steps: Sequence[BoundLaunch | ExternValues],
) -> None:
    """Check that every view lies within its memory."""
    rooms = {("slot", i): size for i, size in enumerate(slots)}
    for i, known in enumerate(plan.inputs):
        count = math.prod(_number(text, sizes) for text in known.shape)
        rooms["input", i] = count * DTYPES[known.dtype].itemsize
    for i, weight in enumerate(plan.weights):
        rooms["weight", i] = math.prod(weight.shape) * DTYPES[weight.dtype].itemsize
    for step in steps:
        for number in step.results if isinstance(step, ExternValues) else ():
            if number is not None:
                view = views[number]
                rooms["made", view.number] = view.extent * view.dtype.itemsize
    for view in views:
        room = rooms.get((view.of, view.number))
        end = (view.offset + view.extent) * view.dtype.itemsize
        if view.extent and room is not None and end > room:
            raise RuntimeRefusedError(
                f"the plan's value {view.name} ends after {end} bytes of the {room} that it lies in"
            )


def _steps(
    steps: Sequence[Step], plan: Plan, views: Sequence[View], sizes: Sizes
) -> Iterator[BoundLaunch | ExternValues]:
    for step in steps:
        if isinstance(step, ExternValues):
            yield step
        else:
            yield from _launches(step, plan, views, sizes)


def _launches(
    step: LaunchValues | ChoiceValues, plan: Plan, views: Sequence[View], sizes: Sizes
) -> list[BoundLaunch]:
    """The launches of a step, choices made."""
    if isinstance(step, LaunchValues):
        return [_launch(step, plan, views, sizes)]
    named = {name: _number(text, sizes) for name, text in step.sizes.items()}
    taken = step.then if _number(step.when, named) else step.otherwise
    launches = [one for part in taken for one in _launches(part, plan, views, sizes)]
    return [*launches[:-1], replace(launches[-1], makes=step.makes)]


def _launch(step: LaunchValues, plan: Plan, views: Sequence[View], sizes: Sizes) -> BoundLaunch:
    arguments: dict[str, int | float | None] = {}
    whole: dict[str, int] = {}
    for name, argument in step.arguments.items():
        match argument:
            case TensorArgument():
                arguments[name] = argument.value
            case SizeArgument():
                arguments[name] = whole[name] = _number(argument.size, sizes)
            case NumberArgument():
                arguments[name] = argument.number
            case None:
                arguments[name] = None
    pointers = frozenset(n for n, a in step.arguments.items() if isinstance(a, TensorArgument))
    name, variant, known = _chosen(step, plan, whole)
    _require_fitting(step, variant, whole, {n: views[int(arguments[n] or 0)] for n in pointers})
    grid = _grid(step, known)
    return BoundLaunch(step.node, step.makes, name, variant, grid, arguments, pointers)


def _chosen(
    step: LaunchValues, plan: Plan, whole: Sizes
) -> tuple[str, VariantValues, dict[str, int]]:
    """The variant whose condition holds, and the numbers that expressions of it may name."""
    for bucket in step.buckets:
        variant = plan.variants[bucket.variant]
        known = dict(whole) | {k: v for k, v in variant.constants.items() if isinstance(v, int)}
        if not bucket.when or _number(bucket.when, known):
            return bucket.variant, variant, known
    raise AssertionError("the last bucket is for all sizes")


def _grid(step: LaunchValues, known: Sizes) -> tuple[int, int, int]:
    x, y, z = ([_number(text, known) for text in step.grid] + [1, 1])[:3]
    if any(not 0 <= n <= most for n, most in zip((x, y, z), _MOST_PROGRAMS)):
        raise RuntimeRefusedError(f"the launch %{step.node} has {x}, {y}, {z} programs: too many")
    return x, y, z


def _require_fitting(
    step: LaunchValues, variant: VariantValues, whole: Sizes, views: Mapping[str, View]
) -> None:
    """Check the numbers of a launch against what its variant was compiled for."""
    for name, number in whole.items():
        most = _LARGEST[variant.types[name]]
        if not -most <= number <= most:
            raise RuntimeRefusedError(
                f"{name} of %{step.node} is {number}, its kernel takes at most {most}: these sizes "
                "are too large"
            )
    for name in variant.aligned:
        start = views[name].offset * views[name].dtype.itemsize if name in views else whole[name]
        if start % _ALIGNMENT:
            raise RuntimeRefusedError(f"{name} of %{step.node} is no multiple of {_ALIGNMENT}")
