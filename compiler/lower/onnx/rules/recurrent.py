"""LSTM, GRU and plain recurrent networks: one ONNX node a layer, over any number of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import dtype_of, shape_of
from strop.compiler.ir.recurrent import Settings
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten


@dataclass(frozen=True)
class _CellKind:
    """A kind of cell.

    Attributes:
        op_type: its ONNX operator.
        gates: torch's number of each of ONNX's gates, in ONNX's order.
        activation: of a plain network; None for the operator's own.
        after: whether GRU's reset gate acts after the product with the state, as torch has it.
    """

    op_type: str
    gates: tuple[int, ...]
    activation: str | None = None
    after: bool | None = None


# torch has LSTM's gates as input, forget, cell, output, and GRU's as reset, update, new.
LSTM = _CellKind("LSTM", (0, 3, 1, 2))
GRU = _CellKind("GRU", (1, 0, 2), after=True)
TANH = _CellKind("RNN", (0,), activation="Tanh")
RELU = _CellKind("RNN", (0,), activation="Relu")


@dataclass(frozen=True)
class _Direction:
    """The weights of one direction of one layer; biases and projection may be None."""

    into: Node
    back: Node
    biases: tuple[Node, Node] | None
    projection: Node | None

    def nodes(self) -> list[Node]:
        optional = (*(self.biases or ()), self.projection)
        return [self.into, self.back, *(n for n in optional if n is not None)]


@dataclass(frozen=True)
class _Layer:
    """One layer: a kind of cell, and one or two directions."""

    kind: _CellKind
    directions: tuple[_Direction, ...]

    @property
    def hidden(self) -> int:
        """Width of the state before a projection."""
        return int(shape_of(self.directions[0].into)[0]) // len(self.kind.gates)

    @property
    def projected(self) -> bool:
        return self.directions[0].projection is not None


@lowers(aten.lstm.input)
def lstm(on: Emitter, x: Any, hx: list[Any], params: list[Any], *options: Any) -> Any:
    return _network(on, LSTM, x, hx, params, Settings(*options))


@lowers(aten.gru.input)
def gru(on: Emitter, x: Any, hx: Any, params: list[Any], *options: Any) -> Any:
    return _network(on, GRU, x, [hx], params, Settings(*options))


@lowers(aten.rnn_tanh.input)
def rnn_tanh(on: Emitter, x: Any, hx: Any, params: list[Any], *options: Any) -> Any:
    return _network(on, TANH, x, [hx], params, Settings(*options))


@lowers(aten.rnn_relu.input)
def rnn_relu(on: Emitter, x: Any, hx: Any, params: list[Any], *options: Any) -> Any:
    return _network(on, RELU, x, [hx], params, Settings(*options))


@lowers(aten.lstm_cell.default)
def lstm_cell(on: Emitter, x: Any, hx: list[Any], *weights: Any) -> Any:
    return _cell(on, LSTM, x, hx, *weights)


@lowers(aten.gru_cell.default)
def gru_cell(on: Emitter, x: Any, hx: Any, *weights: Any) -> Any:
    return _cell(on, GRU, x, [hx], *weights)[0]


@lowers(aten.rnn_tanh_cell.default)
def rnn_tanh_cell(on: Emitter, x: Any, hx: Any, *weights: Any) -> Any:
    return _cell(on, TANH, x, [hx], *weights)[0]


@lowers(aten.rnn_relu_cell.default)
def rnn_relu_cell(on: Emitter, x: Any, hx: Any, *weights: Any) -> Any:
    return _cell(on, RELU, x, [hx], *weights)[0]


def _cell(
    on: Emitter,
    kind: _CellKind,
    x: Any,
    hx: list[Any],
    into: Any,
    back: Any,
    b_in: Any,
    b_back: Any,
) -> list[Any]:
    """One step of a network of one layer; x: [batch, inputs], states: [batch, hidden]."""
    biases = None if b_in is None else (b_in, b_back)
    layer = _Layer(kind, (_Direction(into, back, biases, None),))
    axis = on.constant([0])
    states = [on.op("Unsqueeze", on.value(h), axis) for h in hx]
    _, *final = _run(on, layer, on.op("Unsqueeze", on.value(x), axis), states)
    return [on.op("Squeeze", state, axis) for state in final]


def _network(
    on: Emitter,
    kind: _CellKind,
    x: Any,
    hx: list[Any],
    params: list[Any],
    given: Settings,
) -> tuple[Any, ...]:
    """All layers; returns the sequence and the final states, as torch does."""
    count = given.directions
    # A state that torch fills with zeros is what ONNX takes where none is given.
    states = [None if n.target is aten.zeros.default else on.value(n) for n in hx]
    value, final = on.value(x), []
    value = on.op("Transpose", value, perm=[1, 0, 2]) if given.batch_first else value
    for number, layer in enumerate(_layers(kind, params, given)):
        value, *ends = _run(on, layer, value, [_part(on, s, number, count) for s in states])
        final.append(ends)
    value = on.op("Transpose", value, perm=[1, 0, 2]) if given.batch_first else value
    whole = [e[0] if given.num_layers == 1 else on.op("Concat", *e, axis=0) for e in zip(*final)]
    return (value, *whole)


def _layers(kind: _CellKind, params: list[Node], given: Settings) -> list[_Layer]:
    count = given.directions
    size = len(params) // (given.num_layers * count)
    groups = [params[i : i + size] for i in range(0, len(params), size)]
    directions = [
        _Direction(
            group[0],
            group[1],
            (group[2], group[3]) if given.has_biases else None,
            group[-1] if size % 2 else None,
        )
        for group in groups
    ]
    return [
        _Layer(kind, tuple(directions[i : i + count])) for i in range(0, len(directions), count)
    ]


def _part(on: Emitter, states: Any, layer: int, count: int) -> Any:
    """The states of one layer, of those of all of them: [layers * directions, batch, width]."""
    if states is None:
        return None
    first, last = on.constant([layer * count]), on.constant([(layer + 1) * count])
    return on.op("Slice", states, first, last, on.constant([0]))


def _run(on: Emitter, layer: _Layer, x: Any, states: Sequence[Any]) -> tuple[Any, ...]:
    """One layer over x [time, batch, inputs]: its sequence and its final states."""
    start = states[0]
    widened = layer.projected and start is not None
    x = _with_start(on, layer, x, start) if widened else x
    kind, directions = layer.kind, layer.directions
    weights = [
        _weight(on, layer, lambda i, w: _input_weight(layer, i, w, widened)),
        _weight(on, layer, lambda i, w: _gates(kind, w[1] @ w[-1] if layer.projected else w[1])),
        _weight(on, layer, lambda i, w: torch.cat([_gates(kind, w[2]), _gates(kind, w[3])]))
        if directions[0].biases
        else None,
    ]
    rest = [None, None if widened else start, *states[1:]]
    outputs = on.op(
        kind.op_type,
        x,
        *weights,
        *rest,
        hidden_size=layer.hidden,
        direction="bidirectional" if len(directions) == 2 else None,
        activations=kind.activation and [kind.activation] * len(directions),
        linear_before_reset=kind.after and 1,
        outputs=1 + len(states),
    )
    sequence, last, *cells = outputs
    if layer.projected:
        matrix = _weight(on, layer, lambda i, w: w[-1].t())
        sequence, last = on.op("MatMul", sequence, matrix), on.op("MatMul", last, matrix)
    return (_side_by_side(on, layer, sequence), last, *cells)


def _weight(
    on: Emitter, layer: _Layer, make: Callable[[int, Sequence[torch.Tensor]], torch.Tensor]
) -> Any:
    """What ``make`` gives for the weights of each direction, stacked."""
    nodes = [d.nodes() for d in layer.directions]
    size = len(nodes[0])

    def compute(*tensors: torch.Tensor) -> torch.Tensor:
        parts = [tensors[i : i + size] for i in range(0, len(tensors), size)]
        return torch.stack([make(i, part) for i, part in enumerate(parts)])

    return on.derived([n for group in nodes for n in group], compute)


def _gates(kind: _CellKind, weight: torch.Tensor) -> torch.Tensor:
    """Rows of a weight in ONNX's order of gates."""
    parts = weight.chunk(len(kind.gates))
    return torch.cat([parts[i] for i in kind.gates])


