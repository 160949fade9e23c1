"""Compute in dtypes for which the target has kernels, with the original's dtypes at the boundary.

On a target without kernels for them, float16 and bfloat16 are computed in float32, and integers of
8 and 16 bits in int32. Around every such operator its inputs are widened and its result is
narrowed again, which is what eager torch does inside its kernels: the numbers stay the same. Of
floats, pairs of narrowing and widening are then dropped, so that intermediate results keep more
digits than the original's, except where a later operator jumps on them (``jumps.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import fake_mode_of
from strop.compiler.ir.contract import DTYPE_NAMES, Contract, TensorSpec
from strop.compiler.ir.nodes import tensors_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.passes import Pass
from strop.compiler.rewriting.rules import Log
from strop.passes.legalize.casts import cast, use_instead
from strop.passes.legalize.jumps import before_jumps
from strop.passes.legalize.widening import Widening
from strop.passes.legalize.wider import WiderCalls

aten = torch.ops.aten


@dataclass(frozen=True)
class LegalizeDtypes(Pass):
    """Compute dtypes that the target lacks in wider ones; inputs and outputs keep theirs.

    bfloat16 inputs and outputs become float32: callers in NumPy have no bfloat16.

    Attributes:
        widen: compute floats of 16 bits in float32 also where the target has kernels for them, so
            that patterns match a model of any dtype in one form; pass ``precision`` narrows it.
    """

    name = "dtypes"

    widen: bool = False

    def apply(self, program: Program, log: Log) -> None:
        self.apply_in(program, log, Context())

    def apply_in(self, program: Program, log: Log, context: Context) -> None:
        """Rewrite in one walk, then drop the roundings that nothing needs."""
        widening = Widening.of(context.target, self.widen)
        kept = _roundings_to_keep(program, widening)
        found = {v.dtype for n in program.graph.nodes for v in tensors_of(n)}
        _widen_weights(program, widening, log)
        _widen_boundary(program, log)
        calls = WiderCalls(widening, kept)
        for node in list(program.calls()):
            if calls.rewrite(node):
                log.rewrote("wider", node)
        _drop_roundings(program, widening, kept, log)
        log.notes.extend(widening.note(found))


def _roundings_to_keep(program: Program, widening: Widening) -> set[Node]:
    """The values whose rounding to 16 bits is part of what the model computes.

    In a model without 16-bit inputs and weights a cast to 16 bits is there for its rounding.
    """
    given = [n for n in program.graph.nodes if n.op in ("placeholder", "get_attr")]
    if any(v.dtype in widening.floats for n in given for v in tensors_of(n)):
        return before_jumps(program)
    return set(program.calls())


def _widen_weights(program: Program, widening: Widening, log: Log) -> None:
    """Float weights that are too narrow for the target get the wider dtype, which holds them."""
    mode = fake_mode_of(program)
    for node in program.graph.find_nodes(op="get_attr"):
        narrow = node.meta["val"].dtype
        if narrow not in widening.floats:
            continue
        name = str(node.target)
        weight = program.weights[name]
        if weight.dtype in widening.floats:  # several nodes may name one weight
            wide = weight.detach().to(widening.floats[weight.dtype])
            trained = isinstance(weight, torch.nn.Parameter)
            program.weights[name] = torch.nn.Parameter(wide) if trained else wide
        node.meta["val"] = mode.from_tensor(program.weights[name], static_shapes=True)
        use_instead(node, cast(node, narrow, node))
        log.rewrote("weight", node)


def _widen_boundary(program: Program, log: Log) -> None:
    """bfloat16 inputs and outputs become float32."""
    for node in program.graph.find_nodes(op="placeholder"):
        if node.meta["val"].dtype == torch.bfloat16:
            with node.meta["val"].fake_mode:
                node.meta["val"] = node.meta["val"].float()
            use_instead(node, cast(node, torch.bfloat16, node))
            _in_float32(program, str(node.target))
            log.rewrote("boundary", node)
    end = program.graph.output_node()
    for index, (spec, node) in enumerate(zip(program.contract.outputs, program.outputs)):
        if node.meta["val"].dtype == torch.bfloat16:
            results = list(program.outputs)
            results[index] = cast(node, torch.float32, node)
            end.args = (tuple(results),)
            _in_float32(program, spec.name)
            log.rewrote("boundary", results[index])


def _in_float32(program: Program, name: str) -> None:
    def changed(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        wide = DTYPE_NAMES[torch.float32]
        return tuple(replace(s, dtype=wide) if s.name == name else s for s in specs)

    old = program.contract
    program.contract = Contract(changed(old.inputs), changed(old.outputs), old.dims)


def _drop_roundings(program: Program, widening: Widening, kept: set[Node], log: Log) -> None:
    """``to(to(x, narrow), wide)`` becomes ``x``, where nothing needs the rounding."""
    for node in program.find(aten.to.dtype):
        narrow, wide = node.args[0], node.meta["val"].dtype
        if node._erased or not isinstance(narrow, Node) or narrow.target is not aten.to.dtype:
            continue
        if widening.floats.get(narrow.meta["val"].dtype) != wide:
            continue
        source = narrow.args[0]
        assert isinstance(source, Node)
        exact = source.op == "get_attr" or source.meta["val"].dtype == torch.bool
        if narrow in kept and not exact:
            continue
        plain = source.meta["val"].dtype == wide
        node.replace_all_uses_with(source if plain else cast(source, wide, node))
        program.erase_dead([node])
        log.rewrote("rounding", narrow)
