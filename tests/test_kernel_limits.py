"""Which calls kernels run: the limits are those of the kernels, and each has its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from program_tools import program_of
from torch import Tensor
from triton_tools import kernels_of

from strop.compiler.ir.kernel_limits import limited_calls, why_no_kernel
from strop.compiler.targets.target import CPU
from strop.kernels.registry import names as registered

strop = torch.ops.strop
GPU = replace(CPU, name="gpu", fused_dtypes=frozenset({"float16", "float32"}))
HALF = torch.float16


def ones(*shape: int, dtype: torch.dtype = HALF) -> Tensor:
    return torch.ones(shape, dtype=dtype)


def attention(q_heads: int, kv_heads: int, scale: float = 1.0) -> Callable[..., Tensor]:
    """Attention on packed or split heads."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        result: Tensor = strop.attention(q, k, v, None, q_heads, kv_heads, scale, False)
        return result

    return attend


def cached(softcap: float = 0.0) -> Callable[..., Tensor]:
    """Attention of two heads over a cache of 5 places of one; scales make it one in int8."""

    def attend(q: Tensor, k: Tensor, mask: Tensor, past: Tensor, *scales: Tensor) -> Tensor:
        made = strop.cached_attention(q, k, k, past, past, mask, 2, 1, 1.0, softcap, *scales)
        return made[0]  # type: ignore[no-any-return]

    return attend


Q = (2, 3, 8)
NEW = (ones(1, 2, 3, 8), ones(1, 1, 3, 8), ones(1, 1, 3, 8))
TAKEN: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "LayerNorm": (lambda x: F.layer_norm(x, (8,)), (ones(*Q),)),
    "RMSNorm": (lambda x: F.rms_norm(x, (8,)), (ones(*Q),)),
    "a residual norm": (lambda x: strop.skip_rms_norm(x, x, None, 1e-5)[0], (ones(*Q),)),
    "a row as wide as a program": (lambda x: F.layer_norm(x, (16_384,)), (ones(1, 16_384),)),
    "softmax": (lambda x: F.softmax(x, -1), (ones(*Q, dtype=torch.float32),)),
    "a wide softmax": (lambda x: F.softmax(x, -1), (ones(1, 20_000),)),
    "an embedding": (F.embedding, (torch.ones(2, 3, dtype=torch.int64), ones(5, 8))),
    "a gate": (lambda x: strop.gated(x, x, "silu"), (ones(1, 20_000),)),
    "packed heads": (attention(2, 1), (ones(*Q), ones(2, 5, 4), ones(2, 5, 4))),
    "split heads": (attention(2, 2), (ones(1, 2, 3, 256),) * 3),
    "attention over a cache": (cached(), (*NEW, ones(1, 1, 5, 8))),
    "attention whose scores are bounded": (cached(softcap=5.0), (*NEW, ones(1, 1, 5, 8))),
    "rotary": (lambda x, c: strop.rotary(x, c, c, 2), (ones(*Q), ones(1, 3, 2))),
    "rows in int8": (lambda x: strop.quantize_rows(x)[0], (ones(*Q),)),
}
LEFT: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...], str]] = {
    "an operator without a kernel": (torch.tanh, (ones(*Q),), "no kernel computes it"),
    "a dtype": (
        lambda x: F.layer_norm(x, (8,)),
        (ones(*Q, dtype=torch.bfloat16),),
        "gpu has no kernel for torch.bfloat16",
    ),
    "float64": (
        lambda x: F.softmax(x, -1),
        (ones(*Q, dtype=torch.float64),),
        "gpu has no kernel for torch.float64",
    ),
    "several axes": (
        lambda x: F.layer_norm(x, (3, 8)),
        (ones(*Q),),
        "the norm is over several axes",
    ),
    "a wider row": (
        lambda x: F.layer_norm(x, (16_385,)),
        (ones(1, 16_385),),
        "a row has 16385 numbers, and a kernel holds 16384 at most",
    ),
    "a wide residual norm": (
        lambda x: strop.skip_rms_norm(x, x, None, 1e-5)[0],
        (ones(1, 16_385),),
        "a row has 16385 numbers, and a kernel holds 16384 at most",
    ),
    "a wide table": (
        F.embedding,
        (torch.ones(2, dtype=torch.int64), ones(2, 16_385)),
        "a row has 16385 numbers, and a kernel holds 16384 at most",
    ),
    "another axis": (
        lambda x: F.softmax(x, 1),
        (ones(*Q),),
        "the softmax is not over the last axis",
    ),
    "another dtype": (
        lambda x: F.softmax(x, -1, dtype=torch.float32),
        (ones(*Q),),
        "the softmax gives torch.float32",
    ),
    "large heads": (
        attention(1, 1),
        (ones(1, 3, 257),) * 3,
        "heads have 257 channels of torch.float16, and a kernel takes 256 at most",
    ),
    "large heads of float32": (
        attention(1, 1),
        (ones(1, 3, 129, dtype=torch.float32),) * 3,
        "heads have 129 channels of torch.float32, and a kernel takes 128 at most",
    ),
    "a scale of zero": (
        attention(1, 1, scale=0.0),
        (ones(1, 3, 8),) * 3,
        "scores are multiplied by 0.0, and a kernel takes numbers above 0",
    ),
    "heads of different sizes": (
        attention(2, 2),
        (ones(1, 2, 3, 8), ones(1, 2, 5, 8), ones(1, 2, 5, 4)),
        "heads of queries, keys and values have 8, 8, 4 channels",
    ),
    "a cache in int8": (
        cached(),
        (*NEW, ones(1, 1, 5, 8, dtype=torch.int8), *[ones(1, 1, 1, 8)] * 2),
        "its caches are in int8 with a scale for each channel, and kernels continue floats",
    ),
    "a cache of another dtype": (
        cached(),
        (*NEW, ones(1, 1, 5, 8, dtype=torch.float32)),
        "its caches are in torch.float32, and queries in another dtype",
    ),
    "large heads of a cache": (
        cached(),
        tuple(ones(*x.shape[:-1], 257) for x in NEW[:2]) + (NEW[2], ones(1, 1, 5, 257)),
        "heads have 257 channels of torch.float16, and a kernel takes 256 at most",
    ),
    "large rotated heads": (
        lambda x, c: strop.rotary(x, c, c, 1),
        (ones(1, 3, 258), ones(1, 3, 2)),
        "heads have 258 channels of torch.float16, and a kernel takes 256 at most",
    ),
    "one scale": (
        lambda x, w: strop.linear_w8a8(x, w, strop.int8_scale(w), None),
        (ones(*Q), ones(4, 8)),
        "its activations have one scale for all rows; kernels take one for each (scales=row)",
    ),
}


