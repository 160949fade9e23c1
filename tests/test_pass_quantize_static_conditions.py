"""Static int8: what is left alone, what is refused, and options."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from program_tools import counts, program_of, session
from quantize_tools import closeness, program, quantized, runtime_operators, values
from torch import Tensor, nn
from torch.nn import functional as F

from strop.compiler.rewriting.context import Context
from strop.compiler.targets.target import CPU
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.static import QuantizeStatic

IMAGES = values(4, 3, 8, 8)
aten = torch.ops.aten
S8 = dataclasses.replace(CPU, name="s8", static_int8=("symmetric",), int32_biases=False)


class Pair(nn.Module):
    """Two convolutions with an operator between them."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))  # type: ignore[no-any-return]


def reasons(result: Any) -> str:
    return "\n".join(miss.reason for miss in result.log.misses)


def test_layers_that_are_kept_stay_in_float_and_say_so() -> None:
    result = quantized(program(Pair(F.relu), IMAGES), IMAGES, by=QuantizeStatic(keep=("*last*",)))
    assert counts(result) == {"value-int8": 2, "weight-int8": 1, "bias-int32": 1}
    assert "matches '*last*'" in reasons(result)


def test_names_that_match_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="only: no weight is 'lastt'"):
        quantized(program(Pair(F.relu), IMAGES), IMAGES, by=QuantizeStatic(only=("lastt",)))


def test_two_passes_quantize_layers_in_two_ways() -> None:
    first = quantized(program(Pair(F.relu), IMAGES), IMAGES, by=QuantizeStatic(only=("*first*",)))
    both = quantized(first.program, IMAGES, by=QuantizeStatic(weight_bits=4))
    assert counts(both) == {"value-int8": 1, "weight-int8": 1, "bias-int32": 1}
    assert "its weight is quantized already" in reasons(both)
    assert runtime_operators(both.program)["QLinearConv"] == 2


def test_fewer_bits_round_weights_to_fewer_values() -> None:
    by = QuantizeStatic(weight_bits=3)
    after = quantized(program(Pair(F.relu), IMAGES), IMAGES, by=by).program
    weight = after.find(aten.conv2d.default)[0].args[1]
    assert isinstance(weight, torch.fx.Node)
    assert weight.args[3:] == (0, -3, 3)


CLAMPS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "rectifier": (F.relu, 0),
    "rectifier to 6": (F.relu6, 0),
    "from below": (lambda x: x.clamp_min(0), 0),
    "between two numbers": (lambda x: x.clamp(-0.5, 0.5), 0),
    "without ends": (lambda x: x.clamp(max=9.0), 0),
    "read twice before": (lambda x: F.relu(x) + x, 1),
    "behind a pool": (lambda x: F.relu(F.max_pool2d(x, 3, 1, 1)), 1),
    "behind another clamp": (lambda x: F.relu(F.hardtanh(x)), 1),
}


@pytest.mark.parametrize("name", CLAMPS)
def test_clamps_are_left_to_rounding_where_that_gives_the_same(name: str) -> None:
    between, left = CLAMPS[name]
    before = program(Pair(between), IMAGES)
    after = quantized(before, IMAGES).program
    clamps = (aten.relu.default, aten.relu6.default, aten.clamp.default, aten.hardtanh.default)
    assert len(after.find(*clamps)) == left
    other = values(4, 3, 8, 8, seed=1)
    want = after.run(input_0=other)
    assert closeness(want, before.run(input_0=other)) > 0.995
    assert closeness(session(after).run(None, {"input_0": other.numpy()}), want) > 0.9999


def test_a_clamp_of_more_than_a_step_inside_its_grid_is_kept() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            both = [self.a(x).clamp(0, 0.1), self.b(x).clamp(0, 9)]
            return self.last(torch.cat(both, 1))  # type: ignore[no-any-return]

    before = program(Joined(), IMAGES)
    after = quantized(before, IMAGES).program
    # Both share the grid of the wider one, which does not end at 0.1.
    assert [n.args[2] for n in after.find(aten.clamp.default)] == [0.1]
    other = values(4, 3, 8, 8, seed=1)
    assert closeness(after.run(input_0=other), before.run(input_0=other)) > 0.999


def test_symmetric_activations_keep_their_rectifier_and_float_biases() -> None:
    result = quantized(program(Pair(F.relu), IMAGES), IMAGES, target=S8)
    assert counts(result) == {"value-int8": 3, "weight-int8": 2}
    assert len(result.program.find(aten.relu.default)) == 1
    rounded = result.program.find(torch.ops.strop.fake_quantize.default)
    assert {n.args[4:] for n in rounded} == {(-128, 127), (-127, 127)}


def test_activations_that_a_target_is_slow_with_are_refused() -> None:
    by = QuantizeStatic(activations="symmetric")
    with pytest.raises(UsageError, match="'symmetric', in which cpu is slower than in float"):
        quantized(program(Pair(F.relu), IMAGES), IMAGES, by=by)
    none = dataclasses.replace(CPU, name="gpu", static_int8=())
    with pytest.raises(UsageError, match="gpu takes no int8 with fixed scales"):
        quantized(program(Pair(F.relu), IMAGES), IMAGES, target=none)


