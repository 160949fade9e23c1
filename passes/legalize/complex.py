"""Complex numbers become pairs of reals: targets compute with reals only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch.fx.node import Node

from strop.compiler.ir.nodes import tensors_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import Pass
from strop.compiler.rewriting.pattern import NEAR, Miss
from strop.compiler.rewriting.rules import Log
from strop.passes.legalize import complex_numbers, complex_shapes, fourier, spectrograms
from strop.passes.legalize.pairs import SPLITS, NotSplitError, Pairs

__all__ = ["SplitComplex", "complex_numbers", "complex_shapes", "fourier", "spectrograms"]


@dataclass(frozen=True)
class SplitComplex(Pass):
    """Replace complex values by float tensors with a last axis of 2: real and imaginary part.

    All of them or none: where one operator has no form on pairs, the program stays as it is.
    """

    name = "complex"
    # The pairs are floats like others, of whatever width.
    before = ("dtypes",)

    def apply(self, program: Program, log: Log) -> None:
        touched = [node for node in program.calls() if _touches_complex(node)]
        if not touched:
            return
        on = Pairs(program)
        results: list[tuple[Node, Node]] = []
        for node in touched:
            on.start(node)
            try:
                made = _split(on, node)
            except NotSplitError as reason:
                log.missed("complex", node, Miss(str(reason), node, NEAR))
                _erase(program, on.build.created)
                return
            if _is_complex_result(node):
                on.known[node] = made
            else:
                results.append((node, made))
        for node, made in results:
            node.replace_all_uses_with(made)
        _erase(program, [*touched, *on.build.created])
        log.rewrote("complex", touched[0])


def _erase(program: Program, nodes: Sequence[Node]) -> None:
    """Erase what nothing uses, of these nodes and of the weights."""
    program.erase_dead(reversed(nodes))
    program.erase_dead(list(program.graph.find_nodes(op="get_attr")))


def _split(on: Pairs, node: Node) -> Node:
    """What replaces one call.

    Raises:
        NotSplitError: it has no form on pairs.
    """
    split = SPLITS.get(node.target)
    if split is None:
        raise NotSplitError("it has no form on pairs of reals")
    return split(on, node, *node.args, **node.kwargs)


def _is_complex_result(node: Node) -> bool:
    return any(value.is_complex() for value in tensors_of(node))


def _touches_complex(node: Node) -> bool:
    touched = any(_is_complex_result(n) for n in (node, *node.all_input_nodes))
    return touched or node.target in fourier.TO_REALS
