"""The ranges of a program's values on the user's batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.fx.node import Node

from strop.compiler.ir.printer import describe
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.batches import first_batches, on_batch
from strop.compiler.rewriting.context import Batch, Context
from strop.compiler.util.errors import UsageError


class Seeing(Protocol):
    """What is shown the values of a place, batch by batch."""

    def add(self, values: Tensor) -> None:
        """See the values of one more batch."""


def observe(
    program: Program, places: Iterable[tuple[Node, Seeing]], context: Context, batches: int
) -> int:
    """Let observers see their values on each batch; returns how many rows there were.

    Args:
        program: that is run.
        places: float tensors of it, each with what sees it.
        context: has the batches.
        batches: how many to run at most.

    Raises:
        UsageError: the program does not run on a batch, or a value is NaN or infinite there.
    """
    found = defaultdict(list)
    for value, seeing in places:
        found[value].append(seeing)
    rows = 0
    with torch.no_grad():
        for number, batch in enumerate(first_batches(context, batches)):
            context.progress(f"calibrating: batch {number + 1}{_of(context, batches)}")
            where = f"{'train' if context.calibration is None else 'calibration'}[{number}]"
            _require_finite_inputs(batch, where)
            on_batch(program, batch, watch=_watch(found, where))
            rows += max((len(t) for t in batch.values() if t.dim()), default=1)
    return rows


def _of(context: Context, batches: int) -> str:
    """How many there will be, where that is known beforehand."""
    source: Any = context.train if context.calibration is None else context.calibration
    return f" of {min(batches, len(source))}" if hasattr(source, "__len__") else ""


def _require_finite_inputs(batch: Batch, where: str) -> None:
    for name, tensor in batch.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            what = "NaN" if bool(tensor.isnan().any()) else "infinity"
            raise UsageError(
                f"{where}['{name}'] holds {what}, which no scale fits; remove it from the data"
            )


def _watch(found: Mapping[Node, Sequence[Seeing]], where: str) -> Callable[[Node, Any], None]:
    def watch(node: Node, value: Any) -> None:
        if node in found and value.numel():
            _require_finite(node, value, where)
            for seeing in found[node]:
                seeing.add(value)

    return watch


def _require_finite(node: Node, value: Tensor, where: str) -> None:
    # Extremes are finite only if everything is; no copy of the value is made.
    low, high = value.aminmax()
    if not (bool(low.isfinite()) and bool(high.isfinite())):
        raise UsageError(
            f"{describe(node)} becomes NaN or infinite on {where}, which no scale fits; correct "
            "the model, or remove the batch"
        )
