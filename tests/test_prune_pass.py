"""The pass ``prune``: what it drops, in what numbers, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from strop.compiler.ir.cost import CostModel
from strop.compiler.ir.program import Program
from strop.compiler.recipes.registry import make_pass
from strop.compiler.rewriting.context import Context
from strop.compiler.util.errors import UsageError
from strop.passes.prune.importance import METHODS
from strop.passes.prune.prune import Prune, ranges

from program_tools import program_of  # isort: skip


class TwoLayers(nn.Module):
    """Two blocks of an up and a down projection with a residual sum."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.ups = nn.ModuleList([nn.Linear(8, hidden), nn.Linear(8, hidden)])
        self.downs = nn.ModuleList([nn.Linear(hidden, 8), nn.Linear(hidden, 8)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for up, down in zip(self.ups, self.downs):
            x = x + down(torch.nn.functional.gelu(up(x)))
        return x


@pytest.fixture
def program() -> Program:
    torch.manual_seed(0)
    return program_of(TwoLayers(), torch.randn(4, 8))


def data(batches: int = 4) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [{"input_0": torch.randn(4, 8, generator=generator)} for _ in range(batches)]


def run(program: Program, context: Context | None = None, **options: Any) -> Program:
    return Prune(**options).run(program, context=context or Context(calibration=data())).program


@pytest.mark.parametrize("importance", METHODS)
def test_every_method_drops_the_share(program: Program, importance: Any) -> None:
    new = run(program, importance=importance, share=0.5)
    assert [tuple(new.weights[f"inner.ups.{i}.weight"].shape) for i in (0, 1)] == [(32, 8)] * 2
    assert tuple(new.weights["inner.downs.1.weight"].shape) == (8, 32)
    assert new.run(**data()[0])[0].shape == (4, 8)
    assert tuple(program.weights["inner.ups.0.weight"].shape) == (64, 8)


@pytest.mark.parametrize(
    "importance", ["l0", "l1", "l2", "activation", "activation-mean", "taylor"]
)
def test_channels_that_do_nothing_go_first(program: Program, importance: Any) -> None:
    with torch.no_grad():
        for i in (0, 1):
            for name in (f"inner.ups.{i}.weight", f"inner.ups.{i}.bias"):
                program.weights[name][::2] = 0
            program.weights[f"inner.downs.{i}.weight"][:, ::2] = 0
    new = run(program, importance=importance, share=0.5)
    assert new.origins["inner.ups.0.weight"].kept == {0: tuple(range(1, 64, 2))}
    torch.testing.assert_close(new.run(**data()[0])[0], program.run(**data()[0])[0])


def test_the_first_are_kept_and_the_numbers_are_those_of_the_original(program: Program) -> None:
    once = run(program, importance="random", share=0.5)
    twice = run(once, importance="first", share=0.5)
    kept = once.origins["inner.ups.0.weight"].kept[0]
    assert twice.origins["inner.ups.0.weight"].kept == {0: kept[:16]}
    assert twice.origins["inner.ups.0.weight"].made_by == "prune"
    torch.testing.assert_close(
        twice.weights["inner.ups.0.weight"], program.weights["inner.ups.0.weight"][list(kept[:16])]
    )


@pytest.mark.parametrize(("share", "step", "left"), [(0.3, 16, 48), (0.3, 1, 45), (0.9, 16, 16)])
def test_numbers_are_rounded(program: Program, share: float, step: int, left: int) -> None:
    new = run(program, importance="l2", share=share, round_to=step)
    assert new.weights["inner.ups.0.weight"].shape[0] == left


def test_a_small_group_is_not_rounded() -> None:
    small = program_of(TwoLayers(hidden=24), torch.randn(4, 8))
    new = run(small, importance="l2", share=0.5, round_to=16)
    assert new.weights["inner.ups.0.weight"].shape[0] == 12


def test_globally_the_less_important_layer_loses_more(program: Program) -> None:
    with torch.no_grad():  # a few strong channels: the others are far below the mean
        program.weights["inner.ups.0.weight"][:4] *= 100
    new = run(program, importance="l2", share=0.5, scope="global", round_to=1)
    first, second = (new.weights[f"inner.ups.{i}.weight"].shape[0] for i in (0, 1))
    assert first < second and abs(first + second - 64) <= 2


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("of", ["parameters", "multiply-adds"])
def test_as_much_goes_as_the_whole_program_must_lose(program: Program, of: Any, scope: Any) -> None:
    def counted(one: Program) -> int:
        if of == "parameters":
            return sum(w.numel() for w in one.parameters.values())
        return CostModel(one).at({}).multiply_adds

    new = run(program, importance="l2", of=of, share=0.4, scope=scope, round_to=1)
    assert 0.56 < counted(new) / counted(program) <= 0.6


def test_a_goal_that_cannot_be_reached_says_how_far_it_goes(program: Program) -> None:
    with pytest.raises(UsageError, match=r"99% of the parameters cannot go: .* 2% are left"):
        run(program, importance="l2", of="parameters", share=0.99, round_to=1)


def test_groups_are_chosen_by_name(program: Program) -> None:
    new = run(program, importance="l2", only=("*ups.1",))
    assert [new.weights[f"inner.ups.{i}.weight"].shape[0] for i in (0, 1)] == [64, 32]
    new = run(program, importance="l2", keep=("ffn:inner.ups.1",))
    assert [new.weights[f"inner.ups.{i}.weight"].shape[0] for i in (0, 1)] == [32, 64]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5])
