"""How many blocks of a kernel a multiprocessor holds at a time, and what limits that.

Source: the formulas of NVIDIA's CUDA Occupancy Calculator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from strop.kernels.architecture import Architecture
from strop.kernels.expression import cdiv

Limiter = Literal["warps", "blocks", "registers", "shared memory"]


@dataclass(frozen=True)
class Occupancy:
    """How full a multiprocessor gets.

    Attributes:
        blocks: on a multiprocessor at a time.
        warps: on a multiprocessor at a time.
        share: of the warps that it can hold.
        limiter: what allows no more; of several, the first of those listed above.
    """

    blocks: int
    warps: int
    share: float
    limiter: Limiter


def occupancy(
    architecture: Architecture, warps: int, registers: int, shared_memory: int
) -> Occupancy:
    """The occupancy of a kernel.

    Args:
        architecture: what it runs on.
        warps: of a block.
        registers: of a thread.
        shared_memory: bytes of a block.
    """
    limits: dict[Limiter, int] = {
        "warps": architecture.warps // warps,
        "blocks": architecture.blocks,
        "registers": _by_registers(architecture, warps, registers),
        "shared memory": _by_shared_memory(architecture, shared_memory),
    }
    limiter = min(limits, key=lambda name: limits[name])
    blocks = limits[limiter]
    return Occupancy(blocks, blocks * warps, blocks * warps / architecture.warps, limiter)


def _by_registers(architecture: Architecture, warps: int, registers: int) -> int:
    """Registers lie in four equal parts, each of which serves a quarter of the warps."""
    unit = architecture.warp_register_unit
    of_warp = cdiv(max(registers, 1) * architecture.warp_threads, unit) * unit
    parts = 4
    return architecture.registers // parts // of_warp * parts // warps


def _by_shared_memory(architecture: Architecture, shared_memory: int) -> int:
    unit = architecture.shared_memory_unit
    of_block = cdiv(shared_memory + architecture.reserved_shared_memory, unit) * unit
    return architecture.shared_memory // of_block