def _input_weight(
    layer: _Layer, number: int, weights: Sequence[torch.Tensor], widened: bool
) -> torch.Tensor:
    """[gates * hidden, inputs], wider by what ``_with_start`` adds to the inputs."""
    parts = [weights[0]]
    if widened:
        count = len(layer.directions)
        parts += [weights[1] * float(i == number) for i in range(count)]
    return _gates(layer.kind, torch.cat(parts, dim=1))


def _with_start(on: Emitter, layer: _Layer, x: Any, start: Any) -> Any:
    """x, and beside it each direction's initial state at the step where it begins.

    A projected state is W h of the cell's own state h, which ONNX's LSTM does not know. Its
    product with the recurrent weights is folded, (R W) h; but no h belongs to an initial state
    that is given. That enters through the inputs instead, once.
    """
    shape = on.op("Shape", x)
    steps = on.op("Slice", shape, on.constant([0]), on.constant([1]))
    others = on.op("Sub", steps, on.constant([1]))
    parts = [x]
    for i in range(len(layer.directions)):
        first = on.op("Slice", start, on.constant([i]), on.constant([i + 1]), on.constant([0]))
        rest = on.op("Shape", first, start=1)
        zero = on.constant(0, dtype_of(layer.directions[0].into))
        nothing = on.op("Expand", zero, on.op("Concat", others, rest, axis=0))
        parts.append(on.op("Concat", *([nothing, first] if i else [first, nothing]), axis=0))
    return on.op("Concat", *parts, axis=2)


def _side_by_side(on: Emitter, layer: _Layer, sequence: Any) -> Any:
    """[time, directions, batch, width] -> [time, batch, directions * width]."""
    if len(layer.directions) == 1:
        return on.op("Squeeze", sequence, on.constant([1]))
    moved = on.op("Transpose", sequence, perm=[0, 2, 1, 3])
    return on.op("Reshape", moved, on.constant([0, 0, -1]))
