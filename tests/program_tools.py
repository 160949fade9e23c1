"""What pass tests share: small programs, their text, and their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import Tensor, nn

from strop.compiler import Model
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.ir.program import Program
from strop.compiler.lower.choices import shipped
from strop.compiler.lower.onnx.lowering import lower_to_onnx
from strop.compiler.rewriting.passes import Pass, PassResult
from strop.compiler.targets.target import get_target


class Wrapped(nn.Module):
    """A function of tensors as a module, with weights of the given names."""

    def __init__(self, function: Callable[..., Any], weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.function = function
        for name, weight in weights.items():
            self.register_parameter(name, nn.Parameter(weight))

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs, **dict(self.named_parameters()))


def program_of(
    function: Callable[..., Any] | nn.Module,
    *inputs: Tensor,
    dims: dict[int, dict[int, Any]] | None = None,
    **weights: Tensor,
) -> Program:
    """Capture a function or module of positional tensors called ``input_0``, ``input_1``, ...

    ``dims`` names the dynamic axes by the input's number.
    """
    module = function if isinstance(function, nn.Module) else Wrapped(function, weights)
    dynamic = {f"input_{i}": axes for i, axes in (dims or {}).items()}
    model = Model(_Positional(module).eval(), inputs, dynamic=dynamic)
    signature, example, _ = read_inputs(model)
    with torch.no_grad():
        return capture(model.module, signature, example)


class _Positional(nn.Module):
    """Takes any number of tensors, so that they are called ``input_0``, ``input_1``, ..."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Tensor) -> Any:
        return self.inner(*inputs)


def body(program: Program) -> str:
    """The program's text without source lines and without the wrapper's weight prefix."""
    lines = [line.split("  # ")[0].rstrip() for line in str(program).splitlines()]
    return "\n".join(lines).replace("@inner.", "@").strip()


def counts(result: PassResult) -> dict[str, int]:
    """Rewrites by rule."""
    return dict(Counter(r.rule for r in result.log.rewrites))


def same_numbers(before: Program, after: Program, *inputs: Tensor, tolerance: float) -> None:
    """Both programs agree on the inputs, to an absolute tolerance."""
    feeds = {f"input_{i}": x for i, x in enumerate(inputs)}
    with torch.no_grad():
        for want, got in zip(before.run(**feeds), after.run(**feeds)):
            torch.testing.assert_close(got, want, rtol=0, atol=tolerance, equal_nan=True)


def session(program: Program) -> Any:
    """ONNX Runtime on the program lowered for the CPU."""
    model = lower_to_onnx(program, get_target("cpu"), shipped(get_target("cpu")))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    data = ir.serde.serialize_model(model).SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run_passes(program: Program, *passes: Pass) -> Program:
    """Run passes one after another."""
    for one in passes:
        program = one.run(program).program
    return program


def assert_left_alone(one: Pass, program: Program, reason: str) -> None:
    """The pass changes nothing, and gives this reason for one of its near misses."""
    result = one.run(program)
    assert not result.modified, body(result.program)
    reasons = [miss.reason for miss in result.log.misses]
    assert any(reason in said for said in reasons), reasons
