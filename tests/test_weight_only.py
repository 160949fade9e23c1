"""Weights of a few bits: numbers against NumPy, gradients, and the file against eager torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from program_tools import program_of
from torch import Tensor

from strop.compiler.ir.program import Program
from strop.compiler.lower.choices import Choices
from strop.compiler.lower.onnx.lowering import lower_to_onnx
from strop.compiler.lower.onnx.packing import block_of, by_block, together
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.targets.target import CPU

strop = torch.ops.strop


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run_file(program: Program, variant: str, *inputs: Tensor) -> list[Any]:
    """The file, with one variant of the product."""
    choices = Choices({"strop.linear_nbits": {variant: {"": 1.0}}})
    model = ir.serde.serialize_model(lower_to_onnx(program, CPU, choices))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {f"input_{i}": x.numpy() for i, x in enumerate(inputs)}))


def grid_of(weight: Tensor, groups: int, bits: int, symmetric: bool) -> tuple[Tensor, Any]:
    scale = strop.group_scale(weight, groups, bits, symmetric)
    return scale, None if symmetric else strop.group_zero_point(weight, scale, bits)


def in_numpy(weight: Tensor, groups: int, bits: int, symmetric: bool) -> Any:
    """Rounding to nearest, group by group, with loops."""
    made = weight.double().numpy().copy()
    size = made.shape[1] // groups
    for row in made:
        for part in row.reshape(groups, size):
            low, high = min(part.min(), 0.0), max(part.max(), 0.0)
            if symmetric:
                furthest = high if high > -low else low
                scale, zero = furthest / -(2 ** (bits - 1)) or 1.0, 2 ** (bits - 1)
            else:
                scale = (high - low) / (2**bits - 1) or 1.0
                zero = round(-low / scale)
            whole = np.clip(np.round(part / scale) + zero, 0, 2**bits - 1)
            part[:] = scale * (whole - zero)
    return made


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_are_rounded_group_by_group(bits: int, symmetric: bool) -> None:
    weight = drawn(5, 24)
    weight[2] = 0
    weight[3] = weight[3].abs() + 1
    scale, zero = grid_of(weight, 3, bits, symmetric)
    rounded = strop.on_grid(weight, scale, zero, bits)
    np.testing.assert_allclose(rounded, in_numpy(weight, 3, bits, symmetric), atol=1e-5)


def test_whole_numbers_and_scales_give_the_rounded_weight() -> None:
    weight = drawn(4, 32)
    scale, zero = grid_of(weight, 2, 3, False)
    whole = strop.whole_numbers(weight, scale, zero, 3)
    assert whole.dtype == torch.uint8 and int(whole.max()) == 7 and int(whole.min()) == 0
    wide = scale.repeat_interleave(16, 1), zero.repeat_interleave(16, 1)
    torch.testing.assert_close((whole - wide[1]) * wide[0], strop.on_grid(weight, scale, zero, 3))


def test_gradients_reach_weight_and_scale() -> None:
    weight, scale = torch.tensor([[0.4, -0.9, 2.6, -5.0]]), torch.tensor([[0.5]])
    weight.requires_grad_(), scale.requires_grad_()
    strop.on_grid(weight, scale, None, 3).sum().backward()
    # -5 is cut off at the lowest number, -4; 2.6 at the highest, 3.
    assert weight.grad is not None and weight.grad.tolist() == [[1.0, 1.0, 0.0, 0.0]]
    inside = (round(0.4 / 0.5) - 0.4 / 0.5) + (round(-0.9 / 0.5) + 0.9 / 0.5)
    assert scale.grad is not None and float(scale.grad) == pytest.approx(inside + 3 - 4)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_numbers_are_packed_lowest_first(bits: int) -> None:
    each = 8 // bits
    numbers = (torch.arange(11) % (1 << bits)).to(torch.uint8)
    packed = together(numbers[None], bits)[0]
    assert len(packed) == -(-11 // each)
    read = [int(packed[i // each]) >> (bits * (i % each)) & ((1 << bits) - 1) for i in range(11)]
    assert read == numbers.tolist()


def test_scales_of_groups_are_repeated_for_their_blocks() -> None:
    assert by_block(torch.tensor([[1, 2]]), 96, 16).tolist() == [[1, 1, 1, 2, 2, 2]]
    assert by_block(torch.tensor([[7]]), 40, 16).tolist() == [[7, 7, 7]]


def product_of(size: int, groups: int, bits: int, symmetric: bool) -> Program:
    weight, bias = drawn(7, size), drawn(7, seed=1)
    scale, zero = grid_of(weight, groups, bits, symmetric)

    def product(x: Tensor, weight: Tensor, bias: Tensor) -> Any:
        return strop.linear_nbits(x, weight, scale, zero, bias, bits)

    dims = {0: {0: ("rows", 1, 9), 1: "length"}}
    return program_of(product, drawn(3, 5, size), dims=dims, weight=weight, bias=bias)


@pytest.mark.parametrize(("size", "groups"), [(64, 2), (100, 1), (384, 3)])
@pytest.mark.parametrize(("bits", "symmetric"), [(2, False), (3, True), (4, True), (4, False)])
def test_the_file_multiplies_as_eager_torch_does(
    bits: int, symmetric: bool, size: int, groups: int
) -> None:
    program = product_of(size, groups, bits, symmetric)
    for rows, length in ((1, 1), (3, 5), (9, 2)):
        given = drawn(rows, length, size, seed=rows)
        want = program.run(input_0=given)[0].detach().numpy()
        np.testing.assert_allclose(run_file(program, "float", given)[0], want, atol=2e-4)
        # Activations of 8 bits: steps of max|x| / 127, over sums of ``size`` products.
        assert np.abs(run_file(program, "int8", given)[0] - want).max() < 0.03 * size**0.5


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_the_file_multiplies_in_all_widths(bits: int, symmetric: bool) -> None:
    for size, groups in ((40, 1), (96, 1), (96, 2), (100, 1), (384, 3), (640, 5)):
        test_the_file_multiplies_as_eager_torch_does(bits, symmetric, size, groups)


@pytest.mark.parametrize(("size", "groups"), [(64, 2), (96, 1), (384, 3)])
@pytest.mark.parametrize(("bits", "symmetric"), [(2, True), (3, False), (4, True), (8, False)])
def test_the_file_looks_rows_up_as_eager_torch_does(
    bits: int, symmetric: bool, size: int, groups: int
) -> None:
    table = drawn(11, size)
    scale, zero = grid_of(table, groups, bits, symmetric)

    def rows(indices: Tensor, table: Tensor) -> Any:
        return strop.embedding_nbits(table, scale, zero, indices, bits)

    indices = torch.tensor([[0, 10, 3], [2, 2, 9]])
    program = program_of(rows, indices, dims={0: {0: ("rows", 1, 9)}}, table=table)
    for given in (indices, indices[:1]):
        (got,) = run_file(program, "int8", given)
        np.testing.assert_allclose(got, program.run(input_0=given)[0].detach(), atol=1e-6)


def test_a_tied_table_is_stored_once() -> None:
    table = drawn(48, 64)
    scale, zero = grid_of(table, 2, 4, False)

    def both(indices: Tensor, table: Tensor) -> Any:
        rows = strop.embedding_nbits(table, scale, zero, indices, 4)
        return strop.linear_nbits(rows, table, scale, zero, None, 4)

    program = program_of(both, torch.tensor([[0, 10, 3]]), table=table)
    model = lower_to_onnx(program, CPU, Choices({}))
    sizes = [v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value]
    assert sorted(sizes)[-2:] == [48 * 2 * 4, 48 * 64 // 2]
    (got,) = run_file(program, "float", torch.tensor([[0, 10, 3]]))
    np.testing.assert_allclose(
        got, program.run(input_0=torch.tensor([[0, 10, 3]]))[0].detach(), atol=1e-4
    )


def test_groups_that_the_runtime_cannot_pack_are_computed_in_float() -> None:
    with pytest.raises(NotLowered, match="groups of 16 values and their multiples, not of 24"):
        block_of(48, 2)
    program = product_of(48, 2, 4, True)
    given = drawn(2, 3, 48)
    want = program.run(input_0=given)[0].detach()
    np.testing.assert_allclose(run_file(program, "int8", given)[0], want, atol=1e-5)