@pytest.mark.parametrize("case", TAKEN)
def test_kernels_run_what_is_within_their_limits(case: str) -> None:
    made, inputs = TAKEN[case]
    program = program_of(made, *inputs)
    calls = [n for n in program.calls() if isinstance(n.target, torch._ops.OpOverload)]
    assert [why_no_kernel(node, GPU) for node in calls] == [None]
    assert any(name in registered() for name in kernels_of(program))


@pytest.mark.parametrize("case", LEFT)
def test_torch_runs_the_rest_for_a_reason(case: str) -> None:
    made, inputs, reason = LEFT[case]
    program = program_of(made, *inputs)
    reasons = [why_no_kernel(node, GPU) for node in program.calls()]
    assert reason in reasons
    if None not in reasons:
        assert not set(kernels_of(program)) & set(registered())


DYNAMIC: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: F.softmax(x, -1),
    "a gate": lambda x: strop.gated(x, x, "silu"),
    "a norm": lambda x: strop.skip_rms_norm(x, x, None, 1e-5)[0],
}


@pytest.mark.parametrize("case", DYNAMIC)
def test_a_dynamic_number_of_columns_is_named(case: str) -> None:
    program = program_of(DYNAMIC[case], ones(2, 5), dims={0: {1: "columns"}})
    (node,) = (n for n in program.calls() if n.target in limited_calls())
    assert "is dynamic" in str(why_no_kernel(node, GPU))
