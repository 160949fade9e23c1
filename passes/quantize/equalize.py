"""The pass ``equalize``: weights of two layers in a row get channels of like size.

Cross-layer equalization (Nagel et al., Data-Free Quantization Through Weight Equalization and Bias
Correction, 2019, section 4.1): channel c between two layers is divided by
``s[c] = sqrt(max|W1[c, :]| / max|W2[:, c]|)`` in the first and multiplied in the second, pair
after pair, until nothing changes. It needs no data, and outputs stay what they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from strop.compiler.ir.constants import weight_names
from strop.compiler.ir.nodes import arguments
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import Pass
from strop.compiler.rewriting.pattern import NEAR, Miss
from strop.compiler.rewriting.rules import Log
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.pairs import LAYERS, Pair, Slot, pairs
from strop.passes.quantize.selection import Selecting

# A sweep that changes no scale by more than this share is the last one.
_SETTLED = 1e-3


@dataclass(frozen=True)
class Equalize(Selecting, Pass):
    """Move scales between layers until weights before and after a channel have the same size.

    For layers with nothing between them but operators that a scale passes through (ReLU does,
    ReLU6, GELU and SiLU do not). Norms are left to ``smooth``.

    Attributes:
        only: weights of layers to change, by name or shell pattern; by default all.
        keep: weights of layers to leave as they are, by name or shell pattern.
        sweeps: at most so many times over all pairs.
    """

    name: ClassVar[str] = "equalize"
    # Packed, layers would share a weight that takes two scales.
    before = ("packed", "quantize", "quantize-static", "quantize-weights")

    sweeps: int = 20

    def __post_init__(self) -> None:
        """Refuse a number of sweeps below 1.

        Raises:
            UsageError: it is.
        """
        if self.sweeps < 1:
            raise UsageError(f"sweeps is {self.sweeps}; it must be 1 or more")

    def apply(self, program: Program, log: Log) -> None:
        self.selection.require_matches(program)
        chosen = self._chosen(program, log)
        for pair, scale in zip(chosen, _scales(chosen, program, self.sweeps)):
            if not bool((scale == 1).all()):
                for name, values in pair.folded(program.weights, scale).items():
                    program.set_weight(name, values, self.name)
                log.rewrote("equalized", pair.source)

    def _chosen(self, program: Program, log: Log) -> list[Pair]:
        """Pairs of two layers; why another layer has none is noted."""
        found = pairs(program)
        for node, miss in found.missed.items():
            if node.target in LAYERS:
                log.missed(self.name, node, miss)
        chosen = []
        for pair in found.found:
            if pair.source.target not in LAYERS:
                continue
            reason = self.selection.why_not(s.weight for s in (*pair.divided, *pair.multiplied))
            if reason is None:
                chosen.append(pair)
            else:
                log.missed(self.name, pair.source, Miss(reason, pair.source, NEAR))
        return chosen


def _scales(chosen: Sequence[Pair], program: Program, sweeps: int) -> list[Tensor]:
    """What the channels of each pair are divided by in all: float64 [channels]."""
    names = {s.weight for pair in chosen for s in (*pair.divided, *pair.multiplied)}
    weights = {name: program.weights[name].detach().double() for name in names}
    total = [torch.ones(pair.channels, dtype=torch.float64) for pair in chosen]
    for _ in range(sweeps):
        moved = 0.0
        for number, pair in enumerate(chosen):
            scale = _scale(pair, weights)
            weights.update(pair.folded(weights, scale))
            total[number] *= scale
            moved = max(moved, float((scale - 1).abs().max()))
        if moved <= _SETTLED:
            break
    return total


def _scale(pair: Pair, weights: Mapping[str, Tensor]) -> Tensor:
    """What each channel is divided by: float64 [channels]; 1 where a side has only zeros."""
    own = set(weight_names(arguments(pair.source)["weight"]))
    before = _largest((s for s in pair.divided if s.weight in own), weights, pair.channels)
    after = _largest(pair.multiplied, weights, pair.channels)
    there = (before > 0) & (after > 0) & before.isfinite() & after.isfinite()
    return torch.where(there, (before / after).sqrt(), torch.ones_like(before))


def _largest(slots: Iterable[Slot], weights: Mapping[str, Tensor], channels: int) -> Tensor:
    """The largest absolute value of each channel over some weights."""
    top = torch.zeros(channels, dtype=torch.float64)
    for slot in slots:
        values = weights[slot.weight].abs()
        places = slot.channel.expand(values.shape).flatten()
        top = top.scatter_reduce(0, places, values.flatten(), "amax")
    return top
