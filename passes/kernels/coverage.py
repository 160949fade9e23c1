"""How much of a program kernels run, and what torch runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch.fx.node import Node

from strop.compiler.ir.cost import CostModel, traced_sizes
from strop.compiler.ir.kernel_limits import why_no_kernel
from strop.compiler.ir.program import Program
from strop.compiler.targets.target import Target


@dataclass(frozen=True)
class Coverage:
    """What kernels run of a program, as shares of the whole.

    Attributes:
        multiply_adds: of those of products and attention.
        moved: of the bytes that calls read and write, weights among them.
        sizes: of the dims for which that holds.
    """

    multiply_adds: float
    moved: float
    sizes: Mapping[str, int]

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {size}" for name, size in self.sizes.items())
        return (
            f"kernels run {self.multiply_adds:.1%} of the multiply-adds and move {self.moved:.1%} "
            f"of the bytes{f' at {sizes}' if sizes else ''}"
        )


def coverage(program: Program, target: Target, sizes: Mapping[str, int] | None = None) -> Coverage:
    """How much of a program kernels run; it is the whole of one that does nothing.

    Args:
        program: behind ``select-kernels``.
        target: where it runs.
        sizes: of the dims; by default those of the example.
    """
    sizes = traced_sizes(program) if sizes is None else sizes
    model = CostModel(program)
    torchs = {node.name for node in in_torch(program, target, model)}
    counts, moved = model.multiply_adds(sizes), model.moved(sizes)
    return Coverage(_share(counts, torchs), _share(moved, torchs), sizes)


def in_torch(program: Program, target: Target, model: CostModel | None = None) -> dict[Node, str]:
    """The calls that torch runs, and why, in program order; not views, nor constants."""
    computed = (model or CostModel(program)).computed()
    reasons = {node: why_no_kernel(node, target) for node in computed}
    return {node: reason for node, reason in reasons.items() if reason is not None}


def _share(amounts: Mapping[str, int], others: set[str]) -> float:
    """What is not of the others, as a share of the sum."""
    total = sum(amounts.values())
    return 1 - sum(amounts[name] for name in amounts if name in others) / total if total else 1.0
