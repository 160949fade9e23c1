"""Whether a row of a batch gets the same numbers whatever its neighbours are."""

from __future__ import annotations

from collections import Counter

from strop.compiler.ir.dialect.registry import spans_batch
from strop.compiler.ir.printer import op_name
from strop.compiler.ir.program import Program


def spanning_operators(program: Program) -> dict[str, int]:
    """Operators of strop's that let rows of a batch depend on each other, and how many of each.

    Where there are none, rows depend on each other only as far as they do in the original model.
    """
    found = Counter(op_name(node.target) for node in program.calls() if spans_batch(node.target))
    return dict(sorted(found.items()))
