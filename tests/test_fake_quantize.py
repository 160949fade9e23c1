"""``strop::fake_quantize``: its numbers, its gradients, and what becomes of it in the file."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from program_tools import program_of, run_passes, session
from torch import Tensor
from torch.nn import functional as F

from strop.compiler.ir.footprint import footprint
from strop.compiler.lower.choices import shipped
from strop.compiler.lower.onnx.lowering import lower_to_onnx
from strop.compiler.targets.target import get_target
from strop.passes.cleanup.constants import FoldConstants

fake_quantize = torch.ops.strop.fake_quantize
ZERO = torch.tensor(0, dtype=torch.int32)
ZEROS = torch.zeros(3, dtype=torch.int32)


def number(value: float) -> Tensor:
    return torch.tensor(value)


def whole(value: int) -> Tensor:
    return torch.tensor(value, dtype=torch.int32)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 10), st.integers(0, 255))
def test_numbers_are_those_of_torchs_own_operator(seed: int, scale: float, zero: int) -> None:
    x = 100 * torch.randn(4, 7, generator=torch.Generator().manual_seed(seed))
    # A power of two: torch multiplies by 1 / scale, which rounds elsewhere for others.
    scale = 2.0 ** round(np.log2(scale))
    got = fake_quantize(x, number(scale), whole(zero), None, 0, 255)
    want = torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_ties_go_to_the_even_number() -> None:
    x = torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5])
    got = fake_quantize(x, number(1.0), ZERO, None, -8, 7)
    assert got.tolist() == [-2, 0, 0, 2, 2]


def test_every_position_of_an_axis_has_its_own_scale() -> None:
    x = torch.randn(2, 3, 4)
    scales, zeros = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1, 2, 3], dtype=torch.int32)
    got = fake_quantize(x, scales, zeros, 1, 0, 15)
    for i in range(3):
        want = fake_quantize(x[:, i], scales[i], zeros[i], None, 0, 15)
        torch.testing.assert_close(got[:, i], want, rtol=0, atol=0)


def test_gradients_are_straight_through_and_those_of_learned_step_sizes() -> None:
    # Steps of 0.5 from -1 to 1: below the range, two values within it, above it.
    x = torch.tensor([-3.0, -0.7, 0.3, 2.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    fake_quantize(x, scale, ZERO, None, -2, 2).backward(torch.ones(4))
    assert x.grad is not None and scale.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]
    within = (-1 - -0.7 / 0.5) + (1 - 0.3 / 0.5)
    torch.testing.assert_close(scale.grad, torch.tensor(-2 + within + 2))


def test_the_range_moves_with_the_zero_point() -> None:
    got = fake_quantize(torch.tensor([-9.0, 9.0]), number(1.0), whole(3), None, 0, 7)
    assert got.tolist() == [-3, 4]


WEIGHT = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(0))
SCALES = WEIGHT.abs().amax((1, 2, 3)) / 127


def layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    x = fake_quantize(x, number(0.05), whole(100), None, 0, 255)
    weight = fake_quantize(weight, SCALES, ZEROS, 0, -127, 127)
    made = fake_quantize(F.conv2d(x, weight, bias), number(0.04), whole(128), None, 0, 255)
    mean = F.adaptive_avg_pool2d(made, 1)
    return fake_quantize(mean, number(0.04), whole(128), None, 0, 255)  # type: ignore[no-any-return]


def lowered(program: Any) -> ir.Model:
    cpu = get_target("cpu")
    return lower_to_onnx(program, cpu, shipped(cpu))


def test_the_file_computes_what_the_program_computes() -> None:
    x = 3 * torch.randn(20, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    program = program_of(layer, x, weight=WEIGHT, bias=torch.tensor([1.0, -2.0, 0.5]))
    got = session(program).run(None, {"input_0": x.numpy()})[0]
    # The runtime adds a bias of whole numbers, which may move a value to the next step.
    off = np.abs(got - program.run(input_0=x)[0].detach().numpy())
    assert off.max() < 0.041
    assert (off > 1e-5).mean() < 0.1


def test_constants_are_stored_as_whole_numbers_and_values_are_quantized_at_run_time() -> None:
    program = program_of(layer, torch.randn(2, 2, 6, 6), weight=WEIGHT, bias=torch.randn(3))
    program = run_passes(program, FoldConstants())
    model = lowered(program)
    kinds = [node.op_type for node in model.graph]
    pair = ["QuantizeLinear", "DequantizeLinear"]
    assert kinds == [*pair, "DequantizeLinear", "Conv", *pair, "GlobalAveragePool", *pair]
    grid = model.graph.initializers["inner.weight.grid"].const_value
    assert grid is not None
    assert (grid.dtype, grid.shape) == (ir.DataType.INT8, ir.Shape([3, 2, 3, 3]))
    assert int(np.abs(grid.numpy()).max()) == 127
    # The weight by bytes, its scales and zero points, the bias, and four scales and zero points.
    assert footprint(program).bytes == 3 * 2 * 9 + 3 * 8 + 3 * 4 + 4 * 8 - 8


@pytest.mark.parametrize("high", [7, 1 << 33])
def test_ranges_of_no_dtype_are_computed_in_float(high: int) -> None:
    def values(x: Tensor) -> Tensor:
        return fake_quantize(x, number(0.1), ZERO, None, -8, high)  # type: ignore[no-any-return]

    x = torch.randn(50, 3)
    program = program_of(values, x)
    got = session(program).run(None, {"input_0": x.numpy()})[0]
    np.testing.assert_allclose(got, program.run(input_0=x)[0].numpy(), atol=1e-6)
    assert "QuantizeLinear" not in [node.op_type for node in lowered(program).graph]


def test_a_smaller_range_is_kept_for_constants() -> None:
    def constants(x: Tensor, weight: Tensor) -> Tensor:
        # No product: the runtime would round x, too, for that.
        return x + fake_quantize(weight, number(0.1), ZERO, None, -7, 7)  # type: ignore[no-any-return]

    x, weight = torch.randn(3, 4), 10 * torch.randn(3, 4)
    program = program_of(constants, x, weight=weight)
    got = session(program).run(None, {"input_0": x.numpy()})[0]
    np.testing.assert_allclose(got, program.run(input_0=x)[0].detach().numpy(), atol=1e-5)
