"""Pass ``dtypes``: narrow types are computed in wider ones, with the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from program_tools import body, counts, program_of
from torch import Tensor, nn

from strop.compiler.ir.program import Program
from strop.compiler.ir.stale import verify_types
from strop.compiler.rewriting.rules import Log
from strop.passes.legalize.dtypes import LegalizeDtypes
from strop.passes.legalize.jumps import jumps

HALF = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).half()
BYTES = torch.arange(200, 212, dtype=torch.uint8).reshape(3, 4)


def legal(program: Program) -> Program:
    return LegalizeDtypes().run(program).program


def results(program: Program, *inputs: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return program.run(**{f"input_{i}": x for i, x in enumerate(inputs)})


def test_float16_is_computed_in_float32_and_stays_at_the_boundary() -> None:
    weight = torch.ones(4, 4).half()
    program = program_of(lambda x, w: torch.tanh(F.linear(x, w)) * 2, HALF, w=weight)
    result = LegalizeDtypes().run(program)
    assert body(result.program) == "\n".join(
        [
            "program(%input_0 : f16[3, 4])",
            "  %to_dtype_1 : f32[3, 4] = aten.to.dtype(%input_0, f32)",
            "  %linear : f32[3, 4] = aten.linear(%to_dtype_1, @w)",
            "  %tanh : f32[3, 4] = aten.tanh(%linear)",
            "  %mul : f32[3, 4] = aten.mul.Tensor(%tanh, 2)",
            "  %to_dtype_7 : f16[3, 4] = aten.to.dtype(%mul, f16)",
            '  return "output": %to_dtype_7',
        ]
    )
    assert counts(result) == {"weight": 1, "wider": 3, "rounding": 3}
    assert result.log.notes == ["float16 is computed in float32"]
    assert isinstance(next(iter(result.program.weights.values())), nn.Parameter)
    verify_types(result.program)


def test_bfloat16_inputs_and_outputs_become_float32() -> None:
    program = program_of(lambda x: x + 1, HALF.bfloat16())
    after = legal(program)
    assert [s.dtype for s in (*after.contract.inputs, *after.contract.outputs)] == ["f32", "f32"]
    assert body(after) == "\n".join(
        [
            "program(%input_0 : f32[3, 4])",
            "  %add : f32[3, 4] = aten.add.Tensor(%input_0, 1)",
            '  return "output": %add',
        ]
    )


def test_rounding_stays_where_an_operator_jumps_on_it() -> None:
    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        scaled = x * 0.1 * 10
        return scaled.floor(), x * 0.1 * 10

    x = torch.arange(0, 400, dtype=torch.float16) / 4
    program = program_of(function, x)
    after = legal(program)
    for got, want in zip(results(after, x)[:1], results(program, x)):
        assert torch.equal(got, want)
    text = body(after)
    assert text.count("aten.to.dtype(%mul, f16)") == 1, text
    assert "aten.to.dtype(%mul_2, f16)" not in text


def test_a_cast_to_16_bits_in_a_float32_model_is_there_for_its_rounding() -> None:
    x = torch.randn(5, 5)
    program = program_of(lambda x: x.half().float() * x.bfloat16(), x)
    assert torch.equal(results(legal(program), x)[0], results(program, x)[0])


def test_casts_of_a_float16_model_are_dropped() -> None:
    """RMS norm as language models write it: in float32, and back to the type of its input."""

    def norm(x: Tensor, w: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return w * wide.to(x.dtype)

    after = legal(program_of(norm, HALF, w=torch.ones(4).half()))
    assert body(after).count("aten.to") == 2


SMALL: dict[str, Callable[[Tensor], Any]] = {
    "sums that wrap": lambda x: x + x,
    "products that wrap": lambda x: x * x,
    "a quotient": lambda x: x / 7,
    "a floor": lambda x: x // 7,
    "negation": lambda x: -x,
    "bits": lambda x: (~x) & 13,
    "a sum": lambda x: x.sum(1),
    "a sum of one type": lambda x: x.sum(1, dtype=torch.uint8),
    "largest": lambda x: x.max(1),
    "sorted": lambda x: x.sort(1, descending=True),
    "comparison": lambda x: x > 203,
    "numbers that do not fit": lambda x: (x % 300, x // 300, x == 300 - 256, x * 300, x / 300),
    "moved": lambda x: x.t().reshape(2, 6)[:, ::2],
    "cast": lambda x: x.float() / 255,
    "joined": lambda x: torch.cat([x, x + 1]),
}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16])
@pytest.mark.parametrize("name", SMALL)
def test_small_integers_give_the_same_numbers(name: str, dtype: torch.dtype) -> None:
    x = BYTES.to(dtype)
    program = program_of(SMALL[name], x)
    after = legal(program)
    verify_types(after)
    for got, want in zip(results(after, x), results(program, x)):
        assert got.dtype == want.dtype
        assert torch.equal(got, want)


BITS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "float16": (lambda x: x.view(torch.int16), HALF),
    "bytes": (lambda x: x.view(torch.int16), BYTES),
    "the next float16": (lambda x: torch.nextafter(x, x + 1), HALF),
}


@pytest.mark.parametrize("case", BITS)
def test_bits_are_read_from_the_type_that_was_given(case: str) -> None:
    function, x = BITS[case]
    program = program_of(function, x)
    assert torch.equal(results(legal(program), x)[0], results(program, x)[0])


def test_moving_small_integers_needs_no_other_type() -> None:
    program = program_of(SMALL["moved"], BYTES)
    result = LegalizeDtypes().run(program)
    assert not result.modified


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_pass_stopped_after_any_rewrite_leaves_a_program_that_runs(dtype: torch.dtype) -> None:
    def function(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        first, second = torch.split(x @ w, 2, -1)
        best, place = first.max(-1)
        return second.softmax(-1), best, place, x.to(torch.int32), x.type_as(first)

    x = HALF.to(dtype)
    program = program_of(function, x, w=torch.eye(4).to(dtype))
    whole = LegalizeDtypes().run(program)
    want = results(program, x)
    for limit in range(1, len(whole.log.rewrites) + 1):
        stopped = LegalizeDtypes().run(program, Log(limit=limit)).program
        verify_types(stopped)
        given = x.float() if stopped.contract.inputs[0].dtype == "f32" else x
        for got, expected in zip(results(stopped, given), want):
            torch.testing.assert_close(got.float(), expected.float(), rtol=0, atol=2e-2)


def test_an_operator_that_gives_bytes_of_floats_is_left_alone() -> None:
    """The last result of a batch norm holds bytes for its derivative."""

    def function(x: Tensor, one: Tensor, zero: Tensor) -> Tensor:
        normed: Tensor = torch.ops.aten._batch_norm_with_update_functional(
            x, one, zero, zero, one, 0.1, 1e-5
        )[0]
        return normed

    program = program_of(function, torch.randn(2, 3, 4), torch.ones(3), torch.zeros(3))
    result = LegalizeDtypes().run(program)
    assert body(result.program) == body(program)
    assert not counts(result)


def test_doubles_of_a_rounded_value_stay_doubles() -> None:
    program = program_of(lambda x: (x * 3).double(), HALF)
    after = legal(program)
    verify_types(after)
    assert results(after, HALF)[0].dtype == torch.float64


def test_a_comparison_needs_no_cast_of_its_result() -> None:
    assert body(legal(program_of(lambda x: x > 0, HALF))).count("aten.to") == 1


def test_a_cast_of_bytes_is_left_alone() -> None:
    program = program_of(lambda x, y: x.type_as(y), BYTES, HALF.float())
    assert not LegalizeDtypes().run(program).modified


def test_integers_of_integers_do_not_jump() -> None:
    program = program_of(lambda x: (x + 1).to(torch.int32), torch.arange(3))
    assert not any(jumps(node) for node in program.calls())


def test_a_program_without_narrow_types_is_left_alone() -> None:
    program = program_of(lambda x: (x.double() + 1).floor().long(), torch.randn(3))
    result = LegalizeDtypes().run(program)
    assert not result.modified
    assert result.log.notes == []


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x.floor(), True),
        (lambda x: x.argmax(-1), True),
        (lambda x: x > 0, True),
        (lambda x: torch.div(x, 3, rounding_mode="floor"), True),
        (lambda x: torch.div(x, 3), False),
        (lambda x: x.to(torch.int64), True),
        (lambda x: x.half(), False),
        (lambda x: x.exp(), False),
        (lambda x: x.topk(2).values, True),
    ],
)
def test_which_operators_jump(function: Callable[[Tensor], Tensor], expected: bool) -> None:
    program = program_of(function, torch.randn(3, 4))
    assert any(jumps(node) for node in program.calls()) == expected
