"""Compute in dtypes for which the target has kernels, with the original's dtypes at the boundary.

float16 and bfloat16 are computed in float32, integers of 8 and 16 bits in int32. Around every such
operator its inputs are widened and its result is narrowed again, which is what eager torch does
inside its kernels: the numbers stay the same. Of floats, pairs of narrowing and widening are then
dropped, so that intermediate results keep more digits than the original's, except where a later
operator jumps on them (``jumps.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.fx.node import Node
from torch.utils import _pytree as pytree

from strop.compiler.ir.builder import fake_mode_of, fake_result
from strop.compiler.ir.contract import DTYPE_NAMES, Contract, TensorSpec
from strop.compiler.ir.families import CASTS
from strop.compiler.ir.nodes import tensors_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import Pass
from strop.compiler.rewriting.rules import Log
from strop.passes.legalize.jumps import before_jumps

aten = torch.ops.aten

HALVES = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
SMALL_INTEGERS = {dtype: torch.int32 for dtype in (torch.int8, torch.int16, torch.uint8)}
WIDER = HALVES | SMALL_INTEGERS
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


@dataclass(frozen=True)
class LegalizeDtypes(Pass):
    """Compute float16, bfloat16 and small integers in wider types; inputs and outputs keep theirs.

    bfloat16 inputs and outputs become float32: callers in NumPy have no bfloat16.
    """

    name = "dtypes"

    def apply(self, program: Program, log: Log) -> None:
        """Rewrite in one walk, then drop the roundings that nothing needs."""
        kept = _roundings_to_keep(program)
        found = {v.dtype for n in program.graph.nodes for v in tensors_of(n)} & set(HALVES)
        _widen_weights(program, log)
        _widen_boundary(program, log)
        wide: dict[Node, Node] = {}
        for node in list(program.calls()):
            if not _wants_wider(node):
                continue
            if node.target in CASTS:
                changed = _plain_cast(node, wide)
            else:
                changed = _compute_wider(node, wide, kept)
            if changed:
                log.rewrote("wider", node)
        _drop_roundings(program, kept, log)
        if found:
            names = " and ".join(sorted(str(d).removeprefix("torch.") for d in found))
            log.notes.append(f"{names} is computed in float32")


def _roundings_to_keep(program: Program) -> set[Node]:
    """The values whose rounding to 16 bits is part of what the model computes.

    In a model without 16-bit inputs and weights a cast to 16 bits is there for its rounding.
    """
    given = [n for n in program.graph.nodes if n.op in ("placeholder", "get_attr")]
    if any(v.dtype in HALVES for n in given for v in tensors_of(n)):
        return before_jumps(program)
    return set(program.calls())


def _widen_weights(program: Program, log: Log) -> None:
    """Weights of 16 bits become float32, which holds all of them."""
    mode = fake_mode_of(program)
    for node in program.graph.find_nodes(op="get_attr"):
        name = str(node.target)
        weight = program.weights[name]
        if node.meta["val"].dtype not in HALVES:
            continue
        if weight.dtype in HALVES:  # several nodes may name one weight
            wide = weight.detach().float()
            trained = isinstance(weight, torch.nn.Parameter)
            program.weights[name] = torch.nn.Parameter(wide) if trained else wide
        narrow = node.meta["val"].dtype
        node.meta["val"] = mode.from_tensor(program.weights[name], static_shapes=True)
        _use_instead(node, _cast(node, narrow, node))
        log.rewrote("weight", node)


def _widen_boundary(program: Program, log: Log) -> None:
    """bfloat16 inputs and outputs become float32."""
    for node in program.graph.find_nodes(op="placeholder"):
        if node.meta["val"].dtype == torch.bfloat16:
            with node.meta["val"].fake_mode:
                node.meta["val"] = node.meta["val"].float()
            _use_instead(node, _cast(node, torch.bfloat16, node))
            _in_float32(program, str(node.target))
            log.rewrote("boundary", node)
    end = program.graph.output_node()
    for index, (spec, node) in enumerate(zip(program.contract.outputs, program.outputs)):
        if node.meta["val"].dtype == torch.bfloat16:
            results = list(program.outputs)
            results[index] = _cast(node, torch.float32, node)
            end.args = (tuple(results),)
            _in_float32(program, spec.name)
            log.rewrote("boundary", results[index])


def _in_float32(program: Program, name: str) -> None:
    def changed(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        wide = DTYPE_NAMES[torch.float32]
        return tuple(replace(s, dtype=wide) if s.name == name else s for s in specs)

    old = program.contract
    program.contract = Contract(changed(old.inputs), changed(old.outputs), old.dims)


def _wants_wider(node: Node) -> bool:
    """Whether an ATen operator takes or gives a narrow type that it computes with."""
    target = node.target
    if not isinstance(target, OpOverload) or target.namespace != "aten" or target in _BITS:
        return False
    narrow = {v.dtype for n in (node, *node.all_input_nodes) for v in tensors_of(n)}
    if target in CASTS or target.overloadpacket in _ANY_INTEGERS:
        return bool(narrow & set(HALVES))
    return bool(narrow & set(WIDER))


def _compute_wider(node: Node, wide: dict[Node, Node], kept: set[Node]) -> bool:
    """Widen what an operator takes, and narrow what it gives to what it gave.

    Returns whether that changed the call: some operators give bytes whatever they take.
    """
    given = node.args, node.kwargs
    args, kwargs = fx.map_arg(
        (node.args, node.kwargs), lambda n: _widened(n, wide) if _is_narrow(n) else n
    )
    numbers = _wrapped_numbers(node)
    args = tuple(numbers.get(i, a) for i, a in enumerate(args))
    node.args, node.kwargs = pytree.tree_map(_wider_dtype, (args, kwargs))
    if (node.args, node.kwargs) == given:
        return False
    made = fake_result(node.target, node.args, node.kwargs)
    if not isinstance(made, (tuple, list)):
        _narrow_again(node, made, kept, node in kept)
        return True
    for part in list(node.users):  # each takes one of its results
        _narrow_again(part, made[part.args[1]], kept, node in kept)  # type: ignore[index]
    node.meta["val"] = made
    return True


def _plain_cast(node: Node, wide: dict[Node, Node]) -> bool:
    """Write a cast as ``to.dtype``, from float32 unless it ends there; whether that changed it."""
    value, dtype = node.args[0], node.meta["val"].dtype
    assert isinstance(value, Node)
    if dtype != torch.float32 and value.meta["val"].dtype in HALVES:
        value = _widened(value, wide)
    if (node.target, node.args, node.kwargs) == (aten.to.dtype, (value, dtype), {}):
        return False
    node.target, node.args, node.kwargs = aten.to.dtype, (value, dtype), {}
    return True


def _narrow_again(node: Node, made: Any, kept: set[Node], keep: bool) -> None:
    was = node.meta["val"].dtype
    node.meta["val"] = made
    if made.dtype != was:
        narrowed = _cast(node, was, node)
        _use_instead(node, narrowed)
        if keep:
            kept.add(narrowed)


def _wrapped_numbers(node: Node) -> dict[int, int]:
    """Plain integers, by place, as a small integer type takes them: 203 is -53 among int8."""
    types = [v.dtype for n in node.all_input_nodes for v in tensors_of(n)]
    common = reduce(torch.promote_types, types, torch.bool)
    if common not in SMALL_INTEGERS or any(v.is_floating_point() for v in tensors_of(node)):
        return {}
    assert isinstance(node.target, OpOverload)
    return {
        place: int(torch.tensor(value).to(common))
        for place, (value, argument) in enumerate(zip(node.args, node.target._schema.arguments))
        if type(value) is int and argument.type.kind() in ("NumberType", "TensorType")
    }


def _is_narrow(node: Node) -> bool:
    value = node.meta["val"]
    return isinstance(value, torch.Tensor) and value.dtype in WIDER


def _widened(node: Node, wide: dict[Node, Node]) -> Node:
    """The value in its wider type: one cast, however many take it."""
    if node not in wide:
        wide[node] = _cast(node, WIDER[node.meta["val"].dtype], node)
    return wide[node]


def _wider_dtype(argument: Any) -> Any:
    return WIDER.get(argument, argument) if isinstance(argument, torch.dtype) else argument


def _cast(value: Node, dtype: torch.dtype, after: Node) -> Node:
    """A cast of a value, behind a node, with the value's place in the source."""
    with after.graph.inserting_after(after):
        node = after.graph.call_function(aten.to.dtype, (value, dtype))
    node.meta = {k: v for k, v in value.meta.items() if k in ("stack_trace", "nn_module_stack")}
    node.meta |= {"val": fake_result(aten.to.dtype, (value, dtype), {}), "made_by": "dtypes"}
    return node


def _use_instead(old: Node, new: Node) -> None:
    """Give every user of a value another, made of it."""
    for user in [u for u in old.users if u is not new]:
        user.replace_input_with(old, new)


def _drop_roundings(program: Program, kept: set[Node], log: Log) -> None:
    """``to(to(x, 16 bits), float32)`` becomes ``x``, where nothing needs the rounding."""
    for node in program.find(aten.to.dtype):
        narrow = node.args[0]
        if node._erased or node.meta["val"].dtype != torch.float32:
            continue
        if not isinstance(narrow, Node) or narrow.target is not aten.to.dtype:
            continue
        source = narrow.args[0]
        assert isinstance(source, Node)
        exact = source.op == "get_attr" or source.meta["val"].dtype == torch.bool
        if narrow.meta["val"].dtype not in HALVES or (narrow in kept and not exact):
            continue
        plain = source.meta["val"].dtype == torch.float32
        node.replace_all_uses_with(source if plain else _cast(source, torch.float32, node))
        program.erase_dead([node])
        log.rewrote("rounding", narrow)
