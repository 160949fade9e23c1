"""Types that no longer say what a value is: found by running the graph on fake tensors."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from strop.compiler.build_nodes import fake_mode_of, fake_result
from strop.compiler.errors import VerifyError
from strop.compiler.program import Program
from strop.compiler.text import describe, type_text


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
        # A size that depends on data is a new unknown each time.
        if torch.Tag.dynamic_output_shape in getattr(node.target, "tags", ()):
            continue
        made = fake_result(node.target, node.args, node.kwargs, mode)
        said, found = (type_text(v, program.symbols) for v in (node.meta["val"], made))
        if said != found:
            yield f"{describe(node)} is typed {said}, and is {found}"
