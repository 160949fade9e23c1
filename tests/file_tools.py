"""A function of tensors as a file in ONNX Runtime, after every pass, against torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import Tensor, nn

import strop.compiler.ir.dialect  # noqa: F401
from strop.compiler import Model
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.ir.program import Program
from strop.compiler.ir.stale import verify_types
from strop.compiler.ir.verifier import verify
from strop.compiler.lower.choices import Choices
from strop.compiler.lower.onnx.lowering import lower_to_onnx
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.targets.target import get_target

Function = Callable[..., Any]


class Called(nn.Module):
    """A function of up to three tensors, named x, y and z, as a module."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor | None = None, z: Tensor | None = None) -> Any:
        return self.function(*(t for t in (x, y, z) if t is not None))


class File:
    """A function captured, rewritten by every pass of a recipe, lowered and opened.

    Attributes:
        function: what was captured.
        program: after the passes.
        model: as lowered.
    """

    def __init__(
        self, function: Function, inputs: Sequence[Tensor], axes: dict[str, Any] | None = None
    ) -> None:
        self.function = function
        module = function if isinstance(function, nn.Module) else Called(function)
        model = Model(module.eval(), dict(zip("xyz", inputs)), dynamic=axes)
        self.program = _optimized(model)
        self.model = lower_to_onnx(self.program, get_target("cpu"), Choices({}))
        data = ir.serde.serialize_model(self.model).SerializeToString()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(self, *inputs: Tensor) -> list[Any]:
        """The file's outputs, as arrays."""
        fed = {i.name for i in self.session.get_inputs()}
        named = zip("xyz", inputs)
        outputs: list[Any] = self.session.run(None, {n: t.numpy() for n, t in named if n in fed})
        return outputs

    def agrees(self, *inputs: Tensor, tolerance: float = 1e-5) -> None:
        """Hold shapes, dtypes and values to the function's own."""
        with torch.no_grad():
            want = self.function(*(t.clone() for t in inputs))
        wanted = want if isinstance(want, (tuple, list)) else (want,)
        for a, b in zip(self.run(*inputs), wanted, strict=True):
            assert (a.dtype, a.shape) == (b.numpy().dtype, tuple(b.shape))
            scale = max(1.0, float(np.abs(b.numpy()).max(initial=0)))
            np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=tolerance * scale)


def _optimized(model: Model) -> Program:
    signature, example, _ = read_inputs(model)
    with torch.no_grad():
        program = capture(model.module, signature, example)
        verify_types(program)
        program = load_recipe("cpu-fp32").pipeline().run(program)
    verify(program)
    verify_types(program)
    return program
