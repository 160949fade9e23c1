"""Smoothing: the same function in float, a smaller error in int8, and clear words for bad data."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from program_tools import body, counts, program_of, same_numbers
from torch import Tensor, nn

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.channels import Channels
from strop.passes.quantize.dynamic import QuantizeDynamic
from strop.passes.quantize.smooth import Smooth
from strop.passes.quantize.smoothing import ALPHAS, Layer, best_scale

WIDTH, LOUD = 32, 3


class Block(nn.Module):
    """A norm with one loud channel, whose result two layers read; with ``skip``, a sum does too."""

    def __init__(self, skip: bool = False) -> None:
        super().__init__()
        self.norm, self.skip = nn.LayerNorm(WIDTH), skip
        self.first, self.second = nn.Linear(WIDTH, 16), nn.Linear(WIDTH, 16)
        with torch.no_grad():
            self.norm.weight[LOUD] = 60

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        y = torch.cat([self.first(x), self.second(x)], -1)
        return x + y if self.skip else y


def data(count: int = 3, seed: int = 0) -> list[dict[str, Tensor]]:
    random = torch.Generator().manual_seed(seed)
    return [{"input_0": torch.randn(4, 9, WIDTH, generator=random)} for _ in range(count)]


X = data(1, seed=1)[0]["input_0"]
DIMS = {0: {0: "batch", 1: "seq"}}


def smoothed(
    program: Program, given: Sequence[dict[str, Tensor]] | None, **options: object
) -> Program:
    context = Context(calibration=given)
    return Smooth(**options).run(program, context=context).program  # type: ignore[arg-type]


def int8_error(program: Program, original: Program) -> float:
    with torch.no_grad():
        got = QuantizeDynamic().run(program).program.run(input_0=X)[0]
        want = original.run(input_0=X)[0]
    return float((got - want).norm() / want.norm())


@pytest.fixture(scope="module")
def plain() -> Program:
    torch.manual_seed(0)
    return program_of(Block(), X, dims=DIMS)


def test_a_norm_takes_the_division_and_its_readers_the_product(plain: Program) -> None:
    result = Smooth().run(plain, context=Context(calibration=data()))
    assert counts(result) == {"smooth-folded": 1}
    new = result.program
    assert "mul" not in body(new)
    assert float(new.weights["inner.norm.weight"][LOUD].detach()) < 60 / 4
    assert new.origins["inner.first.weight"].made_by == "smooth"
    same_numbers(plain, new, X, tolerance=1e-4)
    assert int8_error(new, plain) < int8_error(plain, plain) / 3


def test_what_is_read_by_a_sum_too_is_multiplied_for_the_layers() -> None:
    torch.manual_seed(0)
    program = program_of(Block(skip=True), X, dims=DIMS)
    result = Smooth().run(program, context=Context(calibration=data()))
    assert counts(result) == {"smooth-multiplied": 1}
    assert body(result.program).count("aten.mul.Tensor(%layer_norm, @first.weight.smooth)") == 1
    same_numbers(program, result.program, X, tolerance=1e-4)
    assert int8_error(result.program, program) < int8_error(program, program) / 2


def test_a_multiplication_that_gains_too_little_is_not_inserted() -> None:
    program = program_of(Block(skip=True), X, dims=DIMS)
    assert not Smooth(multiply=2).run(program, context=Context(calibration=data())).modified


def test_layers_that_are_kept_stay_and_say_so(plain: Program) -> None:
    result = Smooth(keep=("*first*", "*second*")).run(plain, context=Context(calibration=data()))
    assert not result.modified
    assert any("matches '*first*'" in miss.reason for miss in result.log.misses)


def test_the_manifest_gets_alpha_errors_and_weights(plain: Program) -> None:
    result = Smooth().run(plain, context=Context(calibration=data()))
    assert result.log.learned is not None
    fact = result.log.learned["facts"]["layers"]["inner.first.weight"]
    assert fact["into"] == ["inner.norm.weight", "inner.norm.bias"]
    assert fact["readers"] == ["inner.first.weight", "inner.second.weight"]
    assert 0.5 <= fact["alpha"] <= 1 and fact["error"][1] < fact["error"][0]


def test_one_alpha_is_taken_for_every_layer(plain: Program) -> None:
    result = Smooth(alpha=0.55).run(plain, context=Context(calibration=data()))
    assert result.log.learned is not None
    assert result.log.learned["facts"]["layers"]["inner.first.weight"]["alpha"] == 0.55


def test_the_same_data_give_the_same_weights(plain: Program) -> None:
    one, two = smoothed(plain, data()), smoothed(plain, data())
    assert all(torch.equal(w, two.weights[name]) for name, w in one.weights.items())


def test_without_data_it_is_refused_or_left_out_with_a_note(plain: Program) -> None:
    with pytest.raises(UsageError, match="pass 'smooth' needs calibration or train"):
        Smooth().run(plain, context=Context())
    result = Smooth(without_data="leave-out").run(plain, context=Context())
    assert not result.modified
    [note] = result.log.notes
    assert "pass 'smooth' was left out: the model gives no calibration data" in note


def _with(value: float) -> list[dict[str, Tensor]]:
    batches = data(2)
    batches[1]["input_0"][0, 0, 0] = value
    return batches


BAD = {
    "NaN": (_with(float("nan")), r"calibration\[1\]\['input_0'\] holds NaN"),
    "infinity": (_with(float("inf")), r"calibration\[1\]\['input_0'\] holds infinity"),
    "dtype": ([{"input_0": X.long()}], r"input_0 i64\[4, 9, 32\] for f32"),
    "empty": ([{"input_0": torch.empty(0, 9, WIDTH)}], "the calibration data has no rows"),
    "nothing": ([], "the calibration data has no rows"),
}


@pytest.mark.parametrize(("given", "said"), BAD.values(), ids=BAD)
def test_bad_data_are_told(plain: Program, given: list[dict[str, Tensor]], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        smoothed(plain, given)


OPTIONS = {"alpha": 1.5, "multiply": -1.0, "batches": 0, "rows": 0}


@pytest.mark.parametrize(("name", "value"), OPTIONS.items())
def test_options_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{name} is {value}"):
        Smooth(**{name: value})  # type: ignore[arg-type]


def test_patterns_that_match_nothing_are_refused(plain: Program) -> None:
    with pytest.raises(UsageError, match="only: no weight is 'nothing'"):
        smoothed(plain, data(), only=("nothing",))


@pytest.mark.parametrize("channel", ["zero", "constant"])
def test_zero_and_constant_channels_keep_finite_scales(plain: Program, channel: str) -> None:
    given = data()
    for batch in given:
        batch["input_0"][..., 5] = 0 if channel == "zero" else 7
    new = smoothed(plain, given)
    assert all(bool(w.isfinite().all()) for w in new.weights.values())
    same_numbers(plain, new, X, tolerance=1e-4)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = Block(), Block()

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.one(x), self.other(y)


def test_layers_that_read_nothing_on_the_data_stay() -> None:
    program = program_of(Two(), X, X, dims={0: {0: "rows"}, 1: {0: "others"}})
    given = [{"input_0": X, "input_1": X[:0]}]
    result = Smooth().run(program, context=Context(calibration=given))
    assert counts(result) == {"smooth-folded": 1}
    assert result.program.origins["inner.one.first.weight"].made_by == "smooth"


def test_channels_that_are_always_zero_are_not_scaled() -> None:
    channels = Channels(8, 0)
    channels.add(torch.tensor([[0.0, 100.0, 1.0, 1.0]]).repeat(8, 1))
    found = best_scale([Layer(torch.eye(4), channels, torch.arange(4))], 4, ALPHAS)
    assert found.scale[0] == 1 and bool(found.scale.isfinite().all())


def test_scales_amplify_nothing() -> None:
    channels = Channels(64, 0)
    channels.add(torch.randn(64, 8) * torch.tensor([50.0, 1, 1, 1, 1, 1, 1, 0.01]))
    found = best_scale([Layer(torch.randn(6, 8), channels, torch.arange(8))], 8, ALPHAS)
    assert found.after < found.before
    assert float(found.scale.min()) == 1 and float(found.scale[0]) > 5


def test_a_sample_of_rows_does_not_grow_and_ranges_are_of_all() -> None:
    channels, low = Channels(16, 0), []
    for batch in range(20):
        values = torch.full((5, 7, 3), float(batch))
        low.append(values)
        channels.add(values)
    assert channels.rows.shape == (16, 3)
    assert channels.low.tolist() == [0] * 3 and channels.high.tolist() == [19] * 3
    assert len(channels.rows.unique()) > 5, "rows of many batches"
