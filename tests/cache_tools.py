"""Programs whose caches grow, files that run with caches in larger buffers, and padding masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import Tensor, nn

from strop.compiler.frontend.export.capture import trace
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.frontend.model import DimSpec, Model
from strop.compiler.ir.program import Program
from strop.compiler.lower.choices import shipped
from strop.compiler.lower.onnx.lowering import lower_to_onnx
from strop.compiler.targets.target import CPU, OnnxTarget
from strop.compiler.util.numerics import Array

CAPACITY = 64


class _Named(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, **inputs: Tensor) -> Any:
        return self.function(**inputs)


def traced(model: Model) -> Program:
    """A model as captured."""
    signature, example, _ = read_inputs(model)
    with torch.no_grad():
        return trace(model.module, signature, example).program


def program_of(
    function: Callable[..., Any],
    inputs: Mapping[str, Tensor],
    dynamic: Mapping[str, Mapping[int, DimSpec]],
) -> Program:
    """Capture a function of tensors by name."""
    return traced(Model(_Named(function).eval(), inputs, dynamic=dynamic))


def file_of(program: Program, target: OnnxTarget = CPU) -> tuple[Any, ir.Model]:
    """A session on the lowered program, and the file itself."""
    model = lower_to_onnx(program, target, shipped(target))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    data = ir.serde.serialize_model(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session, model


def run_shared(
    session: Any, inputs: Mapping[str, Tensor], caches: Mapping[str, str]
) -> dict[str, Array]:
    """Outputs where each cache and what continues it are one buffer of ``CAPACITY`` places."""
    binding, buffers = session.io_binding(), {}
    for name, tensor in inputs.items():
        if name not in caches:
            binding.bind_cpu_input(name, tensor.numpy())
            continue
        batch, heads, past, size = tensor.shape
        # NaN would come out wherever something is read that was not written.
        nothing = np.nan if tensor.is_floating_point() else 127
        whole = np.full((batch, heads, CAPACITY, size), nothing, dtype=tensor.numpy().dtype)
        whole[:, :, :past] = tensor
        buffers[caches[name]] = ort.OrtValue.ortvalue_from_numpy(whole)
        binding.bind_ortvalue_input(name, buffers[caches[name]])
        binding.bind_ortvalue_output(caches[name], buffers[caches[name]])
    others = [o.name for o in session.get_outputs() if o.name not in buffers]
    for name in others:
        binding.bind_output(name)
    session.run_with_iobinding(binding)
    made = dict(zip(others, binding.get_outputs()[len(buffers) :]))
    # Copies: what the runtime gives lies in memory that goes with the binding.
    return {name: np.array(value.numpy()) for name, value in (made | buffers).items()}


def padded(batch: int, total: int, kind: str) -> Tensor:
    """A mask, [batch, total] int64: each row has one place of padding more than the row before."""
    mask = torch.ones(batch, total, dtype=torch.int64)
    first = {"none": total, "left": 0, "middle": 1}.get(kind)
    for row in range(batch):
        count = min(row, total - 1)
        start = total - count if first is None else first
        mask[row, start : start + count] = 0
    return mask
