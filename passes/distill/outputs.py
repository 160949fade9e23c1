"""What the outputs of a program are, read off the operators that give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn
from torch.fx.node import Node

from strop.compiler.ir.families import (
    ADD,
    CASTS,
    CONVOLUTIONS,
    COPIES,
    DIV,
    DROPOUTS,
    MUL,
    PRODUCTS,
    VIEWS,
)
from strop.compiler.ir.nodes import input_node, shape_of, static_int, value_of
from strop.compiler.ir.program import Program
from strop.compiler.util.errors import UsageError, did_you_mean

Kind = Literal["logits", "probabilities", "values", "ignored"]
aten = torch.ops.aten
_POOLS = (
    aten.adaptive_avg_pool2d.default,
    aten.avg_pool2d.default,
    aten.mean.dim,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
)
_PARTS = (aten.select.int, aten.slice.Tensor)
_TRANSPOSED = (
    aten.numpy_T.default,
    aten.permute.default,
    aten.t.default,
    aten.transpose.int,
)
_SOFTMAX = (aten.softmax.int, aten._softmax.default)
_DECISIONS = (*_SOFTMAX, aten.log_softmax.int, aten.argmax.default, aten.sigmoid.default)
_THROUGH = {*COPIES, *CASTS, *DROPOUTS, *VIEWS, *_POOLS, *_PARTS, *ADD, *MUL, *DIV}
_LAYERS = {aten.linear.default, aten.addmm.default, *PRODUCTS, *CONVOLUTIONS}


@dataclass(frozen=True)
class Output:
    """One output.

    Attributes:
        name: in the contract.
        kind: "logits" of classes; "probabilities" of classes; "values", such as embeddings and
            hidden states; or "ignored", which is not learned, as integers are not.
        axis: of the classes or features.
    """

    name: str
    kind: Kind
    axis: int


def outputs_of(program: Program, given: tuple[str, ...] = ()) -> list[Output]:
    """Every output of a program.

    What a linear layer or a convolution gives, be it pooled, scaled or reshaped, is taken for
    logits unless more is computed from it, and what a softmax gives for probabilities; of other
    floats nothing is known. A last layer that projects embeddings looks like one that gives logits:
    ``given`` tells them apart.

    Args:
        program: without taps.
        given: ``NAME=KIND`` for outputs of which the user knows better.

    Raises:
        UsageError: there is no such output or kind.
    """
    known = _given(given, [spec.name for spec in program.contract.outputs])
    found = []
    for spec, node in zip(program.contract.outputs, program.outputs):
        kind, axis = _kind(node, program)
        found.append(Output(spec.name, known.get(spec.name, kind), axis))
    return found


def _given(given: tuple[str, ...], names: list[str]) -> dict[str, Kind]:
    known: dict[str, Kind] = {}
    for item in given:
        name, _, kind = item.partition("=")
        if name not in names:
            raise UsageError(f"outputs: there is no output '{name}'{did_you_mean(name, names)}")
        kinds: dict[str, Kind] = {one: one for one in get_args(Kind)}
        if kind not in kinds:
            raise UsageError(f"outputs: '{item}' is no NAME=KIND{did_you_mean(kind, list(kinds))}")
        known[name] = kinds[kind]
    return known


def _kind(node: Node, program: Program) -> tuple[Kind, int]:
    value = value_of(node)
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return "ignored", -1
    source = _source(node, program)
    # The channels of a convolution stay on axis 1 until something flattens or averages the others.
    axis = 1 if source.target in CONVOLUTIONS and value.ndim > 2 else -1
    if value.ndim < 2 or static_int(shape_of(node)[axis]) == 1:
        return "values", -1
    if source.target in _SOFTMAX:
        return "probabilities", axis
    logits = source.target in _LAYERS and _is_layer(source, program) and _is_last(node)
    return ("logits", axis) if logits or source.target is aten.log_softmax.int else ("values", axis)


def _is_last(node: Node) -> bool:
    """Whether nothing is computed from an output but probabilities and decisions.

    Embeddings that a model projects and returns, it compares too.
    """
    return all(user.op == "output" or user.target in _DECISIONS for user in node.users)


def _source(node: Node, program: Program) -> Node:
    """What gives the values of an output, before they were moved, scaled, shifted or pooled."""
    while node.target in _THROUGH and len(_values(node, program)) == 1:
        node = input_node(node)
    return node


def _values(node: Node, program: Program) -> list[Node]:
    """The tensors that an operator takes, without weights."""
    return [
        n
        for n in node.all_input_nodes
        if n.op != "get_attr" and isinstance(value_of(n), torch.Tensor)
    ]


def _is_layer(node: Node, program: Program) -> bool:
    """Whether a product is one with a trained weight, or with a view of one."""
    pending = list(node.all_input_nodes[1:])
    while pending:
        one = pending.pop()
        if isinstance(program.weight_of(one), nn.Parameter):
            return True
        if one.target in _TRANSPOSED:
            pending.append(input_node(one))
    return False
