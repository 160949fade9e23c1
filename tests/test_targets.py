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
from strop.passes.quantize.dynamic import QuantizeDynamic

HEADS = torch.linspace(-1, 1, 2 * 4 * 3 * 8).reshape(2, 4, 3, 8)


def sdpa(q: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, q, q)


def eager(q: Tensor) -> Tensor:
    return (q @ q.transpose(-1, -2) / math.sqrt(8)).softmax(-1) @ q


def linear(x: Tensor, w: Tensor) -> Tensor:
    return F.linear(x, w)


@pytest.mark.parametrize(
    ("one", "function", "lacking"),
    [
        (FuseAttention(), sdpa, {"fused_dtypes": frozenset({"float16"})}),
        (FuseAttention(), eager, {"fused_dtypes": frozenset()}),
        (QuantizeDynamic(), linear, {"dynamic_int8": False}),
    ],
)
def test_a_pass_leaves_alone_what_the_target_cannot_do(
    one: Pass, function: object, lacking: dict[str, object]
) -> None:
    if function is linear:
        program = program_of(linear, HEADS, w=torch.ones(16, 8))
    else:
        program = program_of(function, HEADS)  # type: ignore[arg-type]
    assert one.run(program, context=Context(target=CPU)).modified
    other = dataclasses.replace(CPU, name="other", **lacking)  # type: ignore[arg-type]
    result = one.run(program, context=Context(target=other))
    assert not result.modified and result.log.misses


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_target_has_a_lowering_and_a_runtime(target: object) -> None:
    assert lowering_of(target) and runtime_of(target).versions()  # type: ignore[arg-type]


def test_an_unknown_target_is_a_sentence() -> None:
    with pytest.raises(UsageError, match="unknown target 'cpy'; did you mean 'cpu'"):
        get_target("cpy")
