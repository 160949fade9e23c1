"""What kernels of dense products share: what a launch costs, and which tile is for which sizes."""

from __future__ import annotations

import pytest

from strop.kernels import dense
from strop.kernels.dense import UNALIGNED
from strop.kernels.gemm import GATED_GEMM, GEMM
from strop.kernels.gemm_fp8 import GEMM_FP8
from strop.kernels.gemm_int8 import GATED_GEMM_INT8, GEMM_INT8
from strop.kernels.kernel import Cost, Kernel

KERNELS = [GEMM, GATED_GEMM, GEMM_INT8, GATED_GEMM_INT8, GEMM_FP8]
STRIDES = ("x_stride", "q_stride", "weight_stride", "gate_stride", "up_stride")


def blocks(kernel: Kernel, rows: int, columns: int, **other: int) -> tuple[int, int]:
    """Rows and columns of the tile for these sizes, on sm80."""
    sizes = {"rows": rows, "columns": columns, "DIVISOR": 512, **dict.fromkeys(STRIDES, 4096)}
    found = kernel.on(80).configuration({**sizes, **other}).constants
    return found["BLOCK_M"], found["BLOCK_N"]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda one: one.name)
def test_few_rows_have_small_tiles(kernel: Kernel) -> None:
    gated = "gated" in kernel.name
    assert blocks(kernel, 1, 4096) == blocks(kernel, 16, 4096) == (16, 16 if gated else 32)
    assert blocks(kernel, 17, 4096) == blocks(kernel, 64, 4096) == (64, 16 if gated else 32)
    assert blocks(kernel, 65, 384) == (64, 64)
    assert blocks(kernel, 4096, 4096) == (128, 64 if gated else 128)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda one: one.name)
def test_a_narrow_layer_has_small_tiles_until_there_are_enough_large_ones(kernel: Kernel) -> None:
    columns = 64 if "gated" in kernel.name else 128
    assert blocks(kernel, 127 * 128, columns) == (64, 64)
    assert blocks(kernel, 127 * 128 + 1, columns) == (128, columns)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda one: one.name)
def test_rows_that_are_not_aligned_have_the_tile_that_does_not_spill(kernel: Kernel) -> None:
    wanted = UNALIGNED.constants["BLOCK_M"], UNALIGNED.constants["BLOCK_N"]
    assert blocks(kernel, 4096, 4096, DIVISOR=8) == wanted
    used = [name for name in kernel.function.arg_names if name in STRIDES]
    assert used
    for name in used:
        assert blocks(kernel, 4096, 4096, **{name: 4104}) == wanted


def test_four_warps_have_the_largest_tile_of_bytes_on_sm90_where_no_residual_is_added() -> None:
    sizes = {"rows": 4096, "columns": 4096, "DIVISOR": 512, **dict.fromkeys(STRIDES, 4096)}
    warps = [
        GEMM_INT8.on(capability).configuration({**sizes, "residual_stride": stride}).num_warps
        for capability, stride in ((90, 0), (90, 4096), (89, 0))
    ]
    assert warps == [4, 8, 8]


def test_the_cost_of_a_product() -> None:
    sizes = {"rows": 2, "columns": 3, "depth": 4}
    found = dense.cost(sizes, {"x": 2, "weight": 2, "bias": 2, "residual": 2, "y": 2})
    # Two operands of 8 and 12 numbers, 3 of the bias, 6 of the residual and 6 of the result.
    assert found == Cost(2 * 2 * 3 * 4, 2 * (8 + 12 + 3 + 6 + 6))


def test_the_cost_of_a_gated_product_of_bytes() -> None:
    sizes = {"rows": 2, "columns": 3, "depth": 4}
    of_columns = {"gate": 1, "gate_scale": 4, "up": 1, "up_scale": 4}
    found = dense.cost(sizes, {"q": 1, "scale": 4, **of_columns, "y": 2})
    # 8 numbers and 2 scales of rows, 24 numbers and 6 scales of columns, 6 numbers of the result.
    assert found == Cost(2 * 2 * 2 * 3 * 4, 8 + 2 * 4 + 24 + 6 * 4 + 6 * 2)
