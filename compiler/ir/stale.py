"""Types that no longer say what a value is: found by running the graph on fake tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.fx.node import Node

from strop.compiler.ir.builder import fake_mode_of, fake_result
from strop.compiler.ir.data_sizes import data_symbols
from strop.compiler.ir.printer import describe, type_text
from strop.compiler.ir.program import Program
from strop.compiler.util.errors import VerifyError


def verify_types(program: Program) -> None:
    """Hold the type of every value to what its operator gives for its inputs.

    Raises:
        VerifyError: with every value whose ``meta["val"]`` has gone stale.
    """
    stale = list(_stale(program))
    if stale:
        raise VerifyError("\n  ".join(["the program is not valid:", *stale]))


def _stale(program: Program) -> Iterator[str]:
    mode = fake_mode_of(program)
    for node in program.calls():
        made = fake_result(node.target, node.args, node.kwargs, mode)
        said, found = _text(node.meta["val"], node, program), _text(made, node, program)
        if said != found:
            yield f"{describe(node)} is typed {said}, and is {found}"


def _text(value: Any, node: Node, program: Program) -> str:
    """A value's type; sizes that the node makes from data are new unknowns each time it runs."""
    known = {s for n in node.all_input_nodes for s in data_symbols(n.meta["val"])}
    new = [s for s in data_symbols(value) if s not in known]
    names = {str(s): f"unknown_{i}" for i, s in enumerate(new)}
    return type_text(value, program.symbols | names)
