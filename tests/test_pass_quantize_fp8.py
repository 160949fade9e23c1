"""W8A8 in 8-bit floats: text, numbers against ml_dtypes, tokens by themselves, and gradients."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from program_tools import body, counts, program_of
from torch import nn

from strop.compiler.ir.dialect.fp8 import fake_fp8, fp8_scale, linear_fp8
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.passes import PassResult
from strop.compiler.targets.target import CPU
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.fp8 import QuantizeFp8

FP8 = Context(target=replace(CPU, name="with-fp8", fp8=True))


def _quantized(program: Program, **options: tuple[str, ...]) -> PassResult:
    return QuantizeFp8(**options).run(program, context=FP8)


def _rounded(x: np.ndarray) -> np.ndarray:
    """Rows as an independent library rounds them to e4m3."""
    top = np.abs(x).max(axis=-1, keepdims=True)
    scale = np.where(top > 0, top / np.float32(448), np.float32(1))
    held = np.clip(x / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn)
    result: np.ndarray = held.astype(np.float32) * scale
    return result


def test_linear_layers_become_one_operator_each() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3, bias=False))
    result = _quantized(program_of(model, torch.randn(2, 8)))
    assert counts(result) == {"linear-fp8": 2}
    assert "strop.linear_fp8(%input_0, @0.weight, %fp8_scale_default, " in body(result.program)


def test_named_layers_stay_in_float() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 3))
    program = program_of(model, torch.randn(2, 8))
    assert counts(_quantized(program, keep=("inner.0",))) == {"linear-fp8": 1}
    with pytest.raises(UsageError, match=r"only: no weight is 'inner.2'.*inner\.0"):
        _quantized(program, only=("inner.2",))


def test_a_target_without_such_products_keeps_floats_and_says_why() -> None:
    result = QuantizeFp8().run(program_of(nn.Linear(8, 6), torch.randn(2, 8)))
    assert not result.modified
    assert "cpu does not multiply 8-bit floats" in result.log.misses[0].reason


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 33), st.floats(1e-6, 1e6))
def test_rows_are_rounded_as_e4m3_is(seed: int, rows: int, size: int, width: float) -> None:
    x = torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * width
    x[0] = 0
    got = fake_fp8(x, fp8_scale(x)).numpy()
    np.testing.assert_allclose(got, _rounded(x.numpy()), rtol=1e-6, atol=1e-6 * width)


def test_the_product_is_that_of_what_is_held() -> None:
    x, weight, bias = torch.randn(3, 5, 16), torch.randn(7, 16), torch.randn(7)
    wanted = _rounded(x.numpy()) @ _rounded(weight.numpy()).T + bias.numpy()
    got = linear_fp8(x, weight, fp8_scale(weight), bias).numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_a_token_does_not_depend_on_its_neighbours() -> None:
    x, weight = torch.randn(4, 16), torch.randn(7, 16)
    alone = linear_fp8(x[:1], weight, fp8_scale(weight), None)
    x[1:] *= 1000
    among = linear_fp8(x, weight, fp8_scale(weight), None)[:1]
    torch.testing.assert_close(among, alone, rtol=1e-6, atol=1e-6)


def test_gradients_pass_straight_through() -> None:
    program = _quantized(program_of(nn.Linear(8, 6), torch.randn(2, 8))).program
    x = torch.randn(2, 8)
    program.run(input_0=x)[0].sum().backward()
    gradient = program.parameters["inner.weight"].grad
    assert gradient is not None
    torch.testing.assert_close(gradient[0], fake_fp8(x, fp8_scale(x)).sum(0))
