"""How kernels that work on whole rows divide them into programs.

A row is held in the registers of one program, so it is read once. Each thread holds 8 numbers of a
row, which is one load of 16 bytes in float16, or 16, so that enough loads are under way.
"""

from __future__ import annotations

from strop.kernels.expression import next_power_of_2
from strop.kernels.kernel import Bucket, Configuration
from strop.kernels.limits import WIDEST_ROW

# Of a wider row, where a kernel can take it in pieces.
PIECE = 2048

# By BLOCK, the power of two that is at least the number of columns. Several narrow rows share a
# program, so that its four warps have work.
ROW_BUCKETS = (
    Bucket("BLOCK <= 64", Configuration({"ROWS": 16}, num_warps=4)),
    Bucket("BLOCK <= 128", Configuration({"ROWS": 8}, num_warps=4)),
    Bucket("BLOCK <= 256", Configuration({"ROWS": 4}, num_warps=4)),
    Bucket("BLOCK <= 512", Configuration({"ROWS": 2}, num_warps=4)),
    Bucket("BLOCK <= 1024", Configuration({"ROWS": 1}, num_warps=4)),
    Bucket("BLOCK <= 4096", Configuration({"ROWS": 1}, num_warps=8)),
    Bucket("", Configuration({"ROWS": 1}, num_warps=32)),
)

# Numbers of columns for examples: one for each of these buckets.
WIDTHS = (64, 128, 256, 384, 768, 4096, WIDEST_ROW)


def row_block(columns: int) -> int:
    """The power of two that is at least ``columns``.

    Raises:
        ValueError: a row is too wide for the registers of one program.
    """
    if columns > WIDEST_ROW:
        raise ValueError(
            f"rows of {columns} columns are wider than {WIDEST_ROW}, the most there may be"
        )
    return next_power_of_2(columns)
