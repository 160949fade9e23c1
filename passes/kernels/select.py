"""Pass ``select-kernels``: from operators that any target has to those that kernels run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.fx.node import Node

from strop.compiler.ir.kernel_limits import limited_calls
from strop.compiler.ir.printer import op_name
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.passes import RulePass
from strop.compiler.rewriting.pattern import NEAR, Miss
from strop.compiler.rewriting.rules import Log, Rule
from strop.compiler.targets.target import Target, TritonTarget
from strop.compiler.util.errors import UsageError
from strop.passes.kernels.activation import LinearActivation
from strop.passes.kernels.coverage import coverage, in_torch
from strop.passes.kernels.dense import DenseLinear
from strop.passes.kernels.embedding import EmbeddingNorm
from strop.passes.kernels.fp8 import Fp8Linear
from strop.passes.kernels.gated import GatedLinears
from strop.passes.kernels.int8 import Int8Linear
from strop.passes.kernels.layers import why_not_dense
from strop.passes.kernels.norm_int8 import NormInt8
from strop.passes.kernels.packed import PackedLinear
from strop.passes.kernels.residual import LinearResidual, LinearResidualNorm

Dense = Literal["fused", "kernel", "torch"]
"""Which linear layers in 16 bits run in kernels of strop's: those with which something else is
computed, all, or none."""

_DENSE_REASONS = {
    "fused": "nothing but a bias is computed with it: a kernel would save no way to memory",
    "torch": "dense=torch leaves products in float to torch's library",
}


@dataclass(frozen=True)
class SelectKernels(RulePass):
    """Put what a target's Triton kernels compute in place of operators that any target has.

    Rounding to 8 bits becomes an operator of its own, which layers share and norms do on the way;
    biases, activations, gates and residual sums go into the product before them; few-bit weights
    are laid out as kernels read them. Torch runs the rest: the notes say what, and why. The program
    is for inference from here on.

    Attributes:
        dense: linear layers in 16 bits that run in kernels of strop's: "fused" takes those with
            which an activation, a gate or a residual sum is computed, which saves a way to memory
            and back; torch's library runs the others. "kernel" takes all, "torch" none.
    """

    name = "select-kernels"

    dense: Dense = "fused"

    def rules(self) -> Sequence[Rule]:
        fuse = self.dense != "torch"
        every = [DenseLinear()] if self.dense == "kernel" else []
        return (
            Int8Linear(),
            PackedLinear(),
            Fp8Linear(),
            *every,
            GatedLinears(fuse),
            LinearActivation(fuse),
            LinearResidual(fuse),
            LinearResidualNorm(fuse),
            # Before norms are rounded: a sum of embeddings is not stored at all.
            EmbeddingNorm(),
            NormInt8(),
        )

    def apply_in(self, program: Program, log: Log, context: Context) -> None:
        if not isinstance(context.target, TritonTarget):
            raise UsageError(
                f"pass '{self.name}' is for targets that run Triton kernels, such as triton:sm90; "
                f"{context.target.name} runs none"
            )
        super().apply_in(program, log, context)
        self._tell(program, log, context.target)

    def _tell(self, program: Program, log: Log, target: Target) -> None:
        """Say what torch runs, and why, and how much kernels do."""
        counts: Counter[tuple[str, str]] = Counter()
        for node, reason in in_torch(program, target).items():
            said = self._reason(node, reason, target)
            is_limited = said != reason or node.target in limited_calls()
            log.missed("in-torch", node, Miss(said, depth=NEAR if is_limited else 0))
            counts[op_name(node.target), said] += 1
        log.notes += [f"torch runs {n} {op}: {reason}" for (op, reason), n in counts.items()]
        log.notes.append(str(coverage(program, target)))

    def _reason(self, node: Node, reason: str, target: Target) -> str:
        """Why torch runs a call: that of the kernels, or of the options."""
        if node.target is not torch.ops.aten.linear.default:
            return reason
        return why_not_dense(node, target) or _DENSE_REASONS[self.dense]
