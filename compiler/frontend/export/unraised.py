"""Operators that raise an error for some values: a file cannot, and gives something instead."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.ir.printer import describe
from strop.compiler.ir.program import Program

aten = torch.ops.aten
_SINGULAR = ("a matrix is singular", "NaN or infinities")
_INDEFINITE = ("a matrix is not positive definite", "NaN for that matrix")
_DEFICIENT = ("driver 'gels' finds a rank that is not full", "NaN or infinities")
_ZERO = ("a pivot is 0", "the factors with that 0")

# For which values torch raises an error, and what a file gives for them.
INSTEAD: dict[Any, tuple[str, str]] = {
    aten.cholesky.default: _INDEFINITE,
    aten.inverse.default: _SINGULAR,
    aten.linalg_cholesky.default: _INDEFINITE,
    aten.linalg_inv.default: _SINGULAR,
    aten.linalg_ldl_factor.default: _ZERO,
    aten.linalg_lstsq.default: _DEFICIENT,
    aten.linalg_lu_factor.default: _ZERO,
    aten.linalg_solve.default: _SINGULAR,
    aten.linalg_tensorinv.default: _SINGULAR,
    aten.linalg_tensorsolve.default: _SINGULAR,
}


def sentence(what: str, case: tuple[str, str]) -> str:
    """A note on an operator or function: when it raises an error, and what is given instead."""
    when, instead = case
    return f"{what} raises an error where {when}; the artifact gives {instead} there"


def unraised(program: Program) -> list[str]:
    """A note for each operator that raises an error where the file will not."""
    calls = [node for node in program.calls() if node.target in INSTEAD]
    return [sentence(describe(node), INSTEAD[node.target]) for node in calls]
