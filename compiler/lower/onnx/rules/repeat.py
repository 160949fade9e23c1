"""A step of a formula that is repeated: one ``Loop``, whose body is the step as traced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch.fx.node import Node

from strop.compiler.build_nodes import fake_mode_of
from strop.compiler.lower.onnx.decompose import trace_function
from strop.compiler.lower.onnx.emitter import DTYPE, Emitter, onnx_dtype
from strop.compiler.lower.onnx.formulas.repeat import STEPS
from strop.compiler.lower.onnx.table import TABLE, lowers


@lowers(torch.ops.strop_lowering.repeat.default)
def repeat(on: Emitter, step: str, count: Any, state: list[Node], fixed: list[Node]) -> Any:
    first, outer = [on.value(n) for n in state], [on.value(n) for n in fixed]
    types = [n.meta["val"] for n in state]
    body = _body(on, step, types, [n.meta["val"] for n in fixed], outer)
    trips = on.op("Squeeze", on.size(count))
    made = on.op("Loop", trips, None, *first, outputs=len(first), body=body)
    made = made if isinstance(made, tuple) else (made,)
    for value, known in zip(made, types):
        value.meta[DTYPE] = onnx_dtype(known.dtype)
    return made


def _body(
    on: Emitter, step: str, state: Sequence[Tensor], fixed: Sequence[Tensor], outer: Sequence[Any]
) -> ir.Graph:
    """The step as a graph: its number, "go on" and the state in; "go on" and the next state out."""
    mode = fake_mode_of(on.program)
    number = mode.from_tensor(torch.zeros((), dtype=torch.int64))

    def once(k: Tensor, *values: Tensor) -> list[Tensor]:
        return list(STEPS[step](k, values[: len(state)], values[len(state) :]))

    part = trace_function(once, [number, *state, *fixed], mode, TABLE)
    inside = [_given(on, ir.DataType.INT64, []), _given(on, ir.DataType.BOOL, [])]
    inside += [_given(on, onnx_dtype(t.dtype), t.shape) for t in state]
    nodes, made = on.body(part, [inside[0], *inside[2:], *outer], inside[1])
    return ir.Graph(inside, made, nodes=nodes, name=on.unique("step", start=1))


def _given(on: Emitter, dtype: ir.DataType, shape: Sequence[Any]) -> ir.Value:
    """An input of the body; sizes that are not fixed are left open."""
    sizes = [s if isinstance(s, int) else None for s in shape]
    name = on.unique("step_input", start=1)
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(sizes))
