"""Pass ``precision``: float16 where its numbers are good enough, float32 where they are not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from program_tools import body, program_of
from torch import Tensor, nn

from strop.bench.models.zoo import ZOO
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.ir.nodes import tensors_of
from strop.compiler.ir.program import Program
from strop.compiler.ir.stale import verify_types
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.rewriting.passes import PassResult
from strop.compiler.rewriting.rules import Log
from strop.compiler.util.errors import UsageError
from strop.passes.precision.precision import Precision

strop = torch.ops.strop
SEED = torch.Generator().manual_seed(0)
LOWEST = torch.finfo(torch.float32).min
# Steps of float16 between numbers from 1 to 2, of which results here are a few apart.
STEP = torch.finfo(torch.float16).eps
ROWS = torch.randn(3, 8, generator=SEED)
SQUARE = torch.randn(8, 8, generator=SEED) / 3
HEADS = torch.randn(2, 4, 5, 8, generator=SEED)


def narrowed(program: Program, **options: Any) -> PassResult:
    result = Precision(**options).run(program)
    verify_types(result.program)
    return result


def outputs(program: Program, *inputs: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return program.run(**{f"input_{i}": x for i, x in enumerate(inputs)})


def assert_near(before: Program, after: Program, *inputs: Tensor, steps: float = 4) -> None:
    """Outputs keep dtype, NaN and infinities, and differ by some steps of float16 at most."""
    for want, got in zip(outputs(before, *inputs), outputs(after, *inputs)):
        scale = max(float(want[want.isfinite()].abs().max()), 1.0)
        torch.testing.assert_close(got, want, rtol=0, atol=steps * STEP * scale, equal_nan=True)


def dtypes(program: Program) -> dict[str, torch.dtype]:
    """Of what each operator gives, by its name without the overload; of several, the last."""
    return {
        n.target.overloadpacket.__name__: n.meta["val"].dtype
        for n in program.calls()
        if hasattr(n.target, "overloadpacket") and isinstance(n.meta["val"], Tensor)
    }


def test_weights_become_casts_and_inputs_and_outputs_keep_their_dtypes() -> None:
    def layer(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return F.gelu(F.linear(x, w, b)) * 2

    program = program_of(layer, ROWS, w=SQUARE, b=SQUARE[0])
    result = narrowed(program)
    assert body(result.program) == "\n".join(
        [
            "program(%input_0 : f32[3, 8])",
            "  %to_dtype_1 : f16[8, 8] = aten.to.dtype(@w, f16)",
            "  %to_dtype_2 : f16[8] = aten.to.dtype(@b, f16)",
            "  %to_dtype : f16[3, 8] = aten.to.dtype(%input_0, f16)",
            "  %linear : f16[3, 8] = aten.linear(%to_dtype, %to_dtype_1, %to_dtype_2)",
            "  %gelu : f16[3, 8] = aten.gelu(%linear)",
            "  %mul : f16[3, 8] = aten.mul.Tensor(%gelu, 2)",
            "  %to_dtype_5 : f32[3, 8] = aten.to.dtype(%mul, f32)",
            '  return "output": %to_dtype_5',
        ]
    )
    assert result.program.contract == program.contract
    assert result.log.notes == []
    assert all(result.program.weights[name] is w for name, w in program.weights.items())
    assert_near(program, result.program, ROWS)


def test_gradients_reach_weights_and_inputs() -> None:
    program = program_of(lambda x, w: F.softmax(F.linear(x, w), -1), ROWS, w=SQUARE)
    after = narrowed(program).program
    x = ROWS.clone().requires_grad_()
    after.run(input_0=x)[0].square().sum().backward()
    (weight,) = after.parameters.values()
    for gradient in (x.grad, weight.grad):
        assert gradient is not None
        assert gradient.dtype == torch.float32
        assert float(gradient.abs().max()) > 0


def test_every_prefix_of_the_rewrites_is_a_valid_program() -> None:
    """Bisection stops a pass after any of its rewrites."""

    def function(x: Tensor, w: Tensor) -> Tensor:
        first, second = F.linear(x, w).split(4, -1)
        return torch.cat([first * second, first.exp()], -1) @ w

    program = program_of(function, ROWS, w=SQUARE)
    count = len(narrowed(program).log.rewrites)
    assert count == 5
    for limit in range(1, count):
        partly = Precision().run(program, Log(limit=limit)).program
        verify_types(partly)
        assert_near(program, partly, ROWS)


def test_a_program_in_16_bits_and_one_without_floats_are_left_alone() -> None:
    program = program_of(lambda x, w: F.linear(x, w), ROWS, w=SQUARE)
    once = narrowed(program).program
    assert not narrowed(once).modified
    assert not narrowed(program_of(lambda x: x + 1, torch.arange(4))).modified
    assert not narrowed(program_of(lambda x: x @ x, SQUARE.double())).modified


def test_bfloat16_is_an_option() -> None:
    program = program_of(lambda x, w: F.linear(x, w), ROWS, w=SQUARE)
    after = narrowed(program, dtype="bfloat16").program
    assert dtypes(after)["linear"] == torch.bfloat16
    assert_near(program, after, ROWS, steps=32)


KEPT: dict[str, tuple[Callable[[Tensor], Tensor], str, str]] = {
    "exponentials": (lambda x: (x * 5).exp(), "exp", "leave the range"),
    "powers": (lambda x: (x * 100).pow(2), "pow", "leave the range"),
    "quotients": (lambda x: x / (x * 1000), "div", "leave the range"),
    "roots": (lambda x: x.abs().rsqrt(), "rsqrt", "leave the range"),
    "means": (lambda x: x.mean(-1), "mean", "a sum of many"),
    "running sums": (lambda x: x.cumsum(-1), "cumsum", "a sum of many"),
    "softmax": (lambda x: x.softmax(-1), "softmax", "a sum of many"),
    "waves": (lambda x: (x * 3000).sin(), "sin", "whole turns"),
    "what nobody tried": (lambda x: torch.special.bessel_j0(x), "special_bessel_j0", "not tried"),
}  # fmt: skip


@pytest.mark.parametrize("case", KEPT)
def test_delicate_operators_keep_float32_and_the_notes_say_why(case: str) -> None:
    function, name, reason = KEPT[case]
    result = narrowed(program_of(lambda x: function(x) * 1, ROWS))
    assert dtypes(result.program)[name] == torch.float32
    assert any(f"aten.{name}" in note and reason in note for note in result.log.notes)


def test_a_norm_that_was_not_fused_keeps_float32_from_end_to_end() -> None:
    def norm(x: Tensor, w: Tensor) -> Tensor:
        return F.linear(x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt(), w)

    program = program_of(norm, ROWS * 1e-3, w=SQUARE)
    after = narrowed(program).program
    assert dtypes(after)["add"] == torch.float32
    assert dtypes(after)["linear"] == torch.float16
    assert_near(program, after, ROWS * 1e-3)


def test_an_epsilon_that_was_left_out_stays_that_of_float32() -> None:
    program = program_of(lambda x, w: F.rms_norm(x, (8,), w), ROWS * 1e-3, w=SQUARE[0])
    after = narrowed(program).program
    assert str(torch.finfo(torch.float32).eps) in body(after)
    assert_near(program, after, ROWS * 1e-3)


def test_positions_beyond_2048_keep_their_places() -> None:
    positions = torch.arange(4090, 4099).unsqueeze(0)
    frequencies = torch.rand(4, generator=SEED)

    def waves(at: Tensor) -> Tensor:
        angles = at.float().unsqueeze(-1) @ frequencies.unsqueeze(0).unsqueeze(0)
        return torch.cat([angles.cos(), angles.sin()], -1) * 1

    program = program_of(waves, positions)
    after = narrowed(program).program
    assert dtypes(after)["matmul"] == torch.float32
    assert_near(program, after, positions)


def test_waves_of_a_trained_layer_begin_behind_it() -> None:
    program = program_of(lambda x, w: F.linear(x, w).sin(), ROWS, w=SQUARE)
    assert dtypes(narrowed(program).program)["linear"] == torch.float16


NUMBERS: dict[str, Callable[[Tensor], Tensor]] = {
    "too large a factor": lambda x: x * 1e6 / 1e6,
    "too large a bound": lambda x: x.clamp(max=1e6) + 0.5,
    "too large a filling": lambda x: x.masked_fill(x > 0, 1e6).clamp(max=2),
    "too small a summand": lambda x: (x - x + 1e-9) * 1e9,
    "a whole number": lambda x: x + 70_000,
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_that_float16_does_not_hold_keep_float32(case: str) -> None:
    program = program_of(NUMBERS[case], ROWS)
    result = narrowed(program)
    assert_near(program, result.program, ROWS)
    assert any("float16" in note for note in result.log.notes), result.log.notes


def test_sizes_are_no_numbers() -> None:
    x = torch.ones(1, 70_000)
    result = narrowed(program_of(lambda x: x.reshape(70_000, 1), x))
    assert dtypes(result.program)["reshape"] == torch.float16


def test_a_layer_with_weights_beyond_float16_keeps_float32_and_is_named() -> None:
    large = SQUARE.clone()
    large[0, 0] = 1e5

    def layers(x: Tensor, large: Tensor, w: Tensor) -> Tensor:
        return F.linear(F.linear(x * 1e-2, large) / 1e3, w)

    program = program_of(layers, ROWS, large=large, w=SQUARE)
    result = narrowed(program)
    assert_near(program, result.program, ROWS)
    assert (
        "float32 is kept for aten.linear (1): weight 'inner.large' holds 100000, beyond the 65504 "
        "of float16"
    ) in result.log.notes
    assert result.program.outputs[0].all_input_nodes[0].meta["val"].dtype == torch.float16


def test_layers_can_be_kept_by_name() -> None:
    def layers(x: Tensor, first: Tensor, w: Tensor) -> Tensor:
        return F.linear(F.linear(x, first), w)

    program = program_of(layers, ROWS, first=SQUARE, w=SQUARE + 1)
    result = narrowed(program, keep=("inner.first",))
    kinds = [n.meta["val"].dtype for n in result.program.find(torch.ops.aten.linear.default)]
    assert kinds == [torch.float32, torch.float16]
    assert "'inner.first' matches 'inner.first'" in result.log.notes[0]
    with pytest.raises(UsageError, match="keep: no weight is 'another'"):
        narrowed(program, keep=("another",))


def test_infinite_weights_are_held_by_float16() -> None:
    endless = SQUARE.clone()
    endless[0, 0] = math.inf
    program = program_of(lambda x, w: x + w, SQUARE, w=endless)
    result = narrowed(program)
    assert result.log.notes == []
    assert_near(program, result.program, SQUARE)


def attend(q: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, q, q, mask) * 1


def attend_by_hand(q: Tensor, mask: Tensor) -> Tensor:
    return (q @ q.transpose(-1, -2) / math.sqrt(8) + mask).softmax(-1) @ q


# Keys that are looked at, [batch, 1, 1, keys]; in the second row none is.
LOOKED_AT = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]).reshape(2, 1, 1, 5)


@pytest.mark.parametrize("attention", [attend, attend_by_hand])
@pytest.mark.parametrize("hidden", [LOWEST, -1e9, -1e4, -math.inf])
def test_masks_keep_their_meaning(
    hidden: float, attention: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """Also in rows that hide every key: a mean, or NaN, as in the original."""
    kept = LOOKED_AT.bool()

    def computed(q: Tensor) -> Tensor:
        return attention(q, torch.zeros(1).masked_fill(~kept, hidden))

    def from_numbers(q: Tensor, looked_at: Tensor) -> Tensor:
        return attention(q, (1.0 - looked_at.float()) * hidden)

    given = torch.zeros(kept.shape).masked_fill(~kept, hidden)
    cases: list[tuple[Any, tuple[Tensor, ...]]] = [
        (computed, (HEADS,)),
        (lambda q, mask: attention(q, mask + 0.0), (HEADS, given)),
    ]
    if math.isfinite(hidden):
        cases.append((from_numbers, (HEADS, LOOKED_AT)))
    for function, inputs in cases:
        program = program_of(function, *inputs)
        after = narrowed(program).program
        assert_near(program, after, *inputs)
        products = ("scaled_dot_product_attention", "matmul")
        assert torch.float16 in [dtypes(after).get(name) for name in products]


def test_a_mask_within_the_range_is_narrowed_once_for_all_layers() -> None:
    def layers(q: Tensor, x: Tensor, bias: Tensor) -> Tensor:
        mask = F.linear(x, bias).reshape(1, 4, 5, 5)
        return attend(attend(q, mask), mask)

    x, bias = torch.randn(1, 8, generator=SEED), torch.randn(100, 8, generator=SEED)
    program = program_of(layers, HEADS, x, bias=bias)
    after = narrowed(program).program
    assert dtypes(after)["reshape"] == torch.float16
    assert_near(program, after, HEADS, x)


def test_whole_numbers_become_floats_of_32_bits() -> None:
    counts = torch.tensor([2047, 2049, 65_535, 70_000])
    program = program_of(lambda n: n.float().log(), counts)
    assert_near(program, narrowed(program).program, counts)


def test_other_dtypes_stay_as_they_are() -> None:
    def function(half: Tensor, double: Tensor, single: Tensor) -> tuple[Tensor, ...]:
        return half * 2, double * 2, single * 2, double.float() + single

    inputs = (ROWS.half(), ROWS.double(), ROWS)
    program = program_of(function, *inputs)
    after = narrowed(program).program
    assert after.contract == program.contract
    assert_near(program, after, *inputs)


def linear_nbits(x: Tensor, w: Tensor, b: Tensor) -> Any:
    scale = strop.group_scale(w, 2, 4, True)
    return strop.linear_nbits(x, w, scale, None, b, 4)


def linear_int8(x: Tensor, w: Tensor, b: Tensor) -> Any:
    return strop.linear_w8a8_rows(x, w, strop.int8_scale(w), b)


def linear_int8_together(x: Tensor, w: Tensor, b: Tensor) -> Any:
    return strop.linear_w8a8(x, w, strop.int8_scale(w), b)


def linear_fp8(x: Tensor, w: Tensor, b: Tensor) -> Any:
    return strop.linear_fp8(x, w, strop.fp8_scale(w), b)


@pytest.mark.parametrize(
    "layer", [linear_nbits, linear_int8, linear_int8_together, linear_fp8], ids=lambda f: f.__name__
)
def test_packed_weights_and_their_scales_stay_float32(layer: Callable[..., Any]) -> None:
    """The whole numbers are those of the original weight; only x and bias are of 16 bits."""
    # On the grid of float16, so that what is rounded at run time rounds the same.
    x = ROWS.half().float()
    program = program_of(layer, x, w=SQUARE, b=SQUARE[0])
    after = narrowed(program).program
    (call,) = [n for n in after.calls() if n.target in LAYERS]
    kinds = [n.meta["val"].dtype for n in call.all_input_nodes]
    assert kinds == [torch.float16, torch.float32, torch.float32, torch.float16]
    assert call.meta["val"].dtype == torch.float16
    assert_near(program, after, x)


LAYERS = (
    strop.linear_nbits.default, strop.linear_w8a8_rows.default, strop.linear_w8a8.default,
    strop.linear_fp8.default,
)  # fmt: skip


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.norm.running_var.fill_(1e6)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x))).mean((2, 3))


def test_convolutions_are_narrowed_and_variances_are_not() -> None:
    x = torch.randn(2, 3, 6, 6, generator=SEED)
    program = program_of(Convolutional(), x)
    after = narrowed(program).program
    assert dtypes(after)["conv2d"] == torch.float16
    assert dtypes(after)["batch_norm"] == torch.float32
    assert_near(program, after, x)


QUICK = ("deberta-v2", "vit")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ZOO]
)
def test_models_of_the_zoo_are_near_their_originals(name: str) -> None:
    model = ZOO[name].make()
    signature, example, _ = read_inputs(model)
    with torch.no_grad():
        program = capture(model.module, signature, example)
    before = load_recipe("cpu-fp32").pipeline().run(program)
    after = narrowed(before).program
    with torch.no_grad():
        pairs = zip(program.run(**example), after.run(**example))
        for want, got in pairs:
            scale = max(float(want.abs().max()), 1.0)
            torch.testing.assert_close(got, want, rtol=0, atol=4 * STEP * scale)


def test_numbers_made_from_nothing_join_the_others() -> None:
    def function(x: Tensor) -> Tensor:
        return torch.cat([x, torch.full((x.shape[0], 8), 0.5)], 1)

    program = program_of(function, ROWS, dims={0: {0: "rows"}})
    after = narrowed(program).program
    assert len({t.fake_mode for n in after.calls() for t in tensors_of(n)}) == 1  # type: ignore[attr-defined]
    assert_near(program, after, ROWS)
