"""The ladder: every layer with what it costs and saves, those first that are kept first."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from strop.passes.quantize.control.layers import Layer
from strop.passes.quantize.control.savings import Weigh

_UNITS = {"latency": "of the time", "multiply-adds": "of the multiply-adds"}


@dataclass(frozen=True)
class Rung:
    """One layer.

    Attributes:
        layer: that can be quantized.
        cost: the distance of the outputs that it makes alone.
        saving: the share of one run that it saves.
    """

    layer: Layer
    cost: float
    saving: float

    @property
    def worth(self) -> float:
        """What keeping it gains, over what that takes; a layer that saves nothing comes first."""
        return self.cost / self.saving if self.saving > 0 else math.inf


def ladder(layers: Sequence[Layer], costs: Sequence[float], saved: Sequence[float]) -> list[Rung]:
    """The layers, most worth keeping first; of equals, those that cost more."""
    rungs = map(Rung, layers, costs, saved)
    return sorted(rungs, key=lambda rung: (-rung.worth, -rung.cost))


def ladder_text(rungs: Sequence[Rung], weigh: Weigh, kept: Collection[Layer] = ()) -> str:
    """A line for each layer: its name, what it costs, what it saves, and whether it is kept."""
    width = max((len(rung.layer.name) for rung in rungs), default=0)
    lines = [f"{'layer':{width}}  {'costs':>9}  saves ({_UNITS[weigh]})"]
    for rung in rungs:
        mark = "  kept in float" if rung.layer in kept else ""
        name = f"{rung.layer.name:{width}}"
        lines.append(f"{name}  {rung.cost:9.2e}  {rung.saving:7.2%}{mark}")
    return "\n".join(lines)
