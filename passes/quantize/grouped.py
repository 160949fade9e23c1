"""Linear layers and tables as operators on weights of a few bits, in groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.constants import weight_names
from strop.compiler.ir.nodes import arguments, dtype_of, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Rule
from strop.compiler.targets.target import Target
from strop.passes.quantize.layers import linear_layer
from strop.passes.quantize.selection import Selection

aten = torch.ops.aten
strop = torch.ops.strop

_WIDE = 8


@dataclass(frozen=True)
class Scheme:
    """How a weight is held.

    Attributes:
        bits: of a whole number.
        group: values that share a scale; 0 for a whole row.
        symmetric: without zero points.
    """

    bits: int
    group: int
    symmetric: bool

    def wide(self) -> Scheme:
        """The same in 8 bits."""
        return replace(self, bits=_WIDE)

    def groups(self, size: int) -> int:
        """In how many groups a row of so many values is cut."""
        return size // self.group if self.group else 1

    def refused_by(self, target: Target) -> str | None:
        """Why a target holds no weight like this, or None where it does."""
        if self.bits > target.weight_bits:
            return f"{target.name} has no products with packed weights of {self.bits} bits"
        if not (self.symmetric or target.weight_zero_points):
            return f"{target.name} takes symmetric weights only: set symmetric=true"
        if target.weight_groups and self.group not in target.weight_groups:
            taken = " or ".join(map(str, target.weight_groups))
            return f"{target.name} takes groups of {taken} input channels only: set group"
        return None

    def why_not(self, weight: Node, program: Program, target: Target) -> str | None:
        """Why a weight cannot be held like this, or None where it can."""
        dtype, size = dtype_of(weight), int(shape_of(weight)[1])
        if not target.fuses(dtype):
            return f"{target.name} has no products with packed weights in {dtype}"
        if self.group and size % self.group:
            return f"groups of {self.group} do not divide its {size} input channels"
        for name in weight_names(weight):
            if not bool(program.weights[name].isfinite().all()):
                return f"weight '{name}' holds NaN or infinity, which no scale fits"
        return None


def key_of(weight: Node, scheme: Scheme) -> str:
    """The name under which a method's choice for a weight is kept; one for all that read it."""
    return f"{_name(weight)}/{scheme.bits}"


def _name(weight: Node) -> str:
    return str(weight.target) if weight.op == "get_attr" else weight.name


Grid = tuple[Node, Node, Node | None]
"""A weight, its scales and its zero points."""


@dataclass
class Grids:
    """Puts the grids of weights into a program.

    Attributes:
        tensors: what a method chose: ``KEY/scale``, ``KEY/zero_point`` and ``KEY/weight``.
        learnable: scales are weights that can be trained.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    learnable: bool = False
    _made: dict[tuple[Node, Scheme], Grid] = field(default_factory=dict)

    def of(self, weight: Node, scheme: Scheme, build: Builder) -> Grid:
        """The weight, its scales and its zero points; the same ones where it is used again."""
        if (weight, scheme) not in self._made:
            # Before every call that may share it.
            self._made[weight, scheme] = self._grid(weight, scheme, build.at(min(weight.users)))
        return self._made[weight, scheme]

    def _grid(self, weight: Node, scheme: Scheme, build: Builder) -> Grid:
        key, name = key_of(weight, scheme), _name(weight)
        if f"{key}/scale" not in self.tensors:
            return weight, *_from_weight(weight, scheme, build)
        sources = _sources(weight, build.program)
        scale = build.weight(f"{name}.scale", self.tensors[f"{key}/scale"], sources)
        zero = self.tensors.get(f"{key}/zero_point")
        zeros = None if zero is None else build.weight(f"{name}.zero_point", zero, sources)
        if self.learnable:
            scale = _learnable(name, scale, sources, build)
        values = self.tensors.get(f"{key}/weight")
        if values is not None:
            weight = build.weight(f"{name}.rounded", nn.Parameter(values), sources)
        return weight, scale, zeros


def _from_weight(weight: Node, scheme: Scheme, build: Builder) -> tuple[Node, Node | None]:
    """Scales and zero points that are computed from the weight, also while it is trained."""
    groups = scheme.groups(int(shape_of(weight)[1]))
    scale = build.call(strop.group_scale.default, weight, groups, scheme.bits, scheme.symmetric)
    if scheme.symmetric:
        return scale, None
    return scale, build.call(strop.group_zero_point.default, weight, scale, scheme.bits)


def _learnable(name: str, scale: Node, sources: tuple[str, ...], build: Builder) -> Node:
    """scale * exp(t), with t trained from 0.

    Jain et al., Trained Quantization Thresholds (2020), section 4: an optimizer such as Adam moves
    all numbers by as much, which only logarithms of scales can bear.
    """
    start = torch.zeros(tuple(int(s) for s in shape_of(scale)))
    factor = build.weight(f"{name}.log_scale", nn.Parameter(start), sources)
    return build.call(aten.mul.Tensor, scale, build.call(aten.exp.default, factor))


def _sources(weight: Node, program: Program) -> tuple[str, ...]:
    """What the weight was in the original model."""
    names = weight_names(weight)
    return tuple(dict.fromkeys(s for n in names for s in program.origins[n].sources))


@dataclass(frozen=True)
class WeightRule(Rule):
    """A rule for calls that read a weight.

    Attributes:
        scheme: how weights are held.
        selection: which ones.
        grids: where the rewritten calls take them from.
        wide: the names of weights that are held in 8 bits instead.
    """

    scheme: Scheme
    selection: Selection = Selection()
    grids: Grids = field(default_factory=Grids)
    wide: frozenset[str] = frozenset()

    def scheme_of(self, weight: Node) -> Scheme:
        """How a weight is held."""
        is_wide = not self.wide.isdisjoint(weight_names(weight))
        return self.scheme.wide() if is_wide else self.scheme


@dataclass(frozen=True)
class NbitsLinear(WeightRule):
    """A linear layer on a constant weight."""

    name = "linear-nbits"
    roots = (aten.linear.default,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        found = linear_layer(root, program, self.selection)
        if isinstance(found, Miss):
            return found
        if reason := self.scheme.why_not(found["weight"], program, self.target):
            return Miss(reason, root, NEAR)
        return Match(root, found, [root])

    def rewrite(self, match: Match, build: Builder) -> Node:
        scheme = self.scheme_of(match["weight"])
        grid = self.grids.of(match["weight"], scheme, build)
        return build.call(
            strop.linear_nbits.default, match["input"], *grid, match["bias"], scheme.bits
        )


@dataclass(frozen=True)
class NbitsEmbedding(WeightRule):
    """An embedding table."""

    name = "embedding-nbits"
    roots = (aten.embedding.default,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        values = arguments(root)
        weight = values["weight"]
        if weight.op != "get_attr":
            return Miss("the table is computed", root, NEAR)
        if reason := self.selection.why_not([str(weight.target)]):
            return Miss(reason, root, NEAR)
        if reason := self.scheme.why_not(weight, program, self.target):
            return Miss(reason, root, NEAR)
        if (size := int(shape_of(weight)[1])) % 16:
            return Miss(f"its rows of {size} values are no multiple of 16", root, NEAR)
        return Match(root, values, [root])

    def rewrite(self, match: Match, build: Builder) -> Node:
        scheme = self.scheme_of(match["weight"])
        grid = self.grids.of(match["weight"], scheme, build)
        return build.call(strop.embedding_nbits.default, *grid, match["indices"], scheme.bits)
