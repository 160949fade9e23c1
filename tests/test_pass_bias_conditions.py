"""Biases folded into norms: each condition for which one stays where it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from program_tools import assert_left_alone, counts, program_of, run_passes, same_numbers
from torch import Tensor, nn

from strop.compiler.ir.program import Program
from strop.passes.cleanup.noops import Noops
from strop.passes.fuse.bias import FoldBiases
from strop.passes.fuse.conv_pad import FoldPads
from strop.passes.fuse.residual import FuseResiduals

SEED = torch.Generator().manual_seed(0)
X = torch.randn(2, 3, 8, generator=SEED)
GIVEN = {
    "w": torch.randn(8, 8, generator=SEED),
    "b": torch.randn(8, generator=SEED),
    "g": torch.rand(8, generator=SEED) + 0.5,
    "s": torch.randn(8, generator=SEED),
}


def joined(model: Callable[..., object]) -> Program:
    return run_passes(program_of(model, X, **GIVEN), Noops(), FuseResiduals())


def norm(x: Tensor, gain: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    return F.layer_norm(x, (8,), gain, shift)


def read_elsewhere(x: Tensor, w: Tensor, b: Tensor, g: Tensor, s: Tensor) -> tuple[Tensor, ...]:
    linear = F.linear(x.tanh(), w, b)
    return norm(linear + norm(x, g, s)), linear


def weighed_by_the_stream(x: Tensor, w: Tensor, b: Tensor, g: Tensor, s: Tensor) -> Tensor:
    stream = norm(x[0], g, s)
    return norm(stream + F.linear(x[1].tanh(), w, b)) + F.linear(x, stream).sum()


def summed(x: Tensor, w: Tensor, b: Tensor, g: Tensor, s: Tensor) -> Tensor:
    total = x + x.tanh()
    inner = F.linear(norm(total, g, s).relu(), w, b)
    return norm(total + inner)


STAY: dict[str, Callable[..., object]] = {
    "no bias of its own": lambda x, w, b, g, s: norm(F.linear(x.tanh(), w) + norm(x, g, s)),
    "no bias of its own, computed": lambda x, w, b, g, s: norm(
        F.linear(x.tanh(), w, 2 * b) + norm(x, g, s)
    ),
    "no bias of its own, read elsewhere": read_elsewhere,
    "is not the result of a norm with a bias": lambda x, w, b, g, s: norm(
        F.linear(x.tanh(), w, b) + norm(x, g)
    ),
    "is not the result of a norm with a bias, but of a function": lambda x, w, b, g, s: norm(
        F.linear(x.tanh(), w, b) + x.exp()
    ),
    "is not the result of a norm with a bias, but of a sum": summed,
    "more than linear layers": weighed_by_the_stream,
}


@pytest.mark.parametrize("case", STAY)
def test_a_bias_stays_and_says_why(case: str) -> None:
    assert_left_alone(FoldBiases(), joined(STAY[case]), case.partition(",")[0])


def test_a_sum_of_no_linear_layers_is_no_near_miss() -> None:
    result = FoldBiases().run(joined(lambda x, w, b, g, s: norm(x.exp() + norm(x, g, s))))
    assert not result.modified and not result.log.misses


@pytest.mark.parametrize("biased", [True, False])
def test_readers_take_back_what_they_did_not_ask_for(biased: bool) -> None:
    def model(x: Tensor, w: Tensor, b: Tensor, g: Tensor, s: Tensor) -> Tensor:
        stream = norm(x, g, s)
        inner = F.linear(stream, w.t(), s if biased else None).relu()
        return norm(F.linear(inner, w, b) + stream)

    before = joined(model)
    result = FoldBiases().run(before)
    assert counts(result) == {"bias-into-norm": 1}
    same_numbers(before, result.program, X, tolerance=1e-4)


class Padded(nn.Module):
    def __init__(self, conv: nn.Module, pad: tuple[int, ...]) -> None:
        super().__init__()
        self.conv, self.pad = conv, pad

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.pad))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("conv", "pad", "shape"),
    [
        (nn.Conv3d(2, 3, 2), (1, 2, 3, 0, 0, 1), (1, 2, 3, 4, 5)),
        (nn.Conv2d(2, 3, 2, padding=(0, 2)), (1, 1, 3, 3), (1, 2, 4, 5)),
        (nn.Conv2d(2, 3, 2, padding=(1, 2), stride=2), (1, 1, 0, 3), (1, 2, 6, 7)),
        (nn.Conv1d(2, 4, 2, groups=2, dilation=2), (2, 0), (1, 2, 6)),
    ],
    ids=["three axes", "even", "uneven with strides", "in groups"],
)
def test_padding_of_every_axis_is_folded(
    conv: nn.Module, pad: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    x = torch.randn(shape, generator=SEED)
    before = program_of(Padded(conv, pad), x)
    result = FoldPads().run(before)
    assert counts(result) == {"conv-pad": 1}
    same_numbers(before, result.program, x, tolerance=1e-5)


def test_an_image_without_a_batch_keeps_its_padding() -> None:
    program = program_of(Padded(nn.Conv2d(2, 3, 2), (1, 1)), torch.randn(2, 4, 5))
    assert_left_alone(FoldPads(), program, "other axes are padded")
