"""The kernel of gates against its formula in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import SIZES, close, device, float_dtypes, guarded, random, strided
from torch import Tensor

from strop.kernels.gated import gated

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("columns", [*SIZES, 1023, 1025])
def test_each_number_is_gated(
    dtype: torch.dtype, activation: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = strided(random(5, columns, dtype=dtype))
    up = strided(random(5, columns, dtype=dtype, seed=1), gap=7)
    with guarded(monkeypatch):
        y = gated(gate, up, activation)
    assert y.dtype == dtype
    close(y, ACTIVATIONS[activation](gate.double()) * up.double())


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17])
def test_any_number_of_rows(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, up = random(rows, 33), random(rows, 33, seed=1)
    with guarded(monkeypatch):
        y = gated(gate, up, "silu")
    close(y, F.silu(gate.double()) * up.double())


def test_halves_of_one_value_are_read_where_they_lie() -> None:
    both = random(3, 130)
    gate, up = both[:, :65], both[:, 65:]
    close(gated(gate, up, "silu"), F.silu(gate.double()) * up.double())


def test_large_gates_overflow_nothing() -> None:
    gate = torch.tensor([[60_000.0, -60_000.0, 0.0, float("nan")]], dtype=torch.float16)
    y = gated(gate.to(device()), torch.ones_like(gate).to(device()), "silu")
    assert y[0, :3].tolist() == [60_000.0, 0.0, 0.0]
    assert y[0, 3].isnan()


def test_an_unknown_activation_is_refused_by_name() -> None:
    x = random(1, 4)
    with pytest.raises(ValueError, match="'swish'"):
        gated(x, x, "swish")
