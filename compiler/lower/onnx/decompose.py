"""Torch's own decomposition of one operator call, traced at the program's symbolic sizes."""

from __future__ import annotations

from collections.abc import Callable, Container
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import global_decomposition_table
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch._subclasses.functional_tensor import FunctionalTensorMode, dispatch_functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.fx.node import Node
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from strop.compiler.ir.contract import Contract
from strop.compiler.ir.program import Program
from strop.compiler.ir.unseen_sizes import sizes_unseen
from strop.compiler.lower.onnx.formulas import FORMULAS
from strop.compiler.lower.onnx.refusal import NotLowered, root_cause
from strop.compiler.util.quiet import quiet_torch


def decompose(node: Node, mode: FakeTensorMode, kept: Container[Any]) -> Program:
    """The call as a program of simpler operators; its inputs are the node's input nodes, in order.

    Operators that are ``kept`` are not decomposed, unless torch itself always does so. Sizes stay
    symbols of the program that the node is in.

    Raises:
        NotLowered: there is no decomposition, or it holds for some sizes only.
    """
    inputs = list(node.all_input_nodes)
    # A composite operator is taken apart by torch before the table of the trace is asked.
    call = _bind(FORMULAS.get(node.target, node.target), node, inputs)
    table = _table(kept, node.target)
    made = _trace(_unchecked(call), [n.meta["val"] for n in inputs], mode, table)
    # A formula may lead to the same operator with simpler arguments.
    if node.target not in FORMULAS and any(n.target is node.target for n in made.graph.nodes):
        raise NotLowered("torch does not decompose it")
    return _as_program(made, mode)


def trace_function(
    function: Callable[..., Any], values: list[Any], mode: FakeTensorMode, kept: Container[Any]
) -> Program:
    """A function of tensors as a program of simpler operators, but for those that are kept.

    Raises:
        NotLowered: it cannot be traced at these sizes.
    """
    return _as_program(_trace(function, values, mode, _table(kept, None)), mode)


def _table(kept: Container[Any], wanted: Any) -> dict[Any, Any]:
    """Decompositions and formulas by operator, without those of operators that are kept."""
    known = {**global_decomposition_table["post_autograd"], **FORMULAS}
    return {t: formula for t, formula in known.items() if t is wanted or t not in kept}


class _Unchecked(TorchDispatchMode):
    """Leaves out the operator that raises an error for a singular matrix: files cannot raise it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._linalg_check_errors.default:
            return None
        return func(*args, **(kwargs or {}))


def _unchecked(call: Callable[..., Any]) -> Callable[..., Any]:
    def called(*values: Any) -> Any:
        with _Unchecked():  # type: ignore[no-untyped-call]
            return call(*values)

    return called


def bind(node: Node, inputs: list[Node]) -> Callable[..., Any]:
    """The call as a function of its input nodes' values."""
    return _bind(node.target, node, inputs)


def _bind(target: Any, node: Node, inputs: list[Node]) -> Callable[..., Any]:
    """Another function of the call's arguments in the operator's place."""

    def call(*values: Any) -> Any:
        bound = dict(zip(inputs, values))
        args, kwargs = fx.map_arg((node.args, node.kwargs), bound.__getitem__)
        return target(*args, **kwargs)

    return call


def _trace(
    call: Callable[..., Any], values: list[Any], mode: FakeTensorMode, table: dict[Any, Any]
) -> fx.GraphModule:
    sizes = mode.shape_env or ShapeEnv()
    try:
        with ExitStack() as active:
            # A new guard would tie the graph to the sizes at which the program was captured.
            for context in (
                quiet_torch(),
                torch.no_grad(),
                sizes.error_on_new_guards(),
                sizes_unseen(),
                enable_python_dispatcher(),
                mode,
            ):
                active.enter_context(context)
            pure = dispatch_functionalize(call, FunctionalTensorMode())
            # Values of one type may share one object, by which the trace tells its inputs apart.
            own = pytree.tree_map_only(Tensor, Tensor.detach, values)
            made: fx.GraphModule = make_fx(pure, decomposition_table=table)(*own)
            return made
    except Exception as error:  # a decomposition may raise anything; the next candidate is tried
        raise NotLowered(
            f"torch does not decompose it at these sizes: {root_cause(error)}"
        ) from error


def _as_program(made: fx.GraphModule, mode: FakeTensorMode) -> Program:
    """The traced graph, with the tensors that it holds as weights."""
    _require_pure(made.graph)
    program = Program(made.graph, {}, Contract((), (), ()))
    for node in made.graph.find_nodes(op="get_attr"):
        tensor = getattr(made, str(node.target))
        if isinstance(tensor, FakeTensor):
            raise NotLowered("its decomposition holds a tensor without values")
        program.weights[str(node.target)] = tensor
        node.meta["val"] = mode.from_tensor(tensor, static_shapes=True)
    if any("val" not in n.meta for n in program.calls()):
        raise NotLowered("its decomposition has values without a type")
    return program


def _require_pure(graph: fx.Graph) -> None:
    """Check that a traced graph has only operators without side effects.

    Raises:
        NotLowered: torch's decomposition of one writes to a tensor, or draws random numbers.
    """
    for node in graph.nodes:
        if not isinstance(node.target, OpOverload):
            continue
        if node.target._schema.is_mutable:
            raise NotLowered(f"its decomposition writes to a tensor by {node.target}")
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            raise NotLowered(f"its decomposition draws random numbers by {node.target}")
