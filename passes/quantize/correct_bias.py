"""The pass ``correct-bias``: biases take back what rounding adds to a layer's output on average.

For a layer that computes q(x) instead of W x + b, the bias gains ``W E[x] + b - E[q(x)]`` for each
output channel, with means over the rows of the data (Nagel et al., Data-Free Quantization Through
Weight Equalization and Bias Correction, 2019, section 4.2, by data instead of batch norm).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.constants import evaluate, is_weight_expression, weight_names
from strop.compiler.ir.nodes import argument_names, arguments, dtype_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.learning import Learned
from strop.compiler.rewriting.pattern import NEAR, Miss
from strop.compiler.rewriting.rules import Log
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.calibrated import CalibratedPass
from strop.passes.quantize.calibration import observe
from strop.passes.quantize.layers import linear_layer

strop = torch.ops.strop

_LAYERS = (
    strop.linear_w8a8.default,
    strop.linear_w8a8_rows.default,
    strop.linear_nbits.default,
    strop.linear_fp8.default,
)


@dataclass
class Mean:
    """The mean row of a value over all batches.

    Attributes:
        total: float64 [channels].
        rows: how many were seen.
    """

    total: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    rows: int = 0

    def add(self, values: Tensor) -> None:
        """See the rows of one more batch, [..., channels]."""
        rows = values.flatten(0, -2) if values.dim() > 1 else values[None]
        self.total = self.total + rows.sum(0, dtype=torch.float64)
        self.rows += len(rows)

    @property
    def value(self) -> Tensor:
        """The mean, [channels]; there must be rows."""
        return self.total / self.rows


@dataclass(frozen=True)
class CorrectBias(CalibratedPass):
    """Correct the biases of quantized linear layers by the mean of their error on data.

    Static int8 does this by itself, with its rounding. What rounding of the layer's own weight and
    input adds is corrected; each layer is looked at on what the quantized program gives it.

    Attributes:
        only: weights of layers to correct, by name or shell pattern; by default all.
        keep: weights of layers to leave as they are, by name or shell pattern.
        batches: how many batches of data to look at.
        without_data: what to do where the model gives no data: "refuse", or "leave-out" this pass,
            with a note.
    """

    name = "correct-bias"
    after = ("quantize", "quantize-weights", "quantize-fp8")
    saves: ClassVar[str] = "takes the mean error out of the outputs of layers"

    def learn_from_data(self, program: Program, context: Context) -> Learned:
        """What each bias gains, by the name of the layer's weight: float64 [out]."""
        layers = self._layers(program, Log())
        seen = {node: (Mean(), Mean()) for node in layers.values()}
        places = [
            place
            for node, (before, behind) in seen.items()
            for place in ((_read(node), before), (node, behind))
        ]
        if not observe(program, places, context, self.batches):
            raise UsageError(f"pass '{self.name}': the calibration data has no rows")
        tensors = {
            name: _shift(node, *seen[node], program)
            for name, node in layers.items()
            if seen[node][0].rows
        }
        largest = {name: float(f"{shift.abs().max():.3g}") for name, shift in tensors.items()}
        return Learned(tensors, {"largest shift": largest})

    def _layers(self, program: Program, log: Log) -> dict[str, Node]:
        """What can be corrected, by the name of its weight; why others cannot is noted."""
        made = {}
        for node in (n for n in program.calls() if n.target in _LAYERS):
            found = linear_layer(node, program, self.selection)
            if not isinstance(found, Miss) and not _is_known(found["bias"]):
                found = Miss("its bias is computed from an input", node, NEAR)
            if isinstance(found, Miss):
                log.missed(self.name, node, found)
            else:
                made[weight_names(found["weight"])[0]] = node
        return made

    def apply_learned(self, program: Program, log: Log, learned: Learned) -> None:
        """Give the layers their new biases."""
        for name, node in self._layers(program, log).items():
            shift = learned.tensors.get(name)
            if shift is None or not bool(shift.any()):
                continue
            build = Builder(program, node, self.name)
            given = arguments(node)
            dtype = dtype_of(given["weight"])
            old = _bias(given, program)
            new = (shift if old is None else old.double() + shift).to(dtype)
            bias = build.weight(f"{name}.corrected_bias", new, program.origins[name].sources)
            values = [bias if key == "bias" else given[key] for key in argument_names(node)]
            corrected = build.call(node.target, *values)
            node.replace_all_uses_with(corrected)
            program.erase_dead([node])
            log.rewrote("bias-corrected", corrected)


def _read(layer: Node) -> Node:
    value: Node = arguments(layer)["x"]
    return value


def _is_known(bias: Any) -> bool:
    return bias is None or is_weight_expression(bias)


def _bias(given: dict[str, Any], program: Program) -> Tensor | None:
    return None if given["bias"] is None else evaluate(given["bias"], program).detach()


def _shift(layer: Node, before: Mean, behind: Mean, program: Program) -> Tensor:
    """What the layer would give on average in float, less what it gives: float64 [out]."""
    given = arguments(layer)
    weight, bias = evaluate(given["weight"], program).detach(), _bias(given, program)
    wanted = weight.double() @ before.value
    return wanted + (0 if bias is None else bias.double()) - behind.value
