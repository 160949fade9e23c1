"""The pass ``outliers``: the few neurons with massive values are computed apart, in float.

Some neurons between two linear layers take values many times as large as all others (Dettmers et
al., LLM.int8(), 2022, arXiv:2208.07339), often with large weights behind them too: one step for
all channels, and one for each row of the weight, then leaves few digits for the others. Where only
operators that work element by element stand between the layers, neurons can be parted:

    y = W_b f(W_a x)  =  W_b[:, most] f(W_a[most] x)  +  W_b[:, few] f(W_a[few] x)

The second term is so narrow that it costs next to nothing in float. Where the layer before can take
the division by a scale (``pairs.py``), smoothing does as much without a second branch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.constants import weight_names
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.learning import Learned
from strop.compiler.rewriting.pattern import NEAR, Miss
from strop.compiler.rewriting.rules import Log
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.calibrated import CalibratedPass
from strop.passes.quantize.layers import linear_layer
from strop.passes.quantize.neurons import Neurons, neurons_before
from strop.passes.quantize.pairs import Pair, pairs

aten = torch.ops.aten


@dataclass(frozen=True)
class SplitOutliers(CalibratedPass):
    """Compute the few neurons with massive values apart, in float, between linear layers.

    Attributes:
        count: how many neurons of a layer; a multiple of 16 leaves whole vectors.
        ratio: they are parted where the largest value is at least so many times as large as the
            largest of what is left without them.
        only: weights of the layers that read the neurons, by name or shell pattern; by default all.
        keep: weights of such layers to leave as they are, by name or shell pattern.
        batches: how many batches of data to look at.
        without_data: what to do where the model gives no data: "refuse", or "leave-out" this pass,
            with a note.
    """

    name = "outliers"
    before = ("smooth", "packed", "quantize", "quantize-static")
    saves: ClassVar[str] = "keeps massive values out of the range of all others"

    count: int = 16
    ratio: float = 2.5

    def __post_init__(self) -> None:
        """Refuse options outside of their ranges.

        Raises:
            UsageError: one is.
        """
        super().__post_init__()
        if self.count < 1:
            raise UsageError(f"count is {self.count}; it must be 1 or more")
        if self.ratio < 1:
            raise UsageError(f"ratio is {self.ratio}; it must be 1 or more")

    def learn_from_data(self, program: Program, context: Context) -> Learned:
        """Which neurons are parted, by the name of the weight behind them."""
        found = self._neurons(program, Log())
        values = [one.behind.all_input_nodes[0] for one in found.values()]
        seen = self.channels_of(values, 1, program, context)
        tensors, facts = {}, {}
        for (name, _), value in zip(found.items(), values):
            few, ratio = self._outliers(seen[value].top)
            if ratio >= self.ratio:
                tensors[name] = few
                facts[name] = {"neurons": few.tolist(), "ratio": float(f"{ratio:.3g}")}
        return Learned(tensors, {"layers": facts})

    def _outliers(self, top: Tensor) -> tuple[Tensor, float]:
        """The neurons with the largest values, and how much larger these are than the rest."""
        if len(top) <= 2 * self.count:
            return torch.empty(0, dtype=torch.int64), 0.0
        order = top.argsort(descending=True, stable=True)
        rest = float(top[order[self.count]])
        return order[: self.count].sort().values, float(top[order[0]]) / rest if rest else 0.0

    def _neurons(self, program: Program, log: Log) -> dict[str, Neurons]:
        """What can be parted, by the name of the weight behind; why others cannot is noted."""
        made, foldable = {}, pairs(program)
        for node in program.find(aten.linear.default):
            found: Neurons | Miss
            layer = linear_layer(node, program, self.selection)
            if isinstance(layer, Miss):
                found = layer
            elif isinstance(foldable.read_by(node), Pair):
                found = Miss("smoothing can take a scale into the layer before it", node, NEAR)
            else:
                found = neurons_before(node, program)
            if isinstance(found, Miss):
                log.missed(self.name, node, found)
            else:
                made[weight_names(node.args[1])[0]] = found  # type: ignore[arg-type]
        return made

    def apply_learned(self, program: Program, log: Log, learned: Learned) -> None:
        """Part the neurons."""
        for name, found in self._neurons(program, log).items():
            if name in learned.tensors:
                build = Builder(program, found.behind, self.name)
                total = found.split(learned.tensors[name], build)
                found.behind.replace_all_uses_with(total)
                program.erase_dead([found.behind])
                log.rewrote("outliers-apart", total)
