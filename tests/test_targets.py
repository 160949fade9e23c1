"""What a target can do decides what passes do, and its lowering and runtime are found by name."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from program_tools import program_of
from torch import Tensor

from strop.compiler.lower.lowering import lowering_of
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.passes import Pass
from strop.compiler.targets.runtime import runtime_of
from strop.compiler.targets.target import CPU, TARGETS, get_target
from strop.compiler.util.errors import UsageError
from strop.passes.fuse.eager_attention import FuseAttention
from strop.passes.legalize.dtypes import LegalizeDtypes
from strop.passes.quantize.dynamic import QuantizeDynamic

aten = torch.ops.aten
HEADS = torch.linspace(-1, 1, 2 * 4 * 3 * 8).reshape(2, 4, 3, 8)


def sdpa(q: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, q, q)


def eager(q: Tensor) -> Tensor:
    return (q @ q.transpose(-1, -2) / math.sqrt(8)).softmax(-1) @ q


def linear(x: Tensor, w: Tensor) -> Tensor:
    return F.linear(x, w)


def lookup(x: Tensor, w: Tensor) -> Tensor:
    return F.embedding(torch.tensor([0, 3]), w).sum() + x


@pytest.mark.parametrize(
    ("one", "function", "lacking"),
    [
        (FuseAttention(), sdpa, {"fused_dtypes": frozenset({"float16"})}),
        (FuseAttention(), eager, {"fused_dtypes": frozenset()}),
        (QuantizeDynamic(), linear, {"dynamic_int8": False}),
        (QuantizeDynamic(), linear, {"fused_dtypes": frozenset({"float16"})}),
        (QuantizeDynamic(), lookup, {"fused_dtypes": frozenset({"float16"})}),
    ],
)
def test_a_pass_leaves_alone_what_the_target_cannot_do(
    one: Pass, function: object, lacking: dict[str, object]
) -> None:
    weights = {"w": torch.ones(16, 8)} if function in (linear, lookup) else {}
    program = program_of(function, HEADS, **weights)  # type: ignore[arg-type]
    assert one.run(program, context=Context(target=CPU)).modified
    other = dataclasses.replace(CPU, name="other", **lacking)  # type: ignore[arg-type]
    result = one.run(program, context=Context(target=other))
    assert not result.modified and result.log.misses


CASTS = {
    torch.float16: {"float16", "float32", "int32"},
    torch.bfloat16: {"bfloat16", "float32", "int32"},
    torch.int8: {"int8", "float32", "int32"},
}


@pytest.mark.parametrize("dtype", CASTS, ids=str)
def test_dtypes_that_the_target_computes_in_are_left_alone(dtype: torch.dtype) -> None:
    x = torch.ones(3, dtype=dtype)
    program = program_of(lambda x: (x + x).float(), x)
    wide = LegalizeDtypes().run(program, context=Context(target=CPU)).program
    other = dataclasses.replace(CPU, name="other", dtypes=frozenset(CASTS[dtype]))
    result = LegalizeDtypes().run(program, context=Context(target=other))
    assert wide.find(aten.add.Tensor)[0].meta["val"].dtype != dtype
    assert result.program.find(aten.add.Tensor)[0].meta["val"].dtype == dtype
    assert not result.log.notes


def test_narrow_dtypes_are_computed_in_the_narrowest_wider_one_of_the_target() -> None:
    wide = dataclasses.replace(CPU, name="wide", dtypes=frozenset({"float64", "int64"}))
    program = program_of(lambda x, i: (x.tanh(), i * i), torch.ones(3).half(), torch.ones(3).char())
    result = LegalizeDtypes().run(program, context=Context(target=wide))
    made = {n.meta["val"].dtype for n in result.program.find(aten.tanh.default, aten.mul.Tensor)}
    assert made == {torch.float64, torch.int64}
    assert result.log.notes == ["float16 is computed in float64"]
    outputs = result.program.run(input_0=torch.ones(3).half(), input_1=torch.ones(3).char())
    assert [value.dtype for value in outputs] == [torch.float16, torch.int8]


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_target_has_a_lowering_and_a_runtime(target: object) -> None:
    assert lowering_of(target) and runtime_of(target).versions()  # type: ignore[arg-type]


def test_an_unknown_target_is_a_sentence() -> None:
    with pytest.raises(UsageError, match="unknown target 'cpy'; did you mean 'cpu'"):
        get_target("cpy")
