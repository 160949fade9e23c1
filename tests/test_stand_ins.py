"""What is traced in place of functions that look at values: the same numbers, at every size."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from file_tools import Called, File
from torch import Tensor

from strop.compiler import Model, build
from strop.compiler.frontend.export.stand_ins import statistics

ROWS = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
OFTEN = torch.tensor([1, 2, 0, 1, 3, 1, 1])
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.1, 0.7, 0.0, 1.0])
COVARIANCES: list[dict[str, Any]] = [
    {}, {"correction": 0}, {"correction": 9}, {"fweights": OFTEN}, {"aweights": WEIGHTS},
    {"fweights": OFTEN, "aweights": WEIGHTS, "correction": 2},
    {"aweights": WEIGHTS, "correction": 0},
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:cov")
@pytest.mark.parametrize("options", COVARIANCES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_covariances(options: dict[str, Any], dtype: torch.dtype) -> None:
    for values in (ROWS, ROWS[:1], ROWS[0]):
        typed = (3 * values).to(dtype)
        torch.testing.assert_close(
            statistics.cov(typed, **options), torch.cov(typed, **options), equal_nan=True
        )


def test_correlations() -> None:
    for values in (ROWS, ROWS[:2], ROWS[0], ROWS.double(), (3 * ROWS).long()):
        torch.testing.assert_close(statistics.corrcoef(values), torch.corrcoef(values))


@pytest.mark.parametrize("function", [torch.cov, Tensor.corrcoef])
def test_statistics_in_files_at_every_number_of_observations(function: Any) -> None:
    file = File(function, (ROWS,), {"x": {1: ("observations", 2, 9)}})
    for observations in range(2, 10):
        file.agrees(torch.randn(3, observations))


def test_a_part_from_a_place_that_the_data_say() -> None:
    file = File(lambda x, y: x.narrow(0, y, 2), (torch.randn(5, 3), torch.tensor(1)),
                {"x": {0: ("rows", 2, 9)}})  # fmt: skip
    for rows in range(2, 10):
        for start in (0, rows - 2, -2, -rows):
            file.agrees(torch.randn(rows, 3), torch.tensor(start))
    with pytest.raises(Exception, match="out of data bounds"):
        file.run(torch.randn(4, 3), torch.tensor(3))


def test_a_part_from_a_known_place_is_traced_as_it_is() -> None:
    file = File(lambda x: torch.narrow(x, dim=1, start=2, length=3), (ROWS,))
    assert [n.target for n in file.program.calls()] == [torch.ops.aten.narrow.default]


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("r", [1, 2, 3])
def test_combinations(r: int, again: bool) -> None:
    def function(x: Tensor) -> Tensor:
        return torch.combinations(x, r, again)

    for size in (0, 1, 2, 5):
        file = File(function, (torch.randn(size),))
        file.agrees(torch.randn(size))
        assert file.program.contract.outputs[0].shape[0] == len(function(torch.randn(size)))
    file = File(function, (torch.randn(4),), {"x": {0: ("n", 0, 6)}})
    for size in range(7):
        file.agrees(torch.randn(size))


def losses() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    for full, reduction in itertools.product((False, True), ("none", "mean", "sum")):
        named: dict[str, Any] = {"full": full, "reduction": reduction}
        found[f"{reduction} {full}"] = lambda x, y, z, n=named: F.gaussian_nll_loss(x, y, z, **n)
    return found


@pytest.mark.parametrize("name", losses())
def test_gaussian_losses(name: str) -> None:
    loss, x, y = losses()[name], torch.randn(4, 3), torch.randn(4, 3)
    for variance in (torch.rand(4, 3), torch.rand(4, 1), torch.rand(4), torch.zeros(4, 3)):
        File(loss, (x, y, variance)).agrees(x, y, variance)


def test_a_gaussian_loss_with_one_variance_and_another_bound() -> None:
    for variance, eps in ((0.5, 1e-6), (0.5, 0.7)):
        File(
            lambda x, y: F.gaussian_nll_loss(x, y, variance, eps=eps),  # noqa: B023
            (torch.randn(4), torch.randn(4)),
        ).agrees(torch.randn(4), torch.randn(4))


def test_a_cross_entropy_in_chunks() -> None:
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=2)
    weight, target = torch.randn(4, 3), torch.tensor([1, 0, 3, 2, 2])
    for reduction in ("none", "mean", "sum"):

        def loss(x: Tensor, y: Tensor, reduction: str = reduction) -> Tensor:
            return F.linear_cross_entropy(x, weight, y, reduction=reduction, options=options)

        File(loss, (torch.randn(5, 3), target)).agrees(torch.randn(5, 3), target)


def test_an_error_that_the_file_does_not_raise_is_told(tmp_path: Path) -> None:
    def both(x: Tensor) -> Tensor:
        return F.gaussian_nll_loss(x, 2 * x, x.abs(), reduction="none") + x.narrow(0, 0, 1)

    model = Model(Called(both).eval(), {"x": torch.randn(4)})
    assert build(model, tmp_path / "out").manifest["notes"] == [
        "gaussian_nll_loss raises an error where a variance is negative; the artifact gives the "
        "loss of the least variance there"
    ]
