"""Sizes that only the data know: from capture to the file, at every count of elements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from file_tools import Called, File
from torch import Tensor

from strop.compiler import Model, build
from strop.compiler.ir.snapshots.reader import load_program
from strop.compiler.ir.snapshots.weight_store import WeightStore
from strop.compiler.ir.snapshots.writer import save_program

ROWS = {"x": {0: "rows"}}


def patterns(rows: int, width: int) -> list[Tensor]:
    """Floats of which none, one, some or all are above zero."""
    noise = torch.randn(rows, width, generator=torch.Generator().manual_seed(rows)).abs() + 0.1
    some, one = noise.clone(), -noise
    some[::2] *= -1
    one[-1, 0] *= -1
    return [noise, -noise, some, one]


MASKS: dict[str, Callable[[Tensor], Any]] = {
    "nonzero": lambda x: torch.nonzero(x > 0),
    "nonzero of floats": lambda x: torch.nonzero(torch.relu(x)),
    "nonzero as a tuple": lambda x: torch.nonzero(x > 0, as_tuple=True),
    "where": lambda x: torch.where(x > 0)[1],
    "argwhere": lambda x: torch.argwhere(x > 0),
    "masked_select": lambda x: x.masked_select(x > 0) * 2,
    "masked_select broadcast": lambda x: x[:, :1].masked_select(x > 0),
    "rows": lambda x: x[x[:, 0] > 0][:, 1:] * 2,
    "rows and a sum": lambda x: x[x[:, 0] > 0].sum(0),
    "columns": lambda x: x[:, x[0] > 0],
    "elements": lambda x: x[x > 0].sqrt(),
    "an axis behind": lambda x: x[None].expand(2, -1, -1)[:, x > 0],
    "an axis before": lambda x: x[:, :, None].expand(-1, -1, 2)[x > 0],
    "mask and index": lambda x: x[x[:, 0] > 0, torch.zeros(1, dtype=torch.int64)],
    "two masks": lambda x: x[x[:, 0] > 0] @ x[x[:, 0] > 0].mT,
    "byte mask": lambda x: x[(x[:, 0] > 0).to(torch.uint8).bool()],
    "two of one size": lambda x: x[x[:, 0] > 0] + (x * 3)[x[:, 0] > 0],
    "sizes as values": lambda x: torch.zeros(x[x[:, 0] > 0].shape[0], 2) + 1,
    "kept rows in another shape": lambda x: x[x[:, 0] > 0].reshape(-1),
    "written": lambda x: torch.cat([x[x[:, 0] > 0], x]),
    "softmax of the chosen": lambda x: torch.softmax(x[x[:, 0] > 0] @ torch.ones(3, 3), -1),
    "bits": lambda x: torch.bincount((x > 0).flatten().long(), minlength=3),
    "counts": lambda x: torch.bincount((x > 0).flatten().long(), x.flatten()),
    "unique": lambda x: torch.unique(x.sign().long(), return_inverse=True, return_counts=True),
    "unique floats": lambda x: torch.unique(x.sign()),
    "unique small": lambda x: torch.unique(x.sign().int()),
    "unique rows": lambda x: torch.unique(x.sign(), dim=0, return_counts=True),
    "runs": lambda x: torch.unique_consecutive(
        x.sign().long(), return_inverse=True, return_counts=True
    ),
}


@pytest.mark.usefixtures("rows_only")
@pytest.mark.parametrize("name", MASKS)
def test_of_any_count(name: str) -> None:
    function = MASKS[name]
    file = File(function, (patterns(4, 3)[2],), ROWS)
    for rows in (1, 2, 4, 7):
        for x in patterns(rows, 3):
            file.agrees(x)


COUNTS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "rows": lambda x, y: x.repeat_interleave(y, dim=0),
    "columns": lambda x, y: x.mT.repeat_interleave(y, dim=1),
    "of all": lambda x, y: x[:, 0].repeat_interleave(y),
    "positions": lambda x, y: torch.repeat_interleave(y),
    "one for all": lambda x, y: x.repeat_interleave(y[:1], dim=0),
    "one number": lambda x, y: x.repeat_interleave(y.sum().item(), dim=0),
    "lengths to a mask": lambda x, y: torch.arange(y.max().item()) < y[:, None],
    "length": lambda x, y: x[: y[0].item()],
    "start": lambda x, y: x[y[0].item() :],
    "a new tensor": lambda x, y: torch.full((y[1].item(), 2), 3.0),
    "above the diagonal": lambda x, y: x.triu(y[0].item()),
    "below the diagonal": lambda x, y: x.tril(y[0].item() - 1),
    "a float": lambda x, y: x * (y.float().mean().item() / 3),
    "an expression": lambda x, y: torch.zeros(2 * y[0].item() + y[1].item()),
}


@pytest.mark.usefixtures("rows_only")
@pytest.mark.parametrize("name", COUNTS)
def test_of_any_number(name: str) -> None:
    axes = {"x": {0: "rows"}, "y": {0: "rows"}}
    function = COUNTS[name]
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    file = File(function, (x, torch.tensor([2, 1, 3, 1])), axes)
    for counts in ([2, 0, 3, 0], [0, 0, 0], [1, 4, 0, 2, 1], [3, 3]):
        rows = torch.arange(len(counts)) % 4
        file.agrees(x[rows], torch.tensor(counts))


def sorted_by_expert(x: Tensor, y: Tensor) -> Tensor:
    """Rows sorted by an expert's number, multiplied part by part, and put back where they were."""
    counts = F.one_hot(y, 3).sum(0).tolist()
    order = y.argsort()
    parts = x[order].split(counts)
    products = torch.cat([part * (i + 2) for i, part in enumerate(parts)])
    return torch.zeros_like(x).index_add(0, order, products)


def test_parts_of_any_length_are_put_back() -> None:
    axes = {"x": {0: "rows"}, "y": {0: "rows"}}
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    file = File(sorted_by_expert, (x, torch.tensor([2, 1, 0, 1, 2, 2, 0])), axes)
    for experts in ([2, 1, 0, 1, 2, 2, 0], [0, 0, 0], [1, 2], [0, 2, 2, 0, 1]):
        file.agrees(x[: len(experts)], torch.tensor(experts))


def test_the_contract_names_a_size_that_the_data_decide(tmp_path: Path) -> None:
    module = Called(lambda x: (x[x[:, 0] > 0], torch.nonzero(x))).eval()
    artifact = build(Model(module, {"x": patterns(4, 3)[2]}, ROWS), tmp_path / "out")
    outputs = artifact.manifest["contract"]["outputs"]
    assert [o["shape"] for o in outputs] == [["u0", 3], ["u1", 2]]


def test_no_dim_of_the_users_is_called_like_one() -> None:
    axes = {"x": {0: "u0"}}
    file = File(lambda x: torch.nonzero(x), (patterns(4, 3)[2],), axes)
    assert "i64[u1, 2]" in str(file.program)


def test_a_snapshot_keeps_the_names(tmp_path: Path) -> None:
    file = File(lambda x: (x[x[:, 0] > 0] * 2, x.nonzero()), (patterns(4, 3)[2],), ROWS)
    save_program(file.program, tmp_path / "program.json", WeightStore(tmp_path / "weights"))
    read = load_program(tmp_path / "program.json")
    assert str(read) == str(file.program)
    x = patterns(5, 3)[2]
    np.testing.assert_array_equal(read.run(x=x)[0], file.program.run(x=x)[0])
