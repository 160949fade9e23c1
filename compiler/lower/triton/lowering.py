"""Lower a whole program: its inputs, its calls one after the other, its outputs; then the arena."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.fx.node import Node

import strop.compiler.lower.triton.rules  # noqa: F401  (fills the table)
from strop.compiler.ir.printer import describe
from strop.compiler.ir.program import Program
from strop.compiler.lower.triton.arena import assign, lives
from strop.compiler.lower.triton.refusal import NotLowered
from strop.compiler.lower.triton.tracer import Tracer
from strop.compiler.targets.target import get_target
from strop.compiler.targets.triton.plan import (
    DTYPE_NAMES,
    FORMAT,
    DimValues,
    InputValues,
    LaunchValues,
    OutputValues,
    Plan,
    TensorValues,
    WeightValues,
    values_of,
)
from strop.compiler.util.errors import UnsupportedError
from strop.kernels.kernel import Launch
from strop.kernels.sources import kernels_hash


@dataclass(frozen=True)
class Traced:
    """A plan whose kernels are not compiled yet.

    Attributes:
        plan: without variants.
        launches: every launch, and the step that it became.
        weights: the constant of the program behind each weight of the plan, by name.
        origins: of each step the call that it was made for.
    """

    plan: Plan
    launches: Sequence[tuple[LaunchValues, Launch]]
    weights: dict[str, Node]
    origins: Sequence[Node]


def lower_to_plan(program: Program, target: str) -> Traced:
    """Lower a program.

    Raises:
        UnsupportedError: naming every operator that neither a kernel nor torch runs, with its
            source line.
    """
    on = Tracer(program, get_target(target))
    inputs = program.graph.find_nodes(op="placeholder")
    for number, node in enumerate(inputs):
        on.input(node, number)
    missing = [reason for node in program.calls() if (reason := _visit(on, node))]
    if missing:
        lines = "\n  ".join(dict.fromkeys(missing))
        raise UnsupportedError(f"no lowering for {len(missing)} operator calls:\n  {lines}")
    try:
        plan = _plan(on, inputs, target)
    except NotLowered as error:
        raise UnsupportedError(f"the inputs or outputs cannot be lowered: {error}") from error
    return Traced(plan, on.launches.recorded, on.weights, on.origins)


def _visit(on: Tracer, node: Node) -> str | None:
    """Lower one call; returns why it could not be."""
    try:
        on.visit(node)
    except NotLowered as reason:
        on.fail(node)
        return f"{describe(node)}: {reason}"
    return None


def _plan(on: Tracer, inputs: Sequence[Node], target: str) -> Plan:
    text, specs = on.memory.expressions.text, on.program.contract
    outputs = [
        OutputValues(name=spec.name, value=on.memory.value(on.value(node)))
        for spec, node in zip(specs.outputs, on.program.outputs)
    ]
    slots, values = _arena(on, outputs)
    return Plan(
        strop_plan=FORMAT,
        target=target,
        kernels=kernels_hash(),
        driver="",
        dims=list(_dims(on, inputs)),
        inputs=[
            InputValues(
                name=str(node.target),
                dtype=DTYPE_NAMES[node.meta["val"].dtype],
                shape=[text(size) for size in node.meta["val"].shape],
            )
            for node in inputs
        ],
        weights=[
            WeightValues(
                name=name,
                dtype=DTYPE_NAMES[node.meta["val"].dtype],
                shape=[int(size) for size in node.meta["val"].shape],
            )
            for name, node in on.weights.items()
        ],
        slots=slots,
        values=values,
        variants={},
        steps=on.steps,
        outputs=outputs,
    )


def _dims(on: Tracer, inputs: Sequence[Node]) -> Iterator[DimValues]:
    """Every symbol, and the first axis that has its size.

    Raises:
        NotLowered: a symbol has no axis of its own.
    """
    ranges = {dim.name: dim for dim in on.program.contract.dims}
    found: dict[str, DimValues] = {}
    wanted: dict[str, None] = {}
    for number, node in enumerate(inputs):
        for axis, size in enumerate(node.meta["val"].shape):
            if not isinstance(size, torch.SymInt):
                continue
            wanted |= dict.fromkeys(sorted(map(str, size.node.expr.free_symbols)))
            symbol = str(size.node.expr)
            if symbol in on.memory.expressions.names and symbol not in found:
                dim = ranges[on.program.symbols[symbol]]
                name = on.memory.expressions.names[symbol]
                found[symbol] = DimValues(
                    name=name, input=number, axis=axis, min=dim.min, max=dim.max
                )
    lost = [on.program.symbols.get(symbol, symbol) for symbol in wanted if symbol not in found]
    if lost:
        raise NotLowered(f"no axis of an input has just the size '{lost[0]}'")
    yield from found.values()


def _arena(
    on: Tracer, outputs: Sequence[OutputValues]
) -> tuple[list[list[str]], list[TensorValues]]:
    """The slots of the arena, and all values with the numbers of their slots."""
    memory, end = on.memory, len(on.steps)

    def uses() -> Iterator[tuple[int, int]]:
        for number, step in enumerate(on.steps):
            for value in values_of(step):
                yield number, value
        for output in outputs:
            yield end, output.value

    of_buffers = (
        (step, memory.values[value][0].number)
        for step, value in uses()
        if memory.values[value][0].of == "buffer"
    )
    slots, taken = assign(memory.buffers, lives(of_buffers))
    values = [
        described.model_copy(update={"number": taken[place.number]})
        if place.of == "buffer"
        else described
        for place, described in memory.values
    ]
    return [list(slot.sizes) for slot in slots], values
