"""ONNX as a ``Lowering``: programs in, ``model.onnx`` and its external data out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
from torch.fx.node import Node

from strop.compiler.ir.printer import module_path, source_line
from strop.compiler.ir.program import Program
from strop.compiler.lower.choices import Choices, shipped
from strop.compiler.lower.lowering import Lowering
from strop.compiler.lower.onnx.emitter import MADE_FROM
from strop.compiler.lower.onnx.lowering import SHARED_CACHES, lower_to_onnx
from strop.compiler.lower.onnx.write import write_beside, write_model
from strop.compiler.lower.provenance import CAPTURE, Provenance
from strop.compiler.lower.shared import SharedWeights
from strop.compiler.targets.target import MAIN, ONNX_DATA_FILE, OnnxTarget, Target, onnx_file


class LoweredToOnnx:
    """An ONNX model whose weights are read when it is written."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model

    @property
    def shared_caches(self) -> frozenset[str]:
        """Inputs that may lie in one buffer with the outputs that continue them."""
        shared: frozenset[str] = self.model.meta[SHARED_CACHES]
        return shared

    def write(
        self, folder: Path, program: str = MAIN, shared: SharedWeights | None = None
    ) -> list[str]:
        """Write the ONNX file, and ``model.onnx.data`` where weights are large or shared."""
        path = folder / onnx_file(program)
        if shared is None:
            return write_model(self.model, path)
        return write_beside(self.model, path, folder / ONNX_DATA_FILE, shared)

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
        return LoweredToOnnx(lower_to_onnx(program, target, choices or shipped(target)))

    def tuned(self, target: Target, progress: Callable[[str], None]) -> Choices:
        """The choices measured on this machine."""
        from strop.compiler.lower.onnx.tune import tuned

        assert isinstance(target, OnnxTarget)
        return tuned(target, progress)


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
