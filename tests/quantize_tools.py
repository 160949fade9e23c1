"""What tests of static quantization share."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from program_tools import program_of
from torch import Tensor, nn

from strop.compiler.ir.program import Program
from strop.compiler.lower.choices import shipped
from strop.compiler.lower.onnx.lowering import lower_to_onnx
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.passes import Pass, PassResult
from strop.compiler.targets.target import get_target
from strop.passes.cleanup.noops import Noops
from strop.passes.quantize.static import QuantizeStatic


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def quantized(
    made: Program, *batches: Tensor, by: Pass | None = None, **context: Any
) -> PassResult:
    """The program after static quantization, calibrated on batches of its only input."""
    data = [{"input_0": batch} for batch in batches]
    return (by or QuantizeStatic()).run(made, context=Context(calibration=data, **context))


def seeded(module: nn.Module) -> nn.Module:
    """The module with weights that are the same every time."""
    generator = torch.Generator().manual_seed(0)
    for weight in module.parameters():
        fan_in = weight[0].numel() if weight.dim() > 1 else 10
        weight.data = torch.randn(weight.shape, generator=generator) / fan_in**0.5
    return module


def program(module: nn.Module, x: Tensor, rows: bool = True) -> Program:
    """The module captured with a dynamic batch, and cleaned."""
    dims = {0: {0: ("rows", 1, 64)}} if rows else None
    return Noops().run(program_of(seeded(module), x, dims=dims)).program


def runtime_operators(made: Program) -> Counter[str]:
    """The operators of the graph that ONNX Runtime makes of a program for the CPU."""
    cpu = get_target("cpu")
    model = ir.serde.serialize_model(lower_to_onnx(made, cpu, shipped(cpu)))
    return Counter(node.op_type for node in optimized(model.SerializeToString()).node)


def optimized(model: bytes) -> Any:
    """The graph that a default session of ONNX Runtime runs."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath).graph


def closeness(got: Sequence[Any], want: Sequence[Tensor]) -> float:
    """The least cosine of the outputs of two runs."""
    pairs = [
        (torch.as_tensor(g).detach().flatten(), w.detach().flatten()) for g, w in zip(got, want)
    ]
    return min(float(torch.cosine_similarity(g, w, dim=0)) for g, w in pairs)
