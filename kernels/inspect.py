"""What a compiled kernel uses, read from its machine code by the tools that Triton brings along."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from strop.kernels.binary import Binary

_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) ")
# A line of machine code: its address, its condition, its operation.
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", re.M)
# Products of matrices: of one warp (sm80 on), and of four warps together (sm90).
WARP_PRODUCTS = ("HMMA", "IMMA", "QMMA")
GROUP_PRODUCTS = ("HGMMA", "IGMMA", "QGMMA")
_TENSOR_CORE = WARP_PRODUCTS + GROUP_PRODUCTS
_WIDTH = re.compile(r"\.(U8|S8|U16|S16|64|128)(?:\.|$)")
_BITS = {"U8": 8, "S8": 8, "U16": 16, "S16": 16, "64": 64, "128": 128}


@dataclass(frozen=True)
class Reading:
    """What a binary uses; counts are of instructions in its code, not of how often they run.

    Attributes:
        registers: of each thread.
        stack: bytes of each thread's own memory.
        spill_stores: writes of registers to that memory.
        spill_loads: reads from it.
        shared_memory: bytes of each block.
        instructions: all of them.
        tensor_core: products of matrices on tensor cores, by kind: HMMA, IMMA and QMMA (float,
            whole numbers, 8-bit float) of one warp; HGMMA, IGMMA and QGMMA of four warps.
        async_copies: LDGSTS, from global to shared memory past the registers.
        bulk_copies: UTMALDG, such a copy of a whole tile.
        loads: reads of global memory, by their width in bits.
        stores: writes to global memory, by their width in bits.
    """

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared_memory: int
    instructions: int
    tensor_core: Mapping[str, int]
    async_copies: int
    bulk_copies: int
    loads: Mapping[int, int]
    stores: Mapping[int, int]

    @property
    def spills(self) -> int:
        """Instructions that move registers to memory or back."""
        return self.spill_stores + self.spill_loads

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Reading:
        """The reading that these are the values of, its widths once more whole numbers."""
        widths = {
            name: {int(width): count for width, count in values[name].items()}
            for name in ("loads", "stores")
        }
        return Reading(**{**values, **widths})


def read(binary: Binary) -> Reading:
    """Read a binary's machine code.

    Raises:
        RuntimeError: the tool failed.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.cubin)
        file.flush()
        return parsed(_dump(file.name), binary.shared_memory)


def parsed(listing: str, shared_memory: int) -> Reading:
    """The reading of a listing that ``cuobjdump -sass --dump-resource-usage`` printed."""
    resources = _RESOURCES.search(listing)
    if resources is None:
        raise RuntimeError("cuobjdump printed no resource usage")
    operations = Counter(_INSTRUCTION.findall(listing))
    kinds: Counter[str] = Counter()
    for operation, count in operations.items():
        kinds[operation.partition(".")[0]] += count
    return Reading(
        registers=int(resources[1]),
        stack=int(resources[2]),
        spill_stores=kinds["STL"],
        spill_loads=kinds["LDL"],
        shared_memory=shared_memory,
        instructions=operations.total(),
        tensor_core={kind: kinds[kind] for kind in _TENSOR_CORE if kinds[kind]},
        async_copies=kinds["LDGSTS"],
        bulk_copies=kinds["UTMALDG"],
        loads=_widths(operations, "LDG"),
        stores=_widths(operations, "STG"),
    )


def _widths(operations: Mapping[str, int], kind: str) -> dict[int, int]:
    found: Counter[int] = Counter()
    for operation, count in operations.items():
        if operation.partition(".")[0] == kind:
            width = _WIDTH.search(operation)
            found[_BITS[width[1]] if width else 32] += count
    return dict(sorted(found.items()))


def _dump(file: str) -> str:
    done = subprocess.run(
        [tool("cuobjdump"), "-sass", "--dump-resource-usage", file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"cuobjdump ended with code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


@cache
def tool(name: str) -> Path:
    """One of the programs that Triton brings along; found without loading Triton.

    Raises:
        RuntimeError: there is no Triton.
    """
    spec = find_spec("triton")
    if spec is None or spec.origin is None:
        raise RuntimeError("Triton is not installed")
    return Path(spec.origin).parent / "backends" / "nvidia" / "bin" / name
