"""Each rule of ``select-kernels``: the program before and after it, in text and in numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kernel_programs import few_bits, fp8, int8, random, selected
from program_tools import body, counts, program_of, same_numbers
from torch import Tensor

from strop.compiler.ir.program import Program
from strop.compiler.ir.verifier import verify

strop = torch.ops.strop
X, Y, TALL = random(2, 3, 64), random(2, 3, 8, seed=3), random(2, 3, 64, seed=4)
W, V = random(8, 64, seed=1) / 8, random(8, 64, seed=2) / 8
BOTH = {"weight": W.float(), "other": V.float()}


@dataclass(frozen=True)
class Case:
    """A program of a function, and what becomes of it.

    Attributes:
        model: on the inputs and weights.
        inputs: of the program.
        weights: by name.
        rules: how often each rule is applied.
        after: the lines of the program behind the pass.
        options: of the pass.
        tolerance: of the numbers: absolute, for results of about 1.
    """

    model: Callable[..., Any]
    inputs: tuple[Tensor, ...]
    weights: Mapping[str, Tensor]
    rules: Mapping[str, int]
    after: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 4e-3


INDICES = torch.tensor([[0, 1, 2], [4, 3, 0]])
TABLES = {"table": random(5, 64), "rows": random(5, 64, seed=6)}


def _residual_norm_int8(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    normed, total = strop.skip_rms_norm(x, y, None, 1e-5)
    return int8(normed, weight), normed, total


CASES: dict[str, Case] = {
    "an activation": Case(
        lambda x, weight, bias: F.gelu(F.linear(x, weight, bias), approximate="tanh"),
        (X,),
        {"weight": W, "bias": random(8)},
        {"linear-activation": 1},
        """\
%fused_linear = strop.fused_linear(%input_0, @weight, @bias, None, 'gelu_tanh')
return "output": %fused_linear""",
    ),
    "int8 layers that read one value": Case(
        lambda x, weight, other: (int8(x, weight), int8(x, other)),
        (X,),
        BOTH,
        {"kernel-linear-int8": 2},
        """\
%int8_scale = strop.int8_scale(@weight)
%quantize_rows = strop.quantize_rows(%input_0)
%getitem = py.getitem(%quantize_rows, 0)
%getitem_1 = py.getitem(%quantize_rows, 1)
%int8_weight = strop.int8_weight(@weight, %int8_scale)
%linear_int8 = strop.linear_int8(%getitem, %getitem_1, %int8_weight, %int8_scale, None, \
None, 'none', f16)
%int8_scale_1 = strop.int8_scale(@other)
%int8_weight_1 = strop.int8_weight(@other, %int8_scale_1)
%linear_int8_1 = strop.linear_int8(%getitem, %getitem_1, %int8_weight_1, %int8_scale_1, \
None, None, 'none', f16)
return "output_0": %linear_int8, "output_1": %linear_int8_1""",
    ),
    "int8 behind a norm": Case(
        lambda x, weight: int8(F.layer_norm(x, (64,), eps=0.5), weight),
        (X,),
        {"weight": W.float()},
        {"kernel-linear-int8": 1, "norm-int8": 1},
        """\
%norm_int8 = strop.norm_int8(%input_0, None, None, None, 0.5, False)
%getitem_4 = py.getitem(%norm_int8, 2)
%getitem_5 = py.getitem(%norm_int8, 3)
%int8_scale = strop.int8_scale(@weight)
%int8_weight = strop.int8_weight(@weight, %int8_scale)
%linear_int8 = strop.linear_int8(%getitem_4, %getitem_5, %int8_weight, %int8_scale, None, \
None, 'none', f16)
return "output": %linear_int8""",
    ),
    "int8 behind a residual norm that is read elsewhere too": Case(
        _residual_norm_int8,
        (X, TALL),
        {"weight": W.float()},
        {"kernel-linear-int8": 1, "norm-int8": 1},
        """\
