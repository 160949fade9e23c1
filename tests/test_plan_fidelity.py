"""The measure that holds launch plans to their programs."""

from __future__ import annotations

import math

import pytest
import torch

from strop.bench.measures.plan_fidelity import MODELS, WAYS, error, errors, figures
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
    assert error(torch.tensor([0.0, 1.0]), wanted) == math.inf
    assert error(torch.tensor([odd, odd]), wanted) == math.inf
    assert error(wanted.half(), wanted) == math.inf
    assert error(wanted[:1], wanted) == math.inf


def test_figures_hold_the_worst_of_all_and_count_what_was_refused() -> None:
    found = {
        "MiniLM": {way: {"error": 1e-4} for way in WAYS},
        "other": {way: {"error": 0.5} for way in WAYS} | {"w4a16": {"refused": "no lowering"}},
    }
    by_name = {figure.what: figure for figure in figures(found)}
    assert by_name["2 models, fp16: largest error"].value == 0.5
    assert not by_name["2 models, fp16: largest error"].hit
    assert by_name["MiniLM, w4a16: error"].hit
    assert by_name["1 models, w4a16: largest error"].value == 1e-4
    assert by_name["models and ways that were refused"].value == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name != "MiniLM"])
def test_the_plans_of_the_zoo_give_what_their_programs_give(name: str) -> None:
    found = isolated(errors, name, timeout=600.0)
    for way, (_, _, most) in WAYS.items():
        assert "refused" not in found[way], found[way]
        assert found[way]["error"] <= most, way