def test_shares_out_of_range_are_refused(share: float) -> None:
    with pytest.raises(UsageError, match="above 0 and below 1"):
        Prune(share=share)


def test_a_name_that_matches_nothing_is_refused_with_the_nearest(program: Program) -> None:
    with pytest.raises(UsageError, match=r"no group is called 'ffn:inner.up.1'.*ffn:inner.ups.1"):
        run(program, importance="l2", only=("ffn:inner.up.1",))


def test_where_nothing_can_go_the_reasons_are_given(program: Program) -> None:
    with pytest.raises(UsageError, match="it is an axis of the input 'input_0'"):
        run(program, importance="l2", kinds=("width",))
    with pytest.raises(UsageError, match="no groups of kind 'heds'"):
        Prune(kinds=("heds",))


def test_a_method_that_looks_at_data_needs_some(program: Program) -> None:
    with pytest.raises(UsageError, match="calibration or train"):
        Prune(importance="activation").run(program)
    assert Prune(importance="l2").run(program).modified


def test_options_are_lists_and_not_empty() -> None:
    with pytest.raises(
        UsageError, match=r"'kinds': it takes a list, in brackets, of texts in quot"
    ):
        make_pass("prune", {"kinds": "ffn"})
    with pytest.raises(UsageError, match="kinds is empty: say what to prune, of heads, queries"):
        Prune(kinds=())


@pytest.mark.parametrize("importance", ["activation", "taylor"])
def test_a_batch_that_the_model_does_not_take_is_told(program: Program, importance: str) -> None:
    wrong = [*data(), {"input_0": torch.randn(4, 7)}]
    with pytest.raises(
        UsageError, match=r"does not run on .*: input_0 f32\[4, 7\] for f32\[4, 8\]"
    ):
        run(program, Context(calibration=wrong), importance=importance)


def test_the_manifest_learns_which_positions_are_left(program: Program) -> None:
    log = Prune(importance="first", share=0.5).run(program).log
    assert log.learned is not None
    assert log.learned["facts"]["groups"]["ffn:inner.ups.0"] == {
        "of": 64,
        "kept": "0-31",
        "slices": [["inner.ups.0.weight", 0], ["inner.ups.0.bias", 0], ["inner.downs.0.weight", 1]],
    }
    assert [ranges(n) for n in ([], [4], [0, 1, 2, 5, 7, 8])] == ["", "4", "0-2,5,7-8"]
