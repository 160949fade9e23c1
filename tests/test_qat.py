"""Training of rounded weights: better than rounding alone, in eval mode, and as the file has it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from program_tools import program_of, run_passes, session
from torch import Tensor, nn
from torch.nn import functional as F

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.passes.cleanup.noops import Noops
from strop.passes.distill.recover import Recover
from strop.passes.quantize.weights import QuantizeWeights

RECOVER = Recover(
    steps=60, lr=3e-3, outputs=("output=values",), taps=(), hidden=0, held_out=0.25, seed=1
)


class Normed(nn.Module):
    """Two layers with a batch norm and dropout between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(32, 64), nn.BatchNorm1d(64), nn.Linear(64, 8)
        self.norm.running_mean = torch.randn(64)
        self.norm.running_var = torch.rand(64) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.norm(self.first(x)))
        return self.last(F.dropout(hidden, 0.5, self.training))  # type: ignore[no-any-return]


def values(seed: int) -> Tensor:
    return torch.randn(16, 32, generator=torch.Generator().manual_seed(seed))


def captured() -> Program:
    made = program_of(Normed(), values(0), dims={0: {0: ("rows", 1, 64)}})
    return run_passes(made, Noops())


def trained(start: Program, teacher: Program, recover: Recover = RECOVER) -> Program:
    data = [{"input_0": values(seed)} for seed in range(8)]
    return recover.run(start, context=Context(teacher=teacher, train=data)).program


def error(program: Program, original: Program) -> float:
    x = values(99)
    want, got = (p.run(input_0=x)[0].detach() for p in (original, program))
    return float((want - got).square().mean())


@pytest.mark.parametrize("bits", [2, 3])
@pytest.mark.parametrize("learnable", [False, True])
def test_training_behind_the_pass_makes_it_better_and_the_file_agrees(
    learnable: bool, bits: int
) -> None:
    original = captured()
    options = {"bits": bits, "learnable": learnable}
    start = QuantizeWeights(method="nearest", **options).run(original).program  # type: ignore[arg-type]
    after = trained(start, original)
    assert error(after, original) < 0.7 * error(start, original)
    x = values(7)
    eager = after.run(input_0=x)[0].detach().numpy()
    got = session(after).run(None, {"input_0": x.numpy()})[0]
    # The product rounds activations to 8 bits.
    assert np.abs(got - eager).max() < 0.02 * np.abs(eager).max()


def test_scales_of_rounding_to_nearest_follow_the_weights() -> None:
    original = captured()
    start = QuantizeWeights(method="nearest", bits=3).run(original).program
    after = trained(start, original)
    assert "group_scale" in str(after) and not any("scale" in name for name in after.weights)
    weight = "inner.first.weight"
    old, new = (
        torch.ops.strop.group_scale(p.weights[weight].detach(), 1, 3, False) for p in (start, after)
    )
    assert not torch.equal(old, new)


def test_learned_scales_move_and_given_ones_stay() -> None:
    original = captured()
    for learnable in (False, True):
        passed = QuantizeWeights(method="mse", bits=3, learnable=learnable)
        start = passed.run(original).program
        after = trained(start, original)
        name = "inner.first.weight.scale"
        assert torch.equal(start.weights[name], after.weights[name])
        factors = [w for n, w in after.weights.items() if n.endswith("log_scale")]
        assert len(factors) == (2 if learnable else 0)
        assert all(bool(factor.detach().abs().max() > 0) for factor in factors)


def test_batch_norm_keeps_its_statistics_and_nothing_is_dropped() -> None:
    original = captured()
    start = QuantizeWeights(method="nearest", bits=3).run(original).program
    after = trained(start, original)
    for name in ("inner.norm.running_mean", "inner.norm.running_var"):
        assert torch.equal(original.weights[name], after.weights[name])
    assert not torch.equal(
        original.weights["inner.norm.weight"], after.weights["inner.norm.weight"]
    )
    x = values(5)
    whole = after.run(input_0=x)[0]
    alone = torch.cat([after.run(input_0=row[None])[0] for row in x])
    torch.testing.assert_close(whole, alone)


def test_the_same_seed_trains_the_same_weights() -> None:
    original = captured()
    start = QuantizeWeights(method="mse", bits=2, learnable=True).run(original).program
    short = replace(RECOVER, steps=10)
    first, again = (trained(start, original, short) for _ in range(2))
    for name, tensor in first.weights.items():
        assert torch.equal(tensor, again.weights[name]), name
