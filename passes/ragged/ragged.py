"""Ragged batches: what works on positions one by one does so on real ones only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch.fx.node import Node

from strop.compiler.ir.contract import Padded
from strop.compiler.ir.nodes import dtype_of, shape_of
from strop.compiler.ir.printer import is_size
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import Pass
from strop.compiler.rewriting.pattern import NEAR, Miss
from strop.compiler.rewriting.rules import Log
from strop.passes.ragged.analysis import Analysis
from strop.passes.ragged.attention import ATTENTION, mask_of
from strop.passes.ragged.packing import Packing
from strop.passes.ragged.states import PaddingInput, Unproven


@dataclass(frozen=True)
class Ragged(Pass):
    """Compute products, norms and activations on real positions of padded sequences only.

    Real positions are gathered into one row, and spread out again for attention. Which they are is
    read off the mask of attention. The pass proves that no padded position reaches an output, or
    says at which node one may.

    Attributes:
        zeros: an output that holds positions, as the last hidden state does, holds zeros at padded
            ones. The check then compares real positions only, and the manifest says so. Without
            it, such an output is a reason to leave the program as it is.
    """

    name = "ragged"

    zeros: bool = False

    def apply(self, program: Program, log: Log) -> None:
        found = list[Unproven]()
        for padding in _candidates(program):
            try:
                analysis = Analysis(program, padding, self.zeros)
            except Unproven as reason:
                found.append(reason)
                continue
            _mark_outputs(program, analysis)
            Packing(analysis, self.name).run()
            log.rewrote(self.name, padding.mask)
            return
        self._say_why_not(program, found, log)

    def _say_why_not(self, program: Program, found: list[Unproven], log: Log) -> None:
        """Record the reason at the node to which the proof came furthest."""
        if found:
            order = {node: i for i, node in enumerate(program.graph.nodes)}
            furthest = max(found, key=lambda reason: order[reason.node])
            log.missed(self.name, furthest.node, Miss(furthest.reason, None, NEAR))
            return
        attentions = program.find(*ATTENTION)
        root = attentions[0] if attentions else program.outputs[0]
        reason = "no input [batch, seq] marks padding: no mask of attention is computed from one"
        log.missed(self.name, root, Miss(reason, None, NEAR))


def _candidates(program: Program) -> Iterator[PaddingInput]:
    """What may call positions padding: an input that a mask of attention is computed from.

    Of truth values either may be the one for padding: which it is, the proof shows.
    """
    masks = [mask for node in program.find(*ATTENTION) if (mask := mask_of(node))]
    behind = _inputs_behind(masks)
    for node in program.graph.find_nodes(op="placeholder"):
        if node in behind and len(shape_of(node)) == 2:
            yield PaddingInput(node, 0)
            if dtype_of(node) == torch.bool:
                yield PaddingInput(node, 1)


def _inputs_behind(values: list[Node]) -> set[Node]:
    """Inputs from whose elements, not sizes, values are computed."""
    seen, pending = set(values), list(values)
    while pending:
        new = [n for n in pending.pop().all_input_nodes if n not in seen and not is_size(n)]
        seen.update(new)
        pending += new
    return {n for n in seen if n.op == "placeholder"}


def _mark_outputs(program: Program, analysis: Analysis) -> None:
    """Say in the contract which outputs hold zeros at padded positions."""
    padded = Padded(str(analysis.padding.mask.target), analysis.padding.value)
    outputs = tuple(
        replace(spec, padded=padded) if analysis.states[node].tokens else spec
        for spec, node in zip(program.contract.outputs, program.outputs)
    )
    program.contract = replace(program.contract, outputs=outputs)
