"""The long tail: operators without a row of ours, lowered one at a time by ``torch.onnx``."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from torch import nn
from torch.fx.node import Node

from strop.compiler.lower.onnx.emitter import Emitter, NotLowered
from strop.compiler.quiet import quiet_torch


class _OneOp(nn.Module):
    """Calls one operator with its literal arguments bound."""

    def __init__(self, node: Node, tensors: list[Node]) -> None:
        super().__init__()
        self.node = node
        self.tensors = tensors

    def forward(self, *values: torch.Tensor) -> Any:
        bound = dict(zip(self.tensors, values))
        args, kwargs = torch.fx.map_arg((self.node.args, self.node.kwargs), bound.__getitem__)
        return self.node.target(*args, **kwargs)  # type: ignore[operator]


def emit_by_torchlib(on: Emitter, node: Node) -> Any:
    """Export a program of this one operator and graft its nodes.

    Raises:
        NotLowered: torch.onnx does not know it either, or one of its sizes is computed.
    """
    inputs = list(node.all_input_nodes)
    if getattr(node.target, "namespace", "") not in ("aten", "prims"):
        raise NotLowered("not an ATen operator, and no row of the lowering table names it")
    if any(not isinstance(n.meta["val"], torch.Tensor) for n in inputs):
        raise NotLowered("neither strop nor torch.onnx lowers it at a computed size")
    key = _signature(node, inputs)
    if key not in on.exported:
        on.exported[key] = _export(node, inputs, on.target.opset)
    return _graft(on, on.exported[key], [on.value(n) for n in inputs])


def _signature(node: Node, inputs: list[Node]) -> str:
    """Equal for calls that export to the same graph: a layer repeated costs one export."""
    places: dict[Node, Any] = {n: f"#{i}" for i, n in enumerate(inputs)}
    call = torch.fx.map_arg((node.args, node.kwargs), places.__getitem__)
    types = [(n.meta["val"].dtype, [_static(s) for s in n.meta["val"].shape]) for n in inputs]
    return repr((str(node.target), call, types))


def _static(size: int | torch.SymInt) -> int | None:
    return None if isinstance(size, torch.SymInt) else int(size)


def _export(node: Node, inputs: list[Node], opset: int) -> ir.Model:
    values = tuple(_example(n.meta["val"]) for n in inputs)
    shapes = tuple(_dynamic(n.meta["val"]) for n in inputs)
    try:
        with quiet_torch():
            exported = torch.onnx.export(
                _OneOp(node, inputs).eval(), values, dynamo=True, verbose=False,
                dynamic_shapes=(shapes,), opset_version=opset,
            )  # fmt: skip
    except Exception as error:
        raise NotLowered(f"torch.onnx refuses it: {_root_cause(error)}") from error
    assert exported is not None
    if exported.model.functions:
        raise NotLowered("torch.onnx lowers it to a function of its own, not to operators")
    return exported.model


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _example(value: torch.Tensor) -> torch.Tensor:
    """Zeros whose dynamic sizes are equal where the program's are."""
    seen: dict[str, int] = {}
    sizes = [
        seen.setdefault(str(s.node.expr), 3 + 2 * len(seen)) if isinstance(s, torch.SymInt) else s
        for s in value.shape
    ]
    return torch.zeros(sizes, dtype=value.dtype)


def _dynamic(value: torch.Tensor) -> dict[int, Any]:
    return {
        i: torch.export.Dim.AUTO for i, s in enumerate(value.shape) if isinstance(s, torch.SymInt)
    }


def _graft(on: Emitter, model: ir.Model, inputs: list[Any]) -> Any:
    """Copy the nodes of a one-operator model into the graph; returns its outputs."""
    values: dict[Any, Any] = dict(zip(model.graph.inputs, inputs))
    for value in model.graph.initializers.values():
        array = value.const_value.numpy()  # type: ignore[union-attr]
        values[value] = on.constant(array, torch.from_numpy(array.copy()).dtype)
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
