"""What ``torch.export`` gives becomes a ``Program``: flat, named, with its weights inside."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.node import Node
from torch.utils import _pytree as pytree

import strop.compiler.ir.dialect  # noqa: F401  (registers the strop:: operators)
from strop.compiler.frontend.inputs import Signature
from strop.compiler.frontend.original import output_leaves
from strop.compiler.ir.contract import DTYPE_NAMES, Contract, TensorSpec
from strop.compiler.ir.data_sizes import free_names, made_symbols
from strop.compiler.ir.printer import source_line, tensor_spec
from strop.compiler.ir.program import Origin, Program
from strop.compiler.util.errors import UnsupportedError

# Operators of other libraries that mean what one of strop's does.
_STANDARD = {
    "transformers.grouped_mm_fallback.default": torch.ops.strop.grouped_matmul.default,
}


def to_program(exported: Any, signature: Signature) -> Program:
    """Copy an ``ExportedProgram``'s graph, with flat named inputs and outputs and weights by name.

    Raises:
        UnsupportedError: the model changes its own state, or holds something no graph can.
    """
    program = Program(fx.Graph(), {}, Contract((), (), ()), {})
    copies: dict[Node, Any] = {}
    _copy_inputs(exported, signature, program, copies)
    _copy_calls(exported.graph_module, program.graph, copies)
    outputs = _user_outputs(exported)
    program.graph.output(tuple(copies[n] for n in outputs.values()))
    program.erase_dead(n for n in reversed(list(program.calls())) if not n.users)
    program.erase_dead(list(program.graph.find_nodes(op="get_attr")))
    program.symbols = _symbol_names(program, signature)
    program.contract = _contract(program, signature, list(outputs))
    program.drop_unused_weights()
    return program


def _copy_inputs(
    exported: Any, signature: Signature, program: Program, copies: dict[Node, Any]
) -> None:
    lifted = _lifted_weights(exported)
    by_node = {s.arg.name: s for s in exported.graph_signature.input_specs}
    user_inputs = iter(signature.names)
    shared: dict[Any, Node] = {}
    for node in exported.graph.find_nodes(op="placeholder"):
        name = by_node[node.name].target
        if name is None:
            copies[node] = program.graph.placeholder(next(user_inputs, node.name))
            copies[node].meta = dict(node.meta)
        else:
            copies[node] = _add_weight(node, name, lifted[name], program, shared)


def _copy_calls(source: fx.GraphModule, graph: fx.Graph, copies: dict[Node, Any]) -> Any:
    """Copy the calls of a graph; those of regions without effect here are copied in line."""
    for node in source.graph.nodes:
        if node.op == "output":
            return fx.map_arg(node.args[0], copies.__getitem__)
        if node.op != "call_function":
            continue
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            inner, operands = _region(node, source)
            inputs = inner.graph.find_nodes(op="placeholder")
            given = [copies[n] if isinstance(n, Node) else n for n in operands]
            copies[node] = _copy_calls(inner, graph, dict(zip(inputs, given)))
        elif node.target is operator.getitem and isinstance(copies[node.args[0]], (tuple, list)):
            copies[node] = copies[node.args[0]][node.args[1]]
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
            copies[node].target = _STANDARD.get(str(node.target), node.target)
    return None


def _region(node: Node, source: fx.GraphModule) -> tuple[fx.GraphModule, tuple[Any, ...]]:
    """The body and the operands of a ``no_grad`` or disabled ``autocast`` region.

    Raises:
        UnsupportedError: control flow, or autocast that is on.
    """
    name = str(node.target)
    place = source_line(node) or "its source"
    if name == "wrap_with_autocast" and node.args[2]:
        raise UnsupportedError(
            f"the model computes under torch.autocast ({place}); remove it: the target chooses "
            "the dtype"
        )
    if name not in ("wrap_with_autocast", "wrap_with_set_grad_enabled"):
        raise UnsupportedError(
            f"the model holds control flow on tensors, {name} ({place}); an artifact has none. "
            "Compute both sides and choose by `torch.where`."
        )
    place_of_body = 4 if name == "wrap_with_autocast" else 1
    body = getattr(source, str(node.args[place_of_body].target))  # type: ignore[union-attr]
    return body, tuple(node.args[place_of_body + 1 :])


def _lifted_weights(exported: Any) -> dict[str, torch.Tensor]:
    return dict(exported.state_dict) | dict(exported.constants)


def _add_weight(
    node: Node, name: str, tensor: Any, program: Program, shared: dict[Any, Node]
) -> Node:
    """A node for a weight: the same one for weights that are the same memory."""
    if not isinstance(tensor, torch.Tensor):
        raise UnsupportedError(
            f"the model holds '{name}', a {type(tensor).__name__}; strop captures tensors only"
        )
    if isinstance(tensor, FakeTensor):
        raise UnsupportedError(
            f"the model makes '{name}' while it runs inside torch.vmap, where torch.export loses "
            "it: make it outside, or register it as a buffer"
        )
    key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
    if tensor.numel() and key in shared:
        first = str(shared[key].target)
        program.origins[first] = Origin((*program.origins[first].sources, name))
        return shared[key]
    made = shared[key] = program.graph.create_node("get_attr", name)
    made.meta = dict(node.meta)
    program.weights[name] = tensor
    program.origins[name] = Origin((name,))
    return made


def _user_outputs(exported: Any) -> dict[str, Node]:
    """The output nodes that are the user's tensors, by name, in order.

    Raises:
        UnsupportedError: the model changes its own buffers or inputs when it runs.
    """
    leaves: list[Any] = []
    for spec, node in zip(
        exported.graph_signature.output_specs, exported.graph.output_node().args[0]
    ):
        if spec.kind.name == "USER_INPUT_MUTATION":
            continue  # what is written is not read again: an artifact leaves its inputs alone
        if spec.kind.name != "USER_OUTPUT":
            what = spec.target or spec.arg.name
            raise UnsupportedError(
                f"the model writes to '{what}' while it runs ({spec.kind.name.lower()}); an "
                "artifact has no state. Return the new value as an output instead."
            )
        leaves.append(node)
    result = pytree.tree_unflatten(leaves, exported.call_spec.out_spec)
    return output_leaves(result, _is_tensor_node)


def _is_tensor_node(value: Any) -> bool:
    return isinstance(value, Node) and isinstance(value.meta["val"], torch.Tensor)


def _symbol_names(program: Program, signature: Signature) -> dict[str, str]:
    """The user's names of dims; ``u0``, ``u1``, ... for the sizes that only the data know."""
    names: dict[str, str] = {}
    for node in program.graph.find_nodes(op="placeholder"):
        for axis, extent in signature.axes.get(str(node.target), {}).items():
            size = node.meta["val"].shape[axis]
            if len(extent) == 1 and isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
                names.setdefault(str(size.node.expr), extent[0])
    made = dict.fromkeys(s for node in program.calls() for s in made_symbols(node))
    free = free_names(set(names.values()))
    return names | {str(symbol): name for symbol, name in zip(made, free)}


def _contract(program: Program, signature: Signature, output_names: list[str]) -> Contract:
    inputs = [_spec(str(n.target), n, program) for n in program.graph.find_nodes(op="placeholder")]
    outputs = [_spec(name, n, program) for name, n in zip(output_names, program.outputs)]
    if twice := {i.name for i in inputs} & {o.name for o in outputs}:
        raise UnsupportedError(
            f"'{min(twice)}' is the name of an input and of an output; in a file they would be "
            "one. Rename one of them."
        )
    return Contract(tuple(inputs), tuple(outputs), tuple(signature.dims.values()))


def _spec(name: str, node: Node, program: Program) -> TensorSpec:
    dtype = node.meta["val"].dtype
    if dtype.is_complex:
        raise UnsupportedError(
            f"'{name}' is complex ({source_line(node) or 'an input'}), which no runtime takes or "
            "gives: let forward take and return pairs of reals, by torch.view_as_complex and "
            "torch.view_as_real"
        )
    if dtype not in DTYPE_NAMES:
        raise UnsupportedError(f"'{name}' has dtype {dtype} ({source_line(node)})")
    return tensor_spec(name, node, program.symbols)
