"""Find recorded types that are wrong, by running the graph on fake tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sympy
import torch
from torch.fx.node import Node
from torch.utils import _pytree as pytree

from strop.compiler.ir.builder import fake_mode_of, fake_result
from strop.compiler.ir.data_sizes import data_symbols
from strop.compiler.ir.nodes import expression
from strop.compiler.ir.printer import describe, type_text
from strop.compiler.ir.program import Program
from strop.compiler.ir.sampled_sizes import failing_sizes
from strop.compiler.util.errors import VerifyError


def verify_types(program: Program) -> None:
    """Check that the recorded type of every value is what its operator gives for its inputs.

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
        if said != found and not _same_at_all_sizes(node.meta["val"], made, program):
            yield f"{describe(node)} is typed {said}, and is {found}"


def _text(value: Any, node: Node, program: Program) -> str:
    """A value's type; sizes that the node makes from data are new unknowns each time it runs."""
    known = {s for n in node.all_input_nodes for s in data_symbols(n.meta["val"])}
    new = [s for s in data_symbols(value) if s not in known]
    names = {str(s): f"unknown_{i}" for i, s in enumerate(new)}
    return type_text(value, program.symbols | names)


def _same_at_all_sizes(said: Any, found: Any, program: Program) -> bool:
    """Whether types that are written differently agree at all sizes that the contract allows.

    What torch learns of sizes late in a trace it uses when a type is made again: the blocks that a
    sequence is cut into times their length are then one product, and were a quotient before.
    """
    forms, sizes = zip(*(_form_and_sizes(value) for value in (said, found)))
    return forms[0] == forms[1] and all(
        _equal_at_all_sizes(a, b, program) for a, b in zip(*sizes, strict=True)
    )


def _form_and_sizes(value: Any) -> tuple[Any, list[Any]]:
    """The part of a type that does not depend on sizes, and its sizes: ints and expressions."""
    leaves, structure = pytree.tree_flatten(value)
    form = [(v.dtype, v.dim()) if isinstance(v, torch.Tensor) else type(v) for v in leaves]
    shapes = [v.shape if isinstance(v, torch.Tensor) else (v,) for v in leaves]
    return (structure, form), [expression(size) for shape in shapes for size in shape]


def _equal_at_all_sizes(a: Any, b: Any, program: Program) -> bool:
    """Whether two sizes are one number at every size of the dims that is tried."""
    if a == b:
        return True
    dims = {dim.name: dim for dim in program.contract.dims}
    symbols = sympy.Tuple(a, b).free_symbols
    named = {s: program.symbols.get(str(s), "") for s in symbols}
    if not dims.keys() >= set(named.values()):
        return False
    of = {name: sympy.Symbol(name, integer=True) for name in named.values()}
    difference = (sympy.sympify(a) - b).xreplace({s: of[name] for s, name in named.items()})
    equal = sympy.Eq(difference, 0)
    return not failing_sizes(equal, {of[name]: dims[name] for name in sorted(of)})
