"""Batch norm folded into the layer before it: every kind of layer, and what stays, with why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from program_tools import body, counts, program_of, same_numbers
from torch import Tensor, nn

from strop.passes.fuse.conv_bn import FoldBatchNorm

NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
PLAIN = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def trained(norm: nn.Module) -> nn.Module:
    """The batch norm as training leaves one: no statistic is 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    for name, value in norm.state_dict().items():
        if value.dim():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            value.mul_(-1 if name == "running_mean" else 1)
    return norm


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kinds", [PLAIN, TRANSPOSED], ids=["plain", "transposed"])
def test_batch_norm_folds_into_convolutions_of_every_kind(
    kinds: dict[int, Any], axes: int, bias: bool, groups: int
) -> None:
    conv = kinds[axes](4, 6, 3, stride=2, padding=1, groups=groups, bias=bias)
    x = torch.randn(2, 4, *[5] * axes, generator=torch.Generator().manual_seed(0))
    before = program_of(nn.Sequential(conv, trained(NORMS[axes](6))), x)
    result = FoldBatchNorm().run(before)
    assert counts(result) == {"conv-bn": 1}
    assert "batch_norm" not in body(result.program)
    same_numbers(before, result.program, x, tolerance=1e-5)


def test_a_transposed_convolution_with_all_its_settings_keeps_them() -> None:
    conv = nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2, dilation=2)
    x = torch.randn(1, 4, 5, 5)
    before = program_of(nn.Sequential(conv, trained(nn.BatchNorm2d(6, affine=False))), x)
    result = FoldBatchNorm().run(before)
    assert counts(result) == {"conv-bn": 1}
    same_numbers(before, result.program, x, tolerance=1e-5)


class Behind(nn.Module):
    """A linear layer, changes of layout, and a batch norm."""

    def __init__(self, layer: nn.Module, layout: Callable[[Tensor], Tensor], size: int) -> None:
        super().__init__()
        self.layer, self.layout, self.norm = layer, layout, trained(nn.BatchNorm1d(size))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.layout(self.layer(x)))
        return out


def same(x: Tensor) -> Tensor:
    return x


LAYOUTS = {
    "2-D": ((3, 4), same),
    "transposed": ((2, 3, 4), lambda y: y.transpose(1, 2)),
    "permuted": ((2, 3, 4), lambda y: y.permute(0, 2, 1)),
    "rows in one": ((2, 3, 4), lambda y: y.reshape(-1, 6)),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_batch_norm_folds_into_a_linear_layer_through_changes_of_layout(
    layout: str, bias: bool
) -> None:
    shape, change = LAYOUTS[layout]
    x = torch.randn(shape)
    before = program_of(Behind(nn.Linear(4, 6, bias=bias), change, 6), x, dims={0: {0: "batch"}})
    result = FoldBatchNorm().run(before)
    assert counts(result) == {"conv-bn": 1}
    assert "batch_norm" not in body(result.program)
    same_numbers(before, result.program, x[:1], tolerance=1e-5)


STAY = {
    "no convolution or linear layer": (nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4)), (3, 4)),
    "batch norm and the linear layer have": (Behind(nn.Linear(4, 6), same, 3), (2, 3, 4)),
    "batch norm and the convolution have": (
        Behind(nn.Conv1d(4, 5, 1), lambda y: y.transpose(1, 2), 6),
        (2, 4, 6),
    ),
    "has no batch axis": (
        Behind(nn.ConvTranspose1d(4, 6, 3, padding=1), same, 5),
        (4, 5),
    ),
    "joined": (Behind(nn.Linear(4, 6), lambda y: y.reshape(2, 12), 12), (4, 4)),
    "shift": (Behind(nn.Linear(4, 6), lambda y: y.reshape(2, 9, 2), 9), (2, 3, 4)),
    "rows": (Behind(nn.Linear(4, 6), lambda y: y.reshape(3, 2, 6), 2), (2, 3, 4)),
}  # fmt: skip


@pytest.mark.parametrize("reason", STAY)
def test_batch_norm_of_another_axis_or_layer_stays_and_says_why(reason: str) -> None:
    module, shape = STAY[reason]
    before = program_of(module, torch.randn(shape))
    result = FoldBatchNorm().run(before)
    assert not result.modified
    said = "no convolution or linear layer" if reason in ("shift", "joined", "rows") else reason
    assert said in result.log.misses[0].reason
    assert result.log.misses[0].lines


def test_batch_norm_of_a_number_stays() -> None:
    class Number(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = trained(nn.BatchNorm1d(1))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.norm(x.sum().view(1, 1))
            return out

    result = FoldBatchNorm().run(program_of(Number(), torch.randn(3)))
    assert "no convolution or linear layer" in result.log.misses[0].reason


def test_a_layer_that_is_read_elsewhere_keeps_its_batch_norm() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 4), trained(nn.BatchNorm1d(4))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.layer(x)
            return y, self.norm(y)

    result = FoldBatchNorm().run(program_of(Shared(), torch.randn(3, 4)))
    assert not result.modified
    assert "used elsewhere" in result.log.misses[0].reason


def test_a_transposed_layer_that_is_read_elsewhere_keeps_its_batch_norm() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 6), trained(nn.BatchNorm1d(6))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.layer(x).transpose(1, 2)
            return y, self.norm(y)

    result = FoldBatchNorm().run(program_of(Shared(), torch.randn(2, 3, 4)))
    assert not result.modified
    assert "used elsewhere" in result.log.misses[0].reason


def test_batch_norm_in_train_mode_stays() -> None:
    class Trains(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.norm(self.layer(x))
            return out

    result = FoldBatchNorm().run(program_of(Trains(), torch.randn(3, 4)))
    assert not result.modified
    assert "train mode" in result.log.misses[0].reason


def test_batch_norm_folds_in_double_precision() -> None:
    layers = nn.Sequential(nn.Linear(4, 4), trained(nn.BatchNorm1d(4))).double()
    x = torch.randn(3, 4).double()
    before = program_of(layers, x)
    result = FoldBatchNorm().run(before)
    assert counts(result) == {"conv-bn": 1}
    same_numbers(before, result.program, x, tolerance=1e-12)


def test_a_layer_in_half_precision_keeps_a_batch_norm_in_single_precision() -> None:
    layers = nn.Sequential(nn.Linear(4, 4).half(), trained(nn.BatchNorm1d(4)))
    result = FoldBatchNorm().run(program_of(layers, torch.randn(3, 4).half()))
    assert not result.modified
    assert "half precision" in result.log.misses[0].reason


def test_weights_in_half_precision_stay() -> None:
    layers = nn.Sequential(nn.Linear(4, 4), trained(nn.BatchNorm1d(4))).half()
    result = FoldBatchNorm().run(program_of(layers, torch.randn(3, 4).half()))
    assert not result.modified
    assert "half precision" in result.log.misses[0].reason
