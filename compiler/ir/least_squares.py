"""Least squares: the types of its results, which torch refuses to tell for every driver.

Those of the drivers "gels" and "gelsy" do not depend on the data. Importing this module tells
``torch.export`` and everything else that computes types.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_impls import op_implementations_dict

LEAST_SQUARES = torch.ops.aten.linalg_lstsq.default
# What torch takes on the CPU where none is named.
USUAL_DRIVER = "gelsy"


def is_vector(a: Tensor, b: Tensor) -> bool:
    """Whether right sides are vectors, by torch's rule: one axis fewer than matrices."""
    return b.dim() == 1 or (a.dim() - 1 == b.dim() and b.shape == a.shape[:-1])


def _types(
    mode: Any,
    operator: Any,
    a: Tensor,
    b: Tensor,
    rcond: float | None = None,
    *,
    driver: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Solution, residuals, rank and singular values; the last has no elements."""
    driver = driver or USUAL_DRIVER
    if driver not in ("gels", "gelsy"):
        raise ValueError(
            f"linalg.lstsq with driver '{driver}' gives residuals only where the data allow it; "
            "the drivers 'gels' and 'gelsy' can be captured"
        )
    batch, (rows, columns) = a.shape[:-2], a.shape[-2:]
    sides = [] if is_vector(a, b) else [b.shape[-1]]
    with mode:
        solution = a.new_empty((*batch, columns, *sides))
        told = driver == "gels" and rows > columns
        residuals = a.new_empty((*batch, *(sides or [1])) if told else 0)
        rank = a.new_empty(0 if driver == "gels" else batch, dtype=torch.int64)
        return solution, residuals, rank, a.new_empty(0)


op_implementations_dict.setdefault(LEAST_SQUARES, _types)
