"""The CUDA driver's own interface: modules loaded from machine code, and launches of their kernels.

``libcuda`` comes with the driver; nothing else is needed, neither Triton nor a CUDA toolkit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

from strop.compiler.util.errors import RuntimeRefusedError

# cuda.h: CUfunction_attribute.
_MAX_DYNAMIC_SHARED_SIZE = 8
# Bytes of shared memory that a launch gets without asking: CUDA C++ Programming Guide, "Shared
# Memory" of each compute capability.
_SHARED_UNASKED = 48 * 1024
WARP = 32
_TYPES: dict[str, Any] = {
    "i32": ctypes.c_int32,
    "i64": ctypes.c_int64,
    "fp32": ctypes.c_float,
}


@cache
def _library() -> Any:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise RuntimeRefusedError(f"the CUDA driver cannot be loaded: {error}") from error


def _require(code: int, doing: str) -> None:
    """Refuse where a call of the driver's failed.

    Raises:
        RuntimeRefusedError: with the driver's name for what went wrong.
    """
    if code == 0:
        return
    said = ctypes.c_char_p()
    _library().cuGetErrorName(code, ctypes.byref(said))
    name = said.value.decode() if said.value else f"error {code}"
    raise RuntimeRefusedError(f"the CUDA driver does not {doing}: {name}")


def driver_version() -> str:
    """The newest CUDA version that the driver knows: ``13.0``."""
    version = ctypes.c_int()
    _require(_library().cuDriverGetVersion(ctypes.byref(version)), "tell its version")
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


class CompiledKernel:
    """A function of a module that was loaded into the current context."""

    def __init__(self, cubin: bytes, entry: str, shared_memory: int, num_warps: int) -> None:
        """Load it.

        Args:
            cubin: machine code for this GPU.
            entry: the name of the function.
            shared_memory: bytes that each block gets.
            num_warps: of a block.

        Raises:
            RuntimeRefusedError: the driver does not take it.
        """
        library = _library()
        self._shared, self._threads = shared_memory, WARP * num_warps
        self._module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        loaded = library.cuModuleLoadData(ctypes.byref(self._module), cubin)
        _require(loaded, f"load the kernel {entry}")
        name = entry.encode()
        found = library.cuModuleGetFunction(ctypes.byref(self._function), self._module, name)
        _require(found, f"find {entry} in the kernel's file")
        if shared_memory > _SHARED_UNASKED:
            given = library.cuFuncSetAttribute(
                self._function, _MAX_DYNAMIC_SHARED_SIZE, shared_memory
            )
            _require(given, f"give {entry} {shared_memory} bytes of shared memory")

    def launch(
        self, grid: tuple[int, int, int], types: Sequence[str], values: Sequence[Any], stream: int
    ) -> None:
        """Launch it.

        Args:
            grid: programs along each axis.
            types: of the arguments: "*..." for an address, "i32", "i64" or "fp32".
            values: of the arguments.
            stream: CUDA's handle of the stream.

        Raises:
            RuntimeRefusedError: the driver does not take it.
        """
        # Behind a kernel's own arguments Triton has two for memory that it may need: none here.
        cells = [_TYPES.get(t, ctypes.c_void_p)(v) for t, v in zip(types, values)]
        cells += [ctypes.c_void_p(0), ctypes.c_void_p(0)]
        pointers = (ctypes.c_void_p * len(cells))(*(ctypes.addressof(cell) for cell in cells))
        launched = _library().cuLaunchKernel(
            self._function, *grid, self._threads, 1, 1, self._shared,
            ctypes.c_void_p(stream), pointers, None,
        )  # fmt: skip
        _require(launched, "launch a kernel")
