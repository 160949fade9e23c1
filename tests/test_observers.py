"""Observers: ranges of known values, batch after batch, in memory that does not grow."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from strop.passes.quantize.grid import Grid
from strop.passes.quantize.observers import ObserverName, observers
from strop.passes.quantize.observers.histogram import BINS, Histogram

ASYMMETRIC = Grid(symmetric=False)
NAMES: tuple[ObserverName, ...] = ("min-max", "moving-average", "percentile", "mse", "entropy")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seen_by(name: ObserverName, *batches: Tensor, grid: Grid = ASYMMETRIC) -> tuple[float, float]:
    made = observers(name, 99.0)()
    for batch in batches:
        made.add(batch)
    return made.range(grid)


floats = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(floats, min_size=1, max_size=20), min_size=1, max_size=6))
def test_a_histogram_counts_every_value_in_the_bin_that_holds_it(
    batches: list[list[float]],
) -> None:
    made = Histogram()
    for batch in batches:
        made.add(torch.tensor(batch))
    values = torch.tensor([v for batch in batches for v in batch]).double()
    assert len(made.counts) <= BINS
    assert (made.low, made.high) == (float(values.min()), float(values.max()))
    places = (values / made.width).floor().long() - made.first
    want = torch.zeros(len(made.counts), dtype=torch.float64)
    want.index_add_(0, places, torch.ones(len(values), dtype=torch.float64))
    assert float((made.counts - want).abs().sum()) == 0


def test_the_width_of_a_histogram_does_not_depend_on_the_order_of_batches() -> None:
    batches = [normal(50, seed=i) * 10**i for i in range(4)]
    forth, back = Histogram(), Histogram()
    for batch in batches:
        forth.add(batch)
    for batch in reversed(batches):
        back.add(batch)
    assert forth.width == back.width
    assert torch.equal(forth.counts, back.counts)


def test_min_max_is_the_whole_range() -> None:
    assert seen_by("min-max", torch.tensor([1.0, -2.0]), torch.tensor([5.0])) == (-2.0, 5.0)


def test_a_moving_average_follows_later_batches_by_a_hundredth() -> None:
    low, high = seen_by("moving-average", torch.tensor([-1.0, 2.0]), torch.tensor([-3.0, 2.0]))
    assert (low, high) == pytest.approx((-1.02, 2.0))


def test_a_percentile_leaves_out_half_of_its_share_on_each_side() -> None:
    low, high = seen_by("percentile", torch.arange(1000.0))
    # 99 %: five of a thousand on either side; bins are a quarter wide.
    assert low == pytest.approx(5, abs=0.5)
    assert high == pytest.approx(995, abs=1)


def test_entropy_cuts_off_one_outlier_among_many_values() -> None:
    low, high = seen_by("entropy", normal(100_000), torch.tensor([100.0]))
    assert high < 30
    assert -6 < low < -2


def test_the_squared_error_is_the_least_of_a_dense_search() -> None:
    values = torch.cat([normal(20_000), 8 * normal(20, seed=1)])
    grid = Grid(bits=4)

    def error(top: float) -> float:
        scale, _ = grid.parameters(torch.tensor(-top), torch.tensor(top))
        rounded = (values / scale).round().clamp(grid.low, grid.high) * scale
        return float((values - rounded).square().sum())

    low, high = seen_by("mse", values, grid=grid)
    found = error(max(-low, high))
    assert found <= 1.01 * min(error(0.02 * i) for i in range(10, 1500))
    assert found < 0.7 * error(float(values.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_one_value_is_a_range_of_itself(name: ObserverName) -> None:
    assert seen_by(name, torch.full((7,), 3.0)) == pytest.approx((3.0, 3.0), rel=1e-3)
    assert seen_by(name, torch.zeros(7)) == (0.0, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_values_of_a_rectifier_start_at_0(name: ObserverName) -> None:
    low, high = seen_by(name, normal(4, 1000).relu(), normal(4, 1000, seed=1).relu())
    assert low == 0
    assert 1 < high < 6


@pytest.mark.parametrize("name", NAMES)
def test_the_same_batches_give_the_same_range(name: ObserverName) -> None:
    batches = [normal(100, seed=i) * (i + 1) for i in range(5)]
    assert seen_by(name, *batches) == seen_by(name, *batches)


def test_memory_stays_the_same_however_far_values_reach() -> None:
    made = Histogram()
    for i in range(-20, 20):
        made.add(normal(100) * 10.0**i)
    assert len(made.counts) <= BINS
    assert float(made.counts.sum()) == 4000
    assert math.isfinite(made.width)