%norm_int8 = strop.norm_int8(%input_0, %input_1, None, None, 1e-05, True)
%getitem_4 = py.getitem(%norm_int8, 0)
%getitem_5 = py.getitem(%norm_int8, 1)
%getitem_6 = py.getitem(%norm_int8, 2)
%getitem_7 = py.getitem(%norm_int8, 3)
%int8_scale = strop.int8_scale(@weight)
%int8_weight = strop.int8_weight(@weight, %int8_scale)
%linear_int8 = strop.linear_int8(%getitem_6, %getitem_7, %int8_weight, %int8_scale, None, \
None, 'none', f16)
return "output_0": %linear_int8, "output_1": %getitem_4, "output_2": %getitem_5""",
    ),
    "an int8 layer with all behind it": Case(
        lambda x, y, weight, bias: F.relu(int8(x, weight, bias)) + y,
        (X, Y),
        {"weight": W.float(), "bias": random(8)},
        {"kernel-linear-int8": 1, "linear-activation": 1, "linear-residual": 1},
        """\
%int8_scale = strop.int8_scale(@weight)
%quantize_rows = strop.quantize_rows(%input_0)
%getitem = py.getitem(%quantize_rows, 0)
%getitem_1 = py.getitem(%quantize_rows, 1)
%int8_weight = strop.int8_weight(@weight, %int8_scale)
%linear_int8_2 = strop.linear_int8(%getitem, %getitem_1, %int8_weight, %int8_scale, @bias, \
%input_1, 'relu', f16)
return "output": %linear_int8_2""",
    ),
    "few bits in groups": Case(
        lambda x, weight: F.silu(few_bits(x, weight, groups=2)),
        (X,),
        {"weight": W.float()},
        {"kernel-linear-packed": 1, "linear-activation": 1},
        """\
%group_scale = strop.group_scale(@weight, 2, 4, False)
%group_zero_point = strop.group_zero_point(@weight, %group_scale, 4)
%packed_numbers = strop.packed_numbers(@weight, %group_scale, %group_zero_point, 4)
%to_dtype = aten.to.dtype(%group_scale, f16)
%to_dtype_1 = aten.to.dtype(%group_zero_point, u8)
%packed_linear_1 = strop.packed_linear(%input_0, %packed_numbers, %to_dtype, %to_dtype_1, \
None, None, 4, 'silu')
return "output": %packed_linear_1""",
    ),
    "3 bits in 4": Case(
        lambda x, weight: few_bits(x, weight, bits=3, symmetric=True),
        (X,),
        {"weight": W.float()},
        {"kernel-linear-packed": 1},
        """\
%group_scale = strop.group_scale(@weight, 1, 3, True)
%packed_numbers = strop.packed_numbers(@weight, %group_scale, None, 3)
%to_dtype = aten.to.dtype(%group_scale, f16)
%full_like = aten.full_like(%group_scale, 4, dtype=u8)
%packed_linear = strop.packed_linear(%input_0, %packed_numbers, %to_dtype, %full_like, \
None, None, 4, 'none')
return "output": %packed_linear""",
    ),
    "e4m3": Case(
        lambda x, y, weight: fp8(x, weight) + y,
        (X, Y),
        {"weight": W.float()},
        {"kernel-linear-fp8": 1, "linear-residual": 1},
        """\
%fp8_scale = strop.fp8_scale(@weight)
%quantize_rows_fp8 = strop.quantize_rows_fp8(%input_0)
%getitem = py.getitem(%quantize_rows_fp8, 0)
%getitem_1 = py.getitem(%quantize_rows_fp8, 1)
%fp8_weight = strop.fp8_weight(@weight, %fp8_scale)
%scaled_linear_fp8_1 = strop.scaled_linear_fp8(%getitem, %getitem_1, %fp8_weight, \
%fp8_scale, None, %input_1, 'none', f16)
return "output": %scaled_linear_fp8_1""",
    ),
    "gate and up": Case(
        lambda x, weight, other: strop.gated(F.linear(x, weight), F.linear(x, other), "silu"),
        (X,),
        {"weight": W, "other": V},
        {"linear-gated": 1},
        """\
%gated_linear = strop.gated_linear(%input_0, @weight, @other, None, None, 'silu')
return "output": %gated_linear""",
    ),
    "gate and up in int8": Case(
        lambda x, weight, other: strop.gated(int8(x, weight), int8(x, other), "gelu"),
        (X,),
        BOTH,
        {"kernel-linear-int8": 2, "linear-gated": 1},
        """\
