"""Static W8A8: scales of weights and activations are fixed when the model is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import arguments, dtype_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context, Needs
from strop.compiler.rewriting.learning import Learned, LearningPass
from strop.compiler.rewriting.pattern import NEAR, Miss
from strop.compiler.rewriting.rules import Log
from strop.compiler.targets.target import Target
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.calibration import Seeing, observe
from strop.passes.quantize.compensation import LayerInputs, RoundedLayer
from strop.passes.quantize.grid import Grid
from strop.passes.quantize.int8_operators import LAYERS, reads
from strop.passes.quantize.int8_targets import why_no_int8
from strop.passes.quantize.layers import weighted_layer
from strop.passes.quantize.observers import ObserverName, observers
from strop.passes.quantize.region import Region
from strop.passes.quantize.rounding import Rounding
from strop.passes.quantize.selection import Selecting

# Fewer rows than that are told of: scales from them may cut off other data's values.
_FEW_ROWS = 32


@dataclass(frozen=True)
class QuantizeStatic(Selecting, LearningPass):
    """Quantize convolutions and linear layers, and what lies between them, with fixed scales.

    From layer to layer values stay in int8: sums, pools, joins and clamps between layers are part
    of that. Weights have a scale per output channel, activations one per value.

    Attributes:
        only: weights to quantize, by name or shell pattern; by default all.
        keep: weights to leave in float, by name or shell pattern.
        observer: how the range of an activation is chosen.
        percentile: the percent of values that the observer ``percentile`` keeps.
        activations: ``asymmetric`` u8 or ``symmetric`` s8; by default what the target multiplies
            fastest.
        compensate: round weights so that outputs on the calibration data change least, and let
            biases make up for what the mean of outputs changes; otherwise round to nearest.
        weight_bits: of a weight; 7 where products of two 8-bit numbers may overflow.
        batches: how many to calibrate on at most.
    """

    name = "quantize-static"
    quantizes = True
    needs: ClassVar[Needs] = (("calibration", "train"),)
    # The int8 product adds the bias itself.
    before = ("bias-gelu",)

    observer: ObserverName = "min-max"
    percentile: float = 99.999
    activations: Literal["", "asymmetric", "symmetric"] = ""
    compensate: bool = True
    weight_bits: int = 8
    batches: int = 256

    def __post_init__(self) -> None:
        """Refuse options outside of their ranges.

        Raises:
            UsageError: one is.
        """
        Grid(self.weight_bits)
        if not 50 < self.percentile <= 100:
            raise UsageError(f"percentile is {self.percentile}; it must be above 50, up to 100")
        if self.batches < 1:
            raise UsageError(f"batches is {self.batches}; it must be 1 or more")

    def refused_by(self, target: Target) -> str | None:
        if (reason := why_no_int8(target)) or target.static_int8:
            return reason
        return (
            f"{target.name} takes no int8 with fixed scales; those of pass 'quantize' are found "
            "when the model runs"
        )

    def learn(self, program: Program, context: Context) -> Learned:
        """Calibrate: by name of a value, the range to keep."""
        self.selection.require_matches(program)
        grid = Grid(symmetric=self._kind(context.target) == "symmetric")
        layers = self._layers(program, Log())
        new = observers(self.observer, self.percentile)
        # Also those that share the grid of others: with fewer layers quantized, they may not.
        seen = {value: new() for value in Region.around(program, layers).values}
        inputs = [LayerInputs(layer) for layer in layers if self._compensates(layer)]
        places: list[tuple[Node, Seeing]] = [*seen.items()]
        places += [(reads(one.layer), one) for one in inputs]
        rows = observe(program, places, context, self.batches)
        ranges = {node: observer.range(grid) for node, observer in seen.items()}
        tensors = {n.name: torch.tensor(r, dtype=torch.float64) for n, r in ranges.items()}
        for one in inputs:
            context.progress(f"rounding the weight of %{one.layer.name}")
            rounded = RoundedLayer.of(program, one, Grid(self.weight_bits))
            tensors |= rounded.tensors(one.layer.name)
        notes = (f"calibrated on {rows} rows alone",) if rows < _FEW_ROWS else ()
        facts = {
            "symmetric": grid.symmetric,
            "int32_biases": context.target.int32_biases,
            "rows": rows,
        }
        return Learned(tensors, facts, notes)

    def apply_learned(self, program: Program, log: Log, learned: Learned) -> None:
        """Round the values between layers, and the weights of each layer."""
        layers = self._layers(program, log)
        region = Region.around(program, layers)
        ranges = {n: learned.tensors[n.name] for n in region.measured}
        grid = Grid(symmetric=learned.facts["symmetric"])
        rounding = Rounding(program, log, self.name, region, grid, ranges)
        for value in region.values:
            rounding.of_value(value)
        for layer in layers:
            rounded = RoundedLayer.from_tensors(layer.name, learned.tensors)
            rounding.of_weight(layer, Grid(self.weight_bits), rounded)
            if learned.facts["int32_biases"]:
                rounding.of_bias(layer)

    def _compensates(self, layer: Node) -> bool:
        """Whether a layer may have a weight of its own: one that others read, too, stays one."""
        weight = arguments(layer)["weight"]
        return self.compensate and len(weight.users) == 1

    def _kind(self, target: Target) -> str:
        """How activations are rounded on a target.

        Raises:
            UsageError: the target does not take what the option says.
        """
        taken = target.static_int8
        if self.activations and self.activations not in taken:
            raise UsageError(
                f"pass '{self.name}': activations is '{self.activations}', in which {target.name} "
                f"is slower than in float; it takes {' or '.join(taken)}"
            )
        return self.activations or taken[0]

    def _layers(self, program: Program, log: Log) -> list[Node]:
        """The layers to quantize; why others are not is noted."""
        found = []
        for node in program.find(*LAYERS):
            layer = weighted_layer(node, program, self.selection)
            miss = layer if isinstance(layer, Miss) else _why_not(node, layer["weight"])
            if miss is None:
                found.append(node)
            else:
                log.missed("layer-int8", node, miss)
        return found


def _why_not(layer: Node, weight: Node) -> Miss | None:
    if weight.target is torch.ops.strop.fake_quantize.default:
        return Miss("its weight is quantized already", layer, NEAR)
    if dtype_of(layer) != torch.float32:
        return Miss(f"it computes in {dtype_of(layer)}", layer, NEAR)
    if len(reads(layer).meta["val"].shape) < len(weight.meta["val"].shape):
        return Miss("its input has no batch axis", layer, NEAR)
    return None
