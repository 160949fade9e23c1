"""Equalization: the same function, and weights of like size on both sides of a channel."""

from __future__ import annotations

import pytest
import torch
from program_tools import counts, program_of, same_numbers
from torch import Tensor, nn

from strop.compiler.ir.program import Program
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.equalize import Equalize

X = torch.randn(3, 4, 9, 9, generator=torch.Generator().manual_seed(0))


def network(between: nn.Module, groups: int = 1) -> Program:
    """Two convolutions whose middle channels differ in size by powers of two."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=groups)
    with torch.no_grad():
        first.weight *= 2.0 ** torch.arange(-4, 4)[:, None, None, None]
    return program_of(nn.Sequential(first, between, second, nn.ReLU()), X)


def tops(program: Program, name: str, axis: int) -> Tensor:
    others = [i for i in range(4) if i != axis]
    return program.weights[name].detach().abs().amax(others)


def test_both_sides_of_a_channel_get_one_size() -> None:
    before = network(nn.ReLU())
    result = Equalize().run(before)
    assert counts(result) == {"equalized": 1}
    after = result.program
    torch.testing.assert_close(
        tops(after, "inner.0.weight", 0), tops(after, "inner.2.weight", 1), rtol=1e-5, atol=0
    )
    assert after.origins["inner.0.weight"].made_by == "equalize"
    same_numbers(before, after, X, tolerance=1e-5)


def test_a_chain_settles() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(8, 8) for _ in range(4)]
    with torch.no_grad():
        layers[0].weight *= torch.logspace(-2, 2, 8)[:, None]
    x = torch.randn(5, 8)
    before = program_of(nn.Sequential(*layers), x)
    after = Equalize(sweeps=100).run(before).program
    for i in range(3):
        out = after.weights[f"inner.{i}.weight"].detach().abs().amax(1)
        into = after.weights[f"inner.{i + 1}.weight"].detach().abs().amax(0)
        torch.testing.assert_close(out, into, rtol=5e-3, atol=0)
    same_numbers(before, after, x, tolerance=1e-5)
    once = Equalize(sweeps=1).run(before).program
    assert not torch.equal(once.weights["inner.0.weight"], after.weights["inner.0.weight"])


def test_depthwise_layers_take_a_scale_for_each_channel() -> None:
    before = network(nn.ReLU(), groups=8)
    after = Equalize().run(before).program
    assert not torch.equal(after.weights["inner.2.weight"], before.weights["inner.2.weight"])
    same_numbers(before, after, X, tolerance=1e-5)


def test_a_bounded_activation_lets_no_scale_through() -> None:
    result = Equalize().run(network(nn.ReLU6()))
    assert not counts(result)
    assert any("does not pass through" in miss.reason for miss in result.log.misses)


def test_channels_of_zeros_stay() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    with torch.no_grad():
        first.weight[1], second.weight[:, 2] = 0, 0
    x = torch.randn(3, 4)
    before = program_of(nn.Sequential(first, second), x)
    after = Equalize().run(before).program
    assert all(w.isfinite().all() for w in after.weights.values())
    assert torch.equal(after.weights["inner.0.weight"][2], before.weights["inner.0.weight"][2])
    same_numbers(before, after, x, tolerance=1e-5)


def test_layers_are_selected_by_name() -> None:
    before = network(nn.ReLU())
    assert not counts(Equalize(keep=("inner.2",)).run(before))
    with pytest.raises(UsageError, match="no weight is"):
        Equalize(only=("nothing",)).run(before)


def test_sweeps_are_at_least_one() -> None:
    with pytest.raises(UsageError, match="sweeps is 0"):
        Equalize(sweeps=0)
