"""Every value that a program computes, by name; and the first one that another does not share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.interpreter import interpret
from strop.compiler.ir.printer import describe
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs, in_contract
from strop.compiler.util.arrays import to_array
from strop.compiler.util.numerics import Array, drift


def values(program: Program, inputs: Inputs) -> dict[str, Array]:
    """Run a program in eager torch; the tensors computed, by node name, in program order."""
    seen: dict[str, Array] = {}

    def watch(node: Node, value: Any) -> None:
        if node.op == "call_function" and isinstance(value, torch.Tensor):
            seen[node.name] = to_array(value).copy()

    taken = in_contract(inputs, program.contract)
    ordered = (taken[spec.name] for spec in program.contract.inputs)
    with torch.no_grad():
        interpret(program.graph, program.weights, ordered, watch)
    return seen


@dataclass(frozen=True)
class Moved:
    """A value that differs: its name, and what it is and how far it moved in words."""

    name: str
    text: str


def first_moved(
    program: Program, old: Mapping[str, Array], new: Mapping[str, Array], noise_db: float
) -> Moved | None:
    """The first value, in the order of a program, that both have and that differs.

    Args:
        program: whose order and source lines count.
        old: values by name.
        new: the same, from somewhere else.
        noise_db: a ratio of signal to noise that rounding stays above.
    """
    for node in program.calls():
        if node.name not in old or node.name not in new:
            continue
        want, got = old[node.name], new[node.name]
        if want.shape != got.shape:
            said = f"shape {list(want.shape)} became {list(got.shape)}"
            return Moved(node.name, f"{describe(node)}: {said}")
        apart = drift({node.name: got}, {node.name: want})
        if apart.above(noise_db):
            said = f"max abs {apart.max_abs:.3g}, cosine {apart.cosine}"
            return Moved(node.name, f"{describe(node)}: {said}")
    return None
