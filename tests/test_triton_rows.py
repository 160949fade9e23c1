"""Each row of the lowering to launch plans gives what the program gives in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import need_gpu
from program_tools import program_of
from torch import Tensor
from triton_tools import kernels_of, run_plan

import strop.compiler.ir.dialect  # noqa: F401  (registers the operators)
from strop.compiler.lower.triton.refusal import NotLowered
from strop.compiler.lower.triton.table import TABLE
from strop.compiler.lower.triton.tracer import Tracer
from strop.kernels import softmax as softmax_kernel

strop = torch.ops.strop
BATCHES = {0: {0: ("batch", 1, 8), 1: ("seq", 1, 32)}}
HALF = torch.float16


def values(*shape: int, dtype: torch.dtype = HALF, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def layer_norm(x: Tensor, w: Tensor, b: Tensor) -> Any:
    return F.layer_norm(x, (24,), w, b)


def rms_norm(x: Tensor, w: Tensor, b: Tensor) -> Any:
    return F.rms_norm(x, (24,), w, 1e-6)


def skip_layer_norm(x: Tensor, w: Tensor, b: Tensor) -> Any:
    y, total = strop.skip_layer_norm(x, x * 2, w, b, 1e-5)
    return y, total


def skip_without_total(x: Tensor, w: Tensor, b: Tensor) -> Any:
    return strop.skip_rms_norm(x, x * 2, w, 1e-5)[0]


def norm_of_a_view(x: Tensor, w: Tensor, b: Tensor) -> Any:
    return F.layer_norm(x.transpose(0, 1), (24,), w, b)


def norm_int8(x: Tensor, w: Tensor, b: Tensor) -> Any:
    y, _, q, scale = strop.norm_int8(x, None, w, b, 1e-5, False)
    return y, q, scale


def quantize(x: Tensor, w: Tensor, b: Tensor) -> Any:
    return strop.quantize_rows(x)


def softmax(x: Tensor, w: Tensor, b: Tensor) -> Any:
    return F.softmax(x, -1)


def fused(x: Tensor, w: Tensor, b: Tensor) -> Any:
    weight = torch.diag(w).contiguous()
    return strop.fused_linear(x, weight, b, x, "gelu")


def gated(x: Tensor, w: Tensor, b: Tensor) -> Any:
    weight = torch.diag(w).contiguous()
    return strop.gated_linear(x, weight, weight, b, None, "silu")


def gate_of_halves(x: Tensor, w: Tensor, b: Tensor) -> Any:
    return strop.gated(x[..., :12], x[..., 12:], "gelu_tanh")


def int8(x: Tensor, w: Tensor, b: Tensor) -> Any:
    weight = torch.diag(w).contiguous()
    scale = strop.int8_scale(weight).float()
    whole = strop.int8_weight(weight, strop.int8_scale(weight))
    q, s = strop.quantize_rows(x)
    return strop.linear_int8(q, s, whole, scale, b, x, "relu", torch.float16)


@pytest.mark.parametrize(
    ("function", "kernels"),
    [
        (layer_norm, ["norm"]),
        (rms_norm, ["norm"]),
        (skip_layer_norm, ["aten.mul.Tensor", "norm"]),
        (skip_without_total, ["aten.mul.Tensor", "norm"]),
        (norm_of_a_view, ["aten.reshape.default", "norm"]),
        (norm_int8, ["norm"]),
        (quantize, ["quantize_rows"]),
        (softmax, ["softmax"]),
        (fused, ["gemm"]),
        (gated, ["gated_gemm"]),
        (gate_of_halves, ["gated"]),
        (int8, ["quantize_rows", "gemm_int8"]),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_row_runs_its_kernel(function: Callable[..., Any], kernels: list[str]) -> None:
    x = values(3, 5, 24)
    program = program_of(function, x, dims=BATCHES, w=values(24, seed=1), b=values(24, seed=2))
    assert kernels_of(program) == kernels
    for given in (x, values(1, 1, 24, seed=3)):
        wanted = program.run(input_0=given)
        for found, one in zip(run_plan(program, given), wanted, strict=True):
            whole = one.dtype == torch.int8  # a value between two whole numbers goes to either
            torch.testing.assert_close(found, one, rtol=2e-3, atol=1 if whole else 2e-3)


def test_fp8_lowers_to_its_kernels() -> None:
    def function(x: Tensor, w: Tensor) -> Any:
        weight = torch.diag(w).contiguous()
        scale = strop.fp8_scale(weight).float()
        q, rows = strop.quantize_rows_fp8(x)
        small = strop.fp8_weight(weight, scale)
        return strop.scaled_linear_fp8(q, rows, small, scale, None, x, "relu", torch.float16)

    x = values(3, 5, 32)
    program = program_of(function, x, dims=BATCHES, w=values(32, seed=1))
    assert kernels_of(program) == ["quantize_rows_fp8", "gemm_fp8"]
    need_gpu("Triton's interpreter rounds to e4m3 wrongly")
    (found,) = run_plan(program, x)
    torch.testing.assert_close(found, program.run(input_0=x)[0], rtol=2e-2, atol=2e-2)


def attended(packed: bool, masked: bool, causal: bool) -> Callable[..., Any]:
    def function(x: Tensor, mask: Tensor) -> Any:
        kv = x[..., :16] if packed else x[:, :1]
        seen = mask[:, None, None, :] if masked else None
        return strop.attention(x, kv, kv, seen, 2, 1, 0.25, causal)

    return function


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("masked", "causal"), [(True, False), (False, True), (True, True)])
def test_attention_takes_heads_in_both_layouts(packed: bool, masked: bool, causal: bool) -> None:
    x = values(2, 5, 32) if packed else values(2, 2, 5, 16)
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = False
    dims = {0: {0: ("batch", 1, 4), x.dim() - 2: ("seq", 1, 16)}, 1: {0: "batch", 1: "seq"}}
    program = program_of(attended(packed, masked, causal), x, mask, dims=dims)
    assert kernels_of(program) == ["attention"]
    (found,) = run_plan(program, x, mask)
    wanted = program.run(input_0=x, input_1=mask)[0]
    torch.testing.assert_close(found, wanted, rtol=3e-3, atol=3e-3)


@pytest.mark.parametrize("rows", [3, 20])
@pytest.mark.parametrize("bits", [4, 8])
def test_packed_weights_choose_by_rows_when_the_plan_runs(rows: int, bits: int) -> None:
    def function(x: Tensor, w: Tensor) -> Any:
        scale = strop.group_scale(w, 2, bits, True)
        numbers = strop.packed_numbers(w, scale, None, bits)
        return strop.packed_linear(x, numbers, scale, None, None, None, bits, "none")

    x = values(rows, 64)
    program = program_of(function, x, dims={0: {0: ("rows", 1, 64)}}, w=values(16, 64, seed=1))
    assert kernels_of(program) == ["choice"]
    (found,) = run_plan(program, x)
    torch.testing.assert_close(found, program.run(input_0=x)[0], rtol=3e-3, atol=1e-2)


@pytest.mark.parametrize("packed", [True, False])
def test_rotary_takes_heads_in_both_layouts(packed: bool) -> None:
    def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Any:
        return strop.rotary(x, cos, sin, 2)

    x = values(2, 5, 32) if packed else values(2, 2, 5, 16)
    cos, sin = values(1, 5, 8, seed=1), values(1, 5, 8, seed=2)
    program = program_of(rotated, x, cos, sin)
    assert kernels_of(program) == ["rotary"]
    (found,) = run_plan(program, x, cos, sin)
    wanted = program.run(input_0=x, input_1=cos, input_2=sin)[0]
    torch.testing.assert_close(found, wanted, rtol=2e-3, atol=2e-3)


def test_embeddings_with_their_norm_take_one_kernel() -> None:
    def embedded(ids: Tensor, words: Tensor, places: Tensor) -> Any:
        return strop.embedding_norm(
            [ids, torch.zeros_like(ids)], [words, places], None, None, 1e-5, False
        )

    ids = torch.tensor([[3, 1, 2], [0, 4, 4]])
    program = program_of(embedded, ids, words=values(5, 24), places=values(2, 24, seed=1))
    assert kernels_of(program)[-1] == "embedding_norm"
    (found,) = run_plan(program, ids)
    torch.testing.assert_close(found, program.run(input_0=ids)[0], rtol=2e-3, atol=2e-3)


def test_an_embedding_takes_the_kernel_without_its_norm() -> None:
    ids = torch.tensor([[3, 1, 2], [0, 4, 4]])
    program = program_of(F.embedding, ids, weight=values(5, 24))
    assert kernels_of(program) == ["embedding_norm"]
    (found,) = run_plan(program, ids)
    assert torch.equal(torch.as_tensor(found), torch.as_tensor(program.run(input_0=ids)[0]))


def test_what_no_kernel_takes_is_run_by_torch() -> None:
    def function(x: Tensor) -> Any:
        return F.layer_norm(x, (4, 6)), F.softmax(x, 1), strop.bias_gelu(x, x[0, 0], "none")

    x = values(3, 4, 6, dtype=torch.float32)
    program = program_of(function, x)
    assert kernels_of(program) == [
        "aten.layer_norm.default", "aten.softmax.int", "aten.add.Tensor", "aten.gelu.default",
    ]  # fmt: skip
    for found, wanted in zip(run_plan(program, x), program.run(input_0=x), strict=True):
        torch.testing.assert_close(found, wanted)


def test_numbers_of_64_bits_stay_with_torch() -> None:
    # A kernel would compute in float32.
    x = values(3, 24, dtype=torch.float64)
    program = program_of(lambda x: F.layer_norm(x, (24,)), x)
    assert kernels_of(program) == ["aten.layer_norm.default"]


# Refused -----------------------------------------------------------------------------------------


def test_heads_that_no_kernel_takes_join_their_cache_once() -> None:
    def attend(q: Tensor, k: Tensor, mask: Tensor, past: Tensor) -> Any:
        return strop.cached_attention(q, k, k, past, past * 2, mask, 2, 1, 0.1, 0.0)[0]

    given = (
        values(1, 2, 1, 257),
        values(1, 1, 1, 257, seed=1),
        values(1, 1, 1, 6, seed=2),
        values(1, 1, 5, 257, seed=3),
    )
    program = program_of(attend, *given)
    assert kernels_of(program).count("aten.cat.default") == 2
    assert torch.equal(run_plan(program, *given)[0], attend(*given))


@pytest.mark.parametrize("rows", [1, 20])
def test_bounded_scores_over_a_cache_take_the_kernels_of_others(rows: int) -> None:
    def attend(q: Tensor, k: Tensor, mask: Tensor, past: Tensor) -> Any:
        return strop.cached_attention(q, k, k, past, past * 2, mask, 2, 1, 0.4, 1.5)[0]

    given = (
        values(1, 2, rows, 32),
        values(1, 1, rows, 32, seed=1),
        values(1, 1, rows, 5 + rows, seed=2),
        values(1, 1, 5, 32, seed=3),
    )
    program = program_of(attend, *given)
    kernel = "decode_attention" if rows == 1 else "attention"
    assert kernel in kernels_of(program)
    torch.testing.assert_close(run_plan(program, *given)[0], attend(*given), rtol=3e-3, atol=3e-3)


@pytest.mark.parametrize("kept", ["int8", "float32"])
def test_caches_that_no_kernel_continues_are_continued_by_torch(kept: str) -> None:
    def attend(q: Tensor, k: Tensor, mask: Tensor, past: Tensor, *scales: Tensor) -> Any:
        return strop.cached_attention(q, k, k, past, past * 2, mask, 2, 1, 0.1, 0.0, *scales)[0]

    dtype = {"int8": torch.int8, "float32": torch.float32}.get(kept, HALF)
    scales = [torch.full((1, 1, 1, 32), 0.05, dtype=HALF)] * 2 if kept == "int8" else []
    given = [
        values(1, 2, 1, 32),
        values(1, 1, 1, 32, seed=1),
        values(1, 1, 1, 6, seed=2),
        (10 * values(1, 1, 5, 32, seed=3)).to(dtype),
        *scales,
    ]
    program = program_of(attend, *given)
    assert "decode_attention" not in kernels_of(program)
    torch.testing.assert_close(run_plan(program, *given)[0], attend(*given), rtol=0, atol=0)


def test_the_steps_of_a_row_that_refuses_are_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(on: Tracer, x: Tensor, axis: int, dtype: Any) -> Any:
        on.launch(softmax_kernel.softmax, on.call(torch.ops.aten.cat.default, [x, x], -1))
        raise NotLowered("it is not right")

    monkeypatch.setitem(TABLE, torch.ops.aten.softmax.int, refuses)
    x = values(3, 40)
    program = program_of(lambda x: F.layer_norm(x.softmax(-1), (40,)), x)
    assert kernels_of(program) == ["aten.softmax.int", "norm"]
    assert torch.equal(run_plan(program, x)[0], F.layer_norm(x.softmax(-1), (40,)))


def test_what_torch_makes_within_other_memory_begins_at_its_first_number() -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        made = x.clone()
        made[..., 8:] = y
        return made * 2

    x, y = values(2, 3, 16, dtype=torch.float32), values(2, 3, 8, dtype=torch.float32)
    program = program_of(function, x, y, dims={0: {0: "rows"}, 1: {0: "rows"}})
    (found,) = run_plan(program, x, y)
    torch.testing.assert_close(found, function(x, y))
