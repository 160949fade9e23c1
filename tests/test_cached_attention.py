"""Attention over a cache: what it means, which graphs hold it, and the file against eager torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import decoders
import onnx_ir as ir
import pytest
import torch
from cache_tools import CAPACITY, file_of, padded, program_of, run_shared, traced
from program_tools import assert_left_alone, counts, run_passes
from torch import Tensor

from strop.compiler.frontend.model import DimSpec
from strop.compiler.ir.contract import Dim
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.targets.target import ONNX, SM90
from strop.passes import (
    CanonicalMasks,
    CommonSubexpressions,
    FoldConstants,
    FuseAttention,
    FuseCachedAttention,
    FuseRotary,
    Noops,
    PackLinears,
)

aten, strop = torch.ops.aten, torch.ops.strop
CACHES = {"past_k": "present_k", "past_v": "present_v"}
LOWEST = torch.finfo(torch.float32).min
PADDINGS = ("none", "left", "middle", "none", "right", "left", "right", "left")
SIZES = [(1, 1, 0), (1, 1, 9), (3, 1, 9), (1, 5, 0), (1, 5, 9), (3, 5, 0), (3, 5, 9), (2, 40, 20)]


@dataclass(frozen=True)
class Call:
    """One call of the operator, and how its inputs look."""

    heads: int = 4
    kv_heads: int = 2
    size: int = 16
    value_size: int = 0
    packed: bool = True
    scale: float = 0.3
    softcap: float = 0.0
    window: int | None = None
    mask: str = "bool"

    def inputs(self, batch: int, seq: int, past: int, padding: str = "left") -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(batch * 100 + seq * 10 + past)

        def new(heads: int, size: int) -> Tensor:
            shape = (batch, seq, heads * size) if self.packed else (batch, heads, seq, size)
            return torch.randn(shape, generator=generator)

        def cache(size: int) -> Tensor:
            return torch.randn(batch, self.kv_heads, past, size, generator=generator)

        values = self.value_size or self.size
        return {
            "q": new(self.heads, self.size),
            "k": new(self.kv_heads, self.size),
            "v": new(self.kv_heads, values),
            "mask": padded(batch, past + seq, padding),
            "past_k": cache(self.size),
            "past_v": cache(values),
        }

    def seen(self, given: dict[str, Tensor]) -> Tensor:
        seq = given["q"].shape[-2]
        found = strop.cache_mask(given["mask"], seq, self.window)
        if self.mask == "bool":
            return found
        if self.mask == "everything":
            return found | True
        bias = torch.arange(self.heads)[:, None, None]
        if self.mask == "filled":
            return torch.where(found, bias.float(), LOWEST)
        if self.mask == "not filled":
            return torch.where(found, LOWEST, bias.float())
        if self.mask == "filled where not":
            return bias.float().masked_fill(~found, LOWEST)
        if self.mask == "filled where low":
            return bias.float().masked_fill(torch.where(found, 0.0, -1.0).bool(), LOWEST)
        if self.mask == "filled where shown":
            return bias.float().masked_fill(found, LOWEST)
        if self.mask == "casts":
            return found.float()
        if self.mask == "multiplied":
            return found * 2.0
        if self.mask == "added":
            return bias.float() + found
        if self.mask == "number added":
            return found + 2.0
        hidden = torch.where(found, 0.0, LOWEST if self.mask != "weak" else -1e4)
        large = torch.tensor([0.0, 1e30, 0.0, 0.0])[:, None, None]
        return {
            "float": hidden,
            "weak": hidden,
            "scaled": hidden * 0.35,
            "scaled away": hidden * 1e-9,
            "turned": hidden * -0.35,
            "taken away": torch.add(bias.float(), hidden, alpha=-1),
            "zeros": torch.where(~found, LOWEST, 0.0),
            "zeros where shown": torch.where(~found, 0.0, LOWEST),
            "no numbers": bias.float().masked_fill(torch.where(found, 0.0, 0.0).bool(), LOWEST),
            "half": hidden.half().float(),
            "bias": bias + hidden,
            "two biases": hidden + bias - 0.5 + bias * 2,
            "large bias": hidden + large,
            "counted bias": given["mask"][:, None, None].float() + hidden,
            "given bias": hidden + given["q"].mean(),
        }[self.mask]

    def __call__(self, **given: Tensor) -> dict[str, Tensor]:
        tensors = [given[name] for name in ("q", "k", "v", "past_k", "past_v")]
        mask = self.seen(given)
        settings = self.heads, self.kv_heads, self.scale, self.softcap
        out, keys, values = strop.cached_attention(*tensors, mask, *settings)
        return {"out": out, "present_k": keys, "present_v": values}

    @cache  # noqa: B019  (calls are few, and live as long as the tests)
    def program(self, batch: DimSpec = "batch", seq: DimSpec = "seq") -> Program:
        rows: dict[int, DimSpec] = {0: batch}
        new: dict[int, DimSpec] = rows | {1 if self.packed else 2: seq}
        cache: dict[int, DimSpec] = rows | {2: ("past", 0, 64)}
        axes = dict.fromkeys("qkv", new) | dict.fromkeys(CACHES, cache)
        return program_of(self, self.inputs(3, 4, 5), axes | {"mask": rows | {1: "past + seq"}})


def operators(model: ir.Model) -> set[str]:
    return {node.op_type for node in model.graph.all_nodes()}


def assert_same(call: Call, made: dict[str, Any], given: dict[str, Tensor]) -> None:
    expected = call(**given)
    total = given["mask"].shape[1]
    for name in CACHES.values():
        torch.testing.assert_close(torch.tensor(made[name][:, :, :total]), expected[name])
    torch.testing.assert_close(torch.tensor(made["out"]), expected["out"], rtol=0, atol=2e-5)


def by_name(session: Any, given: dict[str, Tensor]) -> dict[str, Any]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {n: t.numpy() for n, t in given.items()})))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("softcap", [0.0, 1.5])
def test_it_is_attention_over_the_longer_cache(packed: bool, softcap: float) -> None:
    call = Call(packed=packed, softcap=softcap, size=6)
    given = call.inputs(2, 3, 4, "middle")
    made = call(**given)

    def split(name: str, heads: int) -> Tensor:
        x = given[name]
        return x.unflatten(-1, (heads, -1)).transpose(1, 2) if packed else x

    keys, values = (torch.cat([given[f"past_{n}"], split(n, 2)], 2) for n in "kv")
    scores = split("q", 4) @ keys.repeat_interleave(2, 1).mT * call.scale
    scores = softcap * torch.tanh(scores / softcap) if softcap else scores
    scores = scores.masked_fill(~strop.cache_mask(given["mask"], 3, None), -math.inf)
    out = scores.softmax(-1) @ values.repeat_interleave(2, 1)
    torch.testing.assert_close(made["out"], out.transpose(1, 2).flatten(2) if packed else out)
    torch.testing.assert_close(made["present_k"], keys)
    torch.testing.assert_close(made["present_v"], values)


def test_gradients_reach_everything() -> None:
    call = Call(softcap=2.0)
    given = {n: t.requires_grad_(n != "mask") for n, t in call.inputs(2, 3, 4).items()}
    call(**given)["out"].sum().backward()
    assert all(bool(t.grad.abs().sum() > 0) for n, t in given.items() if n not in ("mask", "q"))
    assert given["q"].grad is not None and bool(given["q"].grad.isfinite().all())


CALLS = [
    Call(window=3),
    Call(packed=False, heads=6, kv_heads=1, size=72, softcap=2.0),
    Call(scale=-0.3),
    Call(mask="float", window=3),
    Call(mask="filled", softcap=2.0),
]
MORE_CALLS = [
    Call(),
    Call(packed=False),
    Call(heads=4, kv_heads=4, size=8),
    Call(heads=1, kv_heads=1, size=64),
    Call(heads=2, kv_heads=2, size=256),
    Call(window=1, packed=False),
    Call(window=3, softcap=2.0),
    Call(scale=-0.3, packed=False),
    Call(mask="bias"),
    Call(mask="counted bias"),
    Call(mask="half", packed=False),
    Call(mask="scaled"),
    Call(mask="zeros"),
    Call(mask="filled where not"),
    Call(mask="filled where low", window=3),
    Call(mask="two biases", window=3),
]


@pytest.mark.parametrize(
    "call", [*CALLS, *(pytest.param(c, marks=pytest.mark.slow) for c in MORE_CALLS)], ids=str
)
def test_the_file_computes_the_same_in_exact_caches_and_in_larger_buffers(call: Call) -> None:
    session, model = file_of(call.program())
    assert "GroupQueryAttention" in operators(model)
    for sizes, padding in zip(SIZES, PADDINGS):
        given = call.inputs(*sizes, padding)
        exact = by_name(session, given)
        assert exact["present_k"].shape == (sizes[0], call.kv_heads, sum(sizes[1:]), call.size)
        assert_same(call, exact, given)
        assert_same(call, run_shared(session, given, CACHES), given)


@dataclass(frozen=True)
class ComputedCache(Call):
    """A call whose cache is computed from an input: a buffer would be read before."""

    def __call__(self, **given: Tensor) -> dict[str, Tensor]:
        return super().__call__(**given | {"past_k": given["past_k"] * 2})


APART = [
    (ComputedCache(), "a cache that is computed"),
    (Call(size=12), "a head that is no multiple of 8"),
    (Call(size=16, value_size=8), "values of another size"),
    (Call(mask="everything"), "a mask that shows what comes later"),
    (Call(mask="given bias"), "a bias that may show what the mask hides"),
    (Call(mask="large bias"), "a bias that shows what the mask hides"),
    (Call(mask="weak"), "a mask of numbers that scores outweigh"),
    (Call(mask="scaled away"), "a mask of numbers that a factor makes small"),
    (Call(mask="turned"), "a mask that shows what it hid"),
    (Call(mask="taken away"), "a mask that is subtracted"),
    (Call(mask="filled where shown"), "a fill that hides what the cache's mask shows"),
    (Call(mask="zeros where shown"), "zeros that show what the cache's mask hides"),
    (Call(mask="no numbers"), "a fill that hides nothing"),
    (Call(mask="not filled"), "a mask that hides what the cache's shows"),
    (Call(mask="casts"), "a mask of zeros and ones"),
    (Call(mask="multiplied"), "a mask of zeros and twos"),
    (Call(mask="added"), "ones that are added where a place is shown"),
    (Call(mask="number added"), "twos and threes"),
]


@pytest.mark.parametrize(("call", "why"), APART, ids=[why for _, why in APART])
def test_other_calls_take_the_standard_operator_and_exact_caches(call: Call, why: str) -> None:
    session, model = file_of(call.program())
    assert "GroupQueryAttention" not in operators(model), why
    assert model.meta["strop.shared_caches"] == frozenset()
    assert len(set(model.meta["strop.copied_caches"].values())) == 1
    for sizes in SIZES:
        given = call.inputs(*sizes, "none")
        assert_same(call, by_name(session, given), given)


def test_standard_files_have_no_operators_of_the_runtimes_own() -> None:
    call = Call(window=3)
    session, model = file_of(call.program(), ONNX)
    assert {node.domain for node in model.graph.all_nodes()} == {""}
    given = call.inputs(3, 5, 9)
    assert_same(call, by_name(session, given), given)


def test_a_branch_is_made_only_for_batches_that_may_continue() -> None:
    assert "If" in operators(file_of(Call(window=3).program())[1])
    for dims in ({"batch": ("batch", 1, 1)}, {"seq": ("seq", 1, 1)}):
        program = Call(window=3).program().clone()
        sizes = {dim.name: dim for dim in program.contract.dims}
        [(name, _, most)] = dims.values()
        sizes[name] = Dim(name, 1, most)
        program.contract = replace(program.contract, dims=tuple(sizes.values()))
        assert "If" not in operators(file_of(program)[1])


def test_buffers_keep_what_lies_behind_the_last_place() -> None:
    call = Call(window=3)
    session, model = file_of(call.program())
    assert model.meta["strop.shared_caches"] == set(CACHES)
    for sizes in ((3, 5, 9), (2, 1, 9)):
        made = run_shared(session, call.inputs(*sizes), CACHES)
        behind = torch.tensor(made["present_k"][:, :, sum(sizes[1:]) :])
        assert behind.shape[2] == CAPACITY - sum(sizes[1:]) and bool(behind.isnan().all())


# What graphs hold it -------------------------------------------------------------------------

PASSES = (Noops(), CommonSubexpressions(), FoldConstants(), FuseRotary(), FuseAttention())


DECODER = {"layers": 1, "window": 4, "head_size": 16}


@cache
def decoder_program() -> Program:
    return run_passes(traced(decoders.make(**DECODER)), *PASSES)


def test_a_decoder_runs_in_larger_buffers_as_in_torch() -> None:
    model = decoders.make(**DECODER)
    result = FuseCachedAttention().run(decoder_program())
    assert counts(result) == {"cached-attention": 1}
    assert not result.program.find(aten.scaled_dot_product_attention.default)
    session, file = file_of(run_passes(result.program, Noops()))
    assert model.generation is not None and model.inputs_at is not None
    assert file.meta["strop.shared_caches"] == set(model.generation.caches)
    for batch, seq, past in SIZES[:-1]:
        given = model.inputs_at({"batch": batch, "seq": seq, "past": past})
        assert isinstance(given, dict)
        made = run_shared(session, given, model.generation.caches)
        with torch.no_grad():
            expected = model.module(**given)
        for name, want in expected.items():
            got = torch.tensor(made[name])
            got = got if name == "logits" else got[:, :, : past + seq]
            torch.testing.assert_close(got, want, rtol=0, atol=5e-5)


def test_the_mask_of_a_cache_is_canonical_as_it_is() -> None:
    assert not CanonicalMasks().run(traced(decoders.make(**DECODER))).log.misses


def cached(function: Any, outputs: Any = ("k", "v")) -> Program:
    """A function of q, two longer caches and a mask; it returns what it makes, and the caches."""
    call = Call(packed=False)

    def forward(**given: Tensor) -> Any:
        whole = {n: torch.cat([given[f"past_{n}"], given[n]], 2) for n in "kv"}
        out = function(given, whole["k"], whole["v"])
        return {"out": out, **{f"present_{n}": whole[n] for n in outputs}}

    new: dict[int, DimSpec] = {0: "batch", 2: "seq"}
    cache: dict[int, DimSpec] = {0: "batch", 2: "past"}
    axes = dict.fromkeys("qkv", new) | dict.fromkeys(CACHES, cache)
    mask: dict[str, dict[int, DimSpec]] = {"mask": {0: "batch", 1: "past + seq"}}
    return run_passes(program_of(forward, call.inputs(3, 4, 5), axes | mask), *PASSES)


def seen(given: dict[str, Tensor]) -> Tensor:
    return strop.cache_mask(given["mask"], given["q"].shape[2], None)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
    return strop.attention(q, k, v, mask, 4, 2, 0.25, causal)


def test_how_long_a_cache_is_may_be_read_beside_attention() -> None:
    program = cached(
        lambda given, k, v: attend(given["q"], k, v, seen(given)) + given["past_k"].shape[2]
    )
    result = FuseCachedAttention().run(program)
    assert counts(result) == {"cached-attention": 1}
    session, file = file_of(result.program)
    assert file.meta["strop.shared_caches"] == set(CACHES)
    given = Call(packed=False).inputs(1, 5, 9, "none")
    with torch.no_grad():
        want = result.program.run(**given)[0]
    got = torch.tensor(run_shared(session, given, CACHES)["out"])
    torch.testing.assert_close(got, want, rtol=0, atol=2e-5)


LEFT_ALONE: list[tuple[Any, Any, str]] = [
    (lambda given, k, v: attend(given["q"], k, v, None), ("k", "v"), "it has no mask"),
    (
        lambda given, k, v: attend(given["q"], k, v, seen(given), causal=True),
        ("k", "v"),
        "counted from the first of the cache",
    ),
    (lambda given, k, v: attend(given["q"], k, v, seen(given)), ("k",), "cache is no output"),
    (
        lambda given, k, v: attend(given["q"], k, v, seen(given)) + k.sum(),
        ("k", "v"),
        "the cache is also read by %sum_1",
    ),
    (
        lambda given, k, v: attend(given["q"], k, v, seen(given)) + given["past_v"].sum(),
        ("k", "v"),
        "the cache is also read by %sum_1",
    ),
    (lambda given, k, v: attend(given["q"], k, k, seen(given)) + v.sum(), ("k", "v"), "one cache"),
    (
        lambda given, k, v: attend(given["q"], k * 2, v, seen(given)),
        ("k", "v"),
        "keys or values are no input with new ones behind it",
    ),
]


@pytest.mark.parametrize(("function", "outputs", "reason"), LEFT_ALONE)
def test_other_attention_is_left_alone(function: Any, outputs: Any, reason: str) -> None:
    program = cached(function, outputs)
    if "no input" in reason:  # Not even near.
        assert not FuseCachedAttention().run(program).modified
        return
    assert_left_alone(FuseCachedAttention(), program, reason)


def test_a_target_without_caches_keeps_plain_attention() -> None:
    program = cached(lambda given, k, v: attend(given["q"], k, v, seen(given)))
    result = FuseCachedAttention().run(program, context=Context(target=replace(SM90, caches=False)))
    assert not result.modified
    assert "has no attention over a cache" in result.log.misses[0].reason


def test_projections_are_packed_behind_it() -> None:
    program = run_passes(decoder_program(), FuseCachedAttention(), Noops())
    assert counts(PackLinears().run(program)) == {"packed-qkv": 1}
