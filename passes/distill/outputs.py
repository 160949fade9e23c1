"""What the outputs of a program are, read off their names and the operators that give them."""

from __future__ import annotations

import re
from collections.abc import Sequence
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

    What a softmax gives are probabilities, and what a log-softmax gives are logits. Then the name
    counts, as transformers calls its outputs: ``logits`` and ``start_logits`` are logits,
    ``image_embeds``, ``sentence_embedding``, ``pooler_output``, ``last_hidden_state`` are values.
    Of another name, what a linear layer or a convolution gives, be it pooled, scaled or reshaped,
    is taken for logits, unless more is computed from it, or it looks like a projection of
    embeddings: it has no bias, gives no more features than it takes, and its weight is no table of
    words. Of other floats nothing is known.

    Args:
        program: without taps.
        given: ``NAME=KIND`` for outputs of which the user knows better.

    Raises:
        UsageError: there is no such output or kind.
    """
    known = _given(given, [spec.name for spec in program.contract.outputs])
    found = []
    for spec, node in zip(program.contract.outputs, program.outputs):
        kind, axis = _kind(spec.name, node, program)
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


def _kind(name: str, node: Node, program: Program) -> tuple[Kind, int]:
    value = value_of(node)
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return "ignored", -1
    source = _way(node)[-1]
    # The channels of a convolution stay on axis 1 until something flattens or averages the others.
    axis = 1 if source.target in CONVOLUTIONS and value.ndim > 2 else -1
    if value.ndim < 2 or static_int(shape_of(node)[axis]) == 1:
        return "values", -1
    if source.target in _SOFTMAX:
        return "probabilities", axis
    if source.target is aten.log_softmax.int:
        return "logits", axis
    # Of an image, whose channels are not last, the axis of the classes must be known.
    named = _by_name(name) if axis == 1 or value.ndim < 4 else "values"
    return named or _by_operators(node, program), axis


def _by_name(name: str) -> Kind | None:
    """What the name says; None where it says nothing."""
    own = name.rpartition(".")[2].lower()
    if re.search(r"(?:^|_)logits(?:_|$)", own):
        return "logits"
    return "values" if re.search(r"embed|pooler|hidden|features", own) else None


def _by_operators(node: Node, program: Program) -> Kind:
    way = _way(node)
    layer = way[-1].target in _LAYERS and _weights(way[-1], program)
    return "logits" if layer and _is_last(node) and not _is_projection(way, program) else "values"


def _is_last(node: Node) -> bool:
    """Whether nothing is computed from an output but probabilities and decisions.

    Embeddings that a model projects and returns, it compares too.
    """
    return all(user.op == "output" or user.target in _DECISIONS for user in node.users)


def _is_projection(way: Sequence[Node], program: Program) -> bool:
    """Whether a layer looks like one that projects embeddings, as the last one of CLIP does."""
    layer = way[-1]
    if any(_has_bias(node, program) for node in way):
        return False
    weights = _weights(layer, program)
    tables = {input_node(n, 0).target for n in program.find(aten.embedding.default)}
    if any(weight.target in tables for weight in weights):  # a head that is tied to the words
        return False
    axis = 1 if layer.target in CONVOLUTIONS else -1
    takes, gives = (static_int(shape_of(n)[axis]) for n in (input_node(layer, 0), layer))
    return takes is not None and gives is not None and gives <= takes


def _has_bias(node: Node, program: Program) -> bool:
    """Whether a layer, or a sum behind it, adds a trained vector."""
    trained = [program.weight_of(n) for n in node.all_input_nodes]
    vectors = [w for w in trained if isinstance(w, nn.Parameter) and w.dim() == 1]
    return bool(vectors) and node.target in (*_LAYERS, *ADD)


def _way(node: Node) -> list[Node]:
    """From an output to what gives its values, through moving, scaling, shifting and pooling."""
    way = [node]
    while way[-1].target in _THROUGH and len(_values(way[-1])) == 1:
        way.append(input_node(way[-1]))
    return way


def _values(node: Node) -> list[Node]:
    """The tensors that an operator takes, without weights."""
    return [
        n
        for n in node.all_input_nodes
        if n.op != "get_attr" and isinstance(value_of(n), torch.Tensor)
    ]


def _weights(layer: Node, program: Program) -> list[Node]:
    """The trained weights that a product is computed with, or whose views it is."""
    pending, found = list(layer.all_input_nodes[1:]), []
    while pending:
        one = pending.pop()
        if isinstance(program.weight_of(one), nn.Parameter):
            found.append(one)
        elif one.target in _TRANSPOSED:
            pending.append(input_node(one))
    return found
