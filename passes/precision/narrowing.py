"""Compute single calls in 16 bits: narrow what they take, widen what they give."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.fx.node import Node
from torch.utils import _pytree as pytree

from strop.compiler.ir.builder import result_anew
from strop.compiler.ir.nodes import arg, arguments, input_node, tensors_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.rules import Log
from strop.passes.legalize.casts import cast, use_instead
from strop.passes.precision.operators import mask_of, stays_stored, widens

aten = torch.ops.aten


class Narrowing:
    """Rewrites the calls of one program, in program order.

    Every result is widened again for the calls that read it; calls that are narrowed later read
    what is behind that cast, so that casts are left only where float32 is kept.

    Attributes:
        dtype: of 16 bits.
        unbounded: values that may hold numbers beyond its range.
    """

    def __init__(self, program: Program, dtype: torch.dtype, unbounded: Collection[Node]) -> None:
        self.program, self.dtype, self.unbounded = program, dtype, unbounded
        self._narrow: dict[Node, Node] = {}

    def rewrite(self, node: Node, log: Log) -> None:
        """Compute one call in 16 bits."""
        if node.target is operator.getitem:  # one of several results: narrowed with the others
            return
        _state_epsilon(node)
        taken = list(node.all_input_nodes)
        node.args, node.kwargs = self._arguments(node)
        self._retype(node)
        self.program.erase_dead(taken)
        log.rewrote("narrow", node)

    def _arguments(self, node: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A call's arguments in 16 bits."""
        assert isinstance(node.target, OpOverload)
        names = [argument.name for argument in node.target._schema.arguments]
        args = tuple(self._argument(node, name, a) for name, a in zip(names, node.args))
        kwargs = {name: self._argument(node, name, a) for name, a in node.kwargs.items()}
        return args, kwargs

    def _argument(self, node: Node, name: str, argument: Any) -> Any:
        if stays_stored(node, name) or self._is_unbounded_mask(node, argument):
            return argument
        values = fx.map_arg(argument, self._narrowed)
        return pytree.tree_map(lambda a: self.dtype if a == torch.float32 else a, values)

    def _is_unbounded_mask(self, node: Node, argument: Any) -> bool:
        """Whether an argument is a mask with numbers that 16 bits would make infinite.

        A row that hides every key by -3.4e38 is a mean in float32, since that number swallows the
        scores; -inf gives NaN, and -65504 lets the scores count.
        """
        return argument is not None and argument is mask_of(node) and argument in self.unbounded

    def _narrowed(self, value: Node) -> Node:
        """A float32 value in 16 bits: one cast, however many read it."""
        if not any(v.dtype == torch.float32 for v in tensors_of(value)):
            return value
        if widens(value, self.dtype):
            return input_node(value)
        if value not in self._narrow or self._narrow[value]._erased:
            self._narrow[value] = cast(value, self.dtype, value, "precision")
        return self._narrow[value]

    def _retype(self, node: Node) -> None:
        made = result_anew(node)
        if not isinstance(made, (tuple, list)):
            self._widen_again(node, made)
            return
        for part in list(node.users):  # each takes one of its results
            self._widen_again(part, made[arg(part, 1)])
        node.meta["val"] = made

    def _widen_again(self, node: Node, made: Any) -> None:
        was, node.meta["val"] = node.meta["val"].dtype, made
        if made.dtype != was:
            use_instead(node, cast(node, was, node, "precision"))


def _state_epsilon(node: Node) -> None:
    """Write the number that RMS norm adds into its call: left out, it is a step of the dtype."""
    given = arguments(node)
    if node.target is aten.rms_norm.default and given["eps"] is None:
        given["eps"] = torch.finfo(torch.float32).eps
        node.args, node.kwargs = tuple(given.values()), {}
