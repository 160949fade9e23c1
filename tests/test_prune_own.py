"""Importance by a function of the user's: what it is given, and what it is held to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Strop
from program_tools import program_of
from test_prune_pass import TwoLayers, data

from strop.compiler.driver.bundle import write_bundle
from strop.compiler.ir.program import Program
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.passes import Step
from strop.compiler.util.errors import UsageError
from strop.passes.prune.dependency import dependencies
from strop.passes.prune.groups import groups
from strop.passes.prune.importance import scores
from strop.passes.prune.prune import Prune
from strop.passes.prune.question import Question

OWN = """
import torch

seen = []


def l1(group, program, batches):
    seen.append((group.name, group.size, len(batches)))
    return sum(rows.abs().sum(1) for rows in group.rows(program.weights))


def last(group, program, batches):
    return torch.arange(group.size)


def below_zero(group, program, batches):
    return -l1(group, program, batches)


def raises(group, program, batches):
    raise KeyError("nothing")


def list_of(group, program, batches):
    return [1.0] * group.size


def too_few(group, program, batches):
    return torch.ones(group.size - 1)


def not_a_number(group, program, batches):
    return torch.ones(group.size).index_fill(0, torch.tensor([3]), torch.nan)


def writes(group, program, batches):
    with torch.no_grad():
        next(iter(program.parameters.values())).zero_()
    return torch.ones(group.size)


number = 3
"""


@pytest.fixture
def program() -> Program:
    torch.manual_seed(0)
    return program_of(TwoLayers(), torch.randn(4, 8))


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


def run(program: Program, context: Context | None = None, **options: Any) -> Program:
    return Prune(**options).run(program, context=context or Context()).program


def test_a_function_scores_what_it_is_given(program: Program, own: str) -> None:
    got = run(program, Context(calibration=data(40)), importance=f"{own}:l1")
    want = run(program, importance="l1")
    assert got.origins["inner.ups.0.weight"].kept == want.origins["inner.ups.0.weight"].kept
    from _strop_source_own import seen  # the file, as strop has loaded it

    assert seen == [("ffn:inner.ups.0", 64, 32), ("ffn:inner.ups.1", 64, 32)]
    run(program, importance=f"{own}:l1")
    assert seen[2:] == [("ffn:inner.ups.0", 64, 0), ("ffn:inner.ups.1", 64, 0)]


def test_larger_scores_stay_and_integers_are_scores(program: Program, own: str) -> None:
    new = run(program, importance=f"{own}:last", share=0.75)
    assert new.origins["inner.ups.0.weight"].kept == {0: tuple(range(48, 64))}


class Heads(torch.nn.Module):
    """Positions of a group lie apart in one weight, where queries, keys and values are one."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = torch.nn.Linear(8, 24), torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 2)).permute(2, 0, 3, 1, 4)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2))


def test_rows_hold_every_element_of_each_position() -> None:
    found = dependencies(program_of(Heads(), torch.randn(2, 3, 8)))
    heads = [g for g in groups(found) if g.kind == "heads"]
    weights = found.program.weights
    (group,) = heads
    rows = dict(zip((one.weight for one in group.slices), group.rows(weights)))
    assert {name: tuple(r.shape) for name, r in rows.items()} == {
        "inner.qkv.weight": (4, 48),
        "inner.qkv.bias": (4, 6),
        "inner.out.weight": (4, 16),
    }
    second = weights["inner.qkv.bias"].reshape(3, 4, 2)[:, 1].flatten()
    torch.testing.assert_close(rows["inner.qkv.bias"][1], second, rtol=0, atol=0)
    question = Question(found.program, found, heads, Context(), 1)
    l1 = torch.stack([r.double().abs().sum(1) for r in rows.values()]).sum(0)
    torch.testing.assert_close(l1, scores("l1", question)[group.name])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "raises",
            r"importance of ffn:inner.ups.0 raised KeyError: 'nothing'\n  at .*own.py:\d+: ",
        ),
        ("list_of", r"list_of \(.*own.py:\d+\) returned \[1.0, .* must return a tensor of \[64\]"),
        ("too_few", r"too_few \(.*own.py:\d+\) returned a tensor of \[63\] for ffn:inner.ups.0;"),
        ("not_a_number", r"not_a_number \(.*own.py:\d+\) returned nan for position 3 of ffn:"),
        ("writes", r"writes \(.*own.py:\d+\): it writes to the weight 'inner.ups.0.weight' in pla"),
        ("number", r"own.py:number is int, not a function"),
        ("lasts", r"own.py has no 'lasts'; did you mean 'last'\?"),
    ],
)
def test_what_is_no_score_is_told_with_the_users_line(
    name: str, said: str, program: Program, own: str
) -> None:
    with pytest.raises(UsageError, match=said):
        run(program, importance=f"{own}:{name}")


def test_scores_below_zero_can_be_compared_within_a_group_only(program: Program, own: str) -> None:
    assert run(program, importance=f"{own}:below_zero").weights["inner.ups.0.weight"].shape[0] == 32
    with pytest.raises(UsageError, match=r'0 or above; one of ffn:inner.ups.0 is -.* "layer"'):
        run(program, importance=f"{own}:below_zero", scope="global")


def test_a_method_that_is_not_there_is_told() -> None:
    with pytest.raises(UsageError, match="no importance 'taylr'; did you mean 'taylor'?"):
        Prune(importance="taylr")
    with pytest.raises(UsageError, match="no importance 'x'; known: FILE.py:function, activation"):
        Prune(importance="x")


def test_the_function_and_the_data_that_it_may_see_count_for_the_cache(
    program: Program, own: str
) -> None:
    one, context = Prune(importance=f"{own}:l1"), Context(calibration=data())
    key = one.key(program, context)
    assert key == one.key(program, replace(context))
    assert key != one.key(program, Context(calibration=data(5)))
    assert Prune(importance="l1").key(program, context) == Prune(importance="l1").key(
        program, Context(calibration=data(5))
    )
    Path(own).write_text(OWN + "# changed\n")
    assert key != one.key(program, context)


def test_a_bundle_of_a_function_that_failed_is_replayed_where_the_user_names_it_again(
    program: Program, own: str, strop: Strop, tmp_path: Path
) -> None:
    one = Prune(importance=f"{own}:raises")
    with pytest.raises(UsageError) as raised:
        one.run(program)
    inputs = {"input_0": torch.randn(4, 8)}
    recipe = Recipe(name="r").insert(f"prune{{importance='{own}:raises'}}")
    write_bundle(raised.value, (Step("prune", one), program), inputs, recipe, tmp_path / "out")
    bundle = tmp_path / "out.crash"
    for name in ("pass.toml", "recipe.toml"):
        assert 'importance = "own.py:raises"' in (bundle / name).read_text()
    result = strop("debug", "replay", bundle)
    assert result.code == 2 and "say where it is with --pass 'prune{importance=" in result.err
    result = strop("debug", "replay", bundle, "--pass", f"prune{{importance={own}:raises}}")
    assert "fails as recorded" in result.out
