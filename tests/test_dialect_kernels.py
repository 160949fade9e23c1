"""The operators that Triton kernels compute: their formulas, and programs that hold them."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from program_tools import body, program_of
from torch import Tensor

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.constants import constant_nodes, evaluate
from strop.compiler.ir.footprint import footprint
from strop.compiler.ir.program import Program
from strop.compiler.ir.snapshots.reader import load_program
from strop.compiler.ir.snapshots.weight_store import WeightStore
from strop.compiler.ir.snapshots.writer import save_program
from strop.compiler.ir.verifier import verify
from strop.kernels.packing import packed_bytes

strop = torch.ops.strop
FLOATS = [torch.float16, torch.bfloat16, torch.float32]
ACTIVATIONS: dict[str, Any] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Random numbers of a normal distribution."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(got: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    """A result is within one rounding to its dtype, and sums in float32, of one in float64."""
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), want, rtol=torch.finfo(dtype).eps, atol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_rows_in_int8_have_the_scale_of_their_largest_value(dtype: torch.dtype) -> None:
    x = random(2, 5, 7, dtype=dtype)
    x[0, 1] = 0
    q, scale = strop.quantize_rows(x)
    assert (q.dtype, scale.dtype) == (torch.int8, torch.float32)
    assert scale[0, 1] == 1 and not q[0, 1].any()
    torch.testing.assert_close(scale[1], x[1].float().abs().amax(-1) / 127, rtol=0, atol=0)
    assert q[1].abs().amax(-1).tolist() == [127] * 5
    assert ((q.float() * scale[..., None] - x.float()).abs() <= scale[..., None] * 0.5001).all()


def test_rows_whose_scale_would_lose_digits_have_the_scale_1() -> None:
    least = torch.finfo(torch.float32).tiny
    rows = torch.tensor([[100 * least], [200 * least], [float("inf")]])
    _, scale = strop.quantize_rows(rows)
    assert scale.tolist() == pytest.approx([1, 200 * least / 127, float("inf")])


def test_halves_in_int8_go_to_the_even_number() -> None:
    q, _ = strop.quantize_rows(torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]]))
    assert q.tolist() == [[127, 0, 2, 2, 0, -2]]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_fused_linear_layer_is_rounded_once(dtype: torch.dtype, activation: str) -> None:
    x, weight = random(2, 3, 20, dtype=dtype), random(9, 20, dtype=dtype, seed=1)
    bias, residual = random(9, dtype=dtype, seed=2), random(2, 3, 9, dtype=dtype, seed=3)
    sums = F.linear(x.double(), weight.double(), bias.double())
    want = ACTIVATIONS[activation](sums) + residual.double()
    close(strop.fused_linear(x, weight, bias, residual, activation), want, dtype)
    bare = F.linear(x.double(), weight.double())
    close(strop.fused_linear(x, weight, None, None, "none"), bare, dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_gated_linear_layer_multiplies_before_it_is_rounded(dtype: torch.dtype) -> None:
    x, biases = random(2, 3, 20, dtype=dtype), random(2, 9, dtype=dtype, seed=2)
    gate, up = random(2, 9, 20, dtype=dtype, seed=1)
    wide = [F.linear(x.double(), w.double(), b.double()) for w, b in zip((gate, up), biases)]
    got = strop.gated_linear(x, gate, up, *biases, "silu")
    close(got, F.silu(wide[0]) * wide[1], dtype)


def test_the_whole_part_of_an_int8_product_is_exact() -> None:
    q = torch.full((3, 5_000), 127, dtype=torch.int8)
    weight = torch.full((4, 5_000), -127, dtype=torch.int8)
    got = strop.linear_int8(
        q, torch.ones(3), weight, torch.ones(4), None, None, "none", torch.float32
    )
    assert (got == -127 * 127 * 5_000).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_int8_layers_are_scaled_by_row_and_by_channel(dtype: torch.dtype, activation: str) -> None:
    x, weight = random(2, 3, 20, dtype=dtype), random(9, 20, seed=1)
    bias, residual = random(9, dtype=dtype, seed=2), random(2, 3, 9, dtype=dtype, seed=3)
    q, scale = strop.quantize_rows(x)
    weight_scale = strop.int8_scale(weight)
    whole = strop.int8_weight(weight, weight_scale)
    wide = (whole.double() * weight_scale.double()[:, None], bias.double())
    sums = F.linear(q.double() * scale.double()[..., None], *wide)
    active = ACTIVATIONS[activation](sums)
    arguments = (q, scale, whole, weight_scale)
    got = strop.linear_int8(*arguments, bias, residual, activation, dtype)
    close(got, active + residual.double(), dtype)
    gated = strop.gated_linear_int8(*arguments, whole, weight_scale, bias, bias, activation, dtype)
    close(gated, active * sums, dtype)


@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("residual", [None, random(2, 3, 16, dtype=torch.float16, seed=4)])
def test_a_norm_in_int8_rounds_what_it_also_gives_in_float(
    rms: bool, residual: Tensor | None
) -> None:
    x = random(2, 3, 16, dtype=torch.float16)
    weight, bias = random(2, 16, seed=1)
    factors = (weight, None if rms else bias)
    y, total, q, scale = strop.norm_int8(x, residual, *factors, 1e-5, rms)
    assert torch.equal(total, x if residual is None else x + residual)
    wide = total.double()
    if rms:
        want = F.rms_norm(wide, (16,), weight.double(), 1e-5)
    else:
        want = F.layer_norm(wide, (16,), weight.double(), bias.double(), 1e-5)
    close(y, want, torch.float16)
    for got, expected in zip((q, scale), strop.quantize_rows(y)):
        assert torch.equal(got, expected)


def test_rows_in_e4m3_reach_its_largest_value() -> None:
    x = random(3, 40)
    x[1] = 0
    q, scale = strop.quantize_rows_fp8(x)
    assert q.dtype == torch.float8_e4m3fn and scale.dtype == torch.float32
    assert scale[1] == 1
    assert strop.quantize_rows_fp8(torch.full((1, 4), 1e-37))[1] == 1
    assert q.float().abs().amax(-1).tolist() == [448, 0, 448]


def test_an_e4m3_layer_gives_what_the_trainable_one_gives() -> None:
    x, weight, bias = random(4, 40), random(9, 40, seed=1), random(9, seed=2)
    scale = strop.fp8_scale(weight)
    q, rows = strop.quantize_rows_fp8(x)
    whole = strop.fp8_weight(weight, scale)
    got = strop.scaled_linear_fp8(q, rows, whole, scale, bias, None, "none", torch.float32)
    torch.testing.assert_close(got, strop.linear_fp8(x, weight, scale, bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_packed_layer_gives_what_the_trainable_one_gives(
    bits: int, groups: int, symmetric: bool
) -> None:
    x, weight, bias = random(4, 40), random(9, 40, seed=1), random(9, seed=2)
    scale = strop.group_scale(weight, groups, bits, symmetric)
    zero = None if symmetric else strop.group_zero_point(weight, scale, bits)
    numbers = strop.packed_numbers(weight, scale, zero, bits)
    assert numbers.shape == (9, packed_bytes(40, bits)) and numbers.dtype == torch.uint8
    short = None if zero is None else zero.to(torch.uint8)
    got = strop.packed_linear(x, numbers, scale, short, bias, None, bits, "none")
    want = strop.linear_nbits(x, weight, scale, zero, bias, bits)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("rms", [False, True])
def test_sums_of_embeddings_are_normalized_in_float32(
    dtype: torch.dtype, count: int, rms: bool
) -> None:
    tables = [random(11, 16, dtype=dtype, seed=i) for i in range(count)]
    indices = [torch.arange(6).reshape(2, 3) + i for i in range(count)]
    weight, bias = random(2, 16, dtype=dtype, seed=9)
    total = sum(table.double()[index] for table, index in zip(tables, indices))
    if rms:
        want = F.rms_norm(total, (16,), weight.double(), 1e-5)  # type: ignore[arg-type]
    else:
        want = F.layer_norm(total, (16,), weight.double(), bias.double(), 1e-5)  # type: ignore[arg-type]
    got = strop.embedding_norm(indices, tables, weight, None if rms else bias, 1e-5, rms)
    close(got, want, dtype)


def test_an_unknown_activation_is_refused_by_name() -> None:
    x, weight = random(1, 4), random(2, 4)
    with pytest.raises(ValueError, match="activation 'swish' is none of none, relu, gelu"):
        strop.fused_linear(x, weight, None, None, "swish")


def _int8_program() -> Program:
    """A linear layer written as int8 kernels compute it."""
    program = program_of(F.linear, random(3, 8), dims={0: {0: "rows"}}, weight=random(4, 8, seed=1))
    (root,) = program.find(torch.ops.aten.linear.default)
    build = Builder(program, root, "test")
    x, weight = root.args[:2]
    pair = build.call(strop.quantize_rows.default, x)
    q, rows = (build.call(operator.getitem, pair, i) for i in (0, 1))
    scale = build.call(strop.int8_scale.default, weight)
    whole = build.call(strop.int8_weight.default, weight, scale)
    product = build.call(
        strop.linear_int8.default, q, rows, whole, scale, None, None, "none", torch.float32
    )
    root.replace_all_uses_with(product)
    program.erase_dead([root])
    return program


def test_a_program_of_kernel_operators_prints_verifies_and_measures() -> None:
    program = _int8_program()
    verify(program)
    assert body(program) == BODY
    whole = program.find(strop.int8_weight.default)[0]
    assert whole in constant_nodes(program)
    assert evaluate(whole, program).dtype == torch.int8
    # The weight in one byte each, its scales in four.
    assert footprint(program).bytes == 4 * 8 + 4 * 4


BODY = """\
program(%input_0 : f32[rows, 8])
  %quantize_rows_default : (i8[rows, 8], f32[rows]) = strop.quantize_rows(%input_0)
  %getitem : i8[rows, 8] = py.getitem(%quantize_rows_default, 0)
  %getitem_1 : f32[rows] = py.getitem(%quantize_rows_default, 1)
  %int8_scale_default : f32[4] = strop.int8_scale(@weight)
  %int8_weight_default : i8[4, 8] = strop.int8_weight(@weight, %int8_scale_default)
  %linear_int8_default : f32[rows, 4] = strop.linear_int8(%getitem, %getitem_1, \
%int8_weight_default, %int8_scale_default, None, None, 'none', f32)
  return "output": %linear_int8_default"""


def test_a_program_of_kernel_operators_is_kept_in_a_snapshot(tmp_path: Path) -> None:
    program, store = _int8_program(), WeightStore(tmp_path / "weights")
    save_program(program, tmp_path / "program.json", store)
    read = load_program(tmp_path / "program.json")
    assert str(read) == str(program)
    feeds = {"input_0": random(5, 8, seed=7)}
    assert torch.equal(read.run(**feeds)[0], program.run(**feeds)[0])
