"""Histograms, traced as simple operators: torch's counts and edges, to the last one."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from file_tools import File
from torch import Tensor

from strop.compiler.frontend.export.stand_ins.histogram import histogram, histogramdd

INF, NAN = math.inf, math.nan


def samples(dtype: torch.dtype) -> list[Tensor]:
    """Among them such as lie on edges of bins, and such as are all the same."""
    generator = torch.Generator().manual_seed(0)
    tenths = torch.randint(0, 11, (60,), generator=generator) / 10
    line = torch.linspace(-1, 1, 31)
    return [t.to(dtype) for t in (torch.randn(50, generator=generator), tenths, line, line[:1])]


@pytest.mark.parametrize("limits", [None, (-1.0, 1.0), (0.0, 0.0), (0.1, 0.7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_bins(dtype: torch.dtype, limits: tuple[float, float] | None) -> None:
    for values, bins in itertools.product(samples(dtype), (1, 2, 3, 7, 10, 31)):
        found, wanted = (f(values, bins, range=limits) for f in (histogram, torch.histogram))
        assert torch.equal(found.hist, wanted.hist)
        assert torch.equal(found.bin_edges, wanted.bin_edges)


@pytest.mark.parametrize("density", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_given_bins(weighted: bool, density: bool) -> None:
    odd = torch.tensor([NAN, INF, -INF, 0.5, 1, 1, 0, -0.0], dtype=torch.float64)
    for values in (*samples(torch.float64), odd):
        weight = values.exp().nan_to_num(3, 2) if weighted else None
        for edges in ([-1.0, 0.0, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0]):
            bins = torch.tensor(edges, dtype=torch.float64)
            found, wanted = (
                f(values, bins, weight=weight, density=density)
                for f in (histogram, torch.histogram)
            )
            torch.testing.assert_close(tuple(found), tuple(wanted), equal_nan=True)


EDGES = [torch.linspace(-1, 1, 4), torch.linspace(-0.5, 1, 6)]


@pytest.mark.parametrize("density", [True, False])
@pytest.mark.parametrize("bins", [EDGES, [3, 5], 4], ids=["edges", "numbers", "number"])
def test_several_axes(bins: Any, density: bool) -> None:
    points = torch.rand(4, 9, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for limits in (None, None if bins is EDGES else [-0.5, 0.5, 0.0, 1.0]):
        found, wanted = (
            f(points, bins, limits, density=density) for f in (histogramdd, torch.histogramdd)
        )
        torch.testing.assert_close(found.hist, wanted.hist)
        torch.testing.assert_close(found.bin_edges, wanted.bin_edges)


def test_files_at_every_number_of_elements() -> None:
    one = File(lambda x: torch.histogram(x, 5), (torch.randn(6),), {"x": {0: "n"}})
    between = File(
        lambda x: torch.histogram(x, 5, range=(-0.3, 0.7), density=True).hist.nan_to_num(7),
        (torch.randn(6),),
        {"x": {0: "n"}},
    )
    several = File(
        lambda x, y: torch.histogramdd(x, [2, 3], weight=y).hist,
        (torch.randn(6, 2), torch.rand(6)),
        {"x": {0: "n"}, "y": {0: "n"}},
    )
    bins = torch.tensor([-1.0, 0.0, 0.5, 1.0])
    given = File(lambda x, y: x.histogram(y).hist, (torch.randn(6), bins), {"x": {0: "n"}})
    for n in range(1, 9):
        one.agrees(torch.randn(n))
        between.agrees(torch.randn(n))
        several.agrees(torch.randn(n, 2), torch.rand(n))
        given.agrees(torch.randn(n), bins)
