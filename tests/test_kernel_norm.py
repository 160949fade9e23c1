"""The norm kernel against LayerNorm and RMSNorm in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import SIZES, close, device, float_dtypes, guarded, random, strided
from torch import Tensor

from strop.compiler.ir.dialect.kernels.norm import norm_int8 as operator
from strop.kernels.limits import WIDEST_ROW
from strop.kernels.norm import norm

EPS = 1e-5


def reference(total: Tensor, weight: Tensor | None, bias: Tensor | None, rms: bool) -> Tensor:
    """The norm of the last axis, in float64."""
    shape = (total.shape[-1],)
    weight, bias = (None if t is None else t.double() for t in (weight, bias))
    if rms:
        return F.rms_norm(total.double(), shape, weight, EPS)
    return F.layer_norm(total.double(), shape, weight, bias, EPS)


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("columns", SIZES)
def test_rows_are_normalized(
    dtype: torch.dtype, rms: bool, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = strided(random(5, columns, dtype=dtype))
    weight = random(columns, dtype=dtype, seed=1)
    bias = None if rms else random(columns, dtype=dtype, seed=2)
    with guarded(monkeypatch):
        y, _, _, _ = norm(x, None, weight, bias, EPS, rms=rms)
    assert y is not None
    close(y, reference(x, weight, bias, rms))


@pytest.mark.parametrize("rows", [1, 3, 9])
def test_a_residual_is_added_first_and_the_sum_is_given(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, more = random(rows, 123, dtype=torch.float16), random(rows, 123, dtype=torch.float16, seed=1)
    with guarded(monkeypatch):
        y, total, _, _ = norm(x, strided(more), None, None, EPS, rms=False, total=True)
    assert y is not None and total is not None
    assert torch.equal(total, x + more)
    close(y, reference(total, None, None, rms=False))


@pytest.mark.parametrize("columns", SIZES)
def test_rounding_behind_the_norm_is_that_of_its_result(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = random(6, columns, dtype=torch.float16)
    with guarded(monkeypatch):
        y, _, q, scale = norm(x, None, None, None, EPS, rms=True, quantize=True)
    assert y is not None and q is not None and scale is not None
    # On the CPU, since torch multiplies by 1/127 on a GPU.
    top = y.float().abs().amax(1).cpu()
    assert torch.equal(scale.cpu(), torch.where(top > 0, top / 127, torch.ones_like(top)))
    assert torch.equal(q, (y.float() / scale[:, None]).round().to(torch.int8))


@pytest.mark.parametrize("rms", [False, True])
def test_it_is_the_operator_of_the_dialect(rms: bool) -> None:
    x, more, weight = (random(5, 65, seed=n) for n in range(3))
    bias = None if rms else weight[1]
    found = norm(x, more, weight[0], bias, EPS, rms=rms, total=True, quantize=True)
    wanted = operator(x, more, weight[0], bias, EPS, rms)
    for part, expected in zip(
        (found[0], found[1], found[3]), (*wanted[:2], wanted[3]), strict=True
    ):
        assert part is not None
        close(part, expected.double())
    assert found[2] is not None
    # The results differ by less than a step, so their int8 by one at most.
    assert (found[2].int() - wanted[2].int()).abs().max() <= 1


def test_extreme_rows() -> None:
    x = torch.zeros(4, 64, dtype=torch.float16, device=device())
    x[1], x[2, 0], x[3] = 60000.0, 65504.0, 6e-8
    y, _, q, scale = norm(x, None, None, None, EPS, rms=True, quantize=True)
    assert y is not None and q is not None and scale is not None
    close(y, reference(x, None, None, rms=True))
    assert scale[0] == 1 and not q[0].any()


@pytest.mark.parametrize("columns", [128, 256, 500, 1000, 2000, 4000, 8000, WIDEST_ROW])
def test_rows_of_each_width_that_has_a_configuration_of_its_own(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight = random(3, columns, dtype=torch.float16), random(columns, seed=1)
    bias = random(columns, seed=2)
    with guarded(monkeypatch):
        y, _, _, _ = norm(x, None, weight, bias, EPS, rms=False)
    assert y is not None
    close(y, reference(x, weight, bias, rms=False))


def test_rows_that_are_too_wide_are_refused() -> None:
    wider = f"rows of {WIDEST_ROW + 1} columns are wider than {WIDEST_ROW}"
    with pytest.raises(ValueError, match=wider):
        norm(random(1, WIDEST_ROW + 1), None, None, None, EPS, rms=True)


def test_the_variance_of_rows_far_from_zero_is_exact() -> None:
    x = 1000 + random(4, 123)
    y, _, _, _ = norm(x, None, None, None, EPS, rms=False)
    assert y is not None
    # The mean is rounded to float32, here to a 16,000th of what the values deviate by.
    close(y, reference(x, None, None, rms=False), tolerance=1e-4)


def test_nan_shows_in_its_row_alone() -> None:
    x = random(3, 12)
    x[1, 4] = math.nan
    y, _, _, scale = norm(x, None, None, None, EPS, rms=True, quantize=True)
    assert y is not None and scale is not None
    assert y.isnan().any(1).tolist() == scale.isnan().tolist() == [False, True, False]


def test_no_rows_give_no_rows() -> None:
    y, _, q, _ = norm(random(0, 8), None, None, None, EPS, rms=False, quantize=True)
    assert y is not None and q is not None
    assert y.shape == q.shape == (0, 8)
