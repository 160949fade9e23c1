"""Bias correction: no error is left on average, whatever the bias of a layer is."""

from __future__ import annotations

import pytest
import torch
from program_tools import body, counts, program_of
from torch import Tensor, nn

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.passes import Pass
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.correct_bias import CorrectBias
from strop.passes.quantize.dynamic import QuantizeDynamic
from strop.passes.quantize.weights import QuantizeWeights

# Of one sign, so that the errors of weights do not cancel.
X = torch.rand(64, 32, generator=torch.Generator().manual_seed(0)) + 1
DATA = Context(calibration=[{"input_0": X}])


def layer(bias: bool = True) -> Program:
    torch.manual_seed(0)
    return program_of(nn.Linear(32, 16, bias), X, dims={0: {0: "batch"}})


def error(program: Program, original: Program) -> Tensor:
    """Of each channel, on average."""
    with torch.no_grad():
        found: Tensor = program.run(input_0=X)[0] - original.run(input_0=X)[0]
    return found.mean(0).abs().max()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "quantize", [QuantizeDynamic(), QuantizeDynamic(scales="row"), QuantizeWeights(bits=3)]
)
def test_the_mean_error_of_a_layer_goes(quantize: Pass, bias: bool) -> None:
    original = layer(bias)
    quantized = quantize.run(original, context=Context()).program
    result = CorrectBias().run(quantized, context=DATA)
    assert counts(result) == {"bias-corrected": 1}
    assert error(result.program, original) < 1e-5 < error(quantized, original) / 10
    assert "corrected_bias" in body(result.program)


def test_layers_in_float_and_kept_layers_stay() -> None:
    assert not CorrectBias().run(layer(), context=DATA).modified
    quantized = QuantizeDynamic().run(layer()).program
    assert not CorrectBias(keep=("inner",)).run(quantized, context=DATA).modified


def test_a_layer_without_an_error_keeps_its_bias() -> None:
    quantized = QuantizeDynamic().run(layer()).program
    nothing = Context(calibration=[{"input_0": torch.zeros_like(X)}])
    assert not CorrectBias().run(quantized, context=nothing).modified


def test_without_data_it_is_refused_or_left_out() -> None:
    quantized = QuantizeDynamic().run(layer()).program
    with pytest.raises(UsageError, match="no rows"):
        CorrectBias().run(quantized, context=Context(calibration=[]))
    result = CorrectBias(without_data="leave-out").run(quantized, context=Context())
    assert not result.modified
    assert "was left out" in result.log.notes[0]
