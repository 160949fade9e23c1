"""Lower a whole program: its inputs, its calls one after the other, its outputs."""

from __future__ import annotations

import operator
from typing import cast

import onnx_ir as ir
import torch
from torch.fx.node import Node

import strop.compiler.lower.onnx.rules  # noqa: F401  (fills the table)
from strop.compiler.ir.printer import describe, size_text
from strop.compiler.ir.program import Program
from strop.compiler.lower.choices import Choices
from strop.compiler.lower.onnx.candidates import emit_call
from strop.compiler.lower.onnx.dtypes import onnx_dtype
from strop.compiler.lower.onnx.emitter import MICROSOFT, Anything, Emitter
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.unused import without_unused
from strop.compiler.targets.target import OnnxTarget
from strop.compiler.util.errors import UnsupportedError

# In the metadata of a model, which is not written: names of inputs, as ``Emitter.shared_caches``.
SHARED_CACHES = "strop.shared_caches"
COPIED_CACHES = "strop.copied_caches"


def lower_to_onnx(program: Program, target: OnnxTarget, choices: Choices) -> ir.Model:
    """Lower a program to an ONNX model whose weights are read when the file is written.

    Raises:
        UnsupportedError: naming every operator that nothing lowers, with its source line.
    """
    on = Emitter(program, target, choices, emit_call)
    with torch.no_grad():
        inputs = _inputs(on)
        missing = [reason for node in program.calls() if (reason := _visit(on, node))]
        if missing:
            lines = "\n  ".join(dict.fromkeys(missing))
            raise UnsupportedError(f"no lowering for {len(missing)} operator calls:\n  {lines}")
        outputs = _outputs(on)
    graph = ir.Graph(
        inputs,
        outputs,
        nodes=without_unused(on.nodes, outputs),
        initializers=[v for v in on.initializers.values() if v.uses()],
        opset_imports={"": target.opset} | ({MICROSOFT: 1} if target.contrib else {}),
        name="strop",
    )
    model = ir.Model(graph, ir_version=10, producer_name="strop")
    model.meta[SHARED_CACHES] = frozenset(on.shared_caches)
    model.meta[COPIED_CACHES] = dict(on.copied_caches)
    return model


def _inputs(on: Emitter) -> list[ir.Value]:
    try:
        return [_input(on, n) for n in on.program.graph.find_nodes(op="placeholder")]
    except NotLowered as error:
        raise UnsupportedError(f"an input cannot be given: {error}") from error


def _input(on: Emitter, node: Node) -> ir.Value:
    made = ir.Value(name=str(node.target), type=_type(node), shape=_shape(on, node))
    on.bind(node, made)
    return made


def _visit(on: Emitter, node: Node) -> str | None:
    """Emit one node; returns why it could not be."""
    if not on.is_emitted(node):
        return None
    on.made_from = node
    try:
        on.emit(node)
    except NotLowered as reason:
        on.bind(node, Anything())
        return f"{describe(node)}: {reason}"
    on.name(node, cast(Node, node.args[0]) if node.target is operator.getitem else node)
    return None


def _outputs(on: Emitter) -> list[ir.Value]:
    results: list[ir.Value] = []
    on.node = on.made_from = on.program.graph.output_node()
    for spec, node in zip(on.program.contract.outputs, on.program.outputs):
        # An Identity keeps names apart where an output is an input, a weight or given twice;
        # ONNX Runtime removes it.
        value = on.value(node)
        taken = value.producer() is None or any(value is r for r in results)
        value = on.op("Identity", value) if taken else value
        value.name, value.type, value.shape = spec.name, _type(node), _shape(on, node)
        results.append(value)
    return results


def _type(node: Node) -> ir.TensorType:
    return ir.TensorType(onnx_dtype(node.meta["val"].dtype))


def _shape(on: Emitter, node: Node) -> ir.Shape:
    """Numbers, and the names of dynamic dims or what is computed from them."""
    sizes, symbols = node.meta["val"].shape, on.program.symbols
    return ir.Shape([size_text(s, symbols) if isinstance(s, torch.SymInt) else s for s in sizes])
