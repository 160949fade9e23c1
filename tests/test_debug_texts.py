"""Bisection by how a decoder generates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Strop, Write
from generate_tools import plain_model

from strop.compiler import build, load

# A pass that makes the second gate of a decoder half as large.
BUG = """
    import sys
    sys.path.insert(0, {tests!r})
    import torch
    from generate_tools import plain_model
    from strop.compiler import Op, Rule, Var

    aten, x = torch.ops.aten, Var("x")

    class Halved(Rule):
        name = "halved"
        pattern = Op(aten.silu.default, x)

        def check(self, match, program):
            layer = str(match.root.meta.get("nn_module_stack"))
            return None if "layers.1" in layer else "it is in the first layer"

        def rewrite(self, match, build):
            gated = build.call(aten.silu.default, match["x"])
            return build.call(aten.mul.Tensor, gated, 0.5)

    def make():
        return plain_model(heads=2, kv_heads=1)

    def plain():
        model = make()
        model.generation = None
        return model
"""


@pytest.fixture
def bug(write: Write) -> str:
    return write(BUG.format(tests=str(Path(__file__).parent))).removesuffix(":make")


@pytest.mark.parametrize(
    "metric",
    [["tokens", "--min", 1], pytest.param(["first_token", "--min", 16], marks=pytest.mark.slow)],
)
@pytest.mark.slow
def test_a_pass_after_which_other_tokens_come_is_found(bug, strop: Strop, metric) -> None:
    passes = ["--pass", f"{bug}:Halved", "--before", "activations"]
    found = strop("debug", "bisect", f"{bug}:make", "--metric", *metric, *passes)
    assert found.code == 0, found.err
    assert "pass 'Halved' is the first bad one" in found.out
    assert f"{metric[0]} " in found.out
    assert "rewrite 1 of 1" in found.out


def test_perplexity_is_a_metric_of_texts(bug, strop: Strop) -> None:
    passes = ["--pass", f"{bug}:Halved", "--before", "activations"]
    found = strop("debug", "bisect", f"{bug}:make", "--metric", "perplexity", "--max", 0.5, *passes)
    assert found.code == 2
    assert "perplexity 1" in found.err


def test_a_model_that_makes_no_texts_has_no_such_metric(bug, strop: Strop) -> None:
    found = strop("debug", "bisect", f"{bug}:plain", "--metric", "tokens", "--min", 1)
    assert found.code == 2
    assert "does not generate" in found.err


@pytest.mark.slow
def test_the_first_token_that_differs_between_two_artifacts_is_shown(
    tmp_path, strop: Strop
) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        model = plain_model(layers=1, heads=1, kv_heads=1)
        with torch.no_grad():
            model.module.layers[0].down.weight.mul_(1 - 2 * seed)
        build(model, tmp_path / name, instruments="off")
    first, second = tmp_path / "a", tmp_path / "b"
    made = [[t.id for t in load(one).generate([5, 6], max_new=9)] for one in (first, second)]
    number = next(i for i, (a, b) in enumerate(zip(*made)) if a != b)
    found = strop("debug", "diff", first, second, "--ids", "5,6", "--max-new", 9)
    assert found.code == 0
    assert f"the first {number} tokens are the same; then comes {made[0][number]} " in found.out
    assert f"and {made[1][number]} " in found.out
    found = strop("debug", "diff", first, first, "--ids", "5,6", "--max-new", 9)
    assert "all tokens are the same" in found.out
