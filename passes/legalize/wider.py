"""Compute single operators in wider dtypes: widen what they take, narrow what they give."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.fx.node import Node
from torch.utils import _pytree as pytree

from strop.compiler.ir.builder import result_anew
from strop.compiler.ir.families import CASTS
from strop.compiler.ir.nodes import tensors_of
from strop.passes.legalize.casts import cast, use_instead
from strop.passes.legalize.widening import Widening

aten = torch.ops.aten

# Their result depends on the bits of a value.
_BITS = (aten.view.dtype, aten.nextafter.default)
# These move integers of any width; a uint8 index is a mask.
_MOVES = (
    aten.alias, aten.cat, aten.clone, aten.concat, aten.constant_pad_nd, aten.contiguous,
    aten.detach, aten.expand, aten.expand_as, aten.flatten, aten.index, aten.movedim, aten.permute,
    aten.reshape, aten.select, aten.slice, aten.split, aten.split_with_sizes, aten.squeeze,
    aten.stack, aten.t, aten.transpose, aten.unflatten, aten.unsqueeze, aten.view,
)  # fmt: skip
# Torch resizes images of uint8, and of no other integers.
_IMAGES = (
    aten.upsample_bicubic2d, aten.upsample_bilinear2d, aten.upsample_linear1d,
    aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_nearest3d,
    aten.upsample_trilinear3d, aten._upsample_bicubic2d_aa, aten._upsample_bilinear2d_aa,
    aten._upsample_nearest_exact1d, aten._upsample_nearest_exact2d,
    aten._upsample_nearest_exact3d,
)  # fmt: skip
_ANY_INTEGERS = (*_MOVES, *_IMAGES)


class WiderCalls:
    """Rewrites the calls of one program.

    Attributes:
        widening: the dtypes that the target does not compute in.
        kept: values whose rounding to 16 bits must stay; grows by the casts that round them.
    """

    def __init__(self, widening: Widening, kept: set[Node]) -> None:
        self.widening, self.kept = widening, kept
        self._wide: dict[Node, Node] = {}

    def rewrite(self, node: Node) -> bool:
        """Compute one call in wider dtypes where it needs that; whether that changed it."""
        if not self._wants_wider(node):
            return False
        return self._plain_cast(node) if node.target in CASTS else self._compute_wider(node)

    def _wants_wider(self, node: Node) -> bool:
        """Whether an ATen operator takes or gives a narrow type that it computes with."""
        target = node.target
        if not isinstance(target, OpOverload) or target.namespace != "aten" or target in _BITS:
            return False
        narrow = {v.dtype for n in (node, *node.all_input_nodes) for v in tensors_of(n)}
        if target in CASTS or target.overloadpacket in _ANY_INTEGERS:
            return bool(narrow & self.widening.floats.keys())
        return bool(narrow & self.widening.all.keys())

    def _compute_wider(self, node: Node) -> bool:
        """Widen what an operator takes, and narrow what it gives to what it gave.

        Returns whether that changed the call: some operators give bytes whatever they take.
        """
        given = node.args, node.kwargs
        args, kwargs = fx.map_arg(
            (node.args, node.kwargs), lambda n: self._widened(n) if self._is_narrow(n) else n
        )
        numbers = self._wrapped_numbers(node)
        args = tuple(numbers.get(i, a) for i, a in enumerate(args))
        node.args, node.kwargs = pytree.tree_map(self._wider_dtype, (args, kwargs))
        if (node.args, node.kwargs) == given:
            return False
        made = result_anew(node)
        if not isinstance(made, (tuple, list)):
            self._narrow_again(node, made, node in self.kept)
            return True
        for part in list(node.users):  # each takes one of its results
            self._narrow_again(part, made[part.args[1]], node in self.kept)  # type: ignore[index]
        node.meta["val"] = made
        return True

    def _plain_cast(self, node: Node) -> bool:
        """Write a cast as ``to.dtype``, from the wider type unless it ends there."""
        value, dtype = node.args[0], node.meta["val"].dtype
        assert isinstance(value, Node)
        if self.widening.floats.get(value.meta["val"].dtype, dtype) != dtype:
            value = self._widened(value)
        if (node.target, node.args, node.kwargs) == (aten.to.dtype, (value, dtype), {}):
            return False
        node.target, node.args, node.kwargs = aten.to.dtype, (value, dtype), {}
        return True

    def _narrow_again(self, node: Node, made: Any, keep: bool) -> None:
        was = node.meta["val"].dtype
        node.meta["val"] = made
        if made.dtype != was:
            narrowed = cast(node, was, node)
            use_instead(node, narrowed)
            if keep:
                self.kept.add(narrowed)

    def _wrapped_numbers(self, node: Node) -> dict[int, int]:
        """Plain integers, by place, as a small integer type takes them: 203 is -53 among int8."""
        types = [v.dtype for n in node.all_input_nodes for v in tensors_of(n)]
        common = reduce(torch.promote_types, types, torch.bool)
        a_float = any(v.is_floating_point() for v in tensors_of(node))
        if common not in self.widening.integers or a_float:
            return {}
        assert isinstance(node.target, OpOverload)
        return {
            place: int(torch.tensor(value).to(common))
            for place, (value, argument) in enumerate(zip(node.args, node.target._schema.arguments))
            if type(value) is int and argument.type.kind() in ("NumberType", "TensorType")
        }

    def _is_narrow(self, node: Node) -> bool:
        value = node.meta["val"]
        return isinstance(value, torch.Tensor) and value.dtype in self.widening.all

    def _widened(self, node: Node) -> Node:
        """The value in its wider type: one cast, however many take it."""
        if node not in self._wide:
            self._wide[node] = cast(node, self.widening.all[node.meta["val"].dtype], node)
        return self._wide[node]

    def _wider_dtype(self, argument: Any) -> Any:
        narrow = isinstance(argument, torch.dtype)
        return self.widening.all.get(argument, argument) if narrow else argument
