"""ONNX as a ``Lowering``: programs in, ``model.onnx`` and its external data out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch.fx.node import Node

from strop.compiler.ir.caches import cache_inputs
from strop.compiler.ir.nodes import arguments
from strop.compiler.ir.printer import module_path, source_line
from strop.compiler.ir.program import Program
from strop.compiler.lower.choices import Choices, shipped
from strop.compiler.lower.lowering import Lowering
from strop.compiler.lower.onnx.emitter import MADE_FROM
from strop.compiler.lower.onnx.lowering import COPIED_CACHES, SHARED_CACHES, lower_to_onnx
from strop.compiler.lower.onnx.rules.weight_only import FAST_IN_FLOAT
from strop.compiler.lower.onnx.table import choose
from strop.compiler.lower.onnx.write import write_beside, write_model
from strop.compiler.lower.provenance import CAPTURE, Provenance
from strop.compiler.lower.shared import SharedWeights
from strop.compiler.targets.target import (
    MAIN,
    ONNX_DATA_FILE,
    PREFILL,
    OnnxTarget,
    Target,
    onnx_file,
)

_PACKED = torch.ops.strop.linear_nbits.default
# Rows from which products are no longer bound by reading the weights, as for one new token.
FEW, MANY = 16, 128


class LoweredToOnnx:
    """An ONNX model whose weights are read when it is written."""

    def __init__(self, model: ir.Model, many: ir.Model | None = None) -> None:
        """Keep the graphs.

        Args:
            model: what runs at all sizes.
            many: the same with the emitters that are fastest at many new tokens; None where those
                are no others.
        """
        self.model, self._many = model, many

    @property
    def shared_caches(self) -> frozenset[str]:
        """Inputs that may lie in one buffer with the outputs that continue them."""
        shared: frozenset[str] = self.model.meta[SHARED_CACHES]
        return shared

    @property
    def copied_caches(self) -> dict[str, str]:
        """Why others may not, by input."""
        copied: dict[str, str] = self.model.meta[COPIED_CACHES]
        return copied

    @property
    def prefill(self) -> str:
        """After what the second file of a decoder is named, for many new tokens; "" for none."""
        return PREFILL if self._many is not None else ""

    def write(
        self, folder: Path, program: str = MAIN, shared: SharedWeights | None = None
    ) -> list[str]:
        """Write the ONNX file, and ``model.onnx.data`` where weights are large or shared."""
        path, data = folder / onnx_file(program), folder / ONNX_DATA_FILE
        if self._many is not None and program == MAIN:
            shared = shared or SharedWeights()
            second = folder / onnx_file(PREFILL)
            first = write_beside(self.model, path, data, shared)
            return [*first, *write_beside(self._many, second, data, shared)]
        if shared is None:
            return write_model(self.model, path)
        return write_beside(self.model, path, data, shared)

    def provenance(self) -> list[Provenance]:
        """Where every node of the file comes from, in order."""
        return [_of(node, node.meta[MADE_FROM]) for node in self.model.graph]


class OnnxLowering:
    """Lowers to ONNX by the table of this room."""

    def lower(
        self, program: Program, target: Target, choices: Choices | None = None
    ) -> LoweredToOnnx:
        """Lower a program for ONNX Runtime."""
        assert isinstance(target, OnnxTarget)
        choices = choices or shipped(target)
        few, many = choices.for_rows(1, FEW), choices.for_rows(MANY)
        if not _differ(program, few, many):
            return LoweredToOnnx(lower_to_onnx(program, target, choices))
        return LoweredToOnnx(*(lower_to_onnx(program, target, one) for one in (few, many)))

    def tuned(self, target: Target, progress: Callable[[str], None]) -> Choices:
        """The choices measured on this machine."""
        from strop.compiler.lower.onnx.tune import tuned

        assert isinstance(target, OnnxTarget)
        return tuned(target, progress)


def _differ(program: Program, few: Choices, many: Choices) -> bool:
    """Whether products of a decoder with caches are faster by another emitter at many rows.

    Only those of packed weights: two graphs of plain weights would each keep a copy in memory.
    """
    widths = [int(arguments(node)["bits"]) for node in program.find(_PACKED)]
    if not any(bits <= FAST_IN_FLOAT for bits in widths) or not cache_inputs(program):
        return False
    return choose(_PACKED, few) is not choose(_PACKED, many)


def _of(node: Any, made_from: Node) -> Provenance:
    return Provenance(
        name=node.name,
        op=node.op_type,
        values=tuple(value.name for value in node.outputs),
        ir=made_from.name,
        rule=made_from.meta.get("made_by", CAPTURE),
        line=source_line(made_from),
        module=module_path(made_from),
    )


LOWERING: Lowering = OnnxLowering()
