"""Bytes that launches ask for, counted while Triton's interpreter runs them.

Every load and store of a program counts, whether a cache would have it or not. Lanes that are
masked do not count, and lanes that read the same number count once. An atomic sum reads and writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from typing import Any
from unittest.mock import patch

import numpy as np


def our_bytes(number: int) -> int:
    """Of our launcher's call. For a process of its own: kernels are interpreted in it."""
    os.environ["TRITON_INTERPRET"] = "1"
    from strop.bench.kernel_peers.calls import WORKS

    work = WORKS[number]
    return counted(lambda: work.ours(*work.counted))


def peer_bytes(number: int, architecture: str, configuration: dict[str, Any]) -> int:
    """Of the peer's, with one configuration; in a process of its own too."""
    os.environ["TRITON_INTERPRET"] = "1"
    from strop.bench.kernel_peers.calls import WORKS
    from strop.bench.kernel_peers.compiled import record
    from strop.bench.kernel_peers.stand_in import pretend
    from strop.kernels.architecture import ARCHITECTURES

    pretend(ARCHITECTURES[architecture])
    work = WORKS[number]
    if hasattr(module := import_module(work.module), "rsqrt"):
        from strop.bench.kernel_peers.substitutes import rsqrt

        vars(module)["rsqrt"] = rsqrt
    (one,) = record(work, work.counted, configuration)
    return counted(one.run)


def counted(run: Callable[[], object]) -> int:
    """Bytes that the launches of a call read and write."""
    from triton.runtime.interpreter import InterpreterBuilder

    total = 0

    def count(name: str, mask_at: int, times: int) -> Callable[..., Any]:
        original = getattr(InterpreterBuilder, name)

        def counting(self: Any, *args: Any) -> Any:
            nonlocal total
            pointers = next(a for a in args if hasattr(a, "get_element_ty"))
            bits = pointers.get_element_ty().primitive_bitwidth
            addresses = np.unique(pointers.data[args[mask_at].data.astype(bool)])
            total += addresses.size * bits // 8 * times
            return original(self, *args)

        return counting

    with ExitStack() as stack:
        for name, mask_at, times in _OPERATIONS:
            stack.enter_context(patch.object(InterpreterBuilder, name, count(name, mask_at, times)))
        run()
    return total


# Which argument the mask is, and how often the memory is used.
_OPERATIONS = (
    ("create_masked_load", 1, 1),
    ("create_masked_store", 2, 1),
    ("create_atomic_rmw", 3, 2),
)
