"""Pairs of layers between which scales of channels can be moved without a change of the output.

An operator whose result has channels with weights of their own (the *source*: a norm, a linear
layer, a convolution) gives them divided by a positive scale, and every layer that reads the result
(a *reader*) multiplies the columns of its weight by that scale. Between both stand only operators
that such a scale passes through (``carriers.py``). Pairs are read off the graph, never off names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import Node

from strop.compiler.ir.families import CONVOLUTIONS, MUL, ZEROS
from strop.compiler.ir.nodes import arguments, shape_of
from strop.compiler.ir.printer import op_name
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.pattern import NEAR, Miss
from strop.passes.quantize.carriers import Carry, Labels, along, carried, is_carrier, sample_shape

aten = torch.ops.aten
strop = torch.ops.strop

LAYERS = (aten.linear.default, *CONVOLUTIONS, strop.padded_conv.default)
NORMS = (aten.layer_norm.default, aten.rms_norm.default)


@dataclass(frozen=True)
class Slot:
    """A weight that takes the scale.

    Attributes:
        weight: its name.
        channel: the channel whose scale an element takes; int64, broadcasts to the weight.
    """

    weight: str
    channel: Tensor


@dataclass(frozen=True)
class Reader:
    """A layer that reads scaled values.

    Attributes:
        node: the linear layer, the product with a weight, or the convolution.
        channel: for each of its input channels, the channel of the source; int64 [in].
    """

    node: Node
    channel: Tensor


@dataclass(frozen=True)
class Pair:
    """A source and its readers.

    Attributes:
        source: the call whose channels are scaled.
        channels: how many it has: the length of a scale.
        divided: weights of the source, and those that are added to its result on the way; none if
            what the readers read has to be divided by an operation of its own.
        multiplied: weights of the readers.
        readers: in program order.
    """

    source: Node
    channels: int
    divided: tuple[Slot, ...]
    multiplied: tuple[Slot, ...]
    readers: tuple[Reader, ...]

    def folded(self, weights: Mapping[str, Tensor], scale: Tensor) -> dict[str, Tensor]:
        """New values of the weights, with which the program computes what it did.

        Args:
            weights: by name, at least those of the pair.
            scale: above 0, [channels]; what the readers read becomes ``value / scale``.

        Returns:
            The weights of the pair, by name, in their dtypes; computed in float64.
        """
        wide = scale.detach().double()
        made = {}
        for slots, factor in ((self.divided, 1 / wide), (self.multiplied, wide)):
            for slot in slots:
                old = weights[slot.weight].detach()
                made[slot.weight] = (old.double() * factor[slot.channel]).to(old.dtype)
        return made


@dataclass
class Pairs:
    """Every pair of a program, and why other sources have none.

    Attributes:
        found: in program order of the sources.
        missed: for every other source, the condition that failed.
    """

    found: list[Pair] = field(default_factory=list)
    missed: dict[Node, Miss] = field(default_factory=dict)

    def read_by(self, layer: Node) -> Pair | Miss:
        """The first pair that a linear layer or convolution reads, or why there is none."""
        for pair in self.found:
            if any(reader.node is layer for reader in pair.readers):
                return pair
        behind = [layer.all_input_nodes[0]]
        for value in behind:
            if value in self.missed:
                return self.missed[value]
            if is_carrier(value):
                behind += [n for n in value.all_input_nodes if n not in behind]
        stop = next((v for v in behind if v.op == "call_function" and not is_carrier(v)), None)
        if stop is not None:
            return _blocked(stop)
        return Miss("no norm or layer with weights of its own stands before it", layer, NEAR)


def pairs(program: Program) -> Pairs:
    """Look for a pair at every source of a program."""
    made = Pairs()
    for node in program.calls():
        start = _started(node)
        if start is None:
            continue
        found = _follow(node, start, program)
        if isinstance(found, Pair):
            made.found.append(found)
        else:
            made.missed[node] = found
    return made


def readers_alone(value: Node, program: Program) -> Pair | Miss:
    """The linear layers that read a value, as a pair of which no source takes the scale.

    Other readers of the value do not matter: the layers are to read ``value / scale`` instead.
    """
    walk = _Walk(program)
    channels = int(shape_of(value)[-1])
    walk.labels[value] = torch.arange(channels).expand(sample_shape(value.meta["val"]))
    try:
        for user in sorted(value.users):
            if user.target is aten.linear.default and user.args[0] is value:
                walk.read(user)
        walk.require_sole_uses()
    except _Refused as refused:
        return refused.miss
    return Pair(value, channels, (), tuple(walk.multiplied.values()), tuple(walk.readers))


@dataclass(frozen=True)
class _Start:
    """The channels of a source.

    Attributes:
        labels: of its result.
        slots: argument names of its weights, and the channel of each of their elements.
    """

    labels: Tensor
    slots: Mapping[str, Tensor]


def _started(node: Node) -> _Start | None:
    """The channels of a call; None of one that has no weight for each of them."""
    given = arguments(node) if node.target in (*LAYERS, *NORMS, *MUL) else {}
    if node.target in NORMS and given["weight"] is not None:
        return _last_axes(node, given["weight"], "weight", "bias")
    if node.target in LAYERS and len(shape_of(given["weight"])) > 1:
        return _rows(node, given["weight"])
    for name in ("self", "other"):
        if node.target in MUL and _is_channel_weight(given[name], node):
            return _last_axes(node, given[name], name)
    return None


def _is_channel_weight(value: Any, product: Node) -> bool:
    """Whether a factor is a weight of as many elements as the last axis of the product."""
    if not isinstance(value, Node) or value.op != "get_attr":
        return False
    return len(shape_of(value)) == 1 and shape_of(value)[0] == shape_of(product)[-1]


def _last_axes(node: Node, weight: Node, *names: str) -> _Start:
    shape = tuple(int(size) for size in shape_of(weight))
    channel = torch.arange(torch.Size(shape).numel()).reshape(shape)
    return _Start(channel.expand(sample_shape(node.meta["val"])), dict.fromkeys(names, channel))


def _rows(node: Node, weight: Node) -> _Start:
    """A linear layer gives channels along the last axis, a convolution along the second."""
    rank, result = len(shape_of(weight)), sample_shape(node.meta["val"])
    channel = torch.arange(int(shape_of(weight)[0]))
    axis = len(result) - 1 if node.target is aten.linear.default else len(result) - (rank - 1)
    lines = channel.reshape(-1, *[1] * (len(result) - 1 - axis))
    slots = {"weight": channel.reshape(-1, *[1] * (rank - 1)), "bias": channel}
    return _Start(lines.expand(result), slots)


class _Refused(Exception):
    """The scale cannot be moved; carries the reason."""

    def __init__(self, miss: Miss) -> None:
        super().__init__(miss.reason)
        self.miss = miss


def _follow(source: Node, start: _Start, program: Program) -> Pair | Miss:
    """The pair of a source: a walk over everything that its channels reach."""
    walk = _Walk(program)
    try:
        for name, channel in start.slots.items():
            walk.take(arguments(source).get(name), channel, source, walk.divided)
        walk.spread(source, start.labels)
        walk.require_sole_uses()
    except _Refused as refused:
        return refused.miss
    channels = int(start.labels.max()) + 1
    if not walk.readers:
        return Miss("no layer reads its channels", source, NEAR)
    return Pair(
        source,
        channels,
        tuple(walk.divided.values()),
        tuple(walk.multiplied.values()),
        tuple(walk.readers),
    )


class _Walk:
    """What was found on the way from one source."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.divided: dict[str, Slot] = {}
        self.multiplied: dict[str, Slot] = {}
        self.readers: list[Reader] = []
        self.labels: dict[Node, Labels] = {}
        self._takers: dict[str, set[Node]] = {}

    def spread(self, source: Node, labels: Tensor) -> None:
        """Give labels to everything that the source's result reaches, in program order.

        Raises:
            _Refused: something that reads it neither lets the scale through nor takes it.
        """
        self.labels[source] = labels
        waiting = set(source.users)
        while waiting:
            node = min(waiting)
            waiting.remove(node)
            if node.op == "output":
                raise _Refused(Miss("its channels reach an output of the program", source, NEAR))
            if _is_tensor(node) and not self.read(node):
                self.labels[node] = self._carried(node)
                waiting |= set(node.users)

    def _carried(self, node: Node) -> Labels:
        scaled = {n: self.labels[n] for n in node.all_input_nodes if n in self.labels}
        labels = self._shifted(node, scaled)
        if labels is None:
            labels = carried(Carry(node, scaled))
        if labels is None:
            raise _Refused(_blocked(node))
        return labels

    def _shifted(self, node: Node, scaled: Mapping[Node, Labels]) -> Labels | None:
        """Labels of a sum with a weight, which is divided as well; None of anything else."""
        if node.target is not aten.add.Tensor or len(scaled) != 1:
            return None
        [(value, labels)] = scaled.items()
        other = next((a for a in node.args if a is not value), None)
        if not isinstance(other, Node) or other.op != "get_attr" or len(shape_of(other)) != 1:
            return None
        channel = along(labels, -1)
        if channel is None or shape_of(other)[0] != len(channel):
            return None
        self.take(other, channel, node, self.divided)
        return labels

    def read(self, node: Node) -> bool:
        """Let a layer take the scale into its weight; False where the node is no layer.

        Raises:
            _Refused: it cannot.
        """
        if node.target is aten.matmul.default:
            return self._read_by_product(node)
        if node.target not in LAYERS:
            return False
        given = arguments(node)
        name = next(iter(given))
        others = [given["weight"], given["bias"]]
        labels = self.labels.get(given[name])
        if labels is None or any(other in self.labels for other in others):
            raise _Refused(Miss("its weight is computed from the scaled values", node, NEAR))
        weight = given["weight"]
        channel = along(labels, -1 if node.target is aten.linear.default else _axis(node, labels))
        if channel is None:
            raise _Refused(Miss("it mixes positions with different scales", node, NEAR))
        self.take(weight, _columns(channel, given, shape_of(weight)), node, self.multiplied)
        self.readers.append(Reader(node, channel))
        return True

    def _read_by_product(self, node: Node) -> bool:
        """The same for a product with a weight [in, out]."""
        value, weight = node.args
        assert isinstance(value, Node) and isinstance(weight, Node)
        if value not in self.labels or weight.op != "get_attr":
            return False
        channel = along(self.labels[value], -1)
        if channel is None or len(shape_of(weight)) != 2:
            raise _Refused(Miss("it mixes positions with different scales", node, NEAR))
        self.take(weight, channel[:, None], node, self.multiplied)
        self.readers.append(Reader(node, channel))
        return True

    def take(self, value: Any, channel: Tensor, taker: Node, into: dict[str, Slot]) -> None:
        """Note that a weight, or each part of a concatenation of weights, takes the scale.

        Raises:
            _Refused: it is no weight, or takes another scale already.
        """
        if value is None:
            return
        for name, part, user in _parts(value, channel, taker):
            known = self.divided.get(name) or self.multiplied.get(name)
            if known is not None and not (name in into and torch.equal(known.channel, part)):
                raise _Refused(Miss(f"the weight '{name}' would take two scales", taker, NEAR))
            into[name] = Slot(name, part)
            self._takers.setdefault(name, set()).add(user)

    def require_sole_uses(self) -> None:
        """Check that no weight that takes the scale is used elsewhere.

        Raises:
            _Refused: one is.
        """
        for node in self.program.graph.find_nodes(op="get_attr"):
            takers = self._takers.get(str(node.target))
            other = next((u for u in node.users if takers and u not in takers), None)
            if other is not None:
                raise _Refused(Miss(f"the weight '{node.target}' is used here too", other, NEAR))


