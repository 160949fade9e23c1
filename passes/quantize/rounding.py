"""Insert ``strop::fake_quantize`` behind values and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.constants import evaluate, weight_names
from strop.compiler.ir.nodes import arguments
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.rules import Log
from strop.passes.quantize.compensation import RoundedLayer, finite_weight
from strop.passes.quantize.grid import Grid
from strop.passes.quantize.int8_operators import CLAMPS, limits, reads
from strop.passes.quantize.region import Region

aten = torch.ops.aten
strop = torch.ops.strop

# A bias is added as a whole number of the product's steps, in int32; 2 bits are left for the sum.
_LARGEST_BIAS = 1 << 29


@dataclass(frozen=True)
class Rounding:
    """Rewrites a program; after each rewrite it is valid.

    Attributes:
        program: changed in place.
        log: counts each value and each weight.
        made_by: the name of the pass.
        region: what is rounded.
        grid: of activations.
        ranges: of the values that decide a grid, [low, high] each.
    """

    program: Program
    log: Log
    made_by: str
    region: Region
    grid: Grid
    ranges: Mapping[Node, Tensor]
    _scales: dict[Node, tuple[Node, Node]] = field(default_factory=dict)

    def of_value(self, value: Node) -> None:
        """Round a value for its readers; a clamp that the grid does by itself is removed."""
        readers = self.region.readers(value)
        scale, zero = self._scale(self.region.leaders[value])
        source = value
        if value in self.region.operators and value.target in CLAMPS and self._clamps(value):
            source = value.all_input_nodes[0]
        low, high = activation_limits(self.grid)
        build = Builder(self.program, min(readers), self.made_by)
        rounded = build.call(strop.fake_quantize.default, source, scale, zero, None, low, high)
        for reader in readers:
            reader.replace_input_with(value, rounded)
        self.program.erase_dead([value])
        self.log.rewrote("value-int8", rounded)

    def of_weight(self, layer: Node, grid: Grid, rounded: RoundedLayer | None) -> None:
        """Round the weight of a layer: symmetric, with one scale per output channel.

        Args:
            layer: whose input is rounded.
            grid: of the weight.
            rounded: the weight chosen, and what its bias gains; None rounds to nearest.
        """
        if rounded is not None:
            self._take(layer, rounded)
        weight, bias = (arguments(layer)[name] for name in ("weight", "bias"))
        scales = self._weight_scales(layer, bias, grid, rounded)
        names = tuple(dict.fromkeys(weight_names(weight)))
        build = Builder(self.program, layer, self.made_by)
        scale = build.weight(f"{names[0]}.scale", scales, names)
        zero = build.weight("strop.zeros", torch.zeros(len(scales), dtype=torch.int32), ())
        made = build.call(strop.fake_quantize.default, weight, scale, zero, 0, grid.low, grid.high)
        layer.replace_input_with(weight, made)
        self.log.rewrote("weight-int8", made)

    def _take(self, layer: Node, rounded: RoundedLayer) -> None:
        """Give a layer the weight that was chosen, and its bias what that takes away."""
        weight, bias = (arguments(layer)[name] for name in ("weight", "bias"))
        build = Builder(self.program, layer, self.made_by)
        names = tuple(dict.fromkeys(weight_names(weight)))
        # Without its old weight the layer has a place for one of the same name.
        layer.update_arg(1, reads(layer))
        self.program.erase_dead([weight])
        self.program.drop_unused_weights()
        chosen = build.weight(names[0], nn.Parameter(rounded.weight), names)
        layer.update_arg(1, chosen)
        shift = build.weight(f"{names[0]}.shift", nn.Parameter(rounded.shift), names)
        if bias is None:
            layer.args, layer.kwargs = tuple((arguments(layer) | {"bias": shift}).values()), {}
        else:
            layer.replace_input_with(bias, build.call(aten.add.Tensor, bias, shift))

    def of_bias(self, layer: Node) -> None:
        """Round the bias of a layer, whose input and weight are rounded, to steps of products."""
        bias = arguments(layer)["bias"]
        if bias is None:
            return
        names = tuple(dict.fromkeys(weight_names(bias)))
        steps = self._step(reads(layer)) * self._step(arguments(layer)["weight"])
        build = Builder(self.program, layer, self.made_by)
        scale = build.weight(f"{names[0]}.scale", steps, names)
        zero = build.weight("strop.zeros", torch.zeros(len(steps), dtype=torch.int32), ())
        limits = torch.iinfo(torch.int32)
        rounded = build.call(
            strop.fake_quantize.default, bias, scale, zero, 0, limits.min, limits.max
        )
        layer.replace_input_with(bias, rounded)
        self.log.rewrote("bias-int32", rounded)

    def _scale(self, leader: Node) -> tuple[Node, Node]:
        """The scale and the zero point of all values that share a grid."""
        if leader not in self._scales:
            members = [v for v in self.region.measured if self.region.leaders[v] is leader]
            low, high = self._range(members)
            scale, zero = self.grid.parameters(low, high)
            build = Builder(self.program, leader, self.made_by)
            self._scales[leader] = (
                build.weight(f"strop.{leader.name}.scale", scale, ()),
                build.weight(f"strop.{leader.name}.zero_point", zero, ()),
            )
        return self._scales[leader]

    def _range(self, members: list[Node]) -> tuple[Tensor, Tensor]:
        ends = torch.stack([self.ranges[v] for v in members])
        return ends[:, 0].min().float(), ends[:, 1].max().float()

    def _clamps(self, clamp: Node) -> bool:
        """Whether rounding does what a clamp before it does, to a step.

        So where the ends of the clamp are rounded to the ends of the grid, or lie beyond: an end
        halfway between two steps may be rounded to either.
        """
        scale, zero = (
            self.program.weights[str(n.target)].double()
            for n in self._scale(self.region.leaders[clamp])
        )
        lowest, highest = ((end / scale).round() + zero for end in limits(clamp))
        low, high = activation_limits(self.grid)
        return bool(lowest <= low + 1) and bool(highest >= high - 1)

    def _weight_scales(
        self,
        layer: Node,
        bias: Node | None,
        grid: Grid,
        rounded: RoundedLayer | None,
    ) -> Tensor:
        """A scale for each output channel, [channels].

        A bias is held in steps of this scale times that of the activations: where weights are tiny
        beside it, the scale is as large as that needs.

        Raises:
            UsageError: a weight is NaN or infinite.
        """
        top = finite_weight(layer, self.program).flatten(1).abs().amax(1)
        scale = grid.parameters(-top, top)[0] if rounded is None else rounded.scale
        if bias is None:
            return scale
        step = self._step(reads(layer))
        least = evaluate(bias, self.program).abs() / step / _LARGEST_BIAS
        # Of a channel without weights any scale will do for them: the bias alone decides.
        scale = torch.where((top == 0) & (least > 0), least, scale)
        return torch.maximum(scale, least)

    def _step(self, rounded: Node) -> Tensor:
        """The scale of a value or a weight that is rounded."""
        return evaluate(arguments(rounded)["scale"], self.program)


def activation_limits(grid: Grid) -> tuple[int, int]:
    """The whole numbers of activations: the operators of runtimes use all that a dtype holds."""
    return (-128, 127) if grid.symmetric else (0, 255)
