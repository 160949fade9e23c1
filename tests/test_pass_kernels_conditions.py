"""What ``select-kernels`` leaves as it is, and the reason that it gives for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kernel_programs import few_bits, fp8, int8, random, reasons, selected
from program_tools import counts, program_of
from torch import Tensor

from strop.compiler.targets.target import CPU, get_target
from strop.compiler.util.errors import UsageError
from strop.passes.kernels.select import SelectKernels

strop = torch.ops.strop
X, Y = random(2, 3, 64), random(2, 3, 8, seed=3)
W, V = random(8, 64, seed=1) / 8, random(8, 64, seed=2) / 8
ONE, BOTH = {"weight": W}, {"weight": W, "other": V}
INDICES = torch.tensor([[0, 1, 2], [4, 3, 0]])
TABLES = {"table": random(5, 64), "rows": random(5, 64, seed=6)}

Near = tuple[Callable[..., Any], tuple[Tensor, ...], Mapping[str, Tensor], str]


def _used_twice(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    product = F.linear(x, weight)
    return F.gelu(product), product


def _gate_used_twice(x: Tensor, weight: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    gate = F.linear(x, weight)
    return strop.gated(gate, F.linear(x, other), "silu"), gate


def _sum_used_twice(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    product = F.linear(x, weight)
    return product + y, product


def _two_sums(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    return (F.linear(x, weight) + y) + y.tanh()


def _total_used_too(i: Tensor, table: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
    found = strop.skip_rms_norm(F.embedding(i, table), F.embedding(i, rows), None, 0.5)
    return tuple(found)


def _embedding_used_too(i: Tensor, table: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    found = F.embedding(i, table)
    return F.rms_norm(found, (64,)), found


NEAR: dict[str, Near] = {
    "float32": (
        F.linear,
        (X.float(),),
        {"weight": W.float()},
        "kernels multiply floats of 16 bits, not torch.float32",
    ),
    "nothing to fuse": (F.linear, (X,), ONE, "nothing but a bias is computed with it"),
    "a weight that is no matrix": (
        F.linear,
        (X,),
        {"weight": W[0]},
        "the weight is not a matrix",
    ),
    "rows in bfloat16": (
        int8,
        (X.bfloat16(),),
        {"weight": W.float()},
        "triton:sm90 has no kernel for torch.bfloat16",
    ),
    "one scale for all rows": (
        lambda x, weight: strop.linear_w8a8(x, weight, strop.int8_scale(weight), None),
        (X,),
        {"weight": W.float()},
        "its activations have one scale for all rows",
    ),
    "few bits by float32": (
        few_bits,
        (X.float(),),
        {"weight": W.float()},
        "triton:sm90 multiplies floats of 16 bits, not torch.float32",
    ),
    "short groups": (
        lambda x, weight: few_bits(x, weight, groups=4),
        (X,),
        {"weight": W.float()},
        "groups of 16: a kernel takes multiples of 32",
    ),
    "a packed weight that is computed": (
        lambda x, weight: few_bits(x, weight),
        (X, W.float()),
        {},
        "the weight is computed from an input",
    ),
    "a product that is read before its activation": (
        _used_twice,
        (X,),
        ONE,
        "the value before the activation is used elsewhere too",
    ),
    "two activations": (
        lambda x, weight: F.gelu(F.relu(F.linear(x, weight))),
        (X,),
        ONE,
        "something follows the product already",
    ),
    "a gate that is read elsewhere": (
        _gate_used_twice,
        (X,),
        BOTH,
        "gate or up is used elsewhere too",
    ),
    "a gate of another value": (
        lambda x, y, weight, other: strop.gated(F.linear(x, weight), F.linear(y, other), "silu"),
        (X, X + 1),
        BOTH,
        "gate and up read different values",
    ),
    "a gate of another size": (
        lambda x, weight, other: strop.gated(F.linear(x, weight), F.linear(x, other), "silu"),
        (X,),
        {"weight": W[:1], "other": V},
        "gate and up have different sizes",
    ),
    "a gate of few bits": (
        lambda x, weight, other: strop.gated(few_bits(x, weight), few_bits(x, other), "silu"),
        (X,),
        {"weight": W.float(), "other": V.float()},
        "no kernel computes both of its products",
    ),
    "a sum with a factor": (
        lambda x, y, weight: torch.add(F.linear(x, weight), y, alpha=2),
        (X, Y),
        ONE,
        "the sum has a factor",
    ),
    "a sum with float32": (
        lambda x, y, weight: F.linear(x, weight) + y,
        (X, Y.float()),
        ONE,
        "the other summand has another dtype",
    ),
    "a sum with a number": (
        lambda x, weight: F.linear(x, weight) + 1.0,
        (X,),
        ONE,
        "the other summand has another dtype",
    ),
    "a sum that is broadcast": (
        lambda x, y, weight: F.linear(x, weight) + y,
        (X, Y[:1]),
        ONE,
        "the other summand has another shape",
    ),
    "a product that is read before its sum": (
        _sum_used_twice,
        (X, Y),
        ONE,
        "the value before the sum is used elsewhere too",
    ),
    "a product that is added to itself": (
        lambda x, weight: (lambda product: product + product)(F.linear(x, weight)),
        (X,),
        ONE,
        "the value before the sum is used elsewhere too",
    ),
    "two residuals": (_two_sums, (X, Y), ONE, "the linear layer adds a residual already"),
    "rounding behind a norm over two axes": (
        lambda x, weight: int8(F.layer_norm(x, (3, 64)), weight),
        (X,),
        {"weight": W.float()},
        "the norm is over several axes",
    ),
    "a sum of embeddings that is read elsewhere": (
        _total_used_too,
        (INDICES,),
        TABLES,
        "the sum is used elsewhere too",
    ),
    "an embedding that is read elsewhere": (
        _embedding_used_too,
        (INDICES,),
        TABLES,
        "an embedding is used elsewhere too",
    ),
    "four embeddings": (
        lambda i, table: F.rms_norm(sum(F.embedding(i + n, table) for n in range(4)), (64,)),
        (INDICES.clamp(max=1),),
        {"table": TABLES["table"]},
        "4 embeddings are added, and a kernel takes 3 at most",
    ),
    "an embedding and something else": (
        lambda i, x, table: F.rms_norm(F.embedding(i, table) + x, (64,)),
        (INDICES, X),
        {"table": TABLES["table"]},
        "what is added too is no embedding",
    ),
    "tables of two dtypes": (
        lambda i, table, rows: F.rms_norm(F.embedding(i, table) + F.embedding(i, rows), (64,)),
        (INDICES,),
        {"table": TABLES["table"], "rows": TABLES["rows"].float()},
        "the tables have different dtypes",
    ),
    "embeddings that are spread over each other": (
        lambda i, table, rows: F.rms_norm(
            F.embedding(i[:1], table) + F.embedding(i[:, :1], rows), (64,)
        ),
        (INDICES,),
        TABLES,
        "no table is looked up at every place",
    ),
    "large heads": (
        lambda q: strop.attention(q, q, q, None, 1, 1, 1.0, False),
        (random(1, 3, 264),),
        {},
        "heads have 264 channels of torch.float16, and a kernel takes 256 at most",
    ),
}


@pytest.mark.parametrize("name", NEAR)
def test_what_nearly_matches_is_left_for_a_reason(name: str) -> None:
    model, inputs, weights, reason = NEAR[name]
    said = reasons(selected(program_of(model, *inputs, **weights)))
    assert any(reason in one for one in said), said


def test_each_option_says_where_linear_layers_in_float_run() -> None:
    program = program_of(lambda x, weight: F.gelu(F.linear(x, weight)), X, weight=W)
    assert counts(selected(program)) == {"linear-activation": 1}
    assert counts(selected(program, dense="kernel")) == {
        "kernel-linear": 1,
        "linear-activation": 1,
    }
    left = selected(program, dense="torch")
    assert not left.modified
    assert "torch runs 1 aten.linear: dense=torch leaves products in float to torch's library" in (
        left.log.notes
    )


def test_float32_stays_with_torch_whatever_the_option() -> None:
    program = program_of(F.linear, X.float(), weight=W.float())
    result = selected(program, dense="kernel")
    assert not result.modified
    assert "not torch.float32" in result.log.notes[0]


def test_a_gpu_without_8_bit_floats_keeps_the_layer() -> None:
    result = selected(program_of(fp8, X, weight=W.float()), get_target("triton:sm80"))
    assert not result.modified
    assert any("triton:sm80 does not multiply 8-bit floats" in one for one in reasons(result))


def test_other_targets_are_refused() -> None:
    program = program_of(F.linear, X, weight=W)
    with pytest.raises(UsageError, match="select-kernels.*triton:sm90; cpu runs none"):
        SelectKernels().run(program)
    assert CPU.name == "cpu"


def test_scales_that_16_bits_would_not_hold_stay_float32() -> None:
    small = program_of(few_bits, X, weight=W.float() * 1e-4)
    (layer,) = selected(small).program.find(strop.packed_linear.default)
    assert layer.args[2].meta["val"].dtype == torch.float32  # type: ignore[union-attr]


def test_what_torch_runs_is_counted_with_its_share() -> None:
    program = program_of(lambda x, weight: F.linear(x, weight).tanh(), X, weight=W)
    result = selected(program)
    moved = {"linear": 2 * (6 * 64 + 8 * 64 + 6 * 8), "tanh": 2 * (6 * 8 + 6 * 8)}
    assert result.log.notes == [
        "torch runs 1 aten.linear: nothing but a bias is computed with it: a kernel would save "
        "no way to memory",
        "torch runs 1 aten.tanh: no kernel computes it",
        "kernels run 0.0% of the multiply-adds and move 0.0% of the bytes",
    ]
    kept = selected(program, dense="kernel").log.notes[-1]
    assert kept.endswith(f"move {moved['linear'] / sum(moved.values()):.1%} of the bytes")
