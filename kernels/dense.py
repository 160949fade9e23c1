"""What kernels of dense matrix products share on the host: tiles, the grid, what a launch costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from strop.kernels.kernel import Configuration, Cost

# A program for each tile of the result; their order is that of ``tiles.tile_rows_columns``.
GRID = ("cdiv(rows, BLOCK_M) * cdiv(columns, BLOCK_N)",)

_WEIGHTS = ("weight", "gate", "up")
_OF_COLUMNS = ("weight_scale", "gate_scale", "up_scale", "bias", "gate_bias", "up_bias")


def tile(m: int, n: int, k: int, warps: int, stages: int) -> Configuration:
    """Programs of m rows and n columns, in steps of k along the depth."""
    # Eight tiles of rows at a time: of 64 tiles, 8 + 8 operands are read instead of 1 + 64.
    constants = {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "GROUP": 8}
    return Configuration(constants, num_warps=warps, num_stages=stages)


# For rows that are not aligned to 16 numbers: these are loaded one by one, through registers, so
# that larger tiles spill.
UNALIGNED = tile(64, 32, 32, 4, 2)


def cost(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Cost:
    """Of x or q [rows, depth] times one or two weights [columns, depth], and what is behind it."""
    rows, columns, depth = sizes["rows"], sizes["columns"], sizes["depth"]

    def total(*names: str) -> int:
        return sum(itemsizes.get(name, 0) for name in names)

    of_row = depth * total("x", "q") + total("scale")
    of_column = depth * total(*_WEIGHTS) + total(*_OF_COLUMNS)
    moved = rows * of_row + columns * of_column + rows * columns * total("y", "residual")
    products = sum(name in itemsizes for name in _WEIGHTS)
    return Cost(2 * products * rows * columns * depth, moved)


def examples(make: Callable[..., object]) -> dict[str, Callable[[], object]]:
    """Launches for every bucket, at sizes of decoders and of encoders.

    Args:
        make: launches a product of (rows, columns, depth) with ``activation``, by default "none";
            ``bias`` says whether there are a bias and a residual. With an activation there is a
            bias.
    """
    return {
        "1 x 4096 x 4096": partial(make, 1, 4096, 4096),
        "512 x 100 x 100": partial(make, 512, 100, 100),
        "32 x 4096 x 4096": partial(make, 32, 4096, 4096),
        "4096 x 384 x 1536, bias, residual": partial(make, 4096, 384, 1536, bias=True),
        "4096 x 4096 x 4096": partial(make, 4096, 4096, 4096),
        "4096 x 14336 x 4096, bias, gelu": partial(make, 4096, 14336, 4096, activation="gelu"),
    }
