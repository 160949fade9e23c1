"""Neurons with massive values: parted exactly, on the graph's word, and only where it pays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from program_tools import body, counts, program_of, same_numbers, session
from torch import Tensor, nn

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.dynamic import QuantizeDynamic
from strop.passes.quantize.outliers import SplitOutliers
from strop.passes.quantize.smooth import Smooth

WIDTH, NEURONS, LOUD = 12, 40, 7
X = torch.randn(4, 9, WIDTH, generator=torch.Generator().manual_seed(1))
DATA = [{"input_0": X}]


class Mlp(nn.Module):
    """One neuron takes massive values, and has large weights behind it."""

    def __init__(self, function: Callable[[Tensor], Tensor] = F.gelu, bias: bool = True) -> None:
        super().__init__()
        self.function = function
        self.up, self.down = nn.Linear(WIDTH, NEURONS, bias=bias), nn.Linear(NEURONS, WIDTH)
        with torch.no_grad():
            self.up.weight[LOUD] *= 40
            self.down.weight[:, LOUD] *= 20

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.function(self.up(x)))


class Gated(Mlp):
    def __init__(self) -> None:
        super().__init__(bias=False)
        self.gate = nn.Linear(WIDTH, NEURONS)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * F.silu(self.up(x)))


def program(module: nn.Module) -> Program:
    return program_of(module, X, dims={0: {0: "batch", 1: "seq"}})


@pytest.mark.parametrize("module", [Mlp(), Mlp(F.silu), Mlp(bias=False), Gated()])
def test_the_loud_neuron_is_computed_apart_and_the_numbers_stay(module: nn.Module) -> None:
    before = program(module)
    result = SplitOutliers(count=4).run(before, context=Context(calibration=DATA))
    assert counts(result) == {"outliers-apart": 1}
    assert result.log.learned is not None
    assert LOUD in result.log.learned["facts"]["layers"]["inner.down.weight"]["neurons"]
    same_numbers(before, result.program, X, tolerance=1e-4)


def test_the_text_shows_two_branches_and_their_sum() -> None:
    result = SplitOutliers(count=4).run(program(Mlp()), context=Context(calibration=DATA))
    lines = [line.split("=", 1)[1].strip() for line in body(result.program).splitlines()[1:-1]]
    assert lines == [
        "aten.matmul(%input_0, @up.weight.outliers)",
        "aten.add.Tensor(%matmul_default, @up.bias.outliers)",
        "aten.gelu(%add_tensor)",
        "aten.matmul(%gelu_default, @down.weight.outliers)",
        "aten.linear(%input_0, @up.weight, @up.bias)",
        "aten.gelu(%linear_default)",
        "aten.linear(%gelu_default_1, @down.weight, @down.bias)",
        "aten.add.Tensor(%linear_default_1, %matmul_default_1)",
    ]


def test_weights_remember_which_neurons_they_hold() -> None:
    new = SplitOutliers(count=4).run(program(Mlp()), context=Context(calibration=DATA)).program
    kept = new.origins["inner.up.weight"].kept[0]
    assert len(kept) == NEURONS - 4 and LOUD not in kept
    assert new.origins["inner.up.weight.outliers"].sources == ("inner.up.weight",)


def test_int8_gains_by_it_and_leaves_the_narrow_branch_in_float() -> None:
    before = program(Mlp())
    new = SplitOutliers(count=4).run(before, context=Context(calibration=DATA)).program
    result = QuantizeDynamic().run(new)
    assert counts(result) == {"linear-w8a8": 2}
    want = before.run(input_0=X)[0].detach()

    def error(one: Program) -> float:
        [got] = session(one).run(None, {"input_0": X.numpy()})
        return float((torch.from_numpy(got) - want).norm() / want.norm())

    assert error(result.program) < error(QuantizeDynamic().run(before).program) / 3


def test_smoothing_goes_through_the_narrow_branch_too() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.mlp = nn.LayerNorm(WIDTH), Mlp()
            with torch.no_grad():
                self.norm.weight[3] = 50

        def forward(self, x: Tensor) -> Tensor:
            return self.mlp(self.norm(x))

    before, context = program(Block()), Context(calibration=DATA)
    parted = SplitOutliers(count=4).run(before, context=context).program
    result = Smooth().run(parted, context=context)
    assert counts(result)["smooth-folded"] == 1
    same_numbers(before, result.program, X, tolerance=1e-3)


class Twice(Mlp):
    """The neurons are an output too."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        neurons = F.gelu(self.up(x))
        return self.down(neurons), neurons


class Tied(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.up.weight.sum()


class Computed(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(F.linear(x, self.up.weight * 2)))


class Normed(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.layer_norm(self.up(x), [NEURONS]))


REFUSED = {
    "its neurons are read here too": Twice(),
    "'inner.up.weight' is used elsewhere too": Tied(),
    "not held as such, but computed": Computed(),
    "no function, element by element": Normed(),
    "smoothing can take a scale into the layer before": Mlp(F.relu),
}


@pytest.mark.parametrize(("reason", "module"), REFUSED.items(), ids=REFUSED)
def test_neurons_that_cannot_be_parted_say_why(reason: str, module: nn.Module) -> None:
    result = SplitOutliers(count=4).run(program(module), context=Context(calibration=DATA))
    assert not result.modified
    assert any(reason in str(miss.reason) for miss in result.log.misses), result.log.misses


def test_layers_without_massive_values_stay_whole() -> None:
    quiet = Mlp()
    with torch.no_grad():
        quiet.up.weight[LOUD] /= 40
    result = SplitOutliers(count=4).run(program(quiet), context=Context(calibration=DATA))
    assert not result.modified


def test_layers_that_are_hardly_wider_than_the_branch_stay_whole() -> None:
    context = Context(calibration=DATA)
    assert not SplitOutliers(count=20).run(program(Mlp()), context=context).modified


def test_without_data_it_is_left_out_with_a_note() -> None:
    result = SplitOutliers(without_data="leave-out").run(program(Mlp()), context=Context())
    assert "pass 'outliers' was left out" in result.log.notes[0]


@pytest.mark.parametrize(("name", "value"), [("count", 0), ("ratio", 0.5), ("batches", 0)])
def test_options_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{name} is {value}"):
        SplitOutliers(**{name: value})  # type: ignore[arg-type]
