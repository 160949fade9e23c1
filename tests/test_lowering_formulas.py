"""Formulas of strop's own, held in eager torch to the operators that they stand for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_lowering import agree, check, lowered, session, x
from torch import Tensor

import strop.compiler.ir.dialect  # noqa: F401
from strop.compiler.lower.onnx.formulas import FORMULAS
from strop.compiler.util.errors import UnsupportedError

aten = torch.ops.aten
INF, NAN = math.inf, math.nan
LINE = torch.cat([
    torch.linspace(-12, 12, 2001, dtype=torch.float64),
    torch.tensor([0.0, -0.0, 1e-12, -1e-12, 1e5, INF, -INF, NAN, 1, -1, -2], dtype=torch.float64),
])  # fmt: skip
UNARY: dict[Any, Callable[[Tensor], Tensor]] = {
    aten.acos.default: torch.acos, aten.acosh.default: torch.acosh,
    aten.asin.default: torch.asin, aten.asinh.default: torch.asinh,
    aten.atan.default: torch.atan, aten.atanh.default: torch.atanh,
    aten.cosh.default: torch.cosh, aten.digamma.default: torch.digamma,
    aten.erf.default: torch.erf, aten.erfinv.default: torch.erfinv,
    aten.expm1.default: torch.expm1, aten.i0.default: torch.i0,
    aten.lgamma.default: torch.lgamma, aten.signbit.default: torch.signbit,
    aten.sinh.default: torch.sinh, aten.special_i0e.default: torch.special.i0e,
    aten.special_i1.default: torch.special.i1, aten.special_i1e.default: torch.special.i1e,
    aten.special_ndtri.default: torch.special.ndtri, aten.tan.default: torch.tan,
}  # fmt: skip


@pytest.mark.parametrize("target", UNARY, ids=str)
def test_functions_of_one_number(target: Any) -> None:
    """To ten figures, NaN and infinities in their places."""
    found, wanted = FORMULAS[target](LINE), UNARY[target](LINE)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("n", range(5))
def test_derivatives_of_digamma(n: int) -> None:
    line = LINE[(LINE > 0) | (LINE.round() != LINE)][:-1]
    line = line[line.abs() < 1e4]
    found = FORMULAS[aten.polygamma.default](n, line)
    torch.testing.assert_close(found, torch.polygamma(n, line), rtol=1e-7, atol=1e-9)


ROWS = torch.randint(-3, 4, (5, 7), generator=torch.Generator().manual_seed(0)).float()
HOLES = ROWS.index_put([torch.tensor([1, 2, 2]), torch.tensor([4, 0, 3])], torch.tensor(NAN))
ORDER: dict[Any, tuple[Any, ...]] = {
    aten.cummax.default: (1,), aten.cummin.default: (0,), aten.kthvalue.default: (3, 1, True),
    aten.median.dim: (1,), aten.nanmedian.dim: (0, True), aten.mode.default: (1,),
}  # fmt: skip


@pytest.mark.parametrize("target", ORDER, ids=str)
def test_order_statistics(target: Any) -> None:
    with_nan = target not in (aten.mode.default, aten.kthvalue.default)
    for values in (ROWS, ROWS.long(), *([HOLES] if with_nan else [])):
        found, wanted = FORMULAS[target](values, *ORDER[target]), target(values, *ORDER[target])
        torch.testing.assert_close(found[0], wanted[0], rtol=0, atol=0, equal_nan=True)
        assert found[1].shape == wanted[1].shape
        if target in (aten.cummax.default, aten.cummin.default):
            assert torch.equal(found[1], wanted[1])


@pytest.mark.parametrize("reduce", ["sum", "mean", "prod", "amax", "amin"])
@pytest.mark.parametrize("include_self", [True, False])
def test_reductions_by_index(reduce: str, include_self: bool) -> None:
    index = torch.tensor([[0, 2, 2, 1, 0], [3, 3, 3, 3, 3]])
    source, base = x(2, 5), x(4, 6, seed=1)

    def scattered(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return a.scatter_reduce(0, b, c, reduce, include_self=include_self)

    def reduced(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return a.index_reduce(0, b, c, reduce, include_self=include_self)

    check(scattered, base, index, source)
    if reduce != "sum":
        check(reduced, base, torch.tensor([0, 2, 2]), x(3, 6, seed=2))


POOLS: dict[Any, tuple[Any, ...]] = {
    aten.adaptive_max_pool2d.default: ([3, 2],), aten._adaptive_avg_pool2d.default: ([5, 4],),
    aten.avg_pool2d.default: ([3, 3], [2, 2], [1, 1], True, False),
}  # fmt: skip


@pytest.mark.parametrize("target", POOLS, ids=str)
def test_pooling(target: Any) -> None:
    for rows in range(4, 12):
        image = x(2, 3, rows, rows + 1, seed=rows)
        found, wanted = FORMULAS[target](image, *POOLS[target]), target(image, *POOLS[target])
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.0, INF])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_distances_within_one_matrix(rows: int, p: float) -> None:
    rows_of_three = x(rows, 3)
    run = session(lowered(lambda a: F.pdist(a, p), [rows_of_three], {}))
    agree(lambda a: F.pdist(a, p), [rows_of_three], run)


IN_DOUBLE: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu, "softplus": F.softplus, "elu": F.elu, "leaky_relu": F.leaky_relu,
    "mish": F.mish, "hardswish": F.hardswish, "tan": torch.tan, "atan": torch.atan,
    "triu": torch.triu, "erf": torch.erf, "log1p": torch.log1p, "clamp": lambda a: a.clamp(-1, 1),
    "avg_pool": lambda a: F.avg_pool2d(a[None, None], 2),
    "interpolate": lambda a: F.interpolate(a[None, None], scale_factor=2.0),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_DOUBLE)
def test_float64_where_the_runtime_has_no_kernel(name: str) -> None:
    values = x(4, 6).double()
    run = session(lowered(IN_DOUBLE[name], [values], {}))
    (found,) = run.run(None, {"a": values.numpy()})
    wanted = IN_DOUBLE[name](values)  # of log1p NaN below -1
    torch.testing.assert_close(torch.from_numpy(found), wanted, equal_nan=True)


def test_float64_convolutions_are_refused_by_name() -> None:
    weight = x(3, 2, 3, 3, seed=1).double()
    with pytest.raises(UnsupportedError, match="no kernel of Conv in double") as caught:
        lowered(F.conv2d, [x(1, 2, 8, 8).double(), weight], {})
    assert caught.value.exit_code == 4
    assert "conv2d" in str(caught.value) and "test_lowering.py" in str(caught.value)
