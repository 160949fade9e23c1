"""What one run of a program takes, from the sizes that its graph knows: nothing is run.

Every node has its shape as an expression of the dims, so a run can be estimated at any sizes.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch._ops import OpOverload
from torch.fx.node import Node

from strop.compiler.ir.constants import constant_nodes
from strop.compiler.ir.data_sizes import made_symbols
from strop.compiler.ir.interpreter import last_uses
from strop.compiler.ir.nodes import arguments, expression, tensors_of
from strop.compiler.ir.products import Work, work_of
from strop.compiler.ir.program import Program

aten = torch.ops.aten
strop = torch.ops.strop
Shape = tuple[int, ...]
# Their schema calls the result a view. It is one only if the dtype stays.
_MAYBE_COPIES = (aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.to.other)


@dataclass(frozen=True)
class Cost:
    """An estimate of one run.

    Attributes:
        multiply_adds: of matrix products, convolutions and attention.
        moved: bytes that operators read and write; views move none.
        peak: most bytes alive at once, inputs and outputs counted, weights not.
        outputs: bytes of the outputs.
    """

    multiply_adds: int
    moved: int
    peak: int
    outputs: int


class CostModel:
    """Estimates runs of one program at any sizes of its dims; linear in its nodes."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._last = last_uses(program.graph)
        self._made = {s: node for node in program.calls() for s in made_symbols(node)}
        self._owners: dict[Node, Node] = {}
        for node in program.graph.nodes:
            self._owners[node] = self._owner(node)

    def _owner(self, node: Node) -> Node:
        """The node whose memory holds a value: another one for a view."""
        base = _viewed(node)
        return self._owners[base] if base is not None else node

    def at(self, sizes: Mapping[str, int]) -> Cost:
        """The cost of one run with dims of these sizes."""
        shapes = self._shapes(sizes)
        work = self._work(shapes)
        return Cost(
            multiply_adds=sum(one.multiply_adds for one in work.values()),
            moved=sum(shapes.bytes(n) for node in work for n in (node, *node.all_input_nodes)),
            peak=self._peak(shapes, work),
            outputs=sum(shapes.bytes(node) for node in self._program.outputs),
        )

    def multiply_adds(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Those of every call that computes something, by its name."""
        work = self._work(self._shapes(sizes))
        return {node.name: one.multiply_adds for node, one in work.items()}

    def computed(self) -> list[Node]:
        """The calls that compute tensors when the program runs: neither views nor constants."""
        fixed = constant_nodes(self._program)
        return [
            node
            for node in self._program.calls()
            if self._owners[node] is node and node not in fixed and tensors_of(node)
        ]

    def moved(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Bytes that each call of ``computed`` reads and writes, weights among them, by its name.

        Of tables in which rows are looked up, only those rows are read.
        """
        shapes = self._shapes(sizes)
        return {node.name: _moved(node, shapes) for node in self.computed()}

    def _shapes(self, sizes: Mapping[str, int]) -> _Shapes:
        return _Shapes(self._program.symbols, sizes, self._made)

    def _work(self, shapes: _Shapes) -> dict[Node, Work]:
        computed = (node for node in self._program.calls() if self._owners[node] is node)
        return {node: work_of(node, shapes.of) for node in computed}

    def _peak(self, shapes: _Shapes, work: Mapping[Node, Work]) -> int:
        """Walk over the graph as the interpreter does; a value is freed after its last use.

        Inputs and weights stay: the caller holds them.
        """
        alive = most = 0
        users: Counter[Node] = Counter()
        for node in self._program.graph.nodes:
            owner = self._owners[node]
            if node.op not in ("placeholder", "call_function"):
                continue
            users[owner] += 1
            if owner is node:
                alive += shapes.bytes(node)
                most = max(most, alive + work.get(node, Work()).workspace)
            for done in self._last.get(node, ()):
                held = self._owners[done]
                users[held] -= 1
                if users[held] == 0 and held.op == "call_function":
                    alive -= shapes.bytes(held)
        return most


def traced_sizes(program: Program) -> dict[str, int]:
    """The sizes of the named dims in the example that was captured."""
    sizes = {}
    for node in program.graph.find_nodes(op="placeholder"):
        for size in node.meta["val"].shape:
            name = program.symbols.get(str(size))
            if isinstance(size, torch.SymInt) and name is not None:
                sizes[name] = int(size.node.hint)
    return sizes


def _moved(node: Node, shapes: _Shapes) -> int:
    tables = _tables(node)
    read = [n for n in node.all_input_nodes if n not in tables]
    written = shapes.bytes(node)
    return written * (1 + len(tables)) + sum(shapes.stored(n) for n in read)


def _tables(node: Node) -> list[Node]:
    """The tables in which a call looks rows up."""
    values = arguments(node)
    if node.target is aten.embedding.default:
        return [values["weight"]]
    return list(values["tables"]) if node.target is strop.embedding_norm.default else []


class _Shapes:
    """Shapes of values at given sizes of the dims."""

    def __init__(
        self, names: Mapping[str, str], sizes: Mapping[str, int], made: Mapping[Any, Node]
    ) -> None:
        self._names, self._sizes, self._made = names, sizes, made
        self._symbols: dict[Any, int] = {}
        self._known: dict[Any, int] = {}
        self._bytes: dict[Node, int] = {}

    def of(self, tensor: torch.Tensor) -> Shape:
        """The shape of a FakeTensor, in numbers."""
        return tuple(self._number(expression(size)) for size in tensor.shape)

    def bytes(self, node: Node) -> int:
        """Bytes of a node's value; none of a weight."""
        if node not in self._bytes:
            values = tensors_of(node) if node.op != "get_attr" else []
            self._bytes[node] = sum(math.prod(self.of(t)) * t.dtype.itemsize for t in values)
        return self._bytes[node]

    def stored(self, node: Node) -> int:
        """Bytes of a node's value, also of a weight."""
        if node.op != "get_attr":
            return self.bytes(node)
        return sum(t.numel() * t.dtype.itemsize for t in tensors_of(node))

    def _number(self, expr: Any) -> int:
        if isinstance(expr, int):
            return expr
        if expr not in self._known:
            values = {s: sympy.Integer(self._symbol(s)) for s in expr.free_symbols}
            try:
                self._known[expr] = max(int(expr.xreplace(values)), 0)
            except ZeroDivisionError:  # a share of a dim of size 0: there are no elements
                self._known[expr] = 0
        return self._known[expr]

    def _symbol(self, symbol: Any) -> int:
        """The size of a dim; of a size that only the data know, the most that it can be."""
        if symbol not in self._symbols:
            name = self._names.get(str(symbol), "")
            if name in self._sizes:
                self._symbols[symbol] = self._sizes[name]
            else:
                self._symbols[symbol] = self._most(self._made.get(symbol))
        return self._symbols[symbol]

    def _most(self, maker: Node | None) -> int:
        """The elements of the largest input of the node that makes a size, as for ``nonzero``."""
        read = [t for n in maker.all_input_nodes for t in tensors_of(n)] if maker else []
        largest = max((math.prod(self.of(t)) for t in read), default=1)
        return max(largest, *self._sizes.values(), 1)


def _viewed(node: Node) -> Node | None:
    """The value that a node shows another view of; None where it computes its own."""
    if node.target is operator.getitem:
        return node.all_input_nodes[0]
    if not isinstance(node.target, OpOverload) or not node.args:
        return None
    base = node.args[0]
    shares = any(r.alias_info is not None for r in node.target._schema.returns)
    if not shares or not isinstance(base, Node):
        return None
    if node.target in _MAYBE_COPIES and node.meta["val"].dtype != base.meta["val"].dtype:
        return None
    return base
