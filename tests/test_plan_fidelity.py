"""The measure that holds launch plans to their programs."""

from __future__ import annotations

import math

import pytest
import torch
from program_tools import program_of

from strop.bench.measures.plan_fidelity import (
    MODELS,
    WAYS,
    Fidelity,
    by_call,
    error,
    errors,
    figures,
)
from strop.bench.processes.spawned import isolated


def test_an_error_is_a_share_of_the_largest_magnitude() -> None:
    wanted = torch.tensor([0.0, -4.0, 2.0])
    assert error(wanted, wanted) == 0
    assert error(wanted + torch.tensor([0.0, 0.0, 1.0]), wanted) == pytest.approx(0.25)
    assert error(torch.zeros(2), torch.zeros(2)) == 0
    assert error(torch.ones(2), torch.zeros(2)) == 1
    assert error(torch.zeros(0), torch.zeros(0)) == 0


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_have_to_be_the_same(odd: float) -> None:
    wanted = torch.tensor([odd, 1.0])
    assert error(wanted, wanted) == 0
    assert error(wanted - wanted[1], wanted - wanted[1]) == 0
    assert error(torch.tensor([0.0, 1.0]), wanted) == math.inf
    assert error(torch.tensor([odd, odd]), wanted) == math.inf
    assert error(wanted.half(), wanted) == math.inf
    assert error(wanted[:1], wanted) == math.inf


def fidelity(outputs: float, moved: int = 0) -> dict[str, float]:
    return vars(Fidelity(outputs, outputs / 2, 100 if moved else 0, moved))


def test_figures_hold_the_worst_of_all_and_count_what_was_refused() -> None:
    found = {
        "MiniLM": {way: fidelity(1e-4, moved=1) for way in WAYS},
        "other": {way: fidelity(0.5, moved=3) for way in WAYS} | {"w4a16": {"refused": "no"}},
    }
    by_name = {figure.what: figure for figure in figures(found)}
    assert by_name["2 models, fp16: error of outputs"].value == 0.5
    assert not by_name["2 models, fp16: error of a call"].hit
    assert by_name["2 models, w8a8: share of int8 numbers that are others"].value == 0.02
    assert by_name["MiniLM, w4a16: error of outputs"].hit
    assert by_name["1 models, w4a16: error of a call"].value == 5e-5
    assert by_name["models and ways that were refused"].value == 1


def test_a_call_is_compared_on_the_values_that_the_plan_gave_to_it() -> None:
    program = program_of(lambda x: torch.tanh(x + 1) * 8, torch.zeros(3))
    names = [node.name for node in program.calls()]
    # The plan is off by 1 in the sum, and right for what it then has.
    made = dict(zip(names, [torch.full((3,), 2.0), torch.tanh(torch.full((3,), 2.0))]))
    found = Fidelity()
    by_call(program, {"input_0": torch.zeros(3)}, made, found)
    assert found.calls == pytest.approx(1.0)
    made[names[0]] = torch.ones(3)
    found = Fidelity()
    by_call(program, {"input_0": torch.zeros(3)}, made, found)
    assert found.calls == pytest.approx(0.2658, abs=1e-3)


def test_other_int8_numbers_are_counted() -> None:
    found = Fidelity()
    found.add(torch.tensor([1, 2, 3], dtype=torch.int8), torch.tensor([1, 3, 3], dtype=torch.int8))
    assert (found.numbers, found.moved, found.calls) == (3, 1, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name != "MiniLM"])
def test_the_plans_of_the_zoo_give_what_their_programs_give(name: str) -> None:
    found = isolated(errors, name, timeout=600.0)
    for way, (_, _, most) in WAYS.items():
        assert "refused" not in found[way], found[way]
        assert found[way]["outputs"] <= most, way
        assert found[way]["calls"] <= most, way
