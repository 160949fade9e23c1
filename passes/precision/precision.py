"""Pass ``precision``: from float32 to 16 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import Pass
from strop.compiler.rewriting.rules import Log
from strop.passes.precision.caches import cached_calls, narrow_caches
from strop.passes.precision.narrowing import Narrowing
from strop.passes.precision.plan import plan_of
from strop.passes.quantize.selection import Selection


@dataclass(frozen=True)
class Precision(Pass):
    """Compute in 16 bits what a model computes in float32; inputs and outputs keep their dtypes.

    Caches alone do not: attention in 16 bits reads and continues caches in 16 bits.

    Weights become casts of weights, which are evaluated when the file is written, and can still be
    trained. Operators that 16 bits would make wrong keep float32, with casts around them
    (``operators.py``), and so do those with numbers beyond the range of 16 bits (``ranges.py``);
    the notes say which, and why. A float mask that may hold such numbers is added to scores in
    float32, also where attention computes in 16 bits.

    Weights and scales of operators on packed weights (``strop::linear_nbits`` and others) stay
    float32: whole numbers follow from them, and kernels round scales as they store them.

    Attributes:
        dtype: what to compute in.
        keep: weights of layers that keep float32, by name or shell pattern ("lm_head",
            "*.layer.0.*"): for a model whose values leave the range of 16 bits there.
    """

    name = "precision"

    dtype: Literal["float16", "bfloat16"] = "float16"
    keep: tuple[str, ...] = ()

    def apply(self, program: Program, log: Log) -> None:
        dtype = torch.float16 if self.dtype == "float16" else torch.bfloat16
        selection = Selection(keep=self.keep)
        selection.require_matches(program)
        plan = plan_of(program, dtype, selection)
        cached = cached_calls(program, plan.narrow)
        narrowing = Narrowing(program, dtype, plan.unbounded)
        for node in plan.narrow:
            narrowing.rewrite(node, log)
        narrow_caches(program, cached, dtype)
        log.notes.extend(plan.notes())
