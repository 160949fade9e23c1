"""The kernels of matrix products, compiled for each architecture: no spills, tensor cores."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from strop.kernels.architecture import SM80, SM89, SM90, Architecture
from strop.kernels.examples import tensor
from strop.kernels.gate import Checked, compile_and_check
from strop.kernels.gemm import gated_gemm, gemm
from strop.kernels.gemm_fp8 import gemm_fp8
from strop.kernels.gemm_int8 import gated_gemm_int8, gemm_int8
from strop.kernels.kernel import Configuration, Launch
from strop.kernels.launching import recording
from strop.kernels.specialization import variant_of

pytestmark = pytest.mark.slow
# One for each bucket.
ROWS = [16, 64, 320, 8192]
# A multiple of all steps, one of some, one of none, and one that is not aligned.
DEPTHS = [4096, 576, 2064, 123]


def gemm_of(rows: int, depth: int) -> None:
    x, weight = tensor(rows, depth), tensor(1536, depth)
    gemm(x, weight, tensor(1536), tensor(rows, 1536), "gelu")


def gated_gemm_of(rows: int, depth: int) -> None:
    x, weight = tensor(rows, depth), tensor(1536, depth)
    gated_gemm(x, weight, weight, tensor(1536), tensor(1536), "gelu_tanh")


def bytes_of(rows: int, depth: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows and a weight of 8 bits with their scales."""
    q, weight = tensor(rows, depth, dtype=dtype), tensor(1536, depth, dtype=dtype)
    return q, tensor(rows, dtype=torch.float32), weight, tensor(1536, dtype=torch.float32)


def gemm_int8_of(rows: int, depth: int) -> None:
    operands = bytes_of(rows, depth, torch.int8)
    gemm_int8(*operands, tensor(1536), tensor(rows, 1536), "gelu", torch.float16)


def gated_gemm_int8_of(rows: int, depth: int) -> None:
    q, scale, weight, by = bytes_of(rows, depth, torch.int8)
    bias = tensor(1536)
    gated_gemm_int8(q, scale, weight, by, weight, by, bias, bias, "gelu_tanh", torch.float16)


def gemm_fp8_of(rows: int, depth: int) -> None:
    operands = bytes_of(rows, depth, torch.float8_e4m3fn)
    gemm_fp8(*operands, tensor(1536), tensor(rows, 1536), "gelu", torch.float16)


CALLS = [gemm_of, gated_gemm_of, gemm_int8_of, gated_gemm_int8_of, gemm_fp8_of]


def launches(architecture: Architecture) -> list[Launch]:
    """All of them that the architecture can run."""
    with recording() as recorded:
        for call in CALLS:
            for rows in ROWS:
                for depth in DEPTHS:
                    partial(call, rows, depth)()
    made = [one for one in recorded if isinstance(one, Launch)]
    return [one for one in made if one.kernel.capability <= architecture.capability]


def configuration_of(launch: Launch, architecture: Architecture) -> Configuration:
    """What the buckets say for it."""
    return launch.kernel.on(architecture.capability).configuration(launch.sizes())


def wide(one: Checked) -> bool:
    """Whether a tile has the 64 rows that four warps multiply together on sm90."""
    return dict(one.variant.constants)["BLOCK_M"] != 16


@pytest.mark.parametrize("architecture", [SM80, SM89, SM90], ids=lambda one: one.name)
def test_buckets_neither_spill_nor_miss_tensor_cores(architecture: Architecture) -> None:
    made = launches(architecture)
    variants = [variant_of(one, configuration_of(one, architecture)) for one in made]
    checked = compile_and_check(list(dict.fromkeys(variants)), architecture)
    for one in checked:
        aligned = "depth" in one.variant.aligned
        assert bool(one.reading.async_copies) == aligned, one.variant
        kinds = set(one.reading.tensor_core)
        grouped = kinds <= {"HGMMA", "IGMMA", "QGMMA"}
        assert grouped == (architecture is SM90 and wide(one)), one.variant
