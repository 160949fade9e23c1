"""What the compiler makes of a variant."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# CUDA Toolkit Release Notes, "CUDA minor version compatibility": by the toolkit's major version.
_DRIVERS = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
# PTX ISA, "Release Notes": version 7 came with CUDA 11, 8 with 12, 9 with 13.
_CUDA_BEFORE_PTX = 4


@dataclass(frozen=True)
class Binary:
    """A compiled variant, for one architecture.

    Attributes:
        entry: the name of the function in it.
        cubin: machine code.
        ptx: the same in NVIDIA's portable assembly.
        shared_memory: bytes to ask for at a launch.
        warps: of a block; a block has 32 times as many threads.
        scratch: bytes of global memory that each program needs beside its arguments.
        dots: operands of each product of matrices in Triton's own intermediate language, such as
            ``128x64xf16 * 64x128xf16``.
        triton: the version that compiled it.
    """

    entry: str
    cubin: bytes
    ptx: str
    shared_memory: int
    warps: int
    scratch: int
    dots: tuple[str, ...]
    triton: str

    def to_json(self) -> dict[str, Any]:
        """As JSON values, the machine code in base 64."""
        return asdict(self) | {"cubin": base64.b64encode(self.cubin).decode()}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Binary:
        """The binary that ``to_json`` gave these values for."""
        bits = {"cubin": base64.b64decode(values["cubin"]), "dots": tuple(values["dots"])}
        return Binary(**{**values, **bits})

    @property
    def minimum_driver(self) -> str:
        """The oldest driver that loads machine code of the assembler that made this."""
        found = re.search(r"^\.version (\d+)\.", self.ptx, re.MULTILINE)
        assert found is not None
        return _DRIVERS[int(found[1]) + _CUDA_BEFORE_PTX]
