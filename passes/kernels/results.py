"""Results of a call that gives several."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx.node import Node

from strop.compiler.ir.program import Program


def replace_results(of: Node, results: Sequence[Node], program: Program) -> None:
    """Let what reads one of several results of a call read another value.

    Args:
        of: the call; each of its users takes one result.
        results: what is read instead, by the number of the result.
        program: that it is in.
    """
    for part in list(of.users):
        place = part.args[1]
        assert isinstance(place, int)
        part.replace_all_uses_with(results[place])
        program.erase_dead([part])
