"""How much it costs to quantize each layer alone: measured, or estimated by gradients.

Both go once over the batches, and in float the program runs once for each of them. For the measured
cost, it runs again for every layer, from the layer's place on: half a run, on average. For the
estimate it goes backwards a few times, and only the layers themselves are computed anew, so the
whole takes time linear in the size of the program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.batches import first_batches, on_batch
from strop.compiler.rewriting.context import Batch, Context, mixed, seeded
from strop.passes.quantize.control.distance import DISTANCES, Kind, require_floats
from strop.passes.quantize.control.layers import Layer
from strop.passes.quantize.control.patch import Patch, Values
from strop.passes.quantize.control.scheme import Scheme

Method = Literal["output", "gradient"]
Result = tuple[str, int]
"""One of the results of a call, by the name of that and its place: most have one alone."""
# Random directions of each batch: the estimate of one direction is off by its own size.
DIRECTIONS = 4


@dataclass(frozen=True)
class Sweep:
    """How the cost of layers is found.

    Attributes:
        method: "output" runs the program with each layer quantized and compares its outputs;
            "gradient" estimates by derivatives how far they move.
        distance: of outputs, "cosine" or "kl"; the estimate is of the cosine's.
        batches: how many of the calibration data are looked at.
    """

    method: Method = "output"
    distance: Kind = "cosine"
    batches: int = 8

    def costs(
        self, program: Program, scheme: Scheme, layers: Sequence[Layer], context: Context
    ) -> list[float]:
        """The distance of the outputs from those in float with each layer quantized alone.

        Args:
            program: in float.
            scheme: that quantizes.
            layers: of the program.
            context: has the data, and is told how far it is.

        Returns:
            One number a layer, the mean over the batches.
        """
        patches = [Patch.between(program, scheme.alone(program, [layer])) for layer in layers]
        sums = [0.0] * len(layers)
        count = 0
        for count, batch in enumerate(first_batches(context, self.batches), 1):
            context.progress(f"costs of {len(layers)} layers: batch {count} of {self.batches}")
            found = self._of_batch(program, patches, batch, count)
            sums = [total + cost for total, cost in zip(sums, found)]
        return [total / max(count, 1) for total in sums]

    def _of_batch(
        self, program: Program, patches: Sequence[Patch], batch: Batch, number: int
    ) -> Iterator[float]:
        if self.method == "output":
            return self._measured(program, patches, batch)
        return _estimated(program, patches, batch, number)

    @torch.no_grad()
    def _measured(
        self, program: Program, patches: Sequence[Patch], batch: Batch
    ) -> Iterator[float]:
        values, want = _run(program, batch)
        distance = DISTANCES[self.distance]
        return iter([distance(patch.run(program, values), want) for patch in patches])


def _run(
    program: Program, batch: Batch, weights: Mapping[str, Tensor] | None = None
) -> tuple[Values, tuple[Tensor, ...]]:
    """All values of a run by the names of their nodes, and the outputs."""
    values: Values = {}
    outputs = on_batch(program, batch, weights=weights,
                       watch=lambda node, value: values.update({node.name: value}))  # fmt: skip
    return values, outputs


def _estimated(
    program: Program, patches: Sequence[Patch], batch: Batch, number: int
) -> Iterator[float]:
    """Half the squared error of a row over its squared size, mean of the outputs' rows.

    To the first order, with J the derivative of the outputs y by a layer's result, and d what
    rounding changes in that, the error is J d. For a direction v of random signs, (v · J d)² has
    the mean |J d|² (Hutchinson, 1990), and v · J is one backward pass for all layers. Where the
    error is small, 1 - cosine(y, y + J d) is at most |J d|² / (2 |y|²), row by row.
    """
    with torch.enable_grad():
        weights = {name: _differentiable(w) for name, w in program.weights.items()}
        values, outputs = _run(program, batch, weights)
    require_floats(outputs)
    with torch.no_grad():
        moved = [_moved(patch, values, outputs) for patch in patches]
    results = sorted({result for one, _ in moved for result in one})
    inner = [pytree.tree_leaves(values[name])[i] for name, i in results]
    totals = [0.0] * len(patches)
    with seeded(mixed(number)):
        for _ in range(DIRECTIONS):
            directions = [_direction(y.detach()) for y in outputs]
            slopes = dict(zip(results, _gradients(outputs, directions, inner)))
            for place, (inside, outside) in enumerate(moved):
                along = sum(_dot(slopes[result], by) for result, by in inside.items())
                along += sum(_dot(directions[i], by) for i, by in outside.items())
                totals[place] += along**2
    return (total / (2 * DIRECTIONS) for total in totals)


def _moved(
    patch: Patch, values: Values, outputs: Sequence[Tensor]
) -> tuple[dict[Result, Tensor], dict[int, Tensor]]:
    """What rounding changes in the results of calls, and in outputs, by place.

    Of float tensors alone; each as if no other value had changed.
    """
    named, placed = patch.changes(values)
    inside = {
        (name, i): new - old
        for name, found in named.items()
        for i, (new, old) in enumerate(zip(*map(pytree.tree_leaves, (found, values[name]))))
        if isinstance(old, Tensor) and old.requires_grad
    }
    outside = {i: new - outputs[i] for i, new in placed.items() if new.is_floating_point()}
    return inside, outside


def _gradients(
    outputs: Sequence[Tensor], directions: Sequence[Tensor], values: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    """How fast the outputs move along some directions with each value."""
    pairs = [(y, v) for y, v in zip(outputs, directions) if y.requires_grad]
    if not pairs or not values:
        return [None] * len(values)
    ends, along = zip(*pairs)
    found: Sequence[Tensor | None] = torch.autograd.grad(
        ends, list(values), along, retain_graph=True, allow_unused=True
    )
    return found


def _direction(output: Tensor) -> Tensor:
    """Random signs, over the size of each row (last axis) and the root of how many rows there are.

    Nothing counts of a row of zeros, of one that is not finite, or of an output of whole numbers.
    """
    if not output.is_floating_point() or not output.ndim:
        return torch.zeros_like(output)
    sizes = output.norm(dim=-1, keepdim=True)
    signs = torch.randint(0, 2, output.shape).to(output.dtype) * 2 - 1
    counts = (sizes > 0) & sizes.isfinite()
    return torch.where(counts, signs / sizes / sizes.numel() ** 0.5, 0.0)


def _dot(slope: Tensor | None, by: Tensor) -> float:
    return 0.0 if slope is None else float((slope * by).sum())


def _differentiable(weight: Tensor) -> Any:
    found = weight.detach()
    return found.requires_grad_() if found.is_floating_point() else found
