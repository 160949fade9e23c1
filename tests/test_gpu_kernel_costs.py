"""What the cases of the GPU benchmark have to do at least, by the kernels that they launch."""

from __future__ import annotations

import pytest
import torch

from strop.bench.suites import gpu_kernels
from strop.bench.suites.gpu_kernels import FFN, WIDTH, Case
from strop.kernels.examples import tensor
from strop.kernels.gemm_packed import gemm_packed


def test_rows_are_read_and_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_kernels, "_half", tensor)
    found = {case.name.split(" 8192")[0]: case.cost().bytes for case in gpu_kernels._rows(8192)}
    cells = 8192 * WIDTH
    assert found["sum and RMSNorm"] == 8 * cells + 2 * WIDTH
    assert found["LayerNorm"] == 4 * cells + 4 * WIDTH
    assert found["int8 rows"] == 3 * cells + 4 * 8192
    assert found["softmax"] == 4 * cells


@pytest.mark.parametrize("rows", [1, 4096])
def test_only_what_is_launched_at_the_sizes_of_the_case_counts(rows: int) -> None:
    weight = tensor(FFN, WIDTH // 2, dtype=torch.uint8)
    x, scale = tensor(rows, WIDTH), tensor(FFN, WIDTH // 128)
    case = Case(
        "packed", lambda: gemm_packed(x, weight, scale, None, None, None, 4, "none"), lambda: None
    )
    read = weight.numel() + 2 * (x.numel() + scale.numel()) + 2 * rows * FFN
    assert read <= case.cost().bytes <= 1.05 * read
    operations = 2 * rows * WIDTH * FFN
    assert operations <= case.cost().operations <= 1.05 * operations
