"""Complex tensors as pairs of reals: the state while a program is rewritten."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.nodes import dtype_of, same_shape, shape_of
from strop.compiler.ir.program import Program

aten = torch.ops.aten
REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


class NotSplitError(Exception):
    """An operator on complex numbers that has no form on pairs; carries the reason."""


def is_complex(value: Any) -> bool:
    """Whether an argument is a complex tensor of the graph."""
    tensor = value.meta["val"] if isinstance(value, Node) else None
    return isinstance(tensor, torch.Tensor) and tensor.is_complex()


class Pairs:
    """The program under rewriting: for each complex value the float tensor that stands for it.

    That has one more axis, the last, of size 2: the real and the imaginary part.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.known: dict[Node, Node] = {}
        self.build = Builder(program, program.graph.output_node(), "complex")

    def start(self, node: Node) -> None:
        """Turn to one node: what is made from here on stands before it."""
        self.build = self.build.at(node)

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        """Append an operator on real values."""
        return self.build.call(target, *args, **kwargs)

    def pair(self, value: Any) -> Node:
        """The pair of a complex value; a real one gets an imaginary part of zero."""
        if not is_complex(value):
            zeros = self.call(aten.zeros_like.default, value)
            return self.join(value, zeros)
        if value not in self.known:
            self.known[value] = self._weight(value)
        return self.known[value]

    def parts(self, value: Any) -> tuple[Any, Any]:
        """Real and imaginary part of a tensor or number; None for the latter of a real one."""
        if isinstance(value, complex):
            return value.real, value.imag
        if not is_complex(value):
            return value, None
        pair = self.pair(value)
        return self.call(aten.select.int, pair, -1, 0), self.call(aten.select.int, pair, -1, 1)

    def join(self, real: Node, imaginary: Any) -> Node:
        """A pair of two tensors of shapes that fit each other, or of a tensor and a number."""
        if not isinstance(imaginary, Node):
            imaginary = self.call(aten.full_like.default, real, imaginary)
        parts = [real, imaginary]
        if not same_shape(shape_of(real), shape_of(imaginary)):
            both = self.call(aten.broadcast_tensors.default, parts)
            parts = [self.call(operator.getitem, both, i) for i in (0, 1)]
        return self.call(aten.stack.default, parts, -1)

    def size(self, value: Node, axis: int) -> Any:
        """A size of a tensor: a number, or a node that computes it."""
        size = shape_of(value)[axis]
        if isinstance(size, torch.SymInt):
            return self.call(aten.sym_size.int, value, axis)
        return int(size)

    def size_of(self, function: Callable[..., Any], a: Any, b: Any) -> Any:
        """Arithmetic on sizes: with numbers at once, else as a node."""
        if isinstance(a, Node) or isinstance(b, Node):
            return self.call(function, a, b)
        return function(a, b)

    def _weight(self, node: Node) -> Node:
        """A complex weight, stored as pairs."""
        weight = self.program.weights[str(node.target)]
        split = torch.view_as_real(weight.detach().resolve_conj()).contiguous()
        if isinstance(weight, nn.Parameter):
            split = nn.Parameter(split)
        sources = self.program.origins[str(node.target)].sources
        return self.build.weight(f"{node.target}.pairs", split, sources)


Split = Callable[..., Node]
"""``split(on, node, *arguments)``: what replaces a call: a pair where its result is complex."""

SPLITS: dict[Any, Split] = {}


def splits(*targets: Any) -> Callable[[Split], Split]:
    """Enter the decorated function as what replaces calls of the targets."""

    def enter(split: Split) -> Split:
        SPLITS.update(dict.fromkeys(targets, split))
        return split

    return enter


def real_dtype(node: Node) -> torch.dtype:
    """The dtype of a pair that stands for a value."""
    dtype = dtype_of(node)
    return REAL.get(dtype, dtype)