def test_without_data_the_message_says_what_to_give() -> None:
    with pytest.raises(UsageError, match=r"needs calibration or train: give Model\(calibration="):
        QuantizeStatic().run(program(Pair(F.relu), IMAGES), context=Context())


def test_data_with_nan_are_refused_by_batch_and_input() -> None:
    bad = IMAGES.clone()
    bad[1, 2, 3, 4] = torch.nan
    with pytest.raises(UsageError, match=r"calibration\[1\]\['input_0'\] holds NaN"):
        quantized(program(Pair(F.relu), IMAGES), IMAGES, bad)
    bad[1, 2, 3, 4] = -torch.inf
    with pytest.raises(UsageError, match=r"calibration\[0\]\['input_0'\] holds infinity"):
        quantized(program(Pair(F.relu), IMAGES), bad)


def test_values_that_become_nan_on_the_way_are_refused_by_node_and_batch() -> None:
    before = program(Pair(torch.sqrt), IMAGES)
    with pytest.raises(UsageError, match=r"%sqrt.*becomes NaN or infinite on calibration\[0\]"):
        quantized(before, IMAGES)


def test_weights_with_nan_are_refused_by_name() -> None:
    x = values(4, 8)
    before = program(nn.Linear(8, 2), x)
    before.weights["inner.weight"].data[0, 0] = torch.nan
    with pytest.raises(UsageError, match=r"weight 'inner\.weight' holds NaN"):
        quantized(before, x)


def test_data_of_another_dtype_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"does not run on these inputs: input_0 f64\[4, 3, 8, 8\]"
    ):
        quantized(program(Pair(F.relu), IMAGES), IMAGES.double())


def test_few_rows_are_noted() -> None:
    before = program(Pair(F.relu), IMAGES)
    assert quantized(before, *[IMAGES] * 7).log.notes == ["calibrated on 28 rows alone"]
    assert quantized(before, *[IMAGES] * 8).log.notes == []
    by = QuantizeStatic(batches=2)
    assert quantized(before, *[IMAGES] * 8, by=by).log.notes == ["calibrated on 8 rows alone"]


@pytest.mark.parametrize("options", [{"percentile": 50.0}, {"batches": 0}, {"weight_bits": 9}])
def test_options_outside_of_their_ranges_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options)).removeprefix("weight_")):
        QuantizeStatic(**options)


def test_constant_channels_and_channels_without_weights_have_scales() -> None:
    constant = IMAGES.clone()
    constant[:, 1] = 0.25
    before = program(Pair(F.relu), constant)
    weight = before.weights["inner.first.weight"].data
    weight[0], weight[1] = 0.0, 1e-20
    before.weights["inner.first.bias"].data[:2] = torch.tensor([0.7, -0.3])
    after = quantized(before, constant).program
    want = after.run(input_0=constant)
    assert closeness(want, before.run(input_0=constant)) > 0.999
    assert closeness(session(after).run(None, {"input_0": constant.numpy()}), want) > 0.9999


def test_values_that_are_all_0_have_a_scale() -> None:
    nothing = torch.zeros(2, 3, 8, 8)
    after = quantized(program(Pair(F.relu), nothing), nothing).program
    assert all(bool(t.isfinite().all()) for t in after.run(input_0=IMAGES))


def test_layers_that_have_no_int8_form_are_left_alone() -> None:
    def computed(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight * x.mean())

    def constant(x: Tensor) -> Tensor:
        return F.linear(x, torch.ones(2, 8))

    cases: list[tuple[Any, str]] = [
        (program_of(computed, IMAGES, weight=values(2, 3, 1, 1)), "computed from an input"),
        (program(nn.Conv2d(3, 2, 1), IMAGES[0], rows=False), "its input has no batch axis"),
    ]
    for before, reason in cases:
        result = quantized(before, before_input(before))
        assert not result.modified
        assert reason in reasons(result)


def before_input(made: Any) -> Tensor:
    return values(*made.contract.inputs[0].shape)


def test_float64_layers_stay_in_float() -> None:
    x = IMAGES.double()
    module = nn.Conv2d(3, 2, 1).double()
    result = quantized(program_of(module, x), x)
    assert "computes in torch.float64" in reasons(result)


def test_other_readers_of_an_input_read_its_float_form() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return F.gelu(x) + F.gelu(self.layer(x))

    after = quantized(program(Both(), IMAGES), IMAGES).program
    first, second = after.find(aten.gelu.default)
    assert first.args[0].op == "placeholder"  # type: ignore[union-attr]
    assert second.args[0].target is torch.ops.strop.fake_quantize.default  # type: ignore[union-attr]


def test_progress_counts_batches() -> None:
    said: list[str] = []
    quantized(program(Pair(F.relu), IMAGES), IMAGES, IMAGES, progress=said.append)
    assert said[:2] == ["calibrating: batch 1 of 2", "calibrating: batch 2 of 2"]
    assert said[2:] == ["rounding the weight of %conv2d", "rounding the weight of %conv2d_1"]


def test_gradients_reach_weights_and_inputs() -> None:
    after = quantized(program(Pair(F.relu), IMAGES), IMAGES).program
    x = IMAGES.clone().requires_grad_()
    after.run(input_0=x)[0].square().sum().backward()
    assert x.grad is not None and float(x.grad.abs().sum()) > 0
    assert all(p.grad is not None for p in after.parameters.values())
