"""The last candidate: one operator exported by ``torch.onnx``, checked, and grafted."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import InlinePass
from torch import nn
from torch.fx.node import Node
from torch.utils import _pytree as pytree

from strop.compiler.lower.onnx.decompose import bind
from strop.compiler.lower.onnx.dtypes import onnx_dtype
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.refusal import NotLowered, root_cause
from strop.compiler.lower.onnx.trial import sample_values, try_export
from strop.compiler.util.quiet import quiet_torch

Exported = ir.Model | NotLowered


class OneCall(nn.Module):
    """Calls one operator with its literal arguments bound."""

    def __init__(self, node: Node, inputs: list[Node]) -> None:
        super().__init__()
        self.call = bind(node, inputs)

    def forward(self, *values: torch.Tensor) -> Any:
        """The operator's result on values of its input nodes."""
        return self.call(*values)


def emit_by_torchlib(on: Emitter, node: Node) -> Any:
    """Export a program of this one operator, compare it with torch, and copy its nodes.

    Raises:
        NotLowered: torch.onnx does not know it, gets it wrong, or one of its sizes is computed.
    """
    inputs = list(node.all_input_nodes)
    if not _knows(node.target):
        raise NotLowered("torch.onnx has no such operator")
    if any(not isinstance(n.meta["val"], torch.Tensor) for n in inputs):
        raise NotLowered("torch.onnx lowers no operator at a computed size")
    _require_written([node, *inputs])
    key = _signature(node, inputs)
    if key not in on.exported:
        on.exported[key] = _checked(node, inputs, on.target.opset)
    exported = on.exported[key]
    if isinstance(exported, NotLowered):
        raise exported
    return _graft(on, exported, [on.value(n) for n in inputs])


def _require_written(nodes: list[Node]) -> None:
    """Check that a call takes and gives dtypes that strop writes: NumPy cannot try others.

    Raises:
        NotLowered: one is not among them.
    """
    for value in pytree.tree_leaves([n.meta["val"] for n in nodes]):
        if isinstance(value, torch.Tensor):
            onnx_dtype(value.dtype)
            if value.dtype == torch.bfloat16:
                raise NotLowered("NumPy has no bfloat16, so what torch.onnx has cannot be tried")


def _knows(target: Any) -> bool:
    """Whether torchlib, the table of ``torch.onnx``, has the operator: an export takes seconds."""
    from onnxscript.function_libs.torch_lib import ops  # noqa: F401  (fills the registry)
    from onnxscript.function_libs.torch_lib.registration import default_registry

    return target.name() in default_registry


def _signature(node: Node, inputs: list[Node]) -> str:
    """Equal for calls that export to the same graph: a layer repeated costs one export."""
    places: dict[Node, Any] = {n: f"#{i}" for i, n in enumerate(inputs)}
    call = torch.fx.map_arg((node.args, node.kwargs), places.__getitem__)
    types = [(n.meta["val"].dtype, [str(s) for s in n.meta["val"].shape]) for n in inputs]
    return repr((str(node.target), call, types))


def _checked(node: Node, inputs: list[Node], opset: int) -> Exported:
    module = OneCall(node, inputs).eval()
    try:
        model = export_call(module, [n.meta["val"] for n in inputs], opset)
        try_export(model, module, [n.meta["val"] for n in inputs])
    except NotLowered as reason:
        return reason
    return model


def export_call(module: nn.Module, types: list[torch.Tensor], opset: int) -> ir.Model:
    """What ``torch.onnx`` makes of a call with inputs of these types, functions inlined.

    Raises:
        NotLowered: it refuses.
    """
    values = tuple(next(sample_values(types)))
    try:
        with quiet_torch():
            exported = torch.onnx.export(
                module, values, dynamo=True, verbose=False, opset_version=opset,
                dynamic_shapes=(tuple(map(_dynamic, types)),),
            )  # fmt: skip
    except Exception as error:  # whatever torch.onnx raises, it does not lower the operator
        raise NotLowered(f"torch.onnx refuses it: {root_cause(error)}") from error
    assert exported is not None
    return InlinePass()(exported.model).model


def _dynamic(value: torch.Tensor) -> dict[int, Any]:
    return {
        i: torch.export.Dim.AUTO for i, s in enumerate(value.shape) if isinstance(s, torch.SymInt)
    }


def _graft(on: Emitter, model: ir.Model, inputs: list[Any]) -> Any:
    """Copy the nodes of a one-operator model into the graph; returns its outputs."""
    values: dict[Any, Any] = dict(zip(model.graph.inputs, inputs))
    for value in model.graph.initializers.values():
        values[value] = _constant(on, value)
    for node in model.graph:
        result = on.op(
            node.op_type,
            *(values[v] if v is not None else None for v in node.inputs),
            domain=node.domain,
            outputs=len(node.outputs),
            **{k: _attribute(on, a, values) for k, a in node.attributes.items()},
        )
        made = result if isinstance(result, tuple) else (result,)
        values.update(zip(node.outputs, made))
    outputs = tuple(values[v] for v in model.graph.outputs)
    return outputs if len(outputs) > 1 else outputs[0]


def _constant(on: Emitter, value: ir.Value) -> ir.Value:
    array = value.const_value.numpy().copy()  # type: ignore[union-attr]
    return on.constant(array, torch.from_numpy(array).dtype)


def _attribute(on: Emitter, attribute: ir.Attr, values: dict[Any, Any]) -> Any:
    if attribute.type != ir.AttributeType.GRAPH:
        return attribute.value
    return _subgraph(on, attribute.as_graph(), values)


def _subgraph(on: Emitter, graph: ir.Graph, values: dict[Any, Any]) -> ir.Graph:
    """A copy of a loop's or branch's body that reads the values of the graph grafted into.

    Names are new: a body may not use one that its surroundings have.
    """
    body = graph.clone(allow_outer_scope_values=True)
    for place in (body, *body.subgraphs()):
        for value in (*place.inputs, *place.initializers.values()):
            value.name = on.unique("body")
    for node in body.all_nodes():
        for index, read in enumerate(node.inputs):
            if read in values:
                node.replace_input_with(index, values[read])
        for value in node.outputs:
            value.name = on.unique("body")
        node.name = node.outputs[0].name
    return body
