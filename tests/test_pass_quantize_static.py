"""Static int8: text, numbers, and what the runtime makes of the file."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from program_tools import body, counts, session
from quantize_tools import closeness, program, quantized, runtime_operators, values
from torch import Tensor, nn
from torch.nn import functional as F

from strop.passes.fuse.conv_pad import FoldPads
from strop.passes.quantize.static import QuantizeStatic

IMAGES = values(8, 3, 16, 16)


class Residual(nn.Module):
    """Convolutions around a shortcut, a pool and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        x = F.relu(x + self.grouped(F.relu6(self.depthwise(x))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


class Chain(nn.Sequential):
    """Two convolutions with a rectifier between them."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False))


BEFORE = """
program(%input_0 : f32[rows, 3, 16, 16])
  %conv2d : f32[rows, 4, 14, 14] = aten.conv2d(%input_0, @0.weight, @0.bias)
  %relu : f32[rows, 4, 14, 14] = aten.relu(%conv2d)
  %conv2d_1 : f32[rows, 2, 14, 14] = aten.conv2d(%relu, @2.weight)
  return "output": %conv2d_1
"""
AFTER = """
program(%input_0 : f32[rows, 3, 16, 16])
  %q : f32[rows, 3, 16, 16] = u8(%input_0, @strop.input_0.scale, @strop.input_0.zero_point)
  %q_3 : f32[4, 3, 3, 3] = s8(@0.weight, @0.weight.scale, @strop.zeros)
  %q_4 : f32[4] = s32(@0.bias, @0.bias.scale, @strop.zeros_2)
  %conv2d : f32[rows, 4, 14, 14] = aten.conv2d(%q, %q_3, %q_4)
  %q_1 : f32[rows, 4, 14, 14] = u8(%conv2d, @strop.relu.scale, @strop.relu.zero_point)
  %q_5 : f32[2, 4, 1, 1] = s8(@2.weight, @2.weight.scale, @strop.zeros_3)
  %conv2d_1 : f32[rows, 2, 14, 14] = aten.conv2d(%q_1, %q_5)
  %q_2 : f32[rows, 2, 14, 14] = u8(%conv2d_1, @strop.conv2d_1.scale, @strop.conv2d_1.zero_point)
  return "output": %q_2
"""
RANGES = {"None, 0, 255": "u8", "0, -127, 127": "s8", "0, -2147483648, 2147483647": "s32"}


def short(text: str) -> str:
    """A program's text with a short word for each range that values are rounded to."""
    for limits, name in RANGES.items():
        text = re.sub(rf"strop\.fake_quantize\(([^()]*), {limits}\)", rf"{name}(\1)", text)
    return text.replace("%fake_quantize_default", "%q")


def test_every_value_between_layers_is_rounded_once_and_the_rectifier_is_part_of_it() -> None:
    before = program(Chain(), IMAGES)
    assert body(before) == BEFORE.strip()
    result = quantized(before, IMAGES, by=QuantizeStatic(compensate=False))
    assert short(body(result.program)) == AFTER.strip()
    assert counts(result) == {"value-int8": 3, "weight-int8": 2, "bias-int32": 1}


def test_numbers_stay_close_and_the_file_has_those_of_the_program() -> None:
    before = program(Residual(), IMAGES)
    after = quantized(before, IMAGES).program
    other = values(5, 3, 16, 16, seed=1)
    want = after.run(input_0=other)
    assert closeness(want, before.run(input_0=other)) > 0.999
    got = session(after).run(None, {"input_0": other.numpy()})
    # Where the runtime rounds to another neighbour a value moves by one step.
    np.testing.assert_allclose(got[0], want[0].detach(), atol=0.02)


def test_the_runtime_keeps_a_whole_network_in_int8() -> None:
    after = quantized(program(Residual(), IMAGES), IMAGES).program
    found = runtime_operators(after)
    assert found.pop("Transpose", 0) <= 2  # to its own layout and back
    assert found == {
        "QuantizeLinear": 1,
        "QLinearConv": 3,
        "NhwcMaxPool": 1,
        "QLinearAdd": 1,
        "QLinearGlobalAveragePool": 1,
        "Reshape": 1,
        "QGemm": 1,
    }


class Between(nn.Module):
    """One operator between two convolutions."""

    def __init__(self, between: Callable[[Tensor], Tensor], channels: int = 4) -> None:
        super().__init__()
        self.first, self.between = nn.Conv2d(3, 4, 3), between
        self.last = nn.Conv2d(channels, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))  # type: ignore[no-any-return]


OPERATORS: dict[str, tuple[Callable[[Tensor], Tensor], str, int]] = {
    "average pool": (lambda x: F.avg_pool2d(x, 2), "QLinearAveragePool", 4),
    "join": (lambda x: torch.cat([x, F.max_pool2d(x, 3, 1, 1)], 1), "QLinearConcat", 8),
    "leaky rectifier": (F.leaky_relu, "QLinearLeakyRelu", 4),
    "sigmoid": (torch.sigmoid, "QLinearSigmoid", 4),
    "product": (lambda x: x * torch.sigmoid(x), "QLinearMul", 4),
    "transpose": (lambda x: x.transpose(2, 3), "Transpose", 4),
    "slice": (lambda x: x[:, :, 2:9], "Slice", 4),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_between_convolutions_compute_in_int8(name: str) -> None:
    between, expected, channels = OPERATORS[name]
    before = program(Between(between, channels), IMAGES)
    after = quantized(before, IMAGES).program
    found = runtime_operators(after)
    assert found[expected] > 0
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 1), found
    assert closeness(after.run(input_0=IMAGES), before.run(input_0=IMAGES)) > 0.999


def test_rows_of_a_linear_layer_may_have_more_axes() -> None:
    x = values(4, 7, 16)
    module = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))
    before = program(module, x)
    after = quantized(before, x).program
    found = runtime_operators(after)
    assert (found["QGemm"], found["Gemm"]) == (2, 0)
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 0)
    got = session(after).run(None, {"input_0": x.numpy()})
    assert closeness(got, before.run(input_0=x)) > 0.999


