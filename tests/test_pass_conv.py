"""Padding folded into convolutions: text, numbers, and what stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from program_tools import body, counts, program_of, same_numbers
from torch import Tensor, nn

from strop.passes.fuse.conv_pad import FoldPads

GENERATOR = torch.Generator().manual_seed(0)
IMAGE, SIGNAL = (torch.randn(s, generator=GENERATOR) for s in ((2, 3, 9, 9), (2, 3, 9)))


class Padded(nn.Module):
    """A convolution behind padding."""

    def __init__(self, conv: nn.Module, pad: tuple[int, ...], **how: Any) -> None:
        super().__init__()
        self.conv, self.pad, self.how = conv, pad, how

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, self.pad, **self.how))
        return out


def test_more_zeros_on_one_side_become_a_padded_convolution() -> None:
    before = program_of(Padded(nn.Conv2d(3, 4, 3, stride=2), (0, 1, 2, 3)), IMAGE)
    assert "aten.pad(" in body(before)
    result = FoldPads().run(before)
    assert counts(result) == {"conv-pad": 1}
    text = body(result.program)
    assert "aten.pad(" not in text
    # Top 2 and left 0, then bottom 3 and right 1.
    assert "strop.padded_conv(%input_0, @conv.weight, @conv.bias, [2, 2], [2, 0, 3, 1]" in text
    same_numbers(before, result.program, IMAGE, tolerance=1e-5)


@pytest.mark.parametrize(
    ("conv", "pad", "x"),
    [
        (nn.Conv2d(3, 4, 3, padding=1), (2, 2, 1, 1), IMAGE),
        (nn.Conv1d(3, 4, 3, padding=1, dilation=2), (2, 2), SIGNAL),
    ],
    ids=["2d", "1d"],
)
def test_the_same_on_both_sides_stays_torchs_own(
    conv: nn.Module, pad: tuple[int, ...], x: Tensor
) -> None:
    before = program_of(Padded(conv, pad), x)
    result = FoldPads().run(before)
    assert "aten.conv" in body(result.program)
    assert "pad(" not in body(result.program)
    same_numbers(before, result.program, x, tolerance=1e-5)


@pytest.mark.parametrize(
    ("conv", "pad", "x"),
    [
        (nn.Conv1d(3, 4, 3, padding=1), (0, 3), SIGNAL),
        (nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False), (0, 2), IMAGE),
        (nn.Conv2d(3, 4, (3, 1), stride=(1, 2), dilation=(2, 1)), (1, 0, 0, 2), IMAGE),
    ],
    ids=["1d", "one axis, depthwise", "uneven kernel"],
)
def test_uneven_padding_keeps_its_numbers_and_its_gradient(
    conv: nn.Module, pad: tuple[int, ...], x: Tensor
) -> None:
    before = program_of(Padded(conv, pad), x)
    result = FoldPads().run(before)
    assert counts(result) == {"conv-pad": 1}
    same_numbers(before, result.program, x, tolerance=1e-5)
    (out,) = result.program.run(input_0=x)
    out.sum().backward()
    assert conv.weight.grad is not None


@pytest.mark.parametrize(
    ("pad", "how", "why"),
    [
        ((1, 1, 1, 1), {"value": 1.0}, "something other than zeros"),
        ((1, 1, 1, 1), {"mode": "reflect"}, "something other than zeros"),
        ((-1, 1, 0, 0), {}, "the padding is computed, or negative"),
        ((0, 0, 0, 0, 0, 1), {}, "other axes are padded"),
    ],
)
def test_other_padding_stays(pad: tuple[int, ...], how: dict[str, Any], why: str) -> None:
    channels = 4 if len(pad) == 6 else 3
    before = program_of(Padded(nn.Conv2d(channels, 4, 3), pad, **how), IMAGE)
    result = FoldPads().run(before)
    assert counts(result) == {}
    assert why in result.log.misses[0].reason


def test_padding_that_is_read_elsewhere_stays_for_the_others() -> None:
    conv = nn.Conv2d(3, 3, 3)

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            wide = F.pad(x, (0, 1, 0, 1))
            return self.conv(wide), wide * 2

    before = program_of(Both(), IMAGE)
    result = FoldPads().run(before)
    assert "aten.pad(" in body(result.program)
    assert "strop.padded_conv(%input_0" in body(result.program)
    same_numbers(before, result.program, IMAGE, tolerance=1e-5)
