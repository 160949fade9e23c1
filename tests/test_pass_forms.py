"""Norms, activations and embeddings written out: near forms that mean something else stay."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from program_tools import assert_left_alone, body, counts, program_of, same_numbers
from torch import Tensor, nn

from strop.passes.fuse.activation import FuseActivations, FuseBiasGelu
from strop.passes.fuse.embedding import FuseEmbeddings
from strop.passes.fuse.norm import FuseNorms

SEED = torch.Generator().manual_seed(0)
X = torch.randn(2, 3, 8, generator=SEED)

NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "square": lambda x: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 0.1),
    "a product": lambda x: x * torch.rsqrt((x * x).mean(2, keepdim=True) + 0.1),
    "a power": lambda x: (x.pow(2).mean(-1, keepdim=True) + 0.1).pow(-0.5) * x,
    "a root": lambda x: x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 0.1),
}
NO_NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "a cube": lambda x: x * torch.rsqrt(x.pow(3).abs().mean(-1, keepdim=True) + 0.1),
    "another power": lambda x: x * (x.pow(2).mean(-1, keepdim=True) + 0.1).pow(-0.25),
    "the mean of another value": lambda x: (
        x * torch.rsqrt((x + 1).pow(2).mean(-1, keepdim=True) + 0.1)
    ),
    "a product of two": lambda x: x * torch.rsqrt((x * x.exp()).mean(-1, keepdim=True) + 9.0),
    "epsilon by channel": lambda x: (
        x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + torch.ones(2, 3, 1))
    ),
    "the root alone": lambda x: torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 0.1),
    "over the root of another": lambda x: (
        x.exp() / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 0.1)
    ),
    "times epsilon": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) * 0.1),
}


@pytest.mark.parametrize("case", NORMS)
def test_forms_of_a_norm_without_a_weight_are_recognised(case: str) -> None:
    before = program_of(NORMS[case], X)
    result = FuseNorms().run(before)
    assert counts(result) == {"rms-norm-plain": 1}
    assert "[8], None, 0.1" in body(result.program)
    same_numbers(before, result.program, X, tolerance=1e-6)


def test_a_norm_over_a_dynamic_number_of_rows_is_recognised() -> None:
    before = program_of(NORMS["square"], X, dims={0: {0: "batch", 1: "rows"}})
    result = FuseNorms().run(before)
    assert counts(result) == {"rms-norm-plain": 1}
    same_numbers(before, result.program, X[:1], tolerance=1e-6)


def test_other_forms_are_no_norm() -> None:
    before = program_of(lambda x: tuple(model(x) for model in NO_NORMS.values()), X)
    assert not FuseNorms().run(before).modified


@pytest.mark.parametrize("shape", [(3, 8), (1,), (2, 3, 1)])
def test_a_factor_that_is_not_one_number_per_channel_stays_a_factor(shape: tuple[int, ...]) -> None:
    before = program_of(lambda x, w: w * NORMS["square"](x), X, w=torch.randn(shape))
    result = FuseNorms().run(before)
    assert counts(result) == {"rms-norm-plain": 1}
    assert any("not one number per channel" in miss.reason for miss in result.log.misses)
    same_numbers(before, result.program, X, tolerance=1e-6)


def tanh_gelu(
    half: float = 0.5,
    one: float = 1.0,
    scale: float = math.sqrt(2 / math.pi),
    third: float = 0.044715,
) -> Callable[[Tensor], Tensor]:
    return lambda x: half * x * (one + torch.tanh(scale * (x + third * x.pow(3))))


def numbers_first(x: Tensor) -> Tensor:
    cube = torch.mul(0.044715, x.pow(3))
    inner = torch.tanh(torch.mul(math.sqrt(2 / math.pi), torch.add(x, cube)))
    return torch.mul(0.5, x) * torch.add(1.0, inner)


ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "numbers first": (numbers_first, "gelu-tanh"),
    "a half at the end": (lambda x: x * (1 + torch.erf(x / math.sqrt(2))) * 0.5, "gelu-erf"),
    "half of the factor": (lambda x: (torch.erf(x / 2**0.5) + 1) * 0.5 * x, "gelu-erf"),
    "times the root of a half": (
        lambda x: torch.mul(0.5, x) * torch.add(1.0, torch.erf(torch.mul(2**-0.5, x))),
        "gelu-erf",
    ),
    "half of the factor, a number first": (
        lambda x: torch.mul(0.5, torch.add(1.0, torch.erf(x / 2**0.5))) * x,
        "gelu-erf",
    ),
    "a cube by products": (
        lambda x: (
            torch.tanh((x * x * x * 0.044715 + x) * math.sqrt(2 / math.pi)).add(1).mul(x).mul(0.5)
        ),
        "gelu-tanh",
    ),
    "a half of the whole, first": (
        lambda x: torch.mul(0.5, (1 + torch.erf(x / math.sqrt(2))) * x),
        "gelu-erf",
    ),
    "a sigmoid first": (lambda x: x.sigmoid() * x, "silu"),
}


@pytest.mark.parametrize("case", ACTIVATIONS)
def test_forms_of_an_activation_are_recognised(case: str) -> None:
    model, rule = ACTIVATIONS[case]
    before = program_of(model, X)
    result = FuseActivations().run(before)
    assert counts(result) == {rule: 1}
    same_numbers(before, result.program, X, tolerance=1e-6)


NO_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "another half": tanh_gelu(half=0.51),
    "another one": tanh_gelu(one=1.01),
    "another scale": tanh_gelu(scale=0.79),
    "another third": tanh_gelu(third=0.045),
    "another power": lambda x: (
        0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(2))))
    ),
    "erf of another value": lambda x: x * 0.5 * (1.0 + torch.erf(x.exp() / math.sqrt(2.0))),
    "erf, another half": lambda x: x * 0.6 * (1.0 + torch.erf(x / math.sqrt(2.0))),
    "erf, another one": lambda x: x * 0.5 * (2.0 + torch.erf(x / math.sqrt(2.0))),
    "sigmoid of another value": lambda x: x * torch.sigmoid(2 * x),
    "sigmoid alone": lambda x: torch.sigmoid(x),
}


def test_other_constants_are_no_activation() -> None:
    before = program_of(lambda x: tuple(model(x) for model in NO_ACTIVATIONS.values()), X)
    assert not FuseActivations().run(before).modified


def test_a_gate_that_is_repeated_over_what_it_gates_stays() -> None:
    program = program_of(lambda x, y: F.silu(x) * y, X[:1], X)
    assert_left_alone(FuseActivations(), program, "gate and up have different shapes")


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_the_form_of_a_gelu_is_kept_where_a_bias_joins_it(approximate: str) -> None:
    before = program_of(nn.Sequential(nn.Linear(8, 4), nn.GELU(approximate)), 3 * X)
    result = FuseBiasGelu().run(before)
    assert f"'{approximate}'" in body(result.program)
    same_numbers(before, result.program, 3 * X, tolerance=1e-6)


def test_a_linear_layer_that_is_read_elsewhere_or_has_no_bias_keeps_its_gelu() -> None:
    def model(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        total = F.linear(x, w, b)
        return F.gelu(total), total, F.gelu(F.linear(x, w))

    program = program_of(model, X, w=torch.randn(4, 8), b=torch.randn(4))
    assert not FuseBiasGelu().run(program).modified


IDS = torch.tensor([[1, 5, 2, 3], [0, 2, 2, 6]])
WORDS, PLACES = torch.randn(7, 8, generator=SEED), torch.randn(9, 8, generator=SEED)
THREES, MIXED = torch.full((1, 4), 3), torch.tensor([[3, 3, 3, 4]])


def constant(ids: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda i, w, p: F.embedding(i, w) + F.embedding(ids.expand(2, 4), p)


def embedded(model: Callable[..., Tensor], dims: dict[int, object] | None = None) -> dict[str, int]:
    """Rewrites of a model of words and places, whose numbers must stay."""
    named = {0: dims} if dims else None
    before = program_of(model, IDS, dims=named, w=WORDS, p=PLACES)  # type: ignore[arg-type]
    result = FuseEmbeddings().run(before)
    same_numbers(before, result.program, IDS, tolerance=1e-6)
    return counts(result)


def at_places(i: Tensor, w: Tensor, p: Tensor) -> Tensor:
    return F.embedding(i, w) + F.embedding(torch.arange(i.shape[1])[None], p)


EMBEDDINGS: dict[str, tuple[Callable[..., Tensor], dict[str, int]]] = {
    "one row for all": (constant(THREES), {"embedding-row": 1}),
    "one row for all, with a row for padding": (
        lambda i, w, p: F.embedding(i, w, 0) + F.embedding(THREES.expand(2, 4), p, 0),
        {"embedding-row": 1},
    ),
    "places, with a row for padding": (
        lambda i, w, p: F.embedding(i, w, 0) + F.embedding(torch.arange(4), p, 0),
        {"embedding-range": 1},
    ),
    "rows that differ": (constant(MIXED), {}),
    "zeros": (
        lambda i, w, p: F.embedding(i, w) + F.embedding(torch.zeros_like(i), p),
        {"embedding-row": 1},
    ),
    "a row that is multiplied": (
        lambda i, w, p: F.embedding(i, w) * F.embedding(torch.zeros_like(i), p),
        {},
    ),
    "a row and a number": (lambda i, w, p: F.embedding(torch.zeros_like(i), p) + 1.0, {}),
    "a row repeated over another summand": (
        lambda i, w, p: F.embedding(i, w)[:, :1] + F.embedding(torch.zeros_like(i), p),
        {},
    ),
    "a row twice as much": (
        lambda i, w, p: torch.add(F.embedding(i, w), F.embedding(torch.zeros_like(i), p), alpha=2),
        {"embedding-row": 1},
    ),
    "places": (at_places, {"embedding-range": 1}),
    "places without a batch": (
        lambda i, w, p: F.embedding(i, w) + F.embedding(torch.arange(4), p),
        {"embedding-range": 1},
    ),
    "a number, then places": (
        lambda i, w, p: (F.embedding(i, w) + 1.0) + F.embedding(torch.arange(4)[None], p),
        {"embedding-range": 1},
    ),
    "a number and a row": (lambda i, w, p: torch.add(1.0, F.embedding(i, w)[0, 0]) + p[2], {}),
    "a row and a number more": (lambda i, w, p: F.embedding(i, w) + p[2] + 1.0, {}),
    "places alone": (lambda i, w, p: F.embedding(torch.arange(4), p), {"embedding-range": 1}),
    "places of no input's length": (
        lambda i, w, p: F.embedding(torch.arange(3), p) + i[0, 0],
        {"embedding-range": 1},
    ),
    "a row and a computed table": (
        lambda i, w, p: F.embedding(i, w) + p[2] + F.embedding(i, w).flatten(0, 1)[:4],
        {},
    ),
    "a row and a table of three axes": (
        lambda i, w, p: F.embedding(i, w) + p[2] + p[:, None][:2],
        {},
    ),
    "places for each batch": (
        lambda i, w, p: F.embedding(i, w) + F.embedding(torch.arange(4)[None].expand(2, 4), p),
        {},
    ),
    "places from one": (
        lambda i, w, p: F.embedding(i, w) + F.embedding(torch.arange(1, 5), p),
        {},
    ),
    "places in a computed table": (
        lambda i, w, p: F.embedding(torch.arange(4), F.embedding(i, w)[0]),
        {},
    ),
    "a row and places": (
        lambda i, w, p: at_places(i, w, p) + p[2],
        {"embedding-range": 1, "embedding-sum": 1},
    ),
    "a row, then places": (
        lambda i, w, p: F.embedding(i, w) + p[2] + F.embedding(torch.arange(4)[None], p),
        {"embedding-range": 1, "embedding-sum": 1},
    ),
    "twice a row and places": (
        lambda i, w, p: torch.add(at_places(i, w, p), p[2], alpha=2),
        {"embedding-range": 1},
    ),
    "twice places and a row": (
        lambda i, w, p: (
            torch.add(F.embedding(i, w), F.embedding(torch.arange(4)[None], p), alpha=2) + p[2]
        ),
        {"embedding-range": 1},
    ),
    "a sum that is read elsewhere": (
        lambda i, w, p: (total := at_places(i, w, p)) + p[2] + total.sum(),
        {"embedding-range": 1},
    ),
    "rows of another axis": (
        lambda i, w, p: F.embedding(i, w) + p[2] + p[:, :8][1:5][None],
        {"embedding-sum": 1},
    ),
    "a matrix and places": (
        lambda i, w, p: at_places(i, w, p) + p[:4],
        {"embedding-range": 1},
    ),
}


@pytest.mark.parametrize("case", EMBEDDINGS)
def test_lookups_at_constant_places(case: str) -> None:
    model, wanted = EMBEDDINGS[case]
    assert embedded(model) == wanted


def test_places_are_cut_at_the_length_of_an_input() -> None:
    sizes = {0: "batch", 1: ("seq", 2, 9)}
    assert embedded(at_places, sizes) == {"embedding-range": 1}  # type: ignore[arg-type]


def test_places_of_a_computed_length_stay_and_say_so() -> None:
    def model(i: Tensor, p: Tensor) -> Tensor:
        return F.embedding(torch.arange(i.shape[1] * 2), p).sum() + i

    program = program_of(model, IDS, dims={0: {1: ("seq", 2, 4)}}, p=PLACES)
    assert_left_alone(FuseEmbeddings(), program, "the length is not a dim of an input")
