"""The long tail: operators without a row of ours, lowered one at a time by ``torch.onnx``."""

from __future__ import annotations

import warnings
from typing import Any

import onnx_ir as ir
import torch
from torch import nn
from torch.fx.node import Node

from strop.compiler.lower.onnx.emitter import Emitter, NotLowered


class _OneOp(nn.Module):
    """Calls one operator with its literal arguments bound."""

    def __init__(self, node: Node, tensors: list[Node]) -> None:
        super().__init__()
        self.node = node
        self.tensors = tensors

    def forward(self, *values: torch.Tensor) -> Any:
        bound = dict(zip(self.tensors, values))
        args, kwargs = torch.fx.map_arg((self.node.args, self.node.kwargs), bound.__getitem__)
        return self.node.target(*args, **kwargs)  # type: ignore[operator,misc]


def emit_by_torchlib(on: Emitter, node: Node) -> Any:
    """Export a program of this one operator and graft its nodes.

    Raises:
        NotLowered: torch.onnx does not know it either, or one of its sizes is computed.
    """
    inputs = list(node.all_input_nodes)
    if any(not isinstance(n.meta["val"], torch.Tensor) for n in inputs):
        raise NotLowered("neither strop nor torch.onnx lowers it at a computed size")
    if getattr(node.target, "namespace", "") not in ("aten", "prims"):
        raise NotLowered("not an ATen operator, and no row of the lowering table names it")
    values = tuple(_example(n.meta["val"]) for n in inputs)
    shapes = tuple(_dynamic(n.meta["val"]) for n in inputs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(
                _OneOp(node, inputs), values, dynamo=True, verbose=False,
                dynamic_shapes=(shapes,), opset_version=on.target.opset,
            )
    except Exception as error:
        raise NotLowered(f"torch.onnx refuses it: {_root_cause(error)}") from error
    assert exported is not None
    return _graft(on, exported.model, [on.value(n) for n in inputs])


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _example(value: torch.Tensor) -> torch.Tensor:
    sizes = [3 + i if isinstance(s, torch.SymInt) else int(s) for i, s in enumerate(value.shape)]
    return torch.zeros(sizes, dtype=value.dtype)


def _dynamic(value: torch.Tensor) -> dict[int, Any]:
    return {
        i: torch.export.Dim.AUTO for i, s in enumerate(value.shape) if isinstance(s, torch.SymInt)
    }


def _graft(on: Emitter, model: ir.Model, inputs: list[Any]) -> Any:
    """Move the nodes of a one-operator model into the graph; returns its outputs."""
    values: dict[Any, Any] = dict(zip(model.graph.inputs, inputs))
    for name, value in model.graph.initializers.items():
        array = value.const_value.numpy()  # type: ignore[union-attr]
        values[value] = on.constant(array, torch.from_numpy(array.copy()).dtype)
        del name
    for node in model.graph:
        result = on.op(
            node.op_type,
            *(values[v] if v is not None else None for v in node.inputs),
            domain=node.domain,
            outputs=len(node.outputs),
            **{k: a.value for k, a in node.attributes.items()},
        )
        made = result if isinstance(result, tuple) else (result,)
        values.update(zip(node.outputs, made))
    outputs = tuple(values[v] for v in model.graph.outputs)
    return outputs if len(outputs) > 1 else outputs[0]


