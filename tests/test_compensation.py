"""Weights rounded by what a layer sees, and biases that take up the mean of what that changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from program_tools import program_of
from quantize_tools import closeness, program, quantized, values
from torch import Tensor, nn
from torch.nn import functional as F

from strop.compiler.ir.nodes import arguments
from strop.compiler.ir.program import Program
from strop.passes.fuse.conv_bn import FoldBatchNorm
from strop.passes.quantize.compensation import LayerInputs, RoundedLayer
from strop.passes.quantize.grid import Grid
from strop.passes.quantize.int8_operators import LAYERS, reads
from strop.passes.quantize.methods.in_turn import factor, rounded_in_turn
from strop.passes.quantize.patches import patches
from strop.passes.quantize.static import QuantizeStatic

strop = torch.ops.strop
IMAGES, WEIGHT = values(2, 4, 7, 6), values(6, 4, 3, 2, seed=1)
LAYER_CASES: dict[str, tuple[Callable[..., Any], Tensor, Tensor]] = {
    "linear": (F.linear, values(2, 3, 5), values(4, 5)),
    "1 axis": (F.conv1d, values(2, 3, 9), values(4, 3, 2)),
    "2 axes": (F.conv2d, IMAGES, WEIGHT),
    "3 axes": (F.conv3d, values(1, 2, 4, 5, 6), values(3, 2, 2, 1, 3)),
    "padding": (lambda x, weight: F.conv2d(x, weight, padding=(2, 1)), IMAGES, WEIGHT),
    "same": (lambda x, weight: F.conv2d(x, weight, padding="same"), IMAGES, WEIGHT),
    "valid": (lambda x, weight: F.conv2d(x, weight, padding="valid"), IMAGES, WEIGHT),
    "stride": (lambda x, weight: F.conv2d(x, weight, stride=(2, 1)), IMAGES, WEIGHT),
    "dilation": (lambda x, weight: F.conv2d(x, weight, dilation=(2, 3)), IMAGES, WEIGHT),
    "groups": (lambda x, weight: F.conv2d(x, weight, groups=2), IMAGES, values(6, 2, 3, 2)),
    "depthwise": (lambda x, weight: F.conv2d(x, weight, groups=4), IMAGES, values(8, 1, 3, 3)),
    "padded on one side": (
        lambda x, weight: strop.padded_conv(x, weight, None, [1, 2], [1, 0, 0, 2], [1, 1], 1),
        IMAGES,
        WEIGHT,
    ),
}


def layer_of(made: Program) -> Any:
    return made.find(*LAYERS)[0]


@pytest.mark.parametrize("name", LAYER_CASES)
def test_rows_times_weights_are_what_the_layer_gives(name: str) -> None:
    function, x, weight = LAYER_CASES[name]
    rows = patches(layer_of(program_of(function, x, weight=weight)), x, most=10_000)
    out, groups = len(weight), len(rows)
    made = rows @ weight.reshape(groups, out // groups, -1).mT
    want = function(x, weight)
    if name == "linear":
        want = want.movedim(-1, 1)
    places = made.permute(0, 2, 1).reshape(out, len(x), -1).movedim(0, 1)
    torch.testing.assert_close(places, want.flatten(2), rtol=1e-4, atol=1e-4)


def test_of_many_places_some_that_are_far_apart_are_taken() -> None:
    x = values(2, 4, 30, 30)
    layer = layer_of(program_of(F.conv2d, x, weight=WEIGHT))
    assert patches(layer, x, most=100).shape == (1, 2 * 6 * 6, 24)
    rows = values(1000, 5)
    layer = layer_of(program_of(F.linear, rows, weight=values(4, 5)))
    assert patches(layer, rows, most=100).shape == (1, 100, 5)


def rounded(made: Program, x: Tensor, bits: int = 4) -> RoundedLayer:
    seen = LayerInputs(layer_of(made))
    for batch in x.split(2):
        seen.add(batch)
    return RoundedLayer.of(made, seen, Grid(bits))


@pytest.mark.parametrize("groups", [1, 4])
def test_outputs_change_less_than_by_rounding_to_nearest(groups: int) -> None:
    # Neighbours that are alike, and a mean far from 0, as behind a rectifier.
    x = 3 + F.avg_pool2d(values(8, 4, 20, 20), 5, 1)
    weight = values(8, 4 // groups, 3, 3, seed=2)
    made = program_of(lambda x, weight: F.conv2d(x, weight, groups=groups), x, weight=weight)
    found = rounded(made, x)
    steps = found.scale.reshape(-1, 1, 1, 1)
    nearest = (weight / steps).round().clamp(-7, 7) * steps
    whole = found.weight / steps
    torch.testing.assert_close(whole, whole.round(), atol=1e-4, rtol=0)

    def error(of: Tensor, bias: Tensor | None) -> float:
        change = F.conv2d(x, of, bias, groups=groups) - F.conv2d(x, weight, groups=groups)
        return float(change.square().mean())

    assert error(found.weight, found.shift) < 0.02 * error(nearest, None)
    means = F.conv2d(x, found.weight, found.shift, groups=groups).mean((0, 2, 3))
    torch.testing.assert_close(means, F.conv2d(x, weight, groups=groups).mean((0, 2, 3)))


def test_a_layer_of_very_many_columns_is_rounded_to_nearest() -> None:
    x, weight = values(4, 1153), values(2, 1153)
    found = rounded(program_of(F.linear, x, weight=weight), x)
    want = (weight / found.scale[:, None]).round() * found.scale[:, None]
    torch.testing.assert_close(found.weight, want)
    torch.testing.assert_close(found.shift, (F.linear(x, weight - want)).mean(0))


def test_columns_in_blocks_are_those_one_after_another() -> None:
    weight, rows = values(3, 300).double(), values(500, 300).double()
    found = factor(rows.mT @ rows, 0.01)
    made = rounded_in_turn(weight, found, lambda column, _: column.round())
    left = weight.clone()
    for i in range(300):
        error = (left[:, i] - left[:, i].round()) / found[i, i]
        left[:, i] = left[:, i].round()
        left[:, i + 1 :] -= error[:, None] * found[i, i + 1 :]
    torch.testing.assert_close(made, left)


def test_a_weight_that_others_read_too_stays_one() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(F.relu(self.layer(x)))  # type: ignore[no-any-return]

    x = values(4, 6)
    after = quantized(program(Tied(), x), x).program
    weights = {arguments(arguments(n)["weight"])["x"] for n in after.find(*LAYERS)}
    assert len(weights) == 1


def test_compensated_weights_are_closer_and_can_be_switched_off() -> None:
    module = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8, bias=False))
    x = 2 + values(8, 4, 12, 12)
    before = program(module, x)
    found = [
        closeness(quantized(before, x, by=by).program.run(input_0=x), before.run(input_0=x))
        for by in (QuantizeStatic(weight_bits=4), QuantizeStatic(weight_bits=4, compensate=False))
    ]
    assert 1 - found[0] < 0.5 * (1 - found[1])
    assert reads(layer_of(before)).op == "placeholder"


def test_the_weight_that_is_chosen_has_the_name_of_the_layers_own() -> None:
    x = values(8, 4, 9, 9)
    before = program(nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)), x)
    folded = FoldBatchNorm().run(before).program
    for made in (before, folded):
        after = quantized(made, x).program
        assert "inner.0.weight" in after.weights
        assert after.weights["inner.0.weight"] is not made.weights["inner.0.weight"]