def _blocked(node: Node) -> Miss:
    reason = f"a scale for each channel does not pass through {op_name(node.target)}"
    return Miss(reason, node, NEAR)


def _is_tensor(node: Node) -> bool:
    """Whether a call gives tensors; others read sizes."""
    value = node.meta["val"]
    return isinstance(value, (Tensor, tuple, list))


def _axis(convolution: Node, labels: Tensor) -> int:
    """The axis of channels of a convolution's input, which may have no batch."""
    spatial = len(shape_of(arguments(convolution)["weight"])) - 2
    return labels.dim() - spatial - 1


def _columns(channel: Tensor, given: Mapping[str, Any], shape: Sequence[Any]) -> Tensor:
    """The channel of every element of a layer's weight, [out, in / groups, *kernel]."""
    if len(shape) == 1:
        return channel
    groups = int(given.get("groups", 1))
    width = len(channel) // groups
    lines = channel.reshape(groups, 1, width)
    if groups > 1:
        lines = lines.expand(groups, int(shape[0]) // groups, width)
    return lines.reshape(-1, width, *[1] * (len(shape) - 2))


def _parts(value: Any, channel: Tensor, taker: Node) -> Iterator[tuple[str, Tensor, Node]]:
    """The weights behind a value, with the channels of their elements and the node that reads each.

    Raises:
        _Refused: it is computed in another way than by a concatenation along the first axis.
    """
    if isinstance(value, Node) and value.op == "get_attr":
        yield str(value.target), channel, taker
        return
    if isinstance(value, Node) and value.target in ZEROS:
        return
    if not isinstance(value, Node) or value.target is not aten.cat.default:
        raise _Refused(Miss("its weight is not held as such, but computed", taker, NEAR))
    given = arguments(value)
    if given["dim"] != 0 or len(value.users) > 1:
        raise _Refused(Miss("its weight is a concatenation that is used elsewhere", taker, NEAR))
    start = 0
    for part in given["tensors"]:
        rows = int(shape_of(part)[0])
        same = channel.shape[0] == 1 and channel.dim() > 1
        yield from _parts(part, channel if same else channel[start : start + rows], value)
        start += rows