%int8_scale = strop.int8_scale(@weight)
%quantize_rows = strop.quantize_rows(%input_0)
%getitem = py.getitem(%quantize_rows, 0)
%getitem_1 = py.getitem(%quantize_rows, 1)
%int8_weight = strop.int8_weight(@weight, %int8_scale)
%int8_scale_1 = strop.int8_scale(@other)
%int8_weight_1 = strop.int8_weight(@other, %int8_scale_1)
%gated_linear_int8 = strop.gated_linear_int8(%getitem, %getitem_1, %int8_weight, \
%int8_scale, %int8_weight_1, %int8_scale_1, None, None, 'gelu', f16)
return "output": %gated_linear_int8""",
    ),
    "a residual sum": Case(
        lambda x, y, weight: y + F.linear(x, weight),
        (X, Y),
        {"weight": W},
        {"linear-residual": 1},
        """\
%fused_linear = strop.fused_linear(%input_0, @weight, None, %input_1, 'none')
return "output": %fused_linear""",
    ),
    "a residual sum before a norm": Case(
        lambda x, y, weight: strop.skip_rms_norm(y, F.linear(x, weight), None, 0.5),
        (X, Y),
        {"weight": W},
        {"linear-residual-norm": 1},
        """\
%fused_linear = strop.fused_linear(%input_0, @weight, None, %input_1, 'none')
%rms_norm = aten.rms_norm(%fused_linear, [8], None, 0.5)
return "output_0": %rms_norm, "output_1": %fused_linear""",
    ),
    "a residual sum before LayerNorm": Case(
        lambda x, y, weight: strop.skip_layer_norm(F.linear(x, weight), y, None, None, 0.5)[0],
        (X, Y),
        {"weight": W},
        {"linear-residual-norm": 1},
        """\
%fused_linear = strop.fused_linear(%input_0, @weight, None, %input_1, 'none')
%layer_norm = aten.layer_norm(%fused_linear, [8], None, None, 0.5)
return "output": %layer_norm""",
    ),
    "every linear layer": Case(
        lambda x, weight: F.linear(x, weight),
        (X,),
        {"weight": W},
        {"kernel-linear": 1},
        """\
%fused_linear = strop.fused_linear(%input_0, @weight, None, None, 'none')
return "output": %fused_linear""",
        options={"dense": "kernel"},
    ),
    "embeddings": Case(
        lambda i, table, rows: F.layer_norm(F.embedding(i, table) + rows[:3].unsqueeze(0), (64,)),
        (INDICES,),
        TABLES,
        {"embedding-norm": 1},
        """\
%arange = aten.arange(3, dtype=i64)
%expand_as = aten.expand_as(%arange, %input_0)
%embedding_norm = strop.embedding_norm([%input_0, %expand_as], [@table, @rows], None, None, \
1e-05, False)
return "output": %embedding_norm""",
    ),
    "embeddings before a residual norm": Case(
        lambda i, table, rows: strop.skip_rms_norm(
            F.embedding(i, table), F.embedding(i, rows), None, 0.5
        )[0],
        (INDICES,),
        TABLES,
        {"embedding-norm": 1},
        """\
%embedding_norm = strop.embedding_norm([%input_0, %input_0], [@table, @rows], None, None, \
0.5, True)
return "output": %embedding_norm""",
    ),
}


def brief(program: Program) -> str:
    """The lines of a program without types and without the ends of long names."""
    lines = (re.sub(r" : .*? = ", " = ", line.strip()) for line in body(program).splitlines()[1:])
    return "\n".join(lines).replace("_default", "")


@pytest.mark.parametrize("name", CASES)
def test_the_program_becomes_what_kernels_compute(name: str) -> None:
    case = CASES[name]
    before = program_of(case.model, *case.inputs, **case.weights)
    result = selected(before, **case.options)
    assert counts(result) == case.rules
    assert brief(result.program) == case.after
    verify(result.program)
    same_numbers(before, result.program, *case.inputs, tolerance=case.tolerance)
    assert result.log.notes[-1].startswith("kernels run 100.0% of the multiply-adds")
