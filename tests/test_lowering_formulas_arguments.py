"""Formulas over the arguments that their operators take, in eager torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas import FORMULAS

aten = torch.ops.aten
NAN, INF = math.nan, math.inf
Call = tuple[Any, tuple[Any, ...], dict[str, Any]]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whole(*shape: int, low: int = -3, high: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(low, high, shape, generator=generator)


TIES, WHOLE = whole(3, 4, 5).double(), whole(3, 4, 5)
HOLES = TIES.clone()
HOLES[0, 1, 2:4] = HOLES[1, :, 0] = HOLES[2, 3, 4] = NAN
INFINITE = torch.tensor([[1.0, -INF, INF, NAN], [-INF, -INF, 0.0, INF], [NAN] * 4])
KEPT = (False, True)
AXES = (0, 1, -1)


def order() -> Iterator[Call]:
    for values, axis, keep in itertools.product((TIES, WHOLE), AXES, KEPT):
        yield aten.kthvalue.default, (values, 2, axis, keep), {}
        yield aten.mode.default, (values, axis, keep), {}
    for values, axis, keep in itertools.product((TIES, WHOLE, HOLES), AXES, KEPT):
        yield aten.median.dim, (values, axis, keep), {}
        yield aten.nanmedian.dim, (values, axis, keep), {}
    for values, axis in itertools.product((TIES, WHOLE, HOLES), AXES):
        yield aten.cummax.default, (values, axis), {}
        yield aten.cummin.default, (values, axis), {}
    for values in (TIES, WHOLE, HOLES, INFINITE, TIES[0, 0, :4]):
        yield aten.median.default, (values,), {}
        yield aten.nanmedian.default, (values,), {}
    for number in (torch.tensor(2.0), torch.tensor(NAN), torch.tensor(3)):
        yield aten.median.dim, (number, 0), {}
        yield aten.nanmedian.dim, (number, 0, True), {}
        yield aten.cummax.default, (number, 0), {}
    for number in (torch.tensor(2.0), torch.tensor(3)):
        yield aten.kthvalue.default, (number, 1, 0), {}
        yield aten.mode.default, (number, 0), {}
    for target in (aten.median.dim, aten.nanmedian.dim, aten.cummax.default, aten.cummin.default):
        yield target, (INFINITE, 1), {}
    yield aten.kthvalue.default, (TIES, 4), {}
    yield aten.median.dim, (TIES[..., :4], -1), {}
    yield aten.mode.default, (TIES,), {}


IMAGE, VOLUME = numbers(2, 3, 7, 6), numbers(1, 2, 5, 6, 4)


def pools() -> Iterator[Call]:
    for ceil, counted, divisor in itertools.product(KEPT, KEPT, (None, 3)):
        for kernel, stride, pad in (
            ([3, 2], [2, 3], [1, 0]), ([2, 3], [], [0, 1]), ([3, 2], [2], [1]),
            ([4, 4], [3], [2, 1]), ([2, 2], [3, 3], [1, 1]),
        ):  # fmt: skip
            options = (stride, pad, ceil, counted, divisor)
            yield aten.avg_pool2d.default, (IMAGE, kernel, *options), {}
        yield aten.avg_pool3d.default, (VOLUME, [2, 3, 2], [1, 2, 2], [1, 1, 0], ceil, counted), {}
    yield aten.avg_pool2d.default, (IMAGE[0], [2, 3]), {}
    for size in ([1, 1], [2, 4], [7, 6], [5, 1], [9, 8]):
        yield aten._adaptive_avg_pool2d.default, (IMAGE, size), {}
        yield aten.adaptive_max_pool2d.default, (IMAGE, size), {}
        yield aten.adaptive_max_pool2d.default, (IMAGE.round(), size), {}
    for size in ([1, 2, 3], [5, 4, 4], [3, 3, 2]):
        yield aten._adaptive_avg_pool3d.default, (VOLUME, size), {}
        yield aten.adaptive_max_pool3d.default, (VOLUME.round(), size), {}
    yield aten.adaptive_max_pool2d.default, (IMAGE[0], [3, 2]), {}


AT = torch.tensor([[0, 2, 2, 1, 0], [3, 3, 0, 3, 3]])
BASE, SOURCE = numbers(4, 6), numbers(2, 5, seed=1)


def writes() -> Iterator[Call]:
    for reduce, own in itertools.product(("sum", "mean", "prod", "amax", "amin"), KEPT):
        how = {"include_self": own}
        for base, source in ((BASE, SOURCE), (whole(4, 6), whole(2, 5))):
            yield aten.scatter_reduce.two, (base, 0, AT, source, reduce), how
            yield aten.scatter_reduce.two, (base, -1, AT, source, reduce), how
            if reduce != "sum":
                yield aten.index_reduce.default, (base, 0, AT[0, :2], base[:2], reduce), how
                yield aten.index_reduce.default, (base, 1, AT[0], base[:, :5], reduce), how
    number = torch.tensor(2.0)
    yield aten.index_reduce.default, (number, 0, torch.tensor(0), number * 3, "prod"), {}
    for reduce in ("add", "multiply"):
        yield aten.scatter.reduce, (BASE, 0, AT, SOURCE), {"reduce": reduce}
        yield aten.scatter.value_reduce, (BASE, 1, AT, 2.5), {"reduce": reduce}
    place = torch.tensor([[1, 23], [7, 0]])
    for accumulate in KEPT:
        yield aten.put.default, (BASE, place, SOURCE[:, :2], accumulate), {}
    yield aten.put.default, (BASE, torch.tensor([5, 5]), SOURCE[0, :2], True), {}
    for offset in (-2, -1, 0, 1, 3):
        size = BASE.diagonal(offset).numel()
        yield aten.diagonal_scatter.default, (BASE, torch.arange(float(size)).double(), offset), {}
    cube = numbers(3, 4, 2)
    for first, second, offset in ((0, 1, 0), (-1, 0, 1), (1, 2, -1), (2, 1, 0)):
        like = cube.diagonal(offset, first, second) * 2
        yield aten.diagonal_scatter.default, (cube, like, offset, first, second), {}
    for size, stride, start in (([2, 3], [6, 2], 1), ([3], [5], 0), ([2, 2], [1, 7], None)):
        source = torch.arange(float(math.prod(size))).double().view(size)
        yield aten.as_strided_scatter.default, (BASE, source, size, stride, start), {}
    for size, filler in ((0, -1), (3, -1), (30, -7), (9, 0)):
        options = {"size": size, "fill_value": filler}
        for values in (BASE > 0, whole(2, 3, 2), (BASE > 9), BASE[0]):
            yield aten.nonzero_static.default, (values,), options
    yield aten.nonzero_static.default, (torch.tensor(3.0),), {"size": 2}


def places() -> Iterator[Call]:
    ordered = torch.tensor([-2.0, -1.0, 0.0, 0.0, 1.0, 3.0, 5.0])
    values = torch.tensor([[-3.0, -1.0, 0.0], [2.0, 4.0, NAN]])
    rows = torch.stack([ordered, ordered * 2])
    mixed = torch.tensor([2, 0, 1, 3, 5, 4, 6])
    for right, short in itertools.product(KEPT, KEPT):
        how = {"right": right, "out_int32": short}
        for row, value in ((rows, values), (ordered, values), (ordered, values[0])):
            yield aten.searchsorted.Tensor, (row, value), how
        yield aten.searchsorted.Scalar, (ordered, 0.0), how
        yield aten.bucketize.Scalar, (1.0, ordered[:-1]), how
        for value in (values, values[0], values[None], torch.tensor(0.0), whole(2, 3)):
            yield aten.bucketize.Tensor, (value, ordered[:-1]), how
    yield aten.bucketize.Scalar, (1.0, ordered), {}
    yield aten.bucketize.Tensor, (values, ordered), {}
    yield aten.searchsorted.Scalar, (ordered, 0.0), {}
    yield aten.searchsorted.Tensor, (ordered, values), {}
    for side in ("left", "right"):
        yield aten.searchsorted.Tensor, (ordered, values), {"side": side}
        yield aten.searchsorted.Scalar, (ordered, 1.0), {"side": side}
    shuffled = ordered[mixed].argsort()
    yield aten.searchsorted.Tensor, (ordered[mixed], values), {"sorter": shuffled}
    yield aten.searchsorted.Scalar, (ordered[mixed], 0.5), {"sorter": shuffled}
    yield aten.searchsorted.Tensor, (WHOLE.sort(-1)[0], WHOLE), {}


def resized() -> Iterator[Call]:
    for factor in (0.3, 0.7, 1.0, 1.05, 1.3, 2.0, 3.7):
        yield aten.upsample_linear1d.vec, (IMAGE[0].float(), None, False, [factor]), {}
        yield aten.upsample_bilinear2d.vec, (IMAGE.float(), None, False, [factor, 1.6]), {}
        factors = [1.4, factor, 0.5]
        yield aten.upsample_trilinear3d.vec, (VOLUME.float(), None, False, factors), {}


def elements() -> Iterator[Call]:
    a = torch.tensor([1.0, NAN, -0.0, INF, -INF, 3.0, NAN, 1e200, 0.0, -0.5], dtype=torch.float64)
    b = torch.tensor([NAN, 2.0, 0.0, NAN, 4.0, -4.0, NAN, 1e200, 0.0, 5.0], dtype=torch.float64)
    for target in (aten.fmax.default, aten.fmin.default, aten.hypot.default):
        yield target, (a, b), {}
        yield target, (b, a), {}
    yield aten.signbit.default, (a,), {}
    yield aten.signbit.default, (whole(9),), {}
    yield aten.copy.default, (TIES, WHOLE[0, 0]), {}
    yield aten.rrelu_with_noise_functional.default, (BASE, torch.ones_like(BASE), 0.1, 0.5), {}
    yield aten.rrelu_with_noise_functional.default, (BASE, torch.ones_like(BASE)), {}
    exponents = torch.tensor([0, 1, 2, 3, 62, 63, 64, -1, -2, -3, 2**40, 2**62])
    for base in (0, 1, -1, 2, -2, 3, -7, 2**31):
        yield aten.pow.Scalar, (base, exponents), {}
        yield aten.pow.Tensor_Tensor, (torch.full_like(exponents, base), exponents), {}
    for p in (0.0, 0.5, 1.0, 2.0, 3.0, INF):
        yield aten._cdist_forward.default, (TIES, TIES[:, :2] + 1, p, None), {}
        yield aten._pdist_forward.default, (TIES[0], p), {}
    yield aten._pdist_forward.default, (TIES[0],), {}
    yield aten._euclidean_dist.default, (TIES[0], TIES[1]), {}


POINTS = torch.tensor(
    [
        0.0, 1e-300, 1e-16, 1e-5, 0.07, 0.0749, 0.075, 0.3, 0.425, 0.5, 0.85, 0.924, 0.925, 0.93,
        0.999, 1.0, 1.0000001, 1.5, 2.0, 2.5, 2.999, 3.0, 3.001, 5.0, 7.0, 9.99, 10.0, 10.5, 19.0,
        19.99, 20.0, 20.01, 25.0, 79.0, 80.0, 81.0, 300.0, 1e8, 1.1e8, 1e20, INF, NAN,
    ],
    dtype=torch.float64,
)  # fmt: skip
BOTH_SIGNS = torch.cat([-POINTS, POINTS])
UNARY = (
    aten.acos, aten.acosh, aten.asin, aten.asinh, aten.atan, aten.atanh, aten.cosh, aten.digamma,
    aten.erf, aten.erfinv, aten.expm1, aten.i0, aten.lgamma, aten.sinh, aten.special_i0e,
    aten.special_i1, aten.special_i1e, aten.special_ndtri, aten.tan,
)  # fmt: skip


def functions() -> Iterator[Call]:
    for packet in UNARY:
        yield packet.default, (BOTH_SIGNS[BOTH_SIGNS.abs() < 1e15],), {}
    for packet in (aten.lgamma, aten.digamma, aten.erfinv, aten.special_i0e, aten.special_ndtri):
        yield packet.default, (BOTH_SIGNS.float(),), {}
        yield packet.default, (torch.arange(-3, 4),), {}
    for n in range(4):
        near = BOTH_SIGNS[(BOTH_SIGNS.abs() < 30) & (BOTH_SIGNS.abs() > 1e-6)]
        # Near a pole torch's own are rounded.
        apart = (near - near.round()).abs() > 1e-4
        yield aten.polygamma.default, (n, near[(near > 0) | apart]), {}
    yield aten.polygamma.default, (1, torch.zeros(1)), {}


GROUPS = (order, pools, writes, places, resized, elements, functions)
CALLS = {
    f"{group.__name__} {target}": [c for c in group() if c[0] is target]
    for group in GROUPS
    for target in {c[0]: None for c in group()}
}


# Which of equal values is meant, torch leaves open.
FIRST_ONLY = (
    aten.kthvalue.default, aten.median.dim, aten.nanmedian.dim,
)  # fmt: skip


def tolerance(values: Any) -> float:
    """What torch's own formulas are exact to in a dtype."""
    first = values[0] if isinstance(values, tuple) else values
    return 1e-9 if first.dtype == torch.float64 else 1e-5


@pytest.mark.parametrize("name", CALLS)
def test_a_formula_gives_what_the_operator_gives(name: str) -> None:
    for target, args, kwargs in CALLS[name]:
        found, wanted = FORMULAS[target](*args, **kwargs), target(*args, **kwargs)
        if target in FIRST_ONLY:
            assert (found[1].shape, found[1].dtype) == (wanted[1].shape, torch.int64)
            found, wanted = found[0], wanted[0]
        most = tolerance(wanted)
        torch.testing.assert_close(
            found, wanted, rtol=most, atol=most, equal_nan=True,
            msg=lambda said, args=args, kwargs=kwargs: f"{args} {kwargs}\n{said}",
        )  # fmt: skip


def test_the_asymptotic_series_of_digamma_is_exact() -> None:
    line = torch.linspace(1, 30, 200, dtype=torch.float64)
    found, wanted = FORMULAS[aten.digamma.default](line), line.digamma()
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)


def test_a_layer_that_draws_its_slopes_is_refused() -> None:
    with pytest.raises(NotImplementedError):
        FORMULAS[aten.rrelu_with_noise_functional.default](BASE, BASE, 0.1, 0.3, True)
