"""Choose the whole numbers of a program's weights by one of the methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx.node import Node

from strop.compiler.ir.constants import evaluate
from strop.compiler.ir.nodes import input_node, shape_of
from strop.compiler.ir.printer import describe
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.pattern import Match
from strop.passes.quantize.calibration import observe
from strop.passes.quantize.grouped import Scheme, WeightRule, key_of
from strop.passes.quantize.methods import METHODS, WITH_DATA, Layer, MethodName, Moments, Settings
from strop.passes.quantize.methods.awq import channel_scale, scaled
from strop.passes.quantize.pairs import pairs

# Second moments are collected in several runs over the data where they would take more than this.
_MOST_BYTES = 2 << 30


@dataclass
class Place:
    """A weight under one scheme, and the calls that read it.

    Attributes:
        weight: the constant, which may be an expression of weights.
        scheme: how it is to be held.
        calls: in program order.
        moments: of what it is multiplied with, if it is read by one linear layer alone and the
            method looks at that.
    """

    weight: Node
    scheme: Scheme
    calls: list[Node]
    moments: Moments | None = None

    def layer(self, program: Program) -> Layer:
        """The weight as methods see it."""
        weight = evaluate(self.weight, program).float()
        groups = self.scheme.groups(weight.shape[1])
        return Layer(weight, groups, self.scheme.bits, self.scheme.symmetric, self.moments)


def places(program: Program, rules: Sequence[WeightRule]) -> list[Place]:
    """Every weight that the rules would rewrite."""
    found: dict[tuple[Node, Scheme], Place] = {}
    for rule in rules:
        for root in program.find(*rule.targets()):
            match = rule.match(root, program)
            if isinstance(match, Match):
                key = (match["weight"], rule.scheme_of(match["weight"]))
                found.setdefault(key, Place(*key, [])).calls.append(root)
    return list(found.values())


def with_moments(found: Sequence[Place], program: Program, context: Context, batches: int) -> None:
    """Give its moments to every place that one linear layer alone reads.

    Raises:
        UsageError: the program does not run on the data, or a value becomes NaN or infinite.
    """
    alone = [
        place
        for place in found
        if len(place.calls) == 1 and place.calls[0].target is torch.ops.aten.linear.default
    ]
    inputs = list(dict.fromkeys(input_node(place.calls[0]) for place in alone))
    for part in _parts(inputs):
        seen = {node: Moments() for node in part}
        observe(program, seen.items(), context, batches)
        for place in alone:
            place.moments = seen.get(input_node(place.calls[0]), place.moments)


def _parts(inputs: Sequence[Node]) -> Iterator[list[Node]]:
    """Inputs whose second moments fit into memory together."""
    part: list[Node] = []
    taken = 0
    for node in inputs:
        size = 8 * int(shape_of(node)[-1]) ** 2
        if part and taken + size > _MOST_BYTES:
            yield part
            part, taken = [], 0
        part.append(node)
        taken += size
    if part:
        yield part


def few_rows(found: Sequence[Place], method: str) -> str | None:
    """What the user should know where data has fewer rows than layers have input channels."""
    few = [
        place
        for place in found
        if place.moments is not None and place.moments.rows < int(shape_of(place.weight)[1])
    ]
    if not few:
        return None
    worst = max(few, key=lambda place: int(shape_of(place.weight)[1]))
    assert worst.moments is not None
    return (
        f"{method}: {len(few)} of {len(found)} weights saw fewer rows of data than they have input "
        f"channels, as {describe(worst.calls[0])}, with {worst.moments.rows} rows for "
        f"{int(shape_of(worst.weight)[1])} channels: give more calibration data"
    )


def scaled_channels(found: Sequence[Place], program: Program) -> dict[str, Tensor]:
    """AWQ: scale the channels between a norm or layer and the places that read them.

    The weights of the program and the moments of the places are changed accordingly.

    Returns:
        The new weights by name.
    """
    by_call = {place.calls[0]: place for place in found if place.moments is not None}
    made: dict[str, Tensor] = {}
    for pair in pairs(program).found:
        readers = [(by_call[r.node], r.channel) for r in pair.readers if r.node in by_call]
        layers = [(place.layer(program), channel) for place, channel in readers]
        scale = channel_scale(layers, pair.channels) if layers else None
        if scale is None:
            continue
        new = pair.folded(program.weights, scale)
        for name, tensor in new.items():
            program.set_weight(name, tensor, "awq")
        made |= new
        for (place, channel), (layer, _) in zip(readers, layers):
            place.moments = scaled(layer, scale[channel]).moments
    return made


def chosen(
    found: Sequence[Place],
    program: Program,
    method: MethodName,
    settings: Settings,
    context: Context,
) -> dict[str, Tensor]:
    """``KEY/scale``, ``KEY/zero_point`` and ``KEY/weight`` of every place, as ``Grids`` wants them.

    A weight that is read in several places, as one that is tied to a table, is rounded without
    data: its grid must serve them all.
    """
    tensors: dict[str, Tensor] = {}
    for number, place in enumerate(found, 1):
        key = key_of(place.weight, place.scheme)
        context.progress(f"{method}: weight {number} of {len(found)}")
        by_data = method in WITH_DATA and place.moments is not None
        use = METHODS[method if by_data or method not in WITH_DATA else "mse"]
        with torch.no_grad():
            made = use(place.layer(program), settings)
        parts: Mapping[str, Tensor | None] = vars(made)
        tensors |= {f"{key}/{name}": t for name, t in parts.items() if t is not None}
    return tensors
