"""A step of a formula that is repeated: one ``Loop``, whose body is the step as traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch.fx.node import Node

from strop.compiler.ir.builder import fake_mode_of
from strop.compiler.lower.onnx.decompose import trace_function
from strop.compiler.lower.onnx.dtypes import onnx_dtype
from strop.compiler.lower.onnx.emitter import DTYPE, Emitter
from strop.compiler.lower.onnx.formulas.repeat import GOING, STEPS
from strop.compiler.lower.onnx.table import TABLE, lowers


@lowers(torch.ops.strop_lowering.repeat.default)
def repeat(on: Emitter, step: str, count: Any, state: list[Node], fixed: list[Node]) -> Any:
    def once(k: Tensor, go_on: Tensor, *values: Tensor) -> list[Tensor]:
        return [go_on, *STEPS[step](k, values[: len(state)], values[len(state) :])]

    return _loop(on, once, (on.op("Squeeze", on.size(count)), None), state, fixed)


@lowers(torch.ops.strop_lowering.repeat_while.default)
def repeat_while(
    on: Emitter, step: str, going: str, first: Node, state: list[Node], fixed: list[Node]
) -> Any:
    def once(k: Tensor, go_on: Tensor, *values: Tensor) -> list[Tensor]:
        kept = values[len(state) :]
        made = STEPS[step](k, values[: len(state)], kept)
        return [GOING[going](k + 1, made, kept).any(), *made]

    return _loop(on, once, (None, on.value(first)), state, fixed)


def _loop(
    on: Emitter,
    once: Callable[..., list[Tensor]],
    limits: tuple[Any, Any],
    state: list[Node],
    fixed: list[Node],
) -> tuple[Any, ...]:
    """The last state; ``limits`` are the number of steps, and whether the first is taken."""
    first, outer = [on.value(n) for n in state], [on.value(n) for n in fixed]
    types = [n.meta["val"] for n in state]
    body = _body(on, once, types, [n.meta["val"] for n in fixed], outer)
    made = on.op("Loop", *limits, *first, outputs=len(first), body=body)
    made = made if isinstance(made, tuple) else (made,)
    for value, known in zip(made, types):
        value.meta[DTYPE] = onnx_dtype(known.dtype)
    return made


def _body(
    on: Emitter,
    once: Callable[..., list[Tensor]],
    state: Sequence[Tensor],
    fixed: Sequence[Tensor],
    outer: Sequence[Any],
) -> ir.Graph:
    """The step as a graph: its number, "go on" and the state in; "go on" and the next state out."""
    mode = fake_mode_of(on.program)
    number, go_on = (
        mode.from_tensor(torch.zeros((), dtype=dtype)) for dtype in (torch.int64, torch.bool)
    )
    part = trace_function(once, [number, go_on, *state, *fixed], mode, TABLE)
    inside = [_given(on, onnx_dtype(t.dtype), t.shape) for t in (number, go_on, *state)]
    nodes, made = on.body(part, [*inside, *outer])
    return ir.Graph(inside, made, nodes=nodes, name=on.unique("step", start=1))


def _given(on: Emitter, dtype: ir.DataType, shape: Sequence[Any]) -> ir.Value:
    """An input of the body; sizes that are not fixed are left open."""
    sizes = [s if isinstance(s, int) else None for s in shape]
    name = on.unique("step_input", start=1)
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(sizes))
