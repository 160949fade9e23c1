"""The pass ``smooth``: move outlier channels from activations into weights before both are int8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.constants import evaluate, weight_names
from strop.compiler.ir.nodes import arguments, dtype_of, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.learning import Learned
from strop.compiler.rewriting.pattern import NEAR, Miss
from strop.compiler.rewriting.rules import Log
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.calibrated import CalibratedPass
from strop.passes.quantize.channels import Channels
from strop.passes.quantize.layers import linear_layer
from strop.passes.quantize.pairs import Pair, Reader, pairs, readers_alone
from strop.passes.quantize.selection import Selection
from strop.passes.quantize.smoothing import ALPHAS, Found, Layer, best_scale

aten = torch.ops.aten


@dataclass(frozen=True)
class Smooth(CalibratedPass):
    """Move outlier channels of what linear layers read into their weights (SmoothQuant).

    Channels of a layer's input are divided by a scale, and the columns of its weight multiplied by
    it, so that one step fits all channels. The norm or the layer before takes the division into its
    weights where the graph allows that; elsewhere it is a multiplication, where it pays.

    Attributes:
        alpha: how much of an outlier moves into the weight, 0 to 1; 0 looks for the best, layer by
            layer, by the error of the layer's output in int8.
        multiply: a multiplication is inserted where nothing takes the division and the error falls
            by at least this much: the square of the error of the output, as a share of the square
            of the output. Above 1 inserts none.
        only: weights of layers to smooth, by name or shell pattern; by default all.
        keep: weights of layers to leave as they are, by name or shell pattern.
        batches: how many batches of data to look at.
        rows: how many rows of what each layer reads to measure its error on.
        without_data: what to do where the model gives no data: "refuse", or "leave-out" this pass,
            with a note.
    """

    name = "smooth"
    # Packed, values would share a weight with queries, which take no scale.
    before = ("packed", "quantize", "quantize-static")
    saves: ClassVar[str] = "takes outlier channels out of activations"

    alpha: float = 0.0
    multiply: float = 1e-3
    rows: int = 256

    def __post_init__(self) -> None:
        """Refuse options outside of their ranges.

        Raises:
            UsageError: one is.
        """
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"alpha is {self.alpha}; it must be from 0 to 1")
        if self.multiply < 0:
            raise UsageError(f"multiply is {self.multiply}; it must be 0 or more")
        if self.rows < 1:
            raise UsageError(f"rows is {self.rows}; it must be 1 or more")

    def learn_from_data(self, program: Program, context: Context) -> Learned:
        """Scales by the name of the first layer that reads the values, and what each gains."""
        chosen = self._pairs(program, Log())
        layers = {name: _layers(pair) for name, pair in chosen.items()}
        values = dict.fromkeys(_input(r.node) for readers in layers.values() for r in readers)
        seen = self.channels_of(list(values), self.rows, program, context)
        tensors, facts = {}, {}
        for number, (name, pair) in enumerate(chosen.items()):
            context.progress(f"pass {self.name}: {number + 1} of {len(chosen)}")
            if not all(len(seen[_input(r.node)].rows) for r in layers[name]):
                continue  # the data gives the layer nothing to read
            found = self._search(pair, seen, program)
            if found.alpha and (pair.divided or found.before - found.after >= self.multiply):
                tensors[name] = found.scale
                facts[name] = _fact(pair, found)
        return Learned(tensors, {"layers": facts})

    def _search(self, pair: Pair, seen: Mapping[Node, Channels], program: Program) -> Found:
        layers = [
            Layer.of(
                evaluate(arguments(r.node)["weight"], program), seen[_input(r.node)], r.channel
            )
            for r in _layers(pair)
        ]
        return best_scale(layers, pair.channels, (self.alpha,) if self.alpha else ALPHAS)

    def _pairs(self, program: Program, log: Log) -> dict[str, Pair]:
        """What can be scaled, by the name of its first reader's weight, in program order.

        Why a layer is not among it is noted.
        """
        found, made = pairs(program), {}
        done = set[Node]()
        for node in program.find(aten.linear.default):
            if node in done:
                continue
            pair = _pair_of(node, found.read_by(node), program, self.selection)
            if isinstance(pair, Miss):
                log.missed(self.name, node, pair)
                continue
            done |= {reader.node for reader in pair.readers}
            made[weight_names(arguments(node)["weight"])[0]] = pair
        return made

    def apply_learned(self, program: Program, log: Log, learned: Learned) -> None:
        """Scale the weights, and insert the multiplications."""
        for name, pair in self._pairs(program, log).items():
            scale = learned.tensors.get(name)
            if scale is None:
                continue
            for weight, values in pair.folded(program.weights, scale).items():
                program.set_weight(weight, values, self.name)
            if pair.divided:
                log.rewrote("smooth-folded", pair.source)
            else:
                log.rewrote("smooth-multiplied", self._multiplied(program, name, pair, scale))

    def _multiplied(self, program: Program, name: str, pair: Pair, scale: Tensor) -> Node:
        """Let the readers read a product, which is returned."""
        first = pair.readers[0].node
        build = Builder(program, first, self.name)
        factor = (1 / scale.double()).to(dtype_of(pair.source))
        constant = build.weight(f"{name}.smooth", factor, program.origins[name].sources)
        product = build.call(aten.mul.Tensor, pair.source, constant)
        for reader in pair.readers:
            reader.node.replace_input_with(pair.source, product)
        return product


def _pair_of(
    node: Node, folding: Pair | Miss, program: Program, selection: Selection
) -> Pair | Miss:
    """The pair that a layer reads, or the layers that read the same value, or why neither."""
    layer = linear_layer(node, program, selection)
    if isinstance(layer, Miss):
        return layer
    if isinstance(folding, Pair):
        return folding
    value = layer["input"]
    if len(shape_of(value)) < 2:
        return Miss("its input is a vector", node, NEAR)
    return readers_alone(value, program)


def _layers(pair: Pair) -> list[Reader]:
    """The readers that will be quantized: linear layers."""
    return [r for r in pair.readers if r.node.target is aten.linear.default]


def _input(layer: Node) -> Node:
    value: Node = arguments(layer)["input"]
    return value


def _fact(pair: Pair, found: Found) -> dict[str, Any]:
    return {
        "alpha": found.alpha,
        "error": [float(f"{error:.3g}") for error in (found.before, found.after)],
        "channels": int((found.scale != 1).sum()),
        "into": [slot.weight for slot in pair.divided],
        "readers": [slot.weight for slot in pair.multiplied],
    }
