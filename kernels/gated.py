"""The gate of SwiGLU and GeGLU where no product computes it.

    y = activation(gate) * up                       arXiv:2002.05202

Computed in float32 and rounded once. Each number is read once, and written once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import triton
import triton.language as tl
from torch import Tensor

from strop.kernels import activation as activations
from strop.kernels import buffers
from strop.kernels.activation import activate
from strop.kernels.examples import tensor
from strop.kernels.expression import next_power_of_2
from strop.kernels.kernel import Bucket, Configuration, Cost, Kernel
from strop.kernels.launching import launch

# Columns of one program: eight for each of its threads, which is one load of 16 bytes in float16.
WIDEST_TILE = 1024


@triton.jit
def gated_kernel(
    gate, up, y, rows, columns, gate_stride, up_stride,
    ACTIVATION: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program makes BLOCK columns of ROWS rows."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    mask = (row < rows) & (column < columns)
    opened = tl.load(gate + row * gate_stride + column, mask=mask, other=0.0).to(tl.float32)
    passed = tl.load(up + row * up_stride + column, mask=mask, other=0.0).to(tl.float32)
    values = activate(opened, ACTIVATION) * passed
    tl.store(y + row * columns + column, values.to(y.dtype.element_ty), mask=mask)


def _cost(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Cost:
    cells = sizes["rows"] * sizes["columns"]
    return Cost(10 * cells, (itemsizes["gate"] + itemsizes["up"] + itemsizes["y"]) * cells)


def _example(rows: int, columns: int) -> None:
    x = tensor(rows, columns)
    gated(x, x, "silu")


GATED = Kernel(
    "gated",
    gated_kernel,
    grid=("cdiv(rows, ROWS)", "cdiv(columns, BLOCK)"),
    buckets=(
        Bucket("BLOCK <= 64", Configuration({"ROWS": 16}, num_warps=4)),
        Bucket("BLOCK <= 256", Configuration({"ROWS": 4}, num_warps=4)),
        Bucket("", Configuration({"ROWS": 1}, num_warps=4)),
    ),
    cost=_cost,
    examples={f"4096 x {n}": partial(_example, 4096, n) for n in (64, 256, 1536, 14336)},
)


def gated(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """activation(gate) * up.

    Args:
        gate: [rows, columns] float16, bfloat16 or float32, its last stride 1.
        up: like the gate, with any stride of its rows.
        activation: "none", "relu", "gelu", "gelu_tanh" or "silu".

    Returns:
        Like the gate, contiguous. No rows give no rows.

    Raises:
        ValueError: there is no such activation.
    """
    activations.check(activation)
    rows, columns = gate.shape
    y = buffers.empty(gate, (rows, columns))
    block = min(WIDEST_TILE, next_power_of_2(int(columns)))
    launch(
        GATED,
        {
            "gate": gate, "up": up, "y": y, "rows": rows, "columns": columns,
            "gate_stride": gate.stride(0), "up_stride": up.stride(0),
        },
        {"ACTIVATION": activation, "BLOCK": block},
    )  # fmt: skip
    return y