def test_paddings_on_one_side_are_part_of_the_convolution() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.layer(F.pad(x, (0, 1, 0, 1))))

    before = FoldPads().run(program(Padded(), IMAGES)).program
    after = quantized(before, IMAGES).program
    assert "strop.padded_conv" in body(after)
    assert runtime_operators(after)["QLinearConv"] == 1
    assert closeness(after.run(input_0=IMAGES), before.run(input_0=IMAGES)) > 0.999


class Block(nn.Module):
    """A residual stream of linear layers around norms."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.last = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return self.last(x)  # type: ignore[no-any-return]


def test_a_residual_stream_between_norms_stays_in_float() -> None:
    x = values(4, 7, 16)
    result = quantized(program(Block(), x), x, by=QuantizeStatic(compensate=False))
    # The inputs of both layers alone.
    assert counts(result) == {"value-int8": 2, "weight-int8": 2, "bias-int32": 2}
    add = next(iter(result.program.find(torch.ops.aten.add.Tensor)))
    fake = torch.ops.strop.fake_quantize.default
    assert fake not in [n.target for n in (*add.all_input_nodes, *add.users)]


def test_joined_values_share_one_grid() -> None:
    def join(x: Tensor) -> Tensor:
        return torch.cat([x, F.max_pool2d(x, 3, 1, 1)], 1)

    after = quantized(program(Between(join, 8), IMAGES), IMAGES).program
    cat = after.find(torch.ops.aten.cat.default)[0]
    around = [*cat.all_input_nodes, *cat.users]
    assert len({n.args[1] for n in around}) == 1


def test_a_join_of_clamped_and_free_values_keeps_their_grids_apart() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.cat([F.relu(self.a(x)), self.b(x)], 1))  # type: ignore[no-any-return]

    after = quantized(program(Two(), IMAGES), IMAGES).program
    assert not after.find(torch.ops.aten.relu.default)
    cat = after.find(torch.ops.aten.cat.default)[0]
    assert len({n.args[1] for n in cat.all_input_nodes}) == 2
    assert runtime_operators(after)["DequantizeLinear"] == 1


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.sampled_from(["conv", "relu", "relu6", "pool", "mean", "add", "cat", "gelu"]), max_size=6
    )
)
def test_any_order_of_operators_gives_a_file_with_the_programs_numbers(order: list[str]) -> None:
    class Random(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
            self.layers = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1) for _ in order])

        def forward(self, x: Tensor) -> Tensor:
            first = x = self.stem(x)
            for kind, layer in zip(order, self.layers):
                x = {
                    "conv": layer,
                    "relu": F.relu,
                    "relu6": F.relu6,
                    "pool": lambda t: F.max_pool2d(t, 3, 1, 1),
                    "mean": lambda t: F.avg_pool2d(t, 3, 1, 1),
                    "add": lambda t: t + first,
                    "cat": lambda t: torch.cat([t[:, :2], first[:, 2:]], 1),
                    "gelu": F.gelu,
                }[kind](x)
            return self.last(x)  # type: ignore[no-any-return]

    x = values(2, 3, 6, 6)
    before = program(Random(), x)
    after = quantized(before, x).program
    want = after.run(input_0=x)
    assert closeness(want, before.run(input_0=x)) > 0.99
    got = session(after).run(None, {"input_0": x.numpy()})
    assert closeness(got, want) > 0.9995
