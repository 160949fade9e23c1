"""The CTC loss, traced step by step, against torch's own."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from file_tools import File
from torch import Tensor

from strop.compiler.frontend.export.stand_ins.ctc import ctc_loss
from strop.compiler.util.errors import UnsupportedError

TIME, BATCH, CLASSES, LABELS = 6, 4, 5, 3


def scores(batch: int = BATCH, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(TIME, batch, CLASSES, generator=generator).log_softmax(-1)


# Labels that repeat need a blank between them: three equal ones in four steps are impossible.
ROWS = torch.tensor([[1, 2, 3], [2, 2, 2], [4, 1, 1], [3, 0, 0]])
STEPS, COUNTS = torch.tensor([6, 4, 5, 0]), torch.tensor([3, 3, 2, 0])


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses(dtype: torch.dtype, reduction: str, zero: bool) -> None:
    given = scores().to(dtype)
    named: dict[str, Any] = {"reduction": reduction, "zero_infinity": zero}
    for steps, counts in ((STEPS, COUNTS), ([6, 6, 6, 6], [1, 2, 0, 1])):
        found, wanted = (f(given, ROWS, steps, counts, **named) for f in (ctc_loss, F.ctc_loss))
        torch.testing.assert_close(found, wanted)


def test_another_blank_and_labels_behind_each_other() -> None:
    flat = torch.tensor([1, 2, 0, 2, 2, 1], dtype=torch.int32)
    for reduction in ("none", "mean"):
        found, wanted = (
            f(scores(), flat, (6, 5, 6, 6), (3, 0, 2, 1), blank=4, reduction=reduction)
            for f in (ctc_loss, F.ctc_loss)
        )
        torch.testing.assert_close(found, wanted)


def test_one_sequence_without_a_batch() -> None:
    single = scores()[:, 0]
    for reduction, count in itertools.product(("none", "mean"), (0, 1, 2, 3)):
        lengths = torch.tensor(5), torch.tensor(count)
        found, wanted = (
            f(single, ROWS[0, :count], *lengths, reduction=reduction)
            for f in (ctc_loss, F.ctc_loss)
        )
        torch.testing.assert_close(found, wanted)


def test_a_file_with_a_dynamic_batch() -> None:
    def loss(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return F.ctc_loss(x, y, z[0], z[1], reduction="none")

    lengths = torch.stack([STEPS, COUNTS])
    axes = {"x": {1: "batch"}, "y": {0: "batch"}, "z": {1: "batch"}}
    file = File(loss, (scores(), ROWS, lengths), axes)
    for batch in (1, 2, 3, 7):
        rows = torch.arange(batch) % BATCH
        got = file.run(scores(batch, seed=batch), ROWS[rows], lengths[:, rows])[0]
        want = loss(scores(batch, seed=batch), ROWS[rows], lengths[:, rows])
        torch.testing.assert_close(torch.from_numpy(got), want)


def test_dynamic_time_is_refused() -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.ctc_loss(x, y, [2] * BATCH, [1] * BATCH)

    with pytest.raises(UnsupportedError, match="ctc_loss"):
        File(loss, (scores(), ROWS), {"x": {0: "time"}})
