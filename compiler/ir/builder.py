"""Create nodes with their types: whoever creates a node gives it its ``meta``."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.node import Node
from torch.utils import _pytree as pytree

import strop.compiler.ir.least_squares  # noqa: F401  (types of its results)
from strop.compiler.ir.data_sizes import data_symbols, free_names, made_symbols
from strop.compiler.ir.nodes import expression, tensors_of
from strop.compiler.ir.program import Origin, Program
from strop.compiler.ir.recurrent import TYPES
from strop.compiler.ir.unseen_sizes import sizes_unseen


class Builder:
    """Inserts typed nodes before one place in a program.

    Every new node inherits the source line and module of ``origin``, the node it replaces.
    """

    def __init__(self, program: Program, before: Node, made_by: str) -> None:
        self.program = program
        self.graph = program.graph
        self.before = before
        self.made_by = made_by
        self.created: list[Node] = []

    def at(self, node: Node) -> Builder:
        """A builder for the same rewrite at another place: what it makes stands for ``node``."""
        other = Builder(self.program, node, self.made_by)
        other.created = self.created
        return other

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        """Insert ``target(*args, **kwargs)``; its type comes from running it on fake tensors."""
        with self.graph.inserting_before(self.before):
            node = self.graph.call_function(target, args, kwargs)
        node.meta = _inherited(self.before) | {"made_by": self.made_by}
        node.meta["val"] = fake_result(target, args, kwargs, fake_mode_of(self.program))
        taken = set(self.program.symbols.values())
        made = (str(s) for s in made_symbols(node))
        self.program.symbols |= zip(made, free_names(taken))
        self.created.append(node)
        return node

    def changed(self, node: Node) -> None:
        """Say that a node was changed in place: it is another value now, under another name."""
        node._rename(f"{node.name}_{self.made_by}")

    def weight(self, name: str, tensor: torch.Tensor, sources: tuple[str, ...]) -> Node:
        """Add a constant to the program and a node that names it."""
        name = self.program.add_weight(name, tensor, Origin(sources, self.made_by))
        first = next(iter(self.graph.nodes))
        with self.graph.inserting_before(first):
            node = self.graph.create_node("get_attr", name)
        node.meta["val"] = fake_mode_of(self.program).from_tensor(tensor, static_shapes=True)
        return node


def reordered(x: Node, order: list[int], build: Builder) -> Node:
    """x with axis ``order[i]`` in place i: itself, one exchange of two axes, or a permutation."""
    moved = [axis for axis, place in enumerate(order) if axis != place]
    if not moved:
        return x
    if len(moved) == 2:
        return build.call(torch.ops.aten.transpose.int, x, *moved)
    return build.call(torch.ops.aten.permute.default, x, order)


def _inherited(node: Node) -> dict[str, Any]:
    return {k: node.meta[k] for k in ("stack_trace", "nn_module_stack") if k in node.meta}


def fake_mode_of(program: Program) -> FakeTensorMode:
    """The mode in which this program's values were made."""
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch._subclasses.FakeTensor):
            return value.fake_mode
    return FakeTensorMode()


def fake_result(target: Any, args: Any, kwargs: Any, mode: FakeTensorMode | None = None) -> Any:
    """Run an operator on the ``meta["val"]`` of its arguments, in their mode by default.

    Layers repeat: for arguments of the same types an operator is run once, and its result is
    kept with the mode in which it was made.
    """
    values: Any = fx.map_arg((args, kwargs), lambda n: n.meta["val"])
    leaves, structure = pytree.tree_flatten(values)
    if mode is None:
        mode = next((v.fake_mode for v in leaves if isinstance(v, FakeTensor)), FakeTensorMode())
    key = (target, structure, tuple(_type_key(v) for v in leaves))
    known = vars(mode).setdefault("strop_results", {})
    if key in known:
        return known[key]
    # As in capture: some operators have rules for dynamic sizes in Python only. No trace is under
    # way in which a new size that depends on data would have to appear.
    new_sizes = mode.shape_env.ignore_fresh_unbacked_symbols() if mode.shape_env else nullcontext()
    with mode, enable_python_dispatcher(), torch.no_grad(), new_sizes, sizes_unseen():
        result = TYPES.get(target, target)(*values[0], **values[1])
    # A size that depends on data is a new unknown at every call.
    if set(data_symbols(result)) <= set(data_symbols(leaves)):
        known[key] = result
    return result


def result_anew(node: Node) -> Any:
    """What a call gives now that its arguments are others, in the mode of what it gave before.

    A call may take no tensors, such as ``aten.full``, and then its arguments have no mode.
    """
    mode: FakeTensorMode = tensors_of(node)[0].fake_mode  # type: ignore[attr-defined]
    return fake_result(node.target, node.args, node.kwargs, mode)


def _type_key(value: Any) -> Any:
    """Equal for values on which an operator gives results of one type."""
    if isinstance(value, torch.Tensor):
        sizes = (*value.shape, *value.stride())
        return (value.dtype, value.device, tuple(expression(s) for s in sizes))
    if isinstance(value, (torch.SymInt, torch.SymFloat)):
        return expression(value)
    # 1, 1.0 and True are equal, but not to an operator.
    return (type(value), value)
