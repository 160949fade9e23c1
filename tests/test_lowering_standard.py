"""Files for runtimes other than ONNX Runtime: the standard's operators alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from program_tools import program_of
from quantize_tools import optimized, program, quantized, values
from torch import Tensor, nn
from torch.nn import functional as F

from strop.compiler.lower.choices import Choices, shipped
from strop.compiler.lower.onnx.lowering import lower_to_onnx
from strop.compiler.rewriting.context import Context
from strop.compiler.targets.target import ONNX, TENSORRT
from strop.passes.quantize.dynamic import QuantizeDynamic

strop = torch.ops.strop
ROWS = values(2, 5, 8)
WEIGHT = values(6, 8)
CASES: dict[str, Callable[[Tensor], Any]] = {
    "linear": lambda x: F.linear(x, WEIGHT),
    "linear with a bias": lambda x: F.linear(x, WEIGHT, WEIGHT[:, 0]),
    "linear in double": lambda x: F.linear(x.double(), WEIGHT.double()),
    "scaled sum": lambda x: torch.addmm(WEIGHT[:, :5].t(), x[0], WEIGHT.t(), beta=2, alpha=0.5),
    "batched sum": lambda x: torch.baddbmm(x, x @ x.mT, x, beta=0.5, alpha=2),
    "bias and GELU": lambda x: strop.bias_gelu(x, x[0, 0], "tanh"),
    "gate": lambda x: strop.gated(x, x + 1, "silu"),
    "sum and norm": lambda x: strop.skip_layer_norm(x, x + 1, WEIGHT[0], WEIGHT[1], 1e-5),
    "sum and root mean square": lambda x: strop.skip_rms_norm(x, x + 1, WEIGHT[0], 1e-5),
}


@pytest.mark.parametrize("name", CASES)
def test_no_operator_is_of_a_runtimes_own(name: str) -> None:
    made = program_of(CASES[name], ROWS)
    # Whatever was measured for ONNX Runtime.
    fastest = {
        op: {"contrib": {"any": 0.1}}
        for op in ("strop.bias_gelu", "strop.gated", "strop.skip_layer_norm", "strop.skip_rms_norm")
    }
    for choices in (shipped(ONNX), Choices(fastest)):
        model = lower_to_onnx(made, ONNX, choices)
        assert set(model.opset_imports) == {""}
        assert {node.domain for node in model.graph} == {""}
        run = ort.InferenceSession(ir.serde.serialize_model(model).SerializeToString())
        got = run.run(None, {"input_0": ROWS.numpy()})
        for one, want in zip(got, made.run(input_0=ROWS), strict=True):
            np.testing.assert_allclose(one, want, atol=1e-5)


def test_int8_products_with_scales_of_the_moment_stay_in_float() -> None:
    layer = strop.linear_w8a8
    made = program_of(lambda x: layer(x, WEIGHT, strop.int8_scale(WEIGHT), None), ROWS)
    assert {n.domain for n in lower_to_onnx(made, ONNX, shipped(ONNX)).graph} == {""}
    plain = program(nn.Linear(8, 6), ROWS)
    assert not QuantizeDynamic().run(plain, context=Context(target=ONNX)).modified


def test_static_int8_in_standard_form_is_what_the_runtime_fuses() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    images = values(2, 3, 8, 8)
    after = quantized(program(module, images), images, target=ONNX).program
    model = lower_to_onnx(after, ONNX, shipped(ONNX))
    assert {node.domain for node in model.graph} == {""}
    graph = optimized(ir.serde.serialize_model(model).SerializeToString())
    assert [n.op_type for n in graph.node].count("QLinearConv") == 2


def test_tensorrt_has_no_zero_points_and_float_biases() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    images = values(2, 3, 8, 8)
    after = quantized(program(module, images), images, target=TENSORRT).program
    model = lower_to_onnx(after, TENSORRT, shipped(TENSORRT))
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("Relu") == 1
    tensors = {n: v.const_value for n, v in model.graph.initializers.items()}
    zeros = [t for n, t in tensors.items() if t is not None and t.dtype == ir.DataType.INT8]
    assert all(not np.any(t.numpy()) for t in zeros if t.numpy().ndim < 2)
    assert not any(t is not None and t.dtype == ir.DataType.INT32 for t in tensors.values())
